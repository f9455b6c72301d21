"""What a training learns from, as token ids: pairs, right solutions, groups of samples, or judged steps of a run.

An end-of-sequence token is added only where a side ends its solution.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stepconf.core.records import CUT
from stepconf.core.trees import Example
from stepconf.errors import StepconfError
from stepconf.kinds import OBJECTIVES
from stepconf.recipe import TrainRecipe
from stepconf.run.tables import check_is_run, is_file_of_rows, read_aligned, read_shards

if TYPE_CHECKING:
    from stepconf.training.objectives.base import Objective

PAIR_COLUMNS = [
    "pair_id", "problem_id", "prompt_ids", "chosen_ids", "rejected_ids", "chosen_is_terminal", "rejected_is_terminal",
]  # fmt: skip
_SOLUTION_COLUMNS = [
    "solution_id", "parent_solution_id", "problem_id", "prompt_token_ids", "token_ids", "finish_reason",
    "answer_correct", "model", "model_revision", "temperature",
]  # fmt: skip
_STEP_COLUMNS = [
    "solution_id", "step_index", "token_start", "token_end", "token_logprobs", "label", "after_error", "verdicts",
]  # fmt: skip
_LACKS = {
    "pairs": "Type: stepconf pairs RUN; or raise --set train.max_length",
    "solutions": "It needs solutions whose answer is right: a run with gold answers, verified by final.",
    "groups": "It needs several samples a problem, with the log-probabilities that generate and score record, drawn "
    "by the model that is trained or at --set sampling.temperature=1; rloo and grpo need right and wrong answers among "
    "them, pure needs step labels (stepconf verify).",
    "steps": "It needs labelled steps: stepconf verify RUN --verify symbolic",
}


class ModelName(NamedTuple):
    """A model by its name, and its revision."""

    model: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What examples are read from, and for what.

    source: a run, or a file of pairs. recipe: of the stage. eos_id: the end-of-sequence token.
    begins: the policy that the stage begins with; None where that is the work of an earlier stage.
    dropped: what makes no example is counted here, by reason.
    """

    source: Path
    recipe: TrainRecipe
    eos_id: int
    begins: ModelName | None = None
    dropped: Counter[str] = field(default_factory=Counter)


Reads = Callable[[Reading], Iterator[Example]]


def check_source(source: Path, recipe: TrainRecipe) -> None:
    """Raise StepconfError unless it is a run, or a Parquet file with the columns of `pairs` that all stages take."""
    if not is_file_of_rows(source):
        check_is_run(source)
        return
    for stage in recipe.in_order():
        if _data_of(stage) != "pairs":
            raise StepconfError(
                f"{stage.objective} learns from the {_data_of(stage)} of a run, and {source} is a file.",
                "Give the run folder.",
            )
    first: list[dict[str, Any]] = next(read_shards(source, "pairs", PAIR_COLUMNS), [])
    missing = [name for name in PAIR_COLUMNS if first and name not in first[0]]
    if missing:
        raise StepconfError(
            f"{source} has no column {missing[0]!r}.",
            f"Pairs have: {', '.join(PAIR_COLUMNS)}; see schemas/pairs.json",
        )


def usable_examples(asked: Reading, limit: int, exclude: Set[str]) -> tuple[list[Example], Counter[str]]:
    """What a stage is trained on, and why the rest is left out, counted.

    Args:
        asked: what is read, for which stage.
        limit: tokens of the longest example. exclude: problems that must not be learnt from.

    Raises:
        StepconfError: nothing is left; it says what the run lacks.
    """
    examples, dropped = usable(examples_of(asked), limit, exclude)
    dropped.update(asked.dropped)
    if not examples:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items()) or "there are none"
        raise StepconfError(
            f"{asked.source} has no example to train on by {asked.recipe.objective} ({reasons}).",
            _LACKS[_data_of(asked.recipe)],
        )
    return examples, dropped


def examples_of(asked: Reading) -> Iterator[Example]:
    """The examples of the recipe's objective in a run, or in a file of pairs."""
    return _READERS[_data_of(asked.recipe)](asked)


def usable(
    examples: Iterator[Example], limit: int, exclude: Set[str] = frozenset()
) -> tuple[list[Example], Counter[str]]:
    """The examples that can be trained on, and why the others cannot, counted."""
    kept, dropped = [], Counter[str]()
    for example in examples:
        if example.group in exclude:
            dropped["held-out problem"] += 1
        elif not example.prompt_ids:
            dropped["no prompt"] += 1
        elif not all(example.sides):
            dropped["empty side"] += 1
        elif len(set(example.sides)) < len(example.sides):
            dropped["equal sides"] += 1
        elif example.length > limit:
            dropped[f"longer than {limit} tokens"] += 1
        else:
            kept.append(example)
    return kept, dropped


def _data_of(recipe: TrainRecipe) -> str:
    objective: Objective = OBJECTIVES.load(recipe.objective)
    return objective.data


def _pairs(asked: Reading) -> Iterator[Example]:
    for rows in read_shards(asked.source, "pairs", PAIR_COLUMNS, "train"):
        for row in rows:
            sides = tuple(
                (*row[f"{side}_ids"], *([asked.eos_id] if row[f"{side}_is_terminal"] else ()))
                for side in ("chosen", "rejected")
            )
            yield Example(row["pair_id"], row["problem_id"], tuple(row["prompt_ids"]), sides)


def _right_solutions(asked: Reading) -> Iterator[Example]:
    """What a branch adds is no solution by itself."""
    for rows in read_shards(asked.source, "solutions", _SOLUTION_COLUMNS):
        for row in rows:
            if row["answer_correct"] and row["parent_solution_id"] is None:
                side = (*row["token_ids"], *_ending(row, asked.eos_id))
                yield Example(row["solution_id"], row["problem_id"], tuple(row["prompt_token_ids"]), (side,))


class _Solved(NamedTuple):
    """A row of `solutions` and its rows of `steps`, in order."""

    row: dict[str, Any]
    steps: list[dict[str, Any]]


def _solved(source: Path) -> Iterator[_Solved]:
    for _, solutions, steps in read_aligned(source, _SOLUTION_COLUMNS, _STEP_COLUMNS):
        of_solution: dict[str, list[dict[str, Any]]] = {}
        for step in steps.to_pylist():
            of_solution.setdefault(step["solution_id"], []).append(step)
        for row in solutions.to_pylist():
            own = of_solution.get(row["solution_id"], [])
            yield _Solved(row, sorted(own, key=lambda step: step["step_index"]))


def _groups(asked: Reading) -> Iterator[Example]:
    """The samples of each problem, with the credit that the objective gives their steps."""
    from stepconf.training.objectives.base import Sample

    objective: Objective = OBJECTIVES.load(asked.recipe.objective)
    if objective.credit is None:
        raise StepconfError(
            f"{asked.recipe.objective} learns from groups and gives no credit.", "Give it a `credit`."
        )
    groups: dict[str, list[_Solved]] = {}
    for one in _solved(asked.source):
        if one.row["parent_solution_id"] is not None:
            continue
        if reason := _unusable(one, asked.begins):
            asked.dropped[reason] += 1
        else:
            groups.setdefault(one.row["problem_id"], []).append(one)
    for group in groups.values():
        samples = [Sample(_reward(one.row), [_step_reward(step) for step in one.steps]) for one in group]
        for one, own in zip(group, objective.credit(samples, asked.recipe), strict=True):
            if isinstance(own, str):
                asked.dropped[own] += 1
            else:
                yield _with_credit(one, own, asked)


def _unusable(one: _Solved, begins: ModelName | None) -> str:
    """Why nothing is known of the distributions that a sample was drawn from; "" where they are known."""
    if not one.steps or sum(len(step["token_logprobs"]) for step in one.steps) != len(one.row["token_ids"]):
        return "without recorded log-probabilities"
    temperature = _temperature(one.row)
    if temperature == 0:
        return "decoded greedily"
    if temperature != 1 and _sampler(one.row) != begins:
        return f"drawn at temperature {temperature:g} by another policy than the stage begins with"
    return ""


def _temperature(row: dict[str, Any]) -> float:
    """That of the sampling; solutions from elsewhere, for which none is known, are taken as they were scored."""
    return 1.0 if row["temperature"] is None else float(row["temperature"])


def _sampler(row: dict[str, Any]) -> ModelName:
    return ModelName(row["model"], row["model_revision"] or None)


def _reward(row: dict[str, Any]) -> float | None:
    return None if row["answer_correct"] is None else float(row["answer_correct"])


def _with_credit(one: _Solved, credits: list[float], asked: Reading) -> Example:
    """A sample as an example; the token that ends it belongs to its last step, and has no recorded log-probability.

    What the policy to begin with has sampled, it scores itself: the recorded values are of temperature 1, and of the
    engine's dtype, whose rounding makes ratios of whole sequences.
    """
    ending = _ending(one.row, asked.eos_id)
    tokens = [c for step, c in zip(one.steps, credits, strict=True) for _ in step["token_logprobs"]]
    logprobs = [value for step in one.steps for value in step["token_logprobs"]]
    return Example(
        one.row["solution_id"],
        one.row["problem_id"],
        tuple(one.row["prompt_token_ids"]),
        ((*one.row["token_ids"], *ending),),
        ((*tokens, *(credits[-1] for _ in ending)),),
        () if _sampler(one.row) == asked.begins else ((*logprobs, *(float("nan") for _ in ending)),),
        _temperature(one.row),
    )


def _step_reward(step: dict[str, Any]) -> float | None:
    """From -1 to 1: by the share of right completions after the step, or by its label."""
    shares = [v["score"] for v in step["verdicts"] if v["verifier"] == "rollout" and v["score"] is not None]
    if shares:
        return float(2 * shares[-1] - 1)
    return {"correct": 1.0, "incorrect": -1.0}.get(step["label"])


def _steps(asked: Reading) -> Iterator[Example]:
    """Each labelled step after its exact prefix, once, up to the first error; branches have steps too."""
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for row, steps in _solved(asked.source):
        for step in steps:
            if step["label"] == "unknown" or step["after_error"]:
                asked.dropped["after an error" if step["after_error"] else "of unknown label"] += 1
                continue
            ids = row["token_ids"]
            prompt = (*row["prompt_token_ids"], *ids[: step["token_start"]])
            ending = _ending(row, asked.eos_id) if step is steps[-1] else ()
            side = (*ids[step["token_start"] : step["token_end"]], *ending)
            if (prompt, side) in seen:
                asked.dropped["sampled before"] += 1
                continue
            seen.add((prompt, side))
            sign = 1.0 if step["label"] == "correct" else -1.0
            key = f"{row['solution_id']}/{step['step_index']}"
            yield Example(key, row["problem_id"], prompt, (side,), ((sign,) * len(side),))


def _ending(row: dict[str, Any], eos_id: int) -> tuple[int, ...]:
    return () if row["finish_reason"] in CUT else (eos_id,)


_READERS: dict[str, Reads] = {
    "pairs": _pairs,
    "solutions": _right_solutions,
    "groups": _groups,
    "steps": _steps,
}
