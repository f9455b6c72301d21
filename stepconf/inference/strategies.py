"""From the name of a strategy to its search for one question."""

from dataclasses import replace

from stepconf.engines.base import EngineInfo
from stepconf.errors import StepconfError
from stepconf.inference.base import Question, Search, Setting, Strategy
from stepconf.kinds import STRATEGIES


def check_scored(name: str, engine: EngineInfo) -> None:
    """Raise StepconfError where the strategy goes by confidences, and the engine gives no scores to take them from."""
    strategy: Strategy = STRATEGIES.load(name)
    if strategy.by_confidence and not engine.has_scores:
        raise StepconfError(
            f"{name} goes by confidences, and the server of {engine.model} gives no entropies.",
            "Serve the model with stepconf serve, load it here (--engine vllm), or take a strategy that counts votes: "
            "self-consistency, adaptive-k, esc.",
        )


def search(name: str, question: Question, setting: Setting) -> Search:
    """The strategy's search for one question; its result bears the name.

    Raises:
        StepconfError: there is no such strategy.
    """
    strategy: Strategy = STRATEGIES.load(name)
    result = yield from strategy.search(question, setting)
    return replace(result, strategy=name)
