"""The `final` verifier: is the solution's answer the reference answer?

math-verify is the checker. In front of it: exact cheap paths and a cache.
"""

import importlib.metadata
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from stepconf.core.answers import boxed, extract_answer, gold_answer, same_answer_cheap, unfit_for_algebra
from stepconf.core.records import Label, Solution, Solved, Verdict
from stepconf.verifiers.pool import Outcome, Pool

Pair = tuple[str, str, str]  # gold, predicted, answer type
CACHE_SIZE = 100_000
_WARM_UP = (
    ("x^2-\\frac{1}{2}", "x^2-\\frac{1}{3}"),
    ("\\{1,\\sqrt{2}\\}", "\\{1,\\sqrt{3}\\}"),
    ("1<|x|<2", "(1,2)\\cup(-2,-1)"),
    ("x=2y", "3y=x"),
    ("\\begin{pmatrix}1&2\\end{pmatrix}", "\\begin{pmatrix}1&3\\end{pmatrix}"),
)
_cache: OrderedDict[Pair, bool] = OrderedDict()
_cache_lock = threading.Lock()


def compare(pool: Pool, pairs: Sequence[Pair]) -> list[Outcome[bool]]:
    """Whether each predicted answer equals its gold answer; None with a failure where it cannot be told."""
    known: dict[Pair, Outcome[bool]] = {}
    open_pairs: list[Pair] = []
    bare: list[Pair] = [_bare(pair) for pair in pairs]
    for pair in dict.fromkeys(bare):
        outcome = _without_algebra(pair)
        if outcome:
            known[pair] = outcome
        else:
            open_pairs.append(pair)
    for pair, outcome in zip(open_pairs, pool.map(_same_answer, open_pairs), strict=True):
        known[pair] = outcome
        if outcome.value is not None:
            _remember(pair, outcome.value)
    return [known[pair] for pair in bare]


class FinalVerifier:
    """Judges the last step, the one that gives the answer; says nothing of the steps before it.

    A solution that stopped without any answer is `incorrect`; one that was cut at the token limit before it
    marked an answer is `unknown`, and so is one without a gold answer.
    """

    name = "final"

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.version = f"1+math-verify-{importlib.metadata.version('math-verify')}"

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
        outcomes = iter(compare(self.pool, [pair for pair in found if isinstance(pair, tuple)]))
        return [pair if isinstance(pair, Verdict) else self._verdict(next(outcomes)) for pair in found]

    def _without_comparing(self, solution: Solution) -> Verdict | Pair:
        """The verdict where there is nothing to compare, else the pair to compare."""
        if solution.gold_answer is None or not solution.gold_answer.strip():
            return Verdict(self.name, self.version, "unknown", reason="no gold answer")
        cut = solution.finish_reason == "length"
        predicted = extract_answer(solution.text, solution.answer_type, guess=not cut)
        if not cut and solution.predicted_answer is not None:
            predicted = solution.predicted_answer
        if predicted is None:
            if cut:
                return Verdict(self.name, self.version, "unknown", reason="cut off before an answer")
            return Verdict(self.name, self.version, "incorrect", 0.0, "no answer")
        return gold_answer(solution.gold_answer, solution.answer_type), predicted, solution.answer_type

    def _verdict(self, outcome: Outcome[bool]) -> Verdict:
        label: Label = "unknown" if outcome.value is None else "correct" if outcome.value else "incorrect"
        score = None if outcome.value is None else float(outcome.value)
        return Verdict(self.name, self.version, label, score, outcome.failure, outcome.seconds)


def _bare(pair: Pair) -> Pair:
    """Without the boxes around the answers."""
    gold, said, kind = pair
    return pair if kind in ("literal", "code") else (boxed(gold) or gold, boxed(said) or said, kind)


def _without_algebra(pair: Pair) -> Outcome[bool] | None:
    """What the exact paths, the guards and the cache can tell; None where math-verify must be asked."""
    start = time.perf_counter()
    gold, predicted, answer_type = pair
    same = same_answer_cheap(*pair)
    failure = ""
    if same is None and (same := _cached(pair)) is None:
        if answer_type == "code":
            failure = "code differs; only a run can compare it"
        elif not (failure := unfit_for_algebra(predicted) or unfit_for_algebra(gold)):
            return None
    return Outcome(same, failure, time.perf_counter() - start)


def _cached(pair: Pair) -> bool | None:
    with _cache_lock:
        if pair in _cache:
            _cache.move_to_end(pair)
        return _cache.get(pair)


def _remember(pair: Pair, same: bool) -> None:
    with _cache_lock:
        _cache[pair] = same
        if len(_cache) > CACHE_SIZE:
            _cache.popitem(last=False)


def warm_up() -> None:
    """Fills the caches of grammar and algebra, and its lazy imports, once, before workers are forked off."""
    for pair in _WARM_UP:
        _same_answer((*pair, "math"))


def _same_answer(pair: Pair) -> bool:
    """Runs in a worker: math-verify without its alarms, since the parent holds the clock."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    # Its other extractor hands plain text to `parse_expr`, which evaluates it as Python.
    config = [LatexExtractionConfig()]
    gold, predicted = (
        parse(f"${_one_formula(text)}$", config, parsing_timeout=None, raise_on_error=True)
        for text in pair[:2]
    )
    return bool(verify(gold, predicted, timeout_seconds=None, allow_set_relation_comp=True))


def _one_formula(text: str) -> str:
    """The answer as the inside of one formula on one line."""
    text = " ".join(text.replace("$", " ").split())
    return text if "\\begin" in text else text.replace("\\\\", "\\")
