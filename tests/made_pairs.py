"""Small made-up runs of solutions and branches, and the pairs that strategies make of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

from stepconf.core.pairs.frames import Choice, Frames, Rules
from stepconf.core.records import Label, Pair, Solution, Solved, TokenScores
from stepconf.core.schema import arrow_schema, to_columns
from stepconf.core.steps import build_steps
from stepconf.pairs.read import Batch, frames_of
from stepconf.pairs.rows import Writer, named_pairs, pair_rows

# What a step may be: few enough that samples often share prefixes. " a" reads like "a"; c has other tokens.
PIECES = {"a\n": [1], " a \n": [2, 1], "b\n": [3], "c c\n": [4, 4], "d\n": [5]}


class Sample(NamedTuple):
    problem: int
    steps: list[tuple[str, Label, float]]
    finish: Literal["stop", "length"]
    answer: bool | None = None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(sorted(PIECES)),
        st.sampled_from(["correct", "incorrect", "unknown"]),
        st.sampled_from([0.0, 0.2, 0.5, 0.5, 1.0]),
    ),
    min_size=1,
    max_size=3,
)
ANSWERS = st.sampled_from([True, False, None])
SAMPLES = st.lists(
    st.builds(Sample, st.integers(0, 1), STEPS, st.sampled_from(["stop", "length"]), ANSWERS), max_size=7
)
TAUS = st.sampled_from([0.1, 0.5, 0.61, 0.9, 1.0])


class Branch(NamedTuple):
    """A completion of a row that is there already, `of` and `at` modulo what there is."""

    of: int
    at: int
    steps: list[tuple[str, Label, float]]
    answer: bool | None


BRANCHES = st.lists(st.builds(Branch, st.integers(0, 9), st.integers(0, 3), STEPS, ANSWERS), max_size=9)


class Words:
    """Stands for a tokenizer: characters are tokens."""

    def encode(self, text: str) -> list[int]:
        return [1000 + ord(character) for character in text]

    def decode_all(self, ids: Sequence[int], ends: Sequence[int]) -> list[str]:
        return ["".join(f"<{token}>" for token in ids[a:b]) for a, b in pairwise([0, *ends])]


PLAIN = Rules()
WRITER = Writer(Words(), "m", 3)


def make(sample: Sample, index: int, prompt: Sequence[int] = (), wrong_before: bool = False) -> Solved:
    """The sample as a solution with steps; entropies and log-probabilities differ by step and sample."""
    text = "".join(piece for piece, _, _ in sample.steps)
    ids = [t for piece, _, _ in sample.steps for t in PIECES[piece]]
    prompt = prompt or [90 + sample.problem, 99]
    spans, starts, entropies, at = [], [], [], 0
    for piece, _, entropy in sample.steps:
        spans.append((at, at + len(piece)))
        starts += [at + i for i in range(len(PIECES[piece]))]
        entropies += [entropy] * len(PIECES[piece])
        at += len(piece)
    logprobs = [-h - 0.001 * index for h in entropies]
    scores = TokenScores(logprobs, entropies, [0.5] * len(ids))
    steps = build_steps(f"s{index}", f"p{sample.problem}", text, spans, ids, starts, scores, prompt)
    labelled = []
    for step, (_, label, _) in zip(steps, sample.steps, strict=True):
        first = label == "incorrect" and not wrong_before
        labelled.append(replace(step, label=label, after_error=wrong_before, is_first_error=first))
        wrong_before = wrong_before or label == "incorrect"
    values: dict[str, Any] = dict.fromkeys(Solution.__dataclass_fields__)
    values |= dict.fromkeys(("source", "split", "model_revision", "engine"), "")
    values |= {
        "solution_id": f"s{index}",
        "problem_id": f"p{sample.problem}",
        "problem": f"problem {sample.problem}",
        "prompt_token_ids": list(prompt),
        "text": text,
        "token_ids": ids,
        "sample_index": 0,
        "answer_type": "math",
        "finish_reason": sample.finish,
        "answer_correct": sample.answer,
        "model": "m",
        "n_steps": len(steps),
        "n_tokens": len(ids),
        "extra": {},
    }
    return Solved(Solution(**values), labelled)


def make_all(samples: Sequence[Sample], branches: Sequence[Branch] = ()) -> list[Solved]:
    """The samples, then their branches."""
    made = [make(sample, index) for index, sample in enumerate(samples)]
    for branch in branches if made else ():
        parent = made[branch.of % len(made)]
        at = branch.at % (parent.solution.n_steps + 1)
        cut = parent.steps[at].token_start if at < parent.solution.n_steps else parent.solution.n_tokens
        wrong = any(step.label == "incorrect" for step in parent.steps[:at]) or parent.steps[0].after_error
        problem = int(parent.solution.problem_id[1:])
        own = make(
            Sample(problem, branch.steps, "stop", branch.answer),
            len(made),
            [*parent.solution.prompt_token_ids, *parent.solution.token_ids[:cut]],
            wrong,
        )
        links = {"parent_solution_id": parent.solution.solution_id, "branch_step": at}
        made.append(Solved(replace(own.solution, **links), own.steps))
    return made


def batch_of(solved: Sequence[Solved]) -> Batch:
    rows: dict[str, list[Any]] = {
        "solutions": [one.solution for one in solved],
        "steps": [step for one in solved for step in one.steps],
    }
    tables = (
        pa.Table.from_pydict(to_columns(table, own), schema=arrow_schema(table))
        for table, own in rows.items()
    )
    frames = [pl.from_arrow(table) for table in tables]
    return Batch("00000", *frames)  # type: ignore[arg-type]  # of tables, frames are made


def read(solved: Sequence[Solved]) -> Frames:
    return frames_of(batch_of(solved))


def paired(
    solved: Sequence[Solved], strategy: Callable[[Frames, Rules], Choice], rules: Rules = PLAIN
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs that `stepconf pairs` writes, and the reasons why there are no more."""
    frames = read(solved)
    choice = strategy(frames, rules)
    named = named_pairs(choice.pairs, frames, WRITER.tokenizer)
    dropped = choice.dropped | {"same pair again": choice.pairs.height - named.height}
    rows = pair_rows(named, frames, WRITER)
    return [Pair(**row) for row in rows.iter_rows(named=True)], {k: n for k, n in dropped.items() if n}


def path_tokens(one: Solved, j: int) -> tuple[int, ...]:
    """The exact tokens before a step."""
    return (*one.solution.prompt_token_ids, *one.solution.token_ids[: one.steps[j].token_start])
