"""Exports: TRL's are loaded by TRL, the others' rows have the documented keys; what is unsafe is said."""

import json
import re
import shutil
from array import array
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepconf.core import exports
from stepconf.core.exports import STEP_WARNING, boundary
from stepconf.core.records import Pair
from stepconf.run.tables import pairs_manifest
from tests.benchmarks.synthetic_run import make_run
from tests.forked import forked
from tests.invariants import rows_of
from tests.scripted_engine import branched_run
from tests.test_objectives import read as read_examples
from tests.test_pipeline import GIVEN, write_jsonl
from tests.tiny import END, Ended, stepconf, tiny_model, with_tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    rows = [row | {"answer": answer} for row, answer in zip(GIVEN, ("9", "9", "4"), strict=True)]
    file = write_jsonl(folder / "given.jsonl", rows)
    ended = stepconf("score", file, "--out", folder / "run", *with_tiny(chat=True))
    assert ended.code == 0, ended.err
    return folder / "run"


def export(run: Path, library: str, out: Path, *options: object) -> Ended:
    sets = ["--set", "pairs.validation=0"]
    ended = stepconf("pairs", run, "--tau", 0.001, "--export", library, "--out", out, *options, *sets)
    assert ended.code == 0, ended.err
    assert (out / "README.md").exists() and "README.md" in ended.out
    return ended


def rows(out: Path) -> list[dict[str, Any]]:
    if (out / "train.jsonl").exists():
        return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    from datasets import load_dataset

    files = {"train": str(out / "train.parquet")}
    loaded: list[dict[str, Any]] = load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(out.parent / "cache")
    ).to_list()
    return loaded


@pytest.mark.parametrize("n", [2, 3])
def test_a_killed_export_can_be_typed_again(run: Path, tmp_path: Path, n: int) -> None:
    command = ["pairs", run, "--tau", 0.001, "--export", "llamafactory", "--out"]
    whole = forked([*command, tmp_path / "whole"], tmp_path)
    assert whole.code == 0, whole
    assert forked([*command, tmp_path / "killed"], tmp_path, at=("os.replace", n, "before")).code == -9
    assert not (tmp_path / "killed/README.md").exists()
    again = stepconf(*command, tmp_path / "killed")
    assert again.code == 0, again.err
    held = [{p.name: p.read_text() for p in (tmp_path / name).iterdir()} for name in ("whole", "killed")]
    assert held[0] == held[1]


RIGHT, WRONG = ("\n\n".join(GIVEN[i]["steps"]) for i in (0, 1))


@pytest.mark.parametrize("library", ["trl", "openrlhf", "llamafactory", "axolotl"])
def test_step_pairs_come_with_a_warning_and_trajectories_without(
    run: Path, library: str, tmp_path: Path
) -> None:
    step = export(run, library, tmp_path / "step")
    whole = export(run, library, tmp_path / "whole", "--form", "trajectory")
    assert STEP_WARNING in step.out.replace("\n", " ") and "Warning" not in whole.out
    assert STEP_WARNING in (tmp_path / "step/README.md").read_text()
    assert STEP_WARNING not in (tmp_path / "whole/README.md").read_text()
    (short,), (long,) = rows(tmp_path / "step"), rows(tmp_path / "whole")
    (pair,) = rows_of(run, "pairs")
    prompt = "instruction" if library == "llamafactory" else "prompt"
    assert short[prompt] == long[prompt] == pair["prompt"]
    assert (short["chosen"], short["rejected"]) == (pair["chosen"], pair["rejected"])
    assert pair["prefix"] + long["chosen"] == RIGHT and pair["prefix"] + long["rejected"] == WRONG


@pytest.mark.parametrize("library", ["trl", "openrlhf", "llamafactory", "axolotl"])
def test_conversations(run: Path, library: str, tmp_path: Path) -> None:
    export(run, library, tmp_path / "x", "--form", "trajectory", "--conversational")
    (row,) = rows(tmp_path / "x")
    name = "prompt" if library in ("trl", "openrlhf") else "messages"
    (asked,) = row[name]
    assert asked["role"] == "user" and asked["content"].startswith(GIVEN[0]["problem"])
    assert "\\boxed{}" in asked["content"], "the run's own instruction"
    chosen, rejected = row["chosen"], row["rejected"]
    if name == "prompt":
        (chosen,), (rejected,) = chosen, rejected
    assert chosen == {"role": "assistant", "content": RIGHT}
    assert rejected == {"role": "assistant", "content": WRONG}


def test_llamafactory_is_told_where_the_columns_are(run: Path, tmp_path: Path) -> None:
    for name, options in (("alpaca", []), ("sharegpt", ["--conversational"])):
        export(run, "llamafactory", tmp_path / name, *options)
        info = json.loads((tmp_path / name / "dataset_info.json").read_text())["stepconf_train"]
        (row,) = rows(tmp_path / name)
        assert info["ranking"] is True and (tmp_path / name / info["file_name"]).exists()
        assert set(info["columns"].values()) == row.keys()
        assert info.get("formatting", "alpaca") == name
        if name == "sharegpt":
            assert {info["tags"]["role_tag"], info["tags"]["content_tag"]} == row["chosen"].keys()


def test_axolotl_is_told_where_the_columns_are(run: Path, tmp_path: Path) -> None:
    for name, options in (("plain", []), ("chat", ["--conversational"])):
        export(run, "axolotl", tmp_path / name, *options)
        config = yaml.safe_load((tmp_path / name / "axolotl.yaml").read_text())
        (stanza,) = config["datasets"]
        (row,) = rows(tmp_path / name)
        assert config["rl"] == "dpo" and Path(stanza["path"]).exists() and stanza["ds_type"] == "json"
        fields = stanza if name == "chat" else stanza["type"]
        assert {value for key, value in fields.items() if key.startswith("field_")} == row.keys()


def test_stepwise_supervision(run: Path, tmp_path: Path) -> None:
    ended = stepconf(
        "pairs", run, "--export", "trl-stepwise", "--out", tmp_path / "x", "--set", "pairs.validation=0"
    )
    assert ended.code == 0, ended.err
    found = {tuple(row["completions"]): row for row in rows(tmp_path / "x")}
    assert all(row.keys() == {"prompt", "completions", "labels"} for row in found.values())
    wrong = next(row for row in found.values() if False in row["labels"])
    assert wrong["prompt"] == GIVEN[1]["problem"] and wrong["labels"] == [True, False]
    assert wrong["completions"] == [step.strip() for step in GIVEN[1]["steps"][:2]]
    assert all(not any(a is False for a in row["labels"][:-1]) for row in found.values())


def test_pairs_made_with_the_same_options_are_exported_as_they_are(run: Path, tmp_path: Path) -> None:
    export(run, "trl", tmp_path / "a")
    before = (run / "manifests/pairs.json").stat().st_mtime_ns
    export(run, "trl", tmp_path / "b")
    assert (run / "manifests/pairs.json").stat().st_mtime_ns == before
    assert stepconf("pairs", run, "--export", "trl", "--out", tmp_path / "as-they-are").code == 0
    assert (run / "manifests/pairs.json").stat().st_mtime_ns == before
    made = stepconf("pairs", run, "--tau", 0.002, "--export", "trl", "--out", tmp_path / "c")
    assert made.code == 0 and pairs_manifest(run)["tau"] == 0.002  # type: ignore[index]  # it is there


WHOLE = ["--form", "trajectory"]


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        (
            ["--conversational", *WHOLE],
            "--form is given without --export",
            "leave out --form --conversational",
        ),
        (["--form", "step"], "--form is given without --export", "leave out --form"),
        (["--conversational"], "--conversational is given without --export", "--export trl --out"),
        *(
            (["--export", library, "--out", "x", *ignored], f"{ignored[0]} does nothing with --export", hint)
            for library in ("trl-stepwise", "step-kto")
            for ignored, hint in (
                (["--strategy", "rstar", *WHOLE, "--conversational"], "Leave out --strategy --form"),
                (["--tau", "0.5"], "Leave out --tau"),
                (["--form", "step"], "Leave out --form"),
                (["--conversational"], "Leave out --conversational"),
            )
        ),
    ],
)
def test_options_that_would_be_ignored_are_refused_before_anything_is_done(
    options: list[str], said: str, hint: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    ended = stepconf("pairs", run, *options)
    shown = " ".join(ended.err.split())
    assert ended.code == 1 and said in shown and hint in shown, ended
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("conversational", [False, True])
@pytest.mark.parametrize("form", ["step", "trajectory"])
def test_trl_reads_what_was_exported(run: Path, form: str, conversational: bool, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoTokenizer

    options = ["--conversational"] if conversational else []
    export(run, "trl", tmp_path / "x", "--form", form, *options)
    exported = rows(tmp_path / "x")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(chat=True))
    arguments = trl.DPOConfig(
        str(tmp_path / "out"), report_to="none", use_cpu=True, bf16=False, precompute_ref_log_probs=False
    )
    trainer = trl.DPOTrainer(
        str(tiny_model(chat=True)),
        args=arguments,
        train_dataset=Dataset.from_list(exported),
        processing_class=tokenizer,
    )
    (row,) = trainer.train_dataset
    (pair,) = rows_of(run, "pairs")
    said = {side: tokenizer.decode(row[f"{side}_ids"]) for side in ("prompt", "chosen", "rejected")}
    if conversational:
        assert said["prompt"] + said["chosen"] == pair["prompt"][: -len(pair["prefix"])] + (
            exported[0]["chosen"][0]["content"] + "\n"
        )
    else:
        assert said["prompt"] + said["chosen"] == pair["prompt"] + exported[0]["chosen"] + END
        assert said["rejected"].endswith(END), "this is what the warning is about"


def pair_of(prompt: str, chosen: str, *ids: list[int]) -> Pair:
    values: dict[str, Any] = dict.fromkeys((field.name for field in fields(Pair)), "")
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Pair(
        **values
        | {"prompt": prompt, "prefix": "b", "chosen": chosen, "rejected": chosen}
        | dict(zip(names, ids, strict=True))
    )


def merging(text: str) -> list[int]:
    """A tokenizer of characters that takes "ab" and "bc" as one, from the left."""
    return [ord(one[0]) + 1000 * (len(one) - 1) for one in re.findall("ab|bc|.", text)]


def test_rows_whose_tokens_a_stock_tokenizer_divides_otherwise() -> None:
    a, b, c, ab, bc = (merging(text)[0] for text in ("a", "b", "c", "ab", "bc"))
    assert boundary(merging, pair_of("xb", "a", [120, b], [a], [a]), False) == (False, False)
    assert boundary(merging, pair_of("xb", "c", [120, b], [c], [c]), False) == (False, True), (
        "together it is bc"
    )
    assert boundary(merging, pair_of("xb", "c", [120, bc], [], []), False) == (True, True)
    assert boundary(merging, pair_of("ab", "c", [a, b], [c], [c]), False) == (True, True), "sampled as a, b"
    assert boundary(merging, pair_of("xb", "c", [120, b], [c], [c]), True) == (True, True), (
        "of one message: bc"
    )
    assert boundary(merging, pair_of("ab", "c", [ab], [c], [c]), False) == (False, False)


@pytest.mark.parametrize("conversational", [False, True])
def test_the_export_says_in_how_many_rows_token_ids_differ(
    run: Path, conversational: bool, tmp_path: Path
) -> None:
    """Counted here with transformers' own tokenizer."""
    from transformers import AutoTokenizer

    options = ["--conversational"] if conversational else []
    ended = export(run, "trl", tmp_path / "x", *options)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(chat=True))

    def encode(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    apart = together = 0
    for pair in rows_of(run, "pairs"):
        before = pair["prefix"] if conversational else ""
        prompt = pair["prompt"].removesuffix(before)
        sides = [(before + pair[side], pair[f"{side}_ids"]) for side in ("chosen", "rejected")]
        ids = encode(prompt)
        apart += any(ids + encode(text) != pair["prompt_ids"] + own for text, own in sides)
        together += any(
            ids + encode(prompt + text)[len(ids) :] != pair["prompt_ids"] + own for text, own in sides
        )
    said = f"of 1 rows, {apart} have other ids than those sampled where prompt and side are encoded one by one, and "
    said += f"{together} where they are encoded together"
    assert said in ended.out.replace("\n", " ") and said in (tmp_path / "x/README.md").read_text()
    whole = export(run, "trl", tmp_path / "whole", "--form", "trajectory")
    assert "Token ids" not in whole.out


def test_a_tokenizer_that_is_gone_is_said(run: Path, tmp_path: Path) -> None:
    export(run, "trl", tmp_path / "made")
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"model": str(tmp_path / "gone")}))
    ended = stepconf("pairs", copy, "--export", "trl", "--out", tmp_path / "x")
    assert ended.code == 0, ended.err
    assert "not counted in how many rows" in ended.out and "gone" in ended.out
    assert "not counted" in (tmp_path / "x/README.md").read_text()


def test_stepwise_supervision_is_of_whole_solutions(tmp_path: Path) -> None:
    made = tmp_path / "run"
    make_run(made, 6, 6, branched=True)
    ended = stepconf(
        "pairs", made, "--export", "trl-stepwise", "--out", tmp_path / "x", "--set", "pairs.validation=0"
    )
    assert ended.code == 0, ended.err
    branches = [row for row in rows_of(made, "solutions") if row["parent_solution_id"]]
    assert branches and f"{len(branches)} a branch, not a whole solution" in ended.out


@pytest.mark.parametrize(("answer", "n"), [(None, 0), (False, 1), (True, 0)])
def test_a_side_of_unknown_answer_is_not_a_wrong_one(answer: bool | None, n: int) -> None:
    pair = pair_of("xb", "c", [120], [1], [2])
    right, other = (
        exports.Path(name, array("i", ids).tobytes(), "", True, correct)
        for name, ids, correct in (("r", [120, 1], True), ("o", [120, 2], answer))
    )
    dropped = Counter[str]()
    found = list(exports.trajectories([pair], {pair.problem_id: [right, other]}, dropped))
    assert len(found) == n and dropped == ({} if n else {"rejected never reaches a wrong answer": 1})


def test_judged_steps_have_a_right_prefix(tmp_path: Path) -> None:
    """As the trainer reads them; what an export leaves out besides says the same in other tokens."""
    sets = ["--set", "pairs.validation=0"]
    ended = stepconf("pairs", branched_run(), "--export", "step-kto", "--out", tmp_path / "x", *sets)
    examples, dropped = read_examples(branched_run(), "step-kto")
    assert f"{dropped['after an error']} after an error" in ended.out
    assert 0 < len(rows(tmp_path / "x")) <= len(examples)


def test_trajectories_go_on_through_branches(tmp_path: Path) -> None:
    made = tmp_path / "run"
    make_run(made, 6, 6, branched=True)
    sets = ["--set", "pairs.validation=0"]
    ended = stepconf("pairs", made, *sets, "--export", "trl", "--form", "trajectory", "--out", tmp_path / "x")
    assert ended.code == 0, ended.err
    first = {row["solution_id"]: row["text"] for row in rows_of(made, "steps") if row["step_index"] == 0}
    whole = {
        first[parent] + row["text"] if (parent := row["parent_solution_id"]) else row["text"]
        for row in rows_of(made, "solutions")
    }
    pairs = {row["prompt"]: row for row in rows_of(made, "pairs")}
    exported = rows(tmp_path / "x")
    assert exported
    for row in exported:
        prefix = pairs[row["prompt"]]["prefix"]
        assert {prefix + row["chosen"], prefix + row["rejected"]} <= whole
