"""Answers: finding them in text and comparing them, as far as that needs no computer algebra."""

from stepconf.core.answers.compare import same_answer_cheap
from stepconf.core.answers.extract import ANSWER_TYPES, AnswerType, boxed, extract_answer, gold_answer
from stepconf.core.answers.guard import unfit_for_algebra

__all__ = [
    "ANSWER_TYPES",
    "AnswerType",
    "boxed",
    "extract_answer",
    "gold_answer",
    "same_answer_cheap",
    "unfit_for_algebra",
]
