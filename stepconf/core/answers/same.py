"""Whether two answers, as texts, are the same."""

import re
from itertools import product

from stepconf.core.answers.compare import Comparison
from stepconf.core.answers.literal import same_literal
from stepconf.core.answers.scalars import Scalars, any_of
from stepconf.core.answers.wording import readings
from stepconf.core.maths import algebra
from stepconf.core.maths.decide import WORDS, Decision
from stepconf.core.maths.forms import MAX_CHARS
from stepconf.core.maths.lexer import tokenize
from stepconf.core.maths.notation import UPRIGHT, folded
from stepconf.core.maths.tree import Node, nodes
from stepconf.core.maths.values import TooLargeError, UndecidableError, evaluate


def same_answer(gold: str, predicted: str, answer_type: str = "math", deep: bool = False) -> Decision:
    """Whether two answers are the same: decided only where certain.

    Args:
        gold: the reference answer.
        predicted: hostile text.
        answer_type: `math` and `number` compare values; `choice`, `yesno` and `string` compare words and are
            always certain; `literal` compares Python values and is too; `code` is certain only where the
            texts are equal.
        deep: whether SymPy may be asked. It has no bounds of its own: only in a worker that can be killed.
    """
    if answer_type in ("choice", "yesno", "string"):
        return Decision(_words(gold, answer_type) == _words(predicted, answer_type), WORDS)
    if answer_type == "literal":
        return Decision(same_literal(gold, predicted), WORDS)
    gold, predicted = (text.rstrip(" .$") if text.count("$") % 2 else text for text in (gold, predicted))
    if gold.split() == predicted.split():
        return Decision(bool(gold.strip()) or None, WORDS)
    if answer_type == "code":
        return Decision(None)
    if len(gold) <= MAX_CHARS and len(predicted) <= MAX_CHARS and _spelling(gold) == _spelling(predicted):
        return Decision(True, WORDS)
    scalars = Scalars(algebra.equal if deep else None)
    comparison = Comparison(scalars, algebra.solutions if deep else None)
    verdicts: list[bool | None] = []
    for a, b in product(readings(gold), readings(predicted)):
        try:
            verdicts.append(comparison.same(a, b))
        except (UndecidableError, RecursionError):
            verdicts.append(None)
    return Decision(any_of(verdicts), scalars.by)


def holds_tower(answer: str) -> bool:
    """Whether there is a power or factorial in an answer that is too large to be computed."""
    return any(_is_tower(node) for form in readings(answer) for node in nodes(form))


def _is_tower(node: Node) -> bool:
    try:
        evaluate(node, {})
    except TooLargeError:
        return True
    except UndecidableError:
        return False
    return False


def _spelling(answer: str) -> list[tuple[str, str]]:
    """The tokens of an answer, by which it is spelled like another one."""
    return [(t.kind, t.name) for t in tokenize(answer, answer=True) if t.kind != "comma"]


def _words(text: str, answer_type: str) -> str:
    words = UPRIGHT.sub(r"\1", folded(text)).replace("\\", "").casefold()
    words = " ".join(re.sub(r"[^\w\s.%/:+-]", " ", words).split()).rstrip(".")
    return {"true": "yes", "false": "no"}.get(words, words) if answer_type == "yesno" else words
