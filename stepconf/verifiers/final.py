"""The `final` verifier: is the solution's answer the reference answer?

Our grammar reads both, and `core.maths` decides; a worker that can be killed asks SymPy, and math-verify for what
the grammar does not read. In front of it: a cache.
"""

import importlib.metadata
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from stepconf.core.answers import Found, boxed, find_answer, gold_answer, holds_tower, readings, same_answer
from stepconf.core.maths.algebra import fix_draws
from stepconf.core.maths.decide import Decision
from stepconf.core.records import Label, Solution, Solved, Verdict
from stepconf.verifiers.base import Verifier
from stepconf.workers.pool import Outcome, Pool

Pair = tuple[str, str, str]  # gold, predicted, answer type
CACHE_SIZE = 100_000
MAX_ALGEBRA_CHARS = 2000  # what is longer is no answer
MAX_ALGEBRA_DEPTH = 30  # parsing time grows fast with it
GUESSED = "nothing is marked as the answer, and the last value is another one"
UNDECIDED = "undecided"
CUT_IN_REASONING = "cut off inside its thinking"
_BRACKET = re.compile(r"[(){}\[\]]")
_WARM_UP = (
    ("x^2-\\frac{1}{2}", "x^2-\\frac{1}{3}"),
    ("\\{1,\\sqrt{2}\\}", "\\{1,\\sqrt{3}\\}"),
    ("1<|x|<2", "(1,2)\\cup(-2,-1)"),
    ("x=2y", "3y=x"),
    ("\\begin{pmatrix}1&2\\end{pmatrix}", "\\begin{pmatrix}1&3\\end{pmatrix}"),
)
_cache: OrderedDict[Pair, Decision] = OrderedDict()
_cache_lock = threading.Lock()


def compare(pool: Pool, pairs: Sequence[Pair]) -> list[Outcome[Decision]]:
    """Whether each predicted answer equals its gold answer; None with a failure where a worker gave none."""
    known: dict[Pair, Outcome[Decision]] = {}
    open_pairs: list[Pair] = []
    bare: list[Pair] = [_bare(pair) for pair in pairs]
    for pair in dict.fromkeys(bare):
        outcome = _without_worker(pair)
        if outcome:
            known[pair] = outcome
        else:
            open_pairs.append(pair)
    for pair, outcome in zip(open_pairs, pool.map(_same_answer, open_pairs), strict=True):
        known[pair] = outcome
        if outcome.value is not None:
            _remember(pair, outcome.value)
    return [known[pair] for pair in bare]


def compare_here(pair: Pair) -> Outcome[Decision]:
    """As `compare`, but no worker is asked: what one would have to decide stays open."""
    start = time.perf_counter()
    outcome = _without_worker(_bare(pair))
    return outcome or Outcome(Decision(None), UNDECIDED, time.perf_counter() - start)


class FinalVerifier:
    """Judges the last step, the one that gives the answer; says nothing of the steps before it.

    A solution that stopped without any answer is `incorrect`; one that was cut at the token limit before it
    marked an answer, or inside the answer, is `unknown`, and so is one without a gold answer. What it says in its
    thinking is no answer.
    Where nothing is marked as the answer, a last value that agrees is `correct`, and one that differs `unknown`.
    The reason names what decided.
    """

    name = "final"

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.version = f"7+math-verify-{importlib.metadata.version('math-verify')}"

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """One list per solution: None for each step but the last, which carries the verdict."""
        verdicts = self.answers([one.solution for one in solved])
        return [
            [None if step is not one.steps[-1] else verdict for step in one.steps]
            for one, verdict in zip(solved, verdicts, strict=True)
        ]

    def answers(self, solutions: Sequence[Solution]) -> list[Verdict]:
        """The verdict on each solution's answer."""
        found = [self._without_comparing(one) for one in solutions]
        outcomes = iter(compare(self.pool, [one[0] for one in found if isinstance(one, tuple)]))
        return [one if isinstance(one, Verdict) else self._verdict(next(outcomes), one[1]) for one in found]

    def _without_comparing(self, solution: Solution) -> Verdict | tuple[Pair, bool]:
        """The verdict where there is nothing to compare, else the pair to compare and whether the answer is marked."""
        if solution.gold_answer is None or not solution.gold_answer.strip():
            return Verdict(self.name, self.version, "unknown", reason="no gold answer")
        if solution.finish_reason == "length_in_reasoning":
            return Verdict(self.name, self.version, "unknown", reason=CUT_IN_REASONING)
        cut = solution.is_cut
        answered = solution.text[solution.reasoning_end or 0 :]
        found = find_answer(answered, solution.answer_type, guess=not cut)
        if (
            not cut
            and solution.predicted_answer is not None
            and (not found or found.text != solution.predicted_answer)
        ):
            found = Found(solution.predicted_answer, marked=True)
        if found is None:
            if cut:
                return Verdict(self.name, self.version, "unknown", reason="cut off before an answer")
            return Verdict(self.name, self.version, "incorrect", 0.0, "no answer")
        gold = gold_answer(solution.gold_answer, solution.answer_type)
        return (gold, found.text, solution.answer_type), found.marked

    def _verdict(self, outcome: Outcome[Decision], marked: bool) -> Verdict:
        decision = outcome.value or Decision(None)
        if decision.same is False and not marked:
            return Verdict(self.name, self.version, "unknown", None, GUESSED, outcome.seconds)
        label: Label = "unknown" if decision.same is None else "correct" if decision.same else "incorrect"
        score = None if decision.same is None else float(decision.same)
        reason = outcome.failure or (UNDECIDED if score is None else f"decided by {decision.by}")
        return Verdict(self.name, self.version, label, score, reason, outcome.seconds)


FINAL = Verifier(lambda setup: FinalVerifier(setup.pool))


def _bare(pair: Pair) -> Pair:
    """Without the boxes around the answers."""
    gold, said, kind = pair
    return pair if kind in ("literal", "code") else (boxed(gold) or gold, boxed(said) or said, kind)


def _without_worker(pair: Pair) -> Outcome[Decision] | None:
    """What the exact paths, the guards and the cache can tell; None where a worker must be asked."""
    start = time.perf_counter()
    decision = same_answer(*pair)
    failure = ""
    if decision.same is None and (cached := _cached(pair)):
        decision = cached
    elif decision.same is None:
        if pair[2] == "code":
            failure = "code differs; only a run can compare it"
        elif not (failure := unfit_for_algebra(pair[1]) or unfit_for_algebra(pair[0])):
            return None
    return Outcome(decision, failure, time.perf_counter() - start)


def unfit_for_algebra(answer: str) -> str:
    """Why a computer algebra system must not be given this answer; "" where it may. Linear in the text."""
    if len(answer) > MAX_ALGEBRA_CHARS:
        return f"answer of {len(answer)} characters"
    depth = deepest = 0
    for bracket in _BRACKET.findall(answer):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_ALGEBRA_DEPTH:
        return f"answer nested {deepest} deep"
    return "power or factorial too large" if holds_tower(answer) else ""


def _cached(pair: Pair) -> Decision | None:
    with _cache_lock:
        if pair in _cache:
            _cache.move_to_end(pair)
        return _cache.get(pair)


def _remember(pair: Pair, same: Decision) -> None:
    with _cache_lock:
        _cache[pair] = same
        if len(_cache) > CACHE_SIZE:
            _cache.popitem(last=False)


def warm_up() -> None:
    """Fills the caches of grammar and algebra, and its lazy imports, once, before workers are forked off."""
    for pair in _WARM_UP:
        _second_opinion((*pair, "math"))
    for gold, predicted in (("|x+y|", "x+y"), ("x^2<4", "-2<x<2")):
        same_answer(gold, predicted, deep=True)


def _same_answer(pair: Pair) -> Decision:
    """Runs in a worker: SymPy on what the grammar reads, and math-verify on what it does not read or decide."""
    fix_draws()
    decision = same_answer(*pair, deep=True)
    return decision if decision.same is not None else _second_opinion(pair)


def _second_opinion(pair: Pair) -> Decision:
    """math-verify without its alarms, since the parent holds the clock.

    Its False counts only where it read both answers to the end and our grammar did not.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    # Its other extractor hands plain text to `parse_expr`, which evaluates it as Python.
    config = [LatexExtractionConfig()]
    gold, predicted = (
        parse(f"${_one_formula(text)}$", config, parsing_timeout=None, raise_on_error=True)
        for text in pair[:2]
    )
    if verify(gold, predicted, timeout_seconds=None, allow_set_relation_comp=True):
        return Decision(True, "math-verify")
    parsed = zip(pair[:2], (gold, predicted), strict=True)
    whole = all(_read_to_the_end(text, objects) for text, objects in parsed)
    return Decision(
        False if whole and not all(map(readings, pair[:2])) else None, "math-verify" if whole else ""
    )


def _read_to_the_end(text: str, parsed: list[Any]) -> bool:
    """Whether every number and every letter of an answer is in what math-verify made of it."""
    objects = [found for found in parsed if not isinstance(found, str)]
    if not objects:
        return False
    said = re.sub(r"\\[A-Za-z]+", " ", text)
    kept = re.findall(r"[0-9]+|[A-Za-z]", " ".join(map(str, objects)))
    return all(part in kept for part in re.findall(r"[0-9]+|[A-Za-z]", said))


def _one_formula(text: str) -> str:
    """The answer as the inside of one formula on one line."""
    text = " ".join(text.replace("$", " ").split())
    return text if "\\begin" in text else text.replace("\\\\", "\\")
