"""What a pair strategy promises."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, get_args

import polars as pl

from stepconf.contracts import Promise, expect
from stepconf.core.pairs.frames import PAIRS, PREFIX, SOLUTIONS, STEPS, Choice, Frames, PairStrategy, Rules
from stepconf.core.records import PairKind
from stepconf.kinds import PAIR_STRATEGIES

_SAMPLES, _STEPS = 6, 3
_NAMED = ("solution_id", "step_index")  # what a step is called in any frame


def promises(name: str, model: str) -> Iterator[Promise]:
    """Those of the pair strategy of that name."""
    strategy: PairStrategy = PAIR_STRATEGIES.load(name)
    many = [_frames([f"p{seed}-{i}" for i in range(8)]) for seed in range(8)]
    yield Promise("its pairs have the declared columns", lambda: _has_columns(strategy, many))
    yield Promise("a pair is two sides after one prefix", lambda: _are_siblings(strategy, many))
    yield Promise("the sides of a pair read differently", lambda: _read_differently(strategy, many))
    yield Promise("it chooses the same when asked again", lambda: _is_repeatable(strategy, many))
    yield Promise("it chooses for a problem by itself", lambda: _is_independent(strategy))
    yield Promise("it makes nothing of nothing", lambda: _takes_empty(strategy))


def _draw(*parts: object) -> int:
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=4).digest())


def _frames(problems: list[str]) -> Frames:
    """Samples of some problems that share prefixes: two texts a step, labels, answers and confidences at random."""
    steps: list[list[Any]] = []
    solutions: list[list[Any]] = []
    for problem in problems:
        for sample in range(_SAMPLES):
            prefix, solution, seen = "", f"{problem}/{sample}", False
            right = [True, False, None][_draw(solution, "answer") % 3]
            for index in range(_STEPS):
                text = f"step {_draw(solution, index) % 2}\n"
                label = ("correct", "incorrect", "unknown")[_draw(problem, prefix, text) % 3]
                confidence = (_draw(solution, index, "confidence") % 1000 + 1) / 1001
                before = f"{problem}|{prefix}"
                step = [len(steps), problem, solution, index, before, before + text, text.strip(), 3]
                step += [-confidence, confidence, confidence, label, seen, right]
                steps.append(
                    [*step, "put right" if _draw(solution, index, "critic") % 5 == 0 else None, True]
                )
                prefix, seen = prefix + text, seen or label == "incorrect"
            tokens = [_draw(solution, i) % 100 for i in range(6)]
            logprobs = [-(_draw(solution, i, "p") % 300) / 100 for i in range(6)]
            own = [len(solutions), problem, solution, f"{problem}|", True, right, "stop"]
            solutions.append([*own, tokens, logprobs])
    return Frames(_frame(steps, STEPS), _frame(solutions, SOLUTIONS))


def _frame(rows: list[list[Any]], columns: Mapping[str, tuple[Any, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, {name: kind for name, (kind, _) in columns.items()}, orient="row")


def _sides(frames: Frames, choice: Choice) -> Iterator[tuple[pl.DataFrame, str]]:
    """The pairs whose sides are steps, or solutions, joined with both sides and the origin; and the prefix's name."""
    for is_whole, sides, prefix in (
        (False, frames.steps, "prefix_id"),
        (True, frames.solutions, "prompt_id"),
    ):
        pairs = choice.pairs.filter((pl.col("kind") == "trajectory") == is_whole)
        for side in ("origin", "chosen", "rejected"):
            own = sides.select(pl.all().name.suffix(f"_{side}")).rename({f"row_{side}": side})
            pairs = pairs.join(own, on=side, how="left")
        yield pairs, prefix


def _has_columns(strategy: PairStrategy, many: list[Frames]) -> None:
    for frames in many:
        choice = strategy.choose(frames, Rules())
        schema = {name: kind for name, (kind, _) in PAIRS.items()}
        expect(choice.pairs.schema == schema, f"{choice.pairs.schema} instead of {schema}")
        strange = set(choice.pairs["kind"]) - set(get_args(PairKind))
        expect(not strange, f"kind {strange}; there are {get_args(PairKind)}")
        expect(all(isinstance(n, int) and n >= 0 for n in choice.dropped.values()), f"{choice.dropped}")


def _are_siblings(strategy: PairStrategy, many: list[Frames]) -> None:
    for frames in many:
        for pairs, prefix in _sides(frames, strategy.choose(frames, Rules())):
            by_critic = pairs.filter(pl.col("chosen").is_null())
            if by_critic.height:
                expect(
                    by_critic["corrected_origin"].null_count() == 0,
                    "no side is chosen, and no critic wrote one",
                )
            for side in ("chosen", "rejected"):
                own = pairs.filter(pl.col(side).is_not_null())
                apart = own.filter(pl.col(f"{prefix}_{side}").ne_missing(pl.col(f"{prefix}_origin")))
                expect(not apart.height, f"{side} has another prefix than the origin: {apart.head(1).rows()}")


def _read_differently(strategy: PairStrategy, many: list[Frames]) -> None:
    for frames in many:
        for pairs, _ in _sides(frames, strategy.choose(frames, Rules())):
            same = pairs.filter(pl.col("chosen") == pl.col("rejected"))
            if "reads_chosen" in pairs.columns:
                same = pairs.filter(pl.col("reads_chosen") == pl.col("reads_rejected"))
            expect(not same.height, f"both sides are the same: {same.head(1).rows()}")


def _is_repeatable(strategy: PairStrategy, many: list[Frames]) -> None:
    for frames in many:
        first, again = (strategy.choose(frames, Rules()) for _ in range(2))
        expect(first.pairs.equals(again.pairs) and first.dropped == again.dropped, "it does not")


def _is_independent(strategy: PairStrategy) -> None:
    together = _names(_frames(["a", "b", "c"]), strategy)
    alone = [row for problem in ("a", "b", "c") for row in _names(_frames([problem]), strategy)]
    expect(sorted(together) == sorted(alone), f"{len(together)} pairs among others, {len(alone)} alone")


def _names(frames: Frames, strategy: PairStrategy) -> list[tuple[str, ...]]:
    """The pairs by what their sides are called, which does not depend on what else is in the frame."""
    found = []
    for pairs, _ in _sides(frames, strategy.choose(frames, Rules())):
        wanted = ["kind", *(f"{n}_{side}" for side in ("origin", "chosen", "rejected") for n in _NAMED)]
        rows = pairs.select(name for name in wanted if name in pairs.columns).iter_rows()
        found += [tuple(map(str, row)) for row in rows]
    return found


def _takes_empty(strategy: PairStrategy) -> None:
    made = strategy.choose(_frames([]), Rules())
    expect(not made.pairs.height and not any(made.dropped.values()), f"{made}")
    expect(set(PREFIX) <= set(_frames([]).steps.columns), "it does not")
