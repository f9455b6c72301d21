"""`import stepconf` on text: steps, claims and answers. No model, no files."""

import atexit
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from stepconf.core.answers import Found, extract_answer, find_answer
from stepconf.core.claims import StepCheck, check_steps

if TYPE_CHECKING:
    from stepconf.workers.pool import Pool

__all__ = ["StepCheck", "check_steps", "extract_answer", "segment", "verify_answer", "verify_answers"]


def segment(text: str) -> list[str]:
    r"""The steps of a solution, in order. Joined, they are the text.

    >>> segment("First we add.\n\n1 + 1 = 2")
    ['First we add.\n\n', '1 + 1 = 2']
    """
    from stepconf.core.reasoning import divide
    from stepconf.core.segment import segment_parts

    return [text[start:end] for start, end in segment_parts(text, divide(text))]


def verify_answer(gold: str, predicted: str) -> bool | None:
    r"""Whether two answers are the same; None where that cannot be decided.

    Safe on hostile text: what needs a computer algebra system runs in processes with a deadline, which the
    first call that needs them starts.

    Args:
        gold: the reference answer. predicted: the answer to judge, or a text that marks it.

    >>> verify_answer("\\frac{1}{2}", "So it is \\boxed{0.5}."), verify_answer("10 km", "10 m")
    (True, False)
    """
    return verify_answers([(gold, predicted)])[0]


def verify_answers(pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
    """`verify_answer` of many pairs, in parallel."""
    from stepconf.verifiers.final import compare

    found = [find_answer(predicted) or Found(predicted, marked=True) for _, predicted in pairs]
    asked = [(gold, one.text, "math") for (gold, _), one in zip(pairs, found, strict=True)]
    same = [outcome.value.same if outcome.value else None for outcome in compare(pool(), asked)]
    # what nothing marks is a guess: that it differs shows nothing
    return [None if one is False and not said.marked else one for one, said in zip(same, found, strict=True)]


@lru_cache(maxsize=1)
def pool() -> "Pool":
    """The workers that compare answers, closed as the program ends."""
    from stepconf.workers.pool import Pool

    workers = Pool()
    atexit.register(workers.close)
    return workers
