"""From the name of a strategy to its search for one question."""

from dataclasses import replace

from stepconf.engines.base import TEXT_ALONE, EngineInfo
from stepconf.errors import StepconfError
from stepconf.inference.base import Question, Search, Setting, Strategy
from stepconf.kinds import STRATEGIES
from stepconf.recipe import InferRecipe


def check_engine(name: str, infer: InferRecipe, engine: EngineInfo) -> None:
    """Raise StepconfError where the engine does not give what the strategy, or a budget for thinking, goes by."""
    if infer.reasoning_max_tokens is not None and engine.runner == TEXT_ALONE:
        raise StepconfError(
            f"infer.reasoning_max_tokens counts tokens, and the server of {engine.model} gives text alone.",
            "Leave it out, or take a server that knows return_token_ids.",
        )
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
