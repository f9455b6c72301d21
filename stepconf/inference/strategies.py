"""From the name of a strategy to its search for one question."""

from dataclasses import replace

from stepconf.inference.base import Question, Search, Setting, Strategy
from stepconf.kinds import STRATEGIES


def search(name: str, question: Question, setting: Setting) -> Search:
    """The strategy's search for one question; its result bears the name.

    Raises:
        StepconfError: there is no such strategy.
    """
    strategy: Strategy = STRATEGIES.load(name)
    result = yield from strategy.search(question, setting)
    return replace(result, strategy=name)
