"""Answers: finding them in text and comparing them."""

from stepconf.core.answers.boxes import boxed
from stepconf.core.answers.extract import (
    ANSWER_TYPES,
    AnswerType,
    Found,
    answer_part,
    extract_answer,
    find_answer,
    gold_answer,
)
from stepconf.core.answers.same import holds_tower, same_answer
from stepconf.core.answers.wording import readings

__all__ = [
    "ANSWER_TYPES",
    "AnswerType",
    "Found",
    "answer_part",
    "boxed",
    "extract_answer",
    "find_answer",
    "gold_answer",
    "holds_tower",
    "readings",
    "same_answer",
]
