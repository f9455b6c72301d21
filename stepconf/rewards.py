"""Rewards with TRL's signature: `GRPOTrainer(reward_funcs=[stepconf.rewards.answer, stepconf.rewards.steps])`.

A reward is None where it does not apply, which is what `unknown` means; TRL leaves such rows out.
"""

from collections.abc import Sequence
from typing import Any

from stepconf.api.text import segment, verify_answers
from stepconf.core.claims import check_steps

__all__ = ["answer", "steps"]

Completion = str | Sequence[dict[str, Any]]  # plain text, or the messages of a conversation


def answer(completions: Sequence[Completion], answer: Sequence[str], **columns: Any) -> list[float | None]:
    r"""1 where a completion's answer is the one of the column `answer`, 0 where it is another, else None.

    >>> answer(["It is \\boxed{4}.", "It is \\boxed{5}."], ["4", "4"])
    [1.0, 0.0]
    """
    texts = [_text(completion) for completion in completions]
    found = verify_answers(list(zip(answer, texts, strict=True)))
    return [None if same is None else float(same) for same in found]


def steps(completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """The share of a completion's checked steps in which nothing false is stated; None where none can be checked.

    `columns` may hold `problem`, the text of the problems.

    >>> steps(["1 + 1 = 2", "1 + 1 = 3", "Hello."])
    [1.0, 0.0, None]
    """
    problems = columns.get("problem") or [""] * len(completions)
    return [
        _share(check_steps(problem, segment(_text(completion))))
        for problem, completion in zip(problems, completions, strict=True)
    ]


def _share(found: Sequence[Any]) -> float | None:
    labels = [one.label for one in found if one.label != "unknown"]
    return labels.count("correct") / len(labels) if labels else None


def _text(completion: Completion) -> str:
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
