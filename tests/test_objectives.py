"""`stepconf train` by each objective on a run with samples, branches and labels: what it learns from and refuses."""

import json
import shutil
from collections import Counter
from pathlib import Path
from signal import SIGINT
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from stepconf.core.records import CUT
from stepconf.core.trees import Example, plant
from stepconf.engines.tokenizer import Tokenizer
from stepconf.examples import ModelName, Reading, examples_of
from stepconf.kinds import OBJECTIVES
from stepconf.recipe import TrainRecipe, load_recipe
from stepconf.training.batches import collate
from stepconf.training.models import open_policy
from stepconf.training.ranks import Ranks
from stepconf.training.reference import Known, reference_logprobs
from tests.edited_run import rewrite
from tests.forked import forked
from tests.invariants import rows_of
from tests.scripted_engine import branched_run
from tests.tiny import Ended, stepconf, tiny_model

FAST = ["--set", "train.learning_rate=1e-3", "--set", "train.batch_size=8"]
STAGES = "train.stages=[{objective: dpo, epochs: 2}, {objective: sft, learning_rate: 5.0e-4}]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = str(tiny_model())
    folder = without(branched_run(), tmp_path_factory.mktemp("objectives"), "solutions", "model", model)
    made = stepconf("pairs", folder, "--tau", 1.0, "--set", "pairs.validation=0")
    assert made.code == 0, made.err
    return folder


def plain_model() -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model(), dtype=torch.float32).eval()


def train(run: Path, out: Path, *options: object) -> Ended:
    return stepconf("train", run, "--model", tiny_model(), "--out", out, *FAST, *options)


def read(
    run: Path, objective: str, begins: str | None = str(tiny_model())
) -> tuple[list[Example], Counter[str]]:
    eos_id = Tokenizer(str(tiny_model())).eos_id
    asked = Reading(run, TrainRecipe(objective=objective), eos_id, ModelName(begins) if begins else None)
    return list(examples_of(asked)), asked.dropped


@pytest.mark.parametrize("objective", OBJECTIVES.built_in)
def test_each_objective_trains_on_what_it_says(objective: str, run: Path, tmp_path: Path) -> None:
    ended = train(run, tmp_path / "t", "--objective", objective)
    assert ended.code == 0, ended.err
    (stage,) = json.loads((tmp_path / "t/summary.json").read_text())["stages"]
    examples, _ = read(run, objective)
    assert stage["objective"] == objective and stage["examples"] == len(examples) > 8
    lines = [json.loads(line) for line in (tmp_path / "t/state/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == lines[-1]["of"] > 1
    sides = ["chosen"] if objective == "sft" else ["chosen", "rejected"]
    first = {key: value for line in reversed(lines) for key, value in line.items()}
    assert all(0 < first[f"entropy_{side}"] < 6 for side in sides)
    assert first.get("temperature") == (0.7 if OBJECTIVES.load(objective).data == "groups" else None)
    assert ("at temperature 0.7" in ended.out) == ("temperature" in first)
    assert ("margin" in first) == (objective != "sft") and ("accuracy" in first) == (objective == "dpo")


def test_groups_are_the_samples_with_an_advantage(run: Path) -> None:
    examples, dropped = read(run, "rloo")
    roots = [row for row in rows_of(run, "solutions") if row["parent_solution_id"] is None]
    outcomes: dict[str, list[bool]] = {}
    for row in roots:
        outcomes.setdefault(row["problem_id"], []).append(row["answer_correct"])
    mixed = {problem for problem, own in outcomes.items() if len(set(own)) > 1}
    assert {one.group for one in examples} == mixed and len(mixed) < len(outcomes)
    n = sum(len(own) for problem, own in outcomes.items() if problem not in mixed)
    assert dropped == {"of a group with one outcome, which has no advantage": n}
    by_id = {row["solution_id"]: row for row in roots}
    for one in examples:
        own = outcomes[one.group]
        right = by_id[one.key]["answer_correct"]
        others = (sum(own) - right) / (len(own) - 1)
        assert one.credits[0] == pytest.approx([right - others] * len(one.sides[0]))


def test_what_the_policy_itself_has_sampled_has_a_ratio_of_one_at_first(run: Path, tmp_path: Path) -> None:
    """At temperature 0.7, of which nothing is recorded: it is scored as it was sampled, before the first step."""
    examples, _ = read(run, "grpo")
    assert examples and all(one.temperature == 0.7 and not one.logprobs for one in examples)
    policy = open_policy(str(tiny_model()), None, TrainRecipe(), Ranks(0, 1, "cpu"))
    policy.eval()
    cooled = []
    with torch.no_grad():
        for one in examples:
            (side,) = one.sides
            ids = torch.tensor([one.prompt_ids + side])
            logits = plain_model()(input_ids=ids).logits[0, len(one.prompt_ids) - 1 : -1]
            cooled.append((logits / 0.7).log_softmax(-1)[torch.arange(len(side)), list(side)])
        steps = [list(range(len(examples)))]
        report: list[Any] = []
        recipe = TrainRecipe(objective="grpo")
        found = reference_logprobs(
            policy,
            examples,
            steps,
            recipe,
            tmp_path,
            "tiny",
            Ranks(0, 1, "cpu"),
            report.append,
            examples[0].temperature,
        )
        batch = collate(plant(examples, range(len(examples)), 100_000))
        known = Known(examples, found).of(batch)
        scores = policy(batch, 0.7)
    torch.testing.assert_close(found, torch.cat(cooled), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(known.sampled, scores.logprobs, rtol=0, atol=1e-5)
    assert torch.equal(known.sampled, known.reference)


def test_samples_of_another_policy_need_its_recorded_distribution(run: Path, tmp_path: Path) -> None:
    for begins in (None, "another"):
        examples, dropped = read(run, "rloo", begins)
        n = sum(row["parent_solution_id"] is None for row in rows_of(run, "solutions"))
        assert not examples
        assert dropped == {"drawn at temperature 0.7 by another policy than the stage begins with": n}
    stages = "train.stages=[{objective: dpo}, {objective: rloo}]"
    ended = train(run, tmp_path / "t", "--set", stages)
    said = " ".join(ended.err.split())
    assert ended.code == 1 and "sampling.temperature=1" in said and "another policy" in said, said
    greedy = without(run, tmp_path, "solutions", "temperature", 0.0)
    assert read(greedy, "rloo")[1].keys() == {"decoded greedily"}


def test_recorded_log_probabilities_are_the_samplers(run: Path, tmp_path: Path) -> None:
    run = without(run, tmp_path, "solutions", "temperature", 1.0)
    steps: dict[str, list[float]] = {}
    for row in sorted(rows_of(run, "steps"), key=lambda row: row["step_index"]):
        steps.setdefault(row["solution_id"], []).extend(row["token_logprobs"])
    examples, _ = read(run, "grpo", "another")
    assert examples
    for one in examples:
        (logprobs,) = one.logprobs
        (side,) = one.sides
        recorded = steps[one.key]
        assert len(logprobs) == len(side) and list(logprobs[: len(recorded)]) == recorded
        assert len(side) - len(recorded) <= 1, "the token that ends it"
        assert all(value != value for value in logprobs[len(recorded) :])


def test_branch_values_are_the_rewards_of_steps(run: Path) -> None:
    scored = {
        verdict["score"]
        for row in rows_of(run, "steps")
        for verdict in row["verdicts"]
        if verdict["verifier"] == "rollout" and verdict["score"] is not None
    }
    assert len(scored) > 2, "there are shares between 0 and 1"
    credits = {value for one in read(run, "pure")[0] for value in one.credits[0]}
    assert len(credits) > len(scored) and min(credits) < 0 < max(credits)


def test_judged_steps_are_learnt_once_and_not_after_an_error(run: Path) -> None:
    examples, dropped = read(run, "step-kto")
    assert len({(one.prompt_ids, one.sides) for one in examples}) == len(examples)
    assert dropped["sampled before"] > 0 and dropped["after an error"] > 0
    labels = {(row["solution_id"], str(row["step_index"])): row["label"] for row in rows_of(run, "steps")}
    for one in examples:
        label = labels[tuple(one.key.rsplit("/", 1))]  # type: ignore[index]  # two parts
        assert set(one.credits[0]) == {1.0 if label == "correct" else -1.0}
    assert {one.credits[0][0] for one in examples} == {1.0, -1.0}


def without(run: Path, folder: Path, table: str, column: str, value: Any) -> Path:
    """A copy of the run in which a column has one value everywhere."""
    copy = Path(shutil.copytree(run, folder / "copy"))
    for file in sorted((copy / table).glob("*.parquet")):
        held = pq.read_table(file)
        place, field = held.schema.get_field_index(column), held.schema.field(column)
        filled = pa.array([value] * len(held), field.type)
        rewrite(copy, file, held.set_column(place, field, filled))
    return copy


@pytest.mark.parametrize("objective", ["sft", "grpo", "pure", "step-kto"])
def test_only_what_ended_by_itself_learns_to_end(objective: str, run: Path, tmp_path: Path) -> None:
    eos = Tokenizer(str(tiny_model())).eos_id
    for finish, ends in [(reason, False) for reason in CUT] + [("stop", True)]:
        copy = without(run, tmp_path / finish, "solutions", "finish_reason", finish)
        examples, _ = read(copy, objective)
        assert any(one.sides[0][-1] == eos for one in examples) is ends, finish


@pytest.mark.parametrize("objective", ["rloo", "grpo", "pure"])
def test_a_run_without_log_probabilities_is_refused(objective: str, run: Path, tmp_path: Path) -> None:
    copy = without(run, tmp_path, "steps", "token_logprobs", [])
    ended = train(copy, tmp_path / "t", "--objective", objective)
    said = " ".join(ended.err.split())
    assert (
        ended.code == 1
        and "without recorded log-probabilities" in said
        and "generate and score record" in said
    )
    assert not (tmp_path / "t/model").exists()


@pytest.mark.parametrize(
    ("objective", "table", "column", "value", "reason"),
    [
        ("pure", "steps", "label", "unknown", "without a labelled step"),
        ("step-kto", "steps", "label", "unknown", "of unknown label"),
        ("rloo", "solutions", "answer_correct", None, "of unknown answer"),
        ("grpo", "solutions", "answer_correct", True, "one outcome"),
        ("sft", "solutions", "answer_correct", False, "there are none"),
    ],
)
def test_what_the_run_lacks_is_said(
    objective: str, table: str, column: str, value: Any, reason: str, run: Path, tmp_path: Path
) -> None:
    copy = without(run, tmp_path, table, column, value)
    if objective == "pure":  # no shares of right completions either
        copy = without(copy, tmp_path / "again", "steps", "verdicts", [])
    ended = train(copy, tmp_path / "t", "--objective", objective)
    said = " ".join(ended.err.split())
    assert ended.code == 1 and reason in said and f"by {objective}" in said and "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nll_weight", "-1"), ("nll_weight", ".nan"), ("margin_weight", ".inf"), ("entropy_margin", "-0.1"),
        ("kl_weight", "-0.5"), ("kl_weight", ".nan"), ("clip", "0"), ("clip", "1"), ("beta", ".nan"),
        ("label_smoothing", "0.5"), ("learning_rate", ".inf"),
        ("stages", "[{objective: dpo, beta: 0}]"), ("stages", "[{objective: sft, lora: {rank: 2}}]"),
        ("stages", "[sft]"), ("stages", "[{objective: sft, stages: []}]"), ("objective", "ppo"),
        ("stages", "[{objective: ppo}]"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_one_clear_message(key: str, value: str, run: Path, tmp_path: Path) -> None:
    ended = train(run, tmp_path / "t", "--set", f"train.{key}={value}")
    said = " ".join(ended.err.split())
    assert ended.code == 1 and (f"train.{key}" in said or "unknown objective 'ppo'" in said), ended.err
    assert "Traceback" not in ended.err and not (tmp_path / "t").exists()


def test_ipo_has_no_label_smoothing(run: Path, tmp_path: Path) -> None:
    ended = train(run, tmp_path / "t", "--set", "train.stages=[{loss: ipo, label_smoothing: 0.1}]")
    assert ended.code == 1 and "train.label_smoothing=0.1 works with loss=sigmoid only" in " ".join(
        ended.err.split()
    )


def test_a_stage_takes_what_it_does_not_name_from_the_recipe() -> None:
    sets = ["train.beta=0.3", "train.stages=[{objective: sft, epochs: 2}, {beta: 0.2}]"]
    first, second = load_recipe(None, None, sets).train.in_order()
    assert (first.objective, first.epochs, first.beta) == ("sft", 2, 0.3)
    assert (second.objective, second.epochs, second.beta) == ("dpo", 1, 0.2)
    assert not first.stages and [one.objective for one in TrainRecipe().in_order()] == ["dpo"]


def test_stages_go_on_from_each_other(run: Path, tmp_path: Path) -> None:
    ended = train(run, tmp_path / "both", "--set", STAGES)
    assert ended.code == 0, ended.err
    first = train(run, tmp_path / "first", "--set", "train.epochs=2")
    assert first.code == 0, first.err
    then = stepconf(
        *("train", run, "--model", tmp_path / "first/model", "--out", tmp_path / "then", *FAST),
        *("--objective", "sft", "--set", "train.learning_rate=5.0e-4"),
    )
    assert then.code == 0, then.err
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("both", "then")]
    assert weights[0] == weights[1]
    stages = json.loads((tmp_path / "both/summary.json").read_text())["stages"]
    assert [one["objective"] for one in stages] == ["dpo", "sft"]
    lines = (tmp_path / "both/state/stage-1/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1]) == stages[0]["last_step"]
    assert not list((tmp_path / "both/state/stage-1").glob("checkpoint-*")), "the next stage went on from it"
    assert "dpo" in ended.out and "sft" in ended.out


def test_a_stage_has_its_own_limit_of_length(run: Path, tmp_path: Path) -> None:
    stages = "train.stages=[{objective: sft}, {objective: sft, max_length: 5}]"
    ended = train(run, tmp_path / "t", "--set", stages)
    assert ended.code == 1 and "longer than 5" in " ".join(ended.err.split()), ended.err


@pytest.mark.parametrize("asked", ["{objective: sft}", "{objective: rloo}"])
def test_a_stage_that_asks_for_what_a_file_lacks(asked: str, run: Path, tmp_path: Path) -> None:
    file = next((run / "pairs").glob("*.parquet"))
    ended = train(file, tmp_path / "t", "--set", f"train.stages=[{{objective: dpo}}, {asked}]")
    assert ended.code == 1 and "is a file" in " ".join(ended.err.split())
    assert not (tmp_path / "t").exists(), "nothing is trained before all stages have their data"


def test_a_stage_that_asks_for_what_the_run_lacks(run: Path, tmp_path: Path) -> None:
    copy = without(run, tmp_path, "solutions", "answer_correct", None)
    ended = train(copy, tmp_path / "t", "--set", "train.stages=[{objective: dpo}, {objective: sft}]")
    assert ended.code == 1 and "by sft" in " ".join(ended.err.split())
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("nth", [1, 3, 6])
def test_ctrl_c_in_any_stage_keeps_the_last_checkpoint(nth: int, run: Path, tmp_path: Path) -> None:
    """The signal comes while a checkpoint is put in place, in the first stage or in the second."""
    command = [
        "train",
        run,
        "--model",
        tiny_model(),
        *FAST,
        "--set",
        STAGES,
        "--set",
        "train.checkpoint_every=2",
    ]
    whole = forked([*command, "--out", tmp_path / "whole"], tmp_path)
    assert whole.code == 0 and whole.calls["os.rename"] > 6, whole
    ended = forked([*command, "--out", tmp_path / "t"], tmp_path, at=("os.rename", nth, "after"), sent=SIGINT)
    assert ended.code == 130 and "same command again" in ended.err, ended
    kept = [place.parent.name for place in (tmp_path / "t/state").glob("stage-*/checkpoint-*")]
    assert kept and not (tmp_path / "t/model").exists()
    again = forked([*command, "--out", tmp_path / "t"], tmp_path)
    assert again.code == 0, again.err
    a, b = ((tmp_path / name / "model/model.safetensors").read_bytes() for name in ("t", "whole"))
    assert a == b
    said = [json.loads((tmp_path / name / "summary.json").read_text())["stages"] for name in ("t", "whole")]
    assert [one["last_step"]["step"] for one in said[0]] == [one["last_step"]["step"] for one in said[1]]
