"""Answers: finding them in text and comparing them, as far as that needs no computer algebra."""

from stepconf.core.answers.compare import same_answer_cheap, too_large
from stepconf.core.answers.extract import ANSWER_TYPES, AnswerType, extract_answer, gold_answer

__all__ = [
    "ANSWER_TYPES",
    "AnswerType",
    "extract_answer",
    "gold_answer",
    "normalise",
    "same_answer_cheap",
    "too_large",
]
