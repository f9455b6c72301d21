"""Recipes: every one in the repository loads, wrong ones are refused with what was meant, identity is identity."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.labels import POLICIES
from stepconf.errors import StepconfError
from stepconf.kinds import VERIFIERS
from stepconf.recipe import RETIRED, Recipe, identity, known_keys, load_recipe, recipe_of, with_policy_of

ROOT = Path(__file__).parents[1]
RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), ROOT / "stepconf" / "demo.yaml"])


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
def test_every_recipe_in_the_repository_loads(file: Path) -> None:
    recipe = load_recipe(file)
    written = yaml.safe_load(file.read_text())
    assert recipe.model_dump(exclude_unset=True) == Recipe.model_validate(written).model_dump(
        exclude_unset=True
    )
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_options_and_sets_go_over_the_file_and_none_is_not_given(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: a\nsampling:\n  samples: 2\n  seed: 7\n")
    options = {"model": "b", "sampling.samples": None, "problems.source": "gsm8k"}
    recipe = load_recipe(file, options, ["sampling.seed=8"])
    assert (recipe.model, recipe.sampling.samples, recipe.sampling.seed) == ("b", 2, 8)
    assert recipe.problems.source == "gsm8k"


def test_an_empty_group_of_a_file_takes_options(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("train:\n  lora:\nsampling:\n")
    recipe = load_recipe(file, {"sampling.samples": 3}, ["train.lora.rank=8"])
    assert recipe.train.lora and (recipe.train.lora.rank, recipe.sampling.samples) == (8, 3)


@pytest.mark.parametrize("value", [-1, 11, ".nan"])
def test_temperatures_of_rounds_have_the_range_of_sampling(value: object) -> None:
    with pytest.raises(StepconfError, match=r"loop\.temperatures"):
        load_recipe(None, None, [f"loop.temperatures=[0.7, {value}]"])


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("sampling.top_p=0.9", "sampling.top_p", 0.9),
        ("sampling.samples=3", "sampling.samples", 3),
        ("engine.options={gpu_memory_utilization: 0.8}", "engine.options", {"gpu_memory_utilization": 0.8}),
        ("engine.options.max_num_seqs=8", "engine.options", {"max_num_seqs": 8}),
        ("engine.max_model_len=null", "engine.max_model_len", None),
        ("prompt.stop=[a, 'b=c']", "prompt.stop", ["a", "b=c"]),
        ("prompt.instruction=x = y", "prompt.instruction", "x = y"),
        ("prompt.instruction=", "prompt.instruction", None),
        (" chunk = 5", "chunk", 5),
    ],
)
def test_sets_are_typed(text: str, key: str, value: Any) -> None:
    if value is None and key == "prompt.instruction":
        with pytest.raises(StepconfError, match=r"prompt\.instruction.*string"):
            load_recipe(None, None, [text])
        return
    found: Any = load_recipe(None, None, [text])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("sampling.temprature", "sampling.temperature"),
        ("modle", "model"),
        ("sampling.sample", "sampling.samples"),
        ("verify.verifier", "verify.verifiers"),
        ("temperature", "sampling.temperature"),
        ("engine.dtpye", "engine.dtype"),
        ("problems.limt", "problems.limit"),
    ],
)
def test_an_unknown_key_is_refused_with_near_ones(key: str, near: str) -> None:
    with pytest.raises(StepconfError) as caught:
        load_recipe(None, None, [f"{key}=1"])
    assert repr(key) in caught.value.problem and near in caught.value.hint


def test_a_key_like_no_other_is_refused_with_all() -> None:
    with pytest.raises(StepconfError) as caught:
        load_recipe(None, None, ["zzzzqqqq=1"])
    assert all(key in caught.value.hint for key in known_keys())


@given(st.sampled_from(known_keys()), st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8))
def test_no_misspelt_key_is_ever_ignored(key: str, tail: str) -> None:
    wrong = key + tail
    if wrong in known_keys() or key == "engine.options":
        return
    with pytest.raises(StepconfError):
        load_recipe(None, {wrong: 1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sampling.samples=0", ["sampling.samples", "0"]),
        ("sampling.samples=many", ["sampling.samples", "'many'"]),
        ("sampling.top_p=0", ["sampling.top_p", "0"]),
        ("sampling.temperature=nan", ["sampling.temperature", "nan"]),
        ("sampling.temperature=.nan", ["sampling.temperature", "nan"]),
        ("sampling.temperature=.inf", ["sampling.temperature", "inf"]),
        ("model=[a]", ["model", "['a']"]),
        ("sampling=5", ["sampling", "5"]),
        ("sampling.seed.x=5", ["sampling.seed"]),
        ("verify.policy=oldest", ["'oldest'", *POLICIES]),
        ("verify.verifiers=[final, oracle]", ["'oracle'", *VERIFIERS.built_in]),
        ("segment.max_chars=2", ["min_chars=3", "max_chars=2"]),
        ("pairs.tau=0", ["pairs.tau", "0"]),
        ("pairs.after_error=go", ["pairs.after_error", "'go'"]),
    ],
)
def test_values_out_of_range_are_refused(text: str, said: list[str]) -> None:
    with pytest.raises(StepconfError) as caught:
        load_recipe(None, None, [text])
    for part in said:
        assert part in str(caught.value)


def test_a_value_in_place_of_a_group_and_the_other_way_round() -> None:
    with pytest.raises(StepconfError, match="sampling is a value, not a group"):
        load_recipe(None, None, ["sampling=1", "sampling.seed=2"])
    with pytest.raises(StepconfError, match="no '='"):
        load_recipe(None, None, ["sampling.seed"])


def test_the_file_is_named_where_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for text, said in (
        ("sampling: {seeed: 1}", "sampling.seeed"),
        ("- 1", "list"),
        ("a: [", "not YAML"),
        ("engine: {options: {a: &a [1], b: [*a, *a]}}", "alias"),
        ("engine: {options: {a: " + "[" * 200 + "]" * 200 + "}}", "100 levels"),
        ("sampling: {seed: x}", "sampling.seed"),
        ("sampling: {seed: 4294967296}", "sampling.seed"),
    ):
        file.write_text(text)
        with pytest.raises(StepconfError) as caught:
            load_recipe(file)
        assert "mine.yaml" in caught.value.problem and said in caught.value.problem
    file.write_bytes(b"model: \xff")
    with pytest.raises(StepconfError, match=r"mine\.yaml"):
        load_recipe(file)
    with pytest.raises(StepconfError, match=r"none\.yaml"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(StepconfError, match="cannot read"):
        load_recipe(tmp_path)
    file.write_text("")
    assert load_recipe(file) == Recipe()


# What a run contains does not depend on these.
NOT_IDENTITY = [
    "confidence_force=true",
    "verify.workers=3",
    "verify.critic.base_url=http://localhost/v1",
    "verify.critic.api_key_env=KEY",
    "verify.critic.concurrency=3",
    "verify.critic.timeout_s=9",
    "verify.critic.attempts=2",
    "verify.critic.placement=beside",
    "pairs.tau=0.3",
    "pairs.after_error=continue",
    "infer.k=3",
]


@pytest.mark.parametrize("text", NOT_IDENTITY)
def test_identity_leaves_out_what_does_not_change_the_data(text: str) -> None:
    changed = load_recipe(None, None, [text])
    assert changed != Recipe() and identity(changed) == identity(Recipe())


@pytest.mark.parametrize(
    "text",
    [
        "model=m",
        "chunk=5",
        "problems.limit=3",
        "engine.name=transformers",
        "engine.options={a: 1}",
        "prompt.stop=[x]",
        "prompt.shots=[{problem: a, solution: b}]",
        "sampling.seed=1",
        "segment.mode=lines",
        "verify.verifiers=[final]",
        "verify.policy=consensus",
        "verify.deadline_s=9",
        "verify.critic.model=m",
    ],
)
def test_identity_holds_what_does(text: str) -> None:
    changed = identity(load_recipe(None, None, [text]))
    assert changed != identity(Recipe())
    assert yaml.safe_load(yaml.safe_dump(changed)) == changed, "it lies in the run as YAML"


@pytest.mark.parametrize("key", RETIRED)
def test_keys_of_earlier_versions_are_read_in_a_run_and_refused_elsewhere(key: str) -> None:
    group, _, name = key.rpartition(".")
    assert recipe_of({"model": "m", group: {name: 4}}) == Recipe(model="m")
    assert key not in known_keys()
    with pytest.raises(StepconfError) as told:
        load_recipe(None, None, [f"{key}=4"])
    assert key in told.value.problem and told.value.hint == RETIRED[key]


def test_other_unknown_keys_of_a_run_are_refused() -> None:
    with pytest.raises(StepconfError, match=r"pairs\.candidate_"):
        recipe_of({"pairs": {"candidate_": 4}})


def test_another_run_says_which_model_and_not_how_it_is_run() -> None:
    theirs = {
        "model": "their/model",
        "reasoning": "think",
        "prompt": {"system": "Add."},
        "sampling": {"temperature": 0.1},
        "engine": {
            "name": "transformers",
            "dtype": "bfloat16",
            "max_model_len": 99,
            "options": {"download_dir": "/tmp"},
            "tensor_parallel": 8,
            "base_url": "http://theirs/v1",
            "api_key_env": "HF_TOKEN",
        },
    }
    mine = load_recipe(None, {"engine.options": {"max_num_seqs": 2}, "model_revision": "mine"})
    mixed = with_policy_of(mine, theirs)
    assert (mixed.model, mixed.reasoning, mixed.prompt.system) == ("their/model", "think", "Add.")
    assert (mixed.sampling.temperature, mixed.model_revision) == (0.1, "mine")
    assert mixed.engine == mine.engine.model_copy(update={"dtype": "bfloat16", "max_model_len": 99})


@pytest.mark.parametrize("engine", ["vllm", ["vllm"], {"name": 3}, {"name": "none such"}])
def test_another_run_whose_engine_is_none_is_refused(engine: Any) -> None:
    with pytest.raises(StepconfError, match="engine"):
        with_policy_of(Recipe(), {"model": "demo", "engine": engine})
