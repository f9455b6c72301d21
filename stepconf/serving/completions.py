"""The wire format of raw completions: token ids in, token ids out, with exact statistics of every token.

As OpenAI's `/v1/completions` with vLLM's `return_token_ids`, so that `--engine openai` on another machine is the engine
of this one. Fields that are not honoured are refused by name. Each choice has `token_ids` and, under `stepconf`,
`logprobs`, `entropies` (nats, full vocabulary), `max_probs`, `n_sampled` and the engine's `finish_reason`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepconf.engines.base import Completion, EngineInfo, Sampling
from stepconf.inference.base import Ask
from stepconf.recipe import Recipe
from stepconf.serving.chat import Refused, explained


class Extension(BaseModel):
    """What only this server honours."""

    model_config = ConfigDict(extra="forbid")

    until: list[str] = Field([], max_length=16)
    """As `Sampling.until`."""


class CompletionRequest(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid")

    model: str
    prompt: list[int] = Field(min_length=1)
    n: int = Field(1, ge=1)
    seed: int = Field(0, ge=0, lt=1 << 62)
    """Of the first of the n. With room for seed + n - 1 below 2**63, from where on a seed ends vLLM."""
    temperature: float = Field(1.0, ge=0, le=10)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(16, ge=1)
    stop: list[str] = Field([], max_length=16)
    return_token_ids: Literal[True] = True
    stream: Literal[False] = False
    stepconf: Extension = Extension()


@dataclass(frozen=True, slots=True)
class CompletionHead:
    """What an answer begins with."""

    id: str
    created: int
    model: str

    def completion(self, prompt_tokens: int, found: Sequence[Completion]) -> dict[str, Any]:
        """The whole answer."""
        drawn = sum(one.n_sampled for one in found)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": drawn,
            "total_tokens": prompt_tokens + drawn,
        }
        choices = [_choice(index, one) for index, one in enumerate(found)]
        named = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return named | {"choices": choices, "usage": usage}


def _choice(index: int, one: Completion) -> dict[str, Any]:
    own = {"finish_reason": one.finish_reason, "n_sampled": one.n_sampled, **asdict(one.scores)}
    return {
        "index": index,
        "text": "".join(one.pieces),
        "finish_reason": "length" if one.finish_reason == "length" else "stop",
        "logprobs": None,
        "token_ids": one.token_ids,
        "stepconf": own,
    }


def read_completion(body: bytes, recipe: Recipe, served: str, info: EngineInfo) -> Ask:
    """What a body asks the engine for, within the limits of `recipe.serve`.

    Args:
        body: hostile bytes.
        recipe: its `serve` has the limits.
        served: the one model's name.
        info: of the engine: its vocabulary and context.

    Raises:
        Refused: 400 or 404, with the field and what is wrong with it.
    """
    try:
        request = CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        raise explained(error, CompletionRequest) from error
    if request.model != served:
        raise Refused(
            404, f"the model {request.model!r} is not served; {served!r} is.", "model_not_found", "model"
        )
    if not all(0 <= token < info.vocabulary for token in request.prompt):
        raise Refused(400, f"the model has the tokens 0 to {info.vocabulary - 1}.", "invalid_value", "prompt")
    if len(request.prompt) >= info.max_model_len:
        message = (
            f"the prompt has {len(request.prompt)} tokens, and the model's context is {info.max_model_len}."
        )
        raise Refused(400, message, "context_length_exceeded", "prompt")
    if not all([*request.stop, *request.stepconf.until]):
        raise Refused(400, "stop and until take no empty string.", "invalid_value", "stop")
    limits = recipe.serve
    for name, value, most in (
        ("n", request.n, limits.max_k),
        ("max_tokens", request.max_tokens, limits.max_tokens),
        ("max_tokens", request.n * request.max_tokens, limits.max_spent),
    ):
        if value > most:
            raise Refused(400, f"{name}: {value} exceeds this server's {most}.", "limit_exceeded", name)
    sampling = Sampling(
        request.temperature,
        request.max_tokens,
        request.top_p,
        tuple(request.stop),
        tuple(request.stepconf.until),
    )
    return Ask(request.prompt, request.n, request.seed, sampling)
