"""Rewards with TRL's signature: `GRPOTrainer(reward_funcs=[rewards.final_answer, rewards.sound_steps])`.

A reward is None where it does not apply, which is what `unknown` means. TRL leaves a row out where every reward of it
is None; beside another reward, None adds 0. What a completion says is read in worker processes that are killed at a
deadline, so a text that stalls costs its own reward alone.
"""

import re
from collections.abc import Sequence
from typing import Any

from stepconf.api.text import pool, segment, verify_answers
from stepconf.core.answers import gold_answer
from stepconf.core.claims import check_steps

__all__ = ["calibrated", "final_answer", "sound_steps"]

Completion = str | Sequence[dict[str, Any]]  # plain text, or the messages of a conversation
Answer = str | float | None
_STATED = re.compile(
    r"""\bconfidence (?:\s(?:level|score))?
    (?:\s?\((?:0\s?(?:-|\N{EN DASH}|to)\s?|out\sof\s)?(?P<scale>\d{1,3}|%)\))?     # (0-100), (out of 10), (%)
    (?:\s(?:is|of|about|around)\b|[-\N{EN DASH}\N{EM DASH}]\s|[\s:=*_"'`~${]){0,9}
    (?P<number>[-\N{MINUS SIGN}]?(?:0,\d{1,9}|\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})(?:e[-\N{MINUS SIGN}+]?\d{1,3})?)
    (?!\d|[.,]\d|e[-\N{MINUS SIGN}+]?\d)
    (?![\s{}\\]{0,3}\^)                                                            # 0.9^5, 9 x 10^-1
    (?![\s\\,;]{0,6}(?:times|cdot|[x*\N{MULTIPLICATION SIGN}\N{MIDDLE DOT}])[\s\\,;]{0,6}10(?!\d))
    (?:\s?(?P<percent>\\?%|percent\b)|\s?(?:/|out\sof)\s?(?P<of>\d{1,9})\b)?""",
    re.IGNORECASE | re.VERBOSE,
)


def final_answer(
    completions: Sequence[Completion], answer: Sequence[Answer], **columns: Any
) -> list[float | None]:
    r"""1 where a completion's answer is the one of the column `answer`, 0 where it is another, else None.

    An answer is a value, or a solution that ends with one, as in GSM8K's column; None for a row that has none.

    >>> final_answer(["It is \\boxed{4}.", "It is \\boxed{5}.", "It is 6."], ["4", "2 + 2 = 4\n#### 4", None])
    [1.0, 0.0, None]
    """
    rows = [(one, _text(text)) for one, text in zip(answer, completions, strict=True)]
    found = iter(verify_answers([(gold_answer(str(one)), text) for one, text in rows if one is not None]))
    right = [None if one is None else next(found) for one, _ in rows]
    return [None if same is None else float(same) for same in right]


def sound_steps(completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """The share of a completion's checked steps in which nothing false is stated; None where none can be checked.

    `columns` may hold `problem`, the text of the problems.

    >>> sound_steps(["1 + 1 = 2", "1 + 1 = 3", "Hello."])
    [1.0, 0.0, None]
    """
    problems = columns.get("problem") or [""] * len(completions)
    items = [(problem or "", _text(one)) for problem, one in zip(problems, completions, strict=True)]
    return [outcome.value for outcome in pool().map(_sound_share, items)]


def calibrated(
    completions: Sequence[Completion], answer: Sequence[Answer], **columns: Any
) -> list[float | None]:
    r"""1 - (c - right)^2, a proper score (Brier's) of the confidence c that the answer is right; in [0, 1].

    c is the column `confidence` where there is one, else what the completion states last, as in `Confidence: 85%`
    or `confidence 0.85`. None without either, and where the answer is neither right nor wrong.

    >>> calibrated(["It is \\boxed{4}. Confidence: 90%", "It is \\boxed{5}. Confidence: 0.5"], ["4", "4"])
    [0.99, 0.75]
    """
    measured = columns.get("confidence") or [stated_confidence(_text(one)) for one in completions]
    right = final_answer(completions, answer)
    return [
        None if c is None or y is None or not 0 <= c <= 1 else round(1 - (c - y) ** 2, 12)
        for c, y in zip(measured, right, strict=True)
    ]


def stated_confidence(text: str) -> float | None:
    """The last confidence that a text states, from 0 to 1; None where there is none in that range.

    A number above 1 needs its scale: `85%`, `8/10`, `8 out of 10`, `Confidence (0-100): 85`.

    >>> stated_confidence("Confidence: 20%. On second thought, my confidence is 0.7"), stated_confidence("I am sure.")
    (0.7, None)
    """
    found = list(_STATED.finditer(text))
    if not found:
        return None
    stated = found[-1]
    scale = "%" if stated["percent"] else stated["of"] or stated["scale"] or "1"
    number = float(stated["number"].replace(",", ".").replace("\N{MINUS SIGN}", "-"))
    whole = 100.0 if scale == "%" else float(scale)
    return number / whole if whole and 0 <= number <= whole else None


def _sound_share(item: tuple[str, str]) -> float | None:
    """Runs in a worker."""
    problem, text = item
    labels = [one.label for one in check_steps(problem, segment(text)) if one.label != "unknown"]
    return labels.count("correct") / len(labels) if labels else None


def _text(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    return str(completion[-1]["content"] or "") if completion else ""
