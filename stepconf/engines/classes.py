"""The engines that come with stepconf, as `kinds.ENGINES` names them; each is imported as it is opened."""

from typing import TYPE_CHECKING

from stepconf.engines.base import Engine, EngineClass
from stepconf.errors import StepconfError
from stepconf.recipe import Recipe

if TYPE_CHECKING:
    from stepconf.engines.transformers import TransformersEngine


def _vllm(model: str, recipe: Recipe) -> Engine:
    from stepconf.engines.vllm import VllmEngine

    options = recipe.engine
    return VllmEngine(
        model,
        revision=recipe.model_revision,
        dtype=options.dtype,
        seed=recipe.sampling.seed,
        max_model_len=options.max_model_len,
        tensor_parallel=options.tensor_parallel,
        trust_remote_code=options.trust_remote_code,
        options=options.options,
    )


def open_transformers(model: str, recipe: Recipe) -> "TransformersEngine":
    """The reference engine; raises StepconfError where torch is missing or the model cannot be loaded."""
    try:
        from stepconf.engines.transformers import TransformersEngine
    except ImportError as error:
        raise StepconfError(
            f"the transformers engine needs torch, which cannot be imported: {error}",
            "Type: make environment in a checkout, or pip install torch",
        ) from error
    return TransformersEngine(
        model,
        revision=recipe.model_revision,
        dtype=recipe.engine.dtype,
        max_model_len=recipe.engine.max_model_len,
        trust_remote_code=recipe.engine.trust_remote_code,
    )


def _server(model: str, recipe: Recipe) -> Engine:
    from stepconf.engines.server import ServerEngine

    return ServerEngine(model, recipe)


VLLM = EngineClass(
    _vllm,
    on_share=lambda share: {"gpu_memory_utilization": round(0.9 * share, 3)},
    holds_schemas=True,
)
TRANSFORMERS = EngineClass(open_transformers, reproducible=True)
OPENAI = EngineClass(_server)
