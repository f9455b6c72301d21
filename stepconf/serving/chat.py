"""The wire format: requests as OpenAI's chat completions have them, answers with the confidence of every step.

Beside OpenAI's own fields a request may have those of `InferRecipe` (`strategy`, `k`, `tau`, ...), `answer_type`
and `instruction`; the Python client sends them as `extra_body`. Fields that are not honoured (`tools`, `user`,
`tau_run`, ...) are refused by name, not ignored.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from types import NoneType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepconf.core.answers import AnswerType
from stepconf.errors import StepconfError
from stepconf.inference.base import Result, StepScore
from stepconf.kinds import STRATEGIES, is_own
from stepconf.recipe import InferRecipe, PromptRecipe, Recipe, SamplingRecipe

_MAX_STOPS = 16


class Refused(Exception):
    """A request that is not answered: an HTTP status and what to tell the client."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code},
        }


class TextPart(BaseModel):
    """A piece of a message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    # What an answer of ours has beside its text, as clients send it back.
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None
    stepconf: Any = None

    def plain(self) -> dict[str, str]:
        """As chat templates take it."""
        parts = [self.content] if isinstance(self.content, str) else [part.text for part in self.content]
        return {"role": "system" if self.role == "developer" else self.role, "content": "\n".join(parts)}


class StreamOptions(BaseModel):
    """What a stream has at its end."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class ChatRequest(InferRecipe):
    """The body of a request. Of `InferRecipe`'s fields only those that are given count."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=1024)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    stop: str | list[str] | None = None
    answer_type: AnswerType = "math"
    instruction: str | None = None
    """In place of the server's, after the question."""
    n: Literal[1] | None = None
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    presence_penalty: float | None = Field(None, ge=0, le=0)
    store: Literal[False] | None = None
    # A path of this machine, which is the server's to choose.
    tau_run: None = None
    tau_quantile: None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that can be answered: the conversation, and how."""

    messages: list[dict[str, str]]
    infer: InferRecipe
    sampling: SamplingRecipe
    prompt: PromptRecipe
    stop: tuple[str, ...]
    answer_type: AnswerType
    stream: bool
    with_usage: bool


def read_request(body: bytes, recipe: Recipe, served: str) -> Asked:
    """What a body asks for, within the limits of `recipe.serve`.

    Args:
        body: hostile bytes.
        recipe: what holds where the request says nothing.
        served: the one model's name.

    Raises:
        Refused: 400 or 404, with the field and what is wrong with it.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise explained(error, ChatRequest) from error
    except StepconfError as error:
        raise Refused(400, str(error), "invalid_value") from error
    if request.model != served:
        raise Refused(
            404, f"the model {request.model!r} is not served; {served!r} is.", "model_not_found", "model"
        )
    if request.messages[-1].role != "user":
        raise Refused(400, "the last message must be the user's question.", "invalid_value", "messages")
    messages = [message.plain() for message in request.messages]
    if not messages[-1]["content"].strip():
        raise Refused(400, "the question is empty.", "invalid_value", "messages")
    given = {
        name: getattr(request, name) for name in InferRecipe.model_fields if name in request.model_fields_set
    }
    infer = recipe.infer.model_copy(update=given)
    if is_own(infer.strategy) and infer.strategy != recipe.infer.strategy:
        # A name of that form imports a module, which is the server's to choose.
        raise Refused(400, f"the strategy {infer.strategy!r} is not served.", "invalid_value", "strategy")
    sampling = _sampling(request, recipe)
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stop) > _MAX_STOPS or not all(stop):
        raise Refused(400, f"stop takes 1 to {_MAX_STOPS} strings, none empty.", "invalid_value", "stop")
    limits = recipe.serve
    if infer.k > limits.max_k:
        raise Refused(400, f"k={infer.k} exceeds this server's {limits.max_k}.", "limit_exceeded", "k")
    draws = STRATEGIES.load(infer.strategy).draws
    drawn = {"tree": 0, "k": infer.k, "at most k": infer.k}.get(draws, draws) * sampling.max_tokens
    if drawn > limits.max_spent:
        message = f"{drawn} tokens (k x max_tokens) exceed this server's {limits.max_spent} for one request."
        raise Refused(400, message, "limit_exceeded", "max_tokens")
    budget = min(infer.token_budget or limits.max_spent, limits.max_spent)
    prompt = recipe.prompt
    if request.instruction is not None:
        prompt = prompt.model_copy(update={"instruction": request.instruction})
    return Asked(
        messages,
        infer.model_copy(update={"token_budget": budget}),
        sampling,
        prompt,
        tuple(stop),
        request.answer_type,
        request.stream,
        request.stream_options is not None and request.stream_options.include_usage,
    )


def _sampling(request: ChatRequest, recipe: Recipe) -> SamplingRecipe:
    most = recipe.serve.max_tokens
    wanted = request.max_completion_tokens or request.max_tokens
    if wanted is not None and wanted > most:
        raise Refused(
            400, f"max_tokens={wanted} exceeds this server's {most}.", "limit_exceeded", "max_tokens"
        )
    given: dict[str, Any] = {name: getattr(request, name) for name in ("temperature", "top_p", "seed")}
    given["max_tokens"] = wanted or min(recipe.sampling.max_tokens, most)
    return recipe.sampling.model_copy(update={k: v for k, v in given.items() if v is not None})


def explained(error: ValidationError, form: type[BaseModel]) -> Refused:
    """The first thing that is wrong with a body, and the field of its form that may be meant."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "none_required"):
        taken = [name for name, field in form.model_fields.items() if field.annotation is not NoneType]
        near = get_close_matches(where, taken, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return Refused(400, f"{where} is not supported.{hint}", "unsupported_parameter", where)
    if first["type"] == "json_invalid":
        return Refused(400, f"the body is not JSON: {first['msg']}.", "invalid_json")
    return Refused(400, f"{where}: {first['msg']}.", "invalid_value", where or None)


@dataclass(frozen=True, slots=True)
class Head:
    """What every part of one answer begins with."""

    id: str
    created: int
    model: str

    def completion(self, result: Result) -> dict[str, Any]:
        """The whole answer."""
        message = {
            "role": "assistant",
            "content": None if result.answer is None else result.text,
            "refusal": result.failure or None,
            "stepconf": {"steps": [step_fields(step) for step in result.steps], **summary(result)},
        }
        choice = {"index": 0, "message": message, "finish_reason": finish_reason(result), "logprobs": None}
        return self._fields("chat.completion") | {"choices": [choice], "usage": usage(result)}

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        """A part of a streamed answer."""
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish, "logprobs": None}
        return self._fields("chat.completion.chunk") | {"choices": [choice]}

    def step(self, step: StepScore) -> dict[str, Any]:
        """A chunk that holds one step."""
        return self.chunk({"content": step.text, "stepconf": {"step": step_fields(step)}})

    def end(self, result: Result) -> dict[str, Any]:
        """The last chunk of an answer."""
        failure = {"refusal": result.failure} if result.failure else {}
        return self.chunk({**failure, "stepconf": summary(result)}, finish_reason(result))

    def usage(self, result: Result) -> dict[str, Any]:
        """The last chunk, where the client asked for it."""
        return self._fields("chat.completion.chunk") | {"choices": [], "usage": usage(result)}

    def _fields(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def step_fields(step: StepScore) -> dict[str, Any]:
    """A step as clients see it; entropy in nats."""
    return {
        "text": step.text,
        "confidence": step.confidence,
        "cumulative_confidence": step.cumulative_confidence,
        "entropy_mean": step.entropy_mean,
        "n_tokens": len(step.token_ids),
    }


def summary(result: Result) -> dict[str, Any]:
    """What there is to say of an answer besides its steps."""
    return {
        "strategy": result.strategy,
        "answer": result.answer,
        "confidence": result.confidence,
        "failure": result.failure,
        "samples": [asdict(sample) for sample in result.samples],
        "spent": asdict(result.spent),
        "seconds": result.seconds,
    }


def finish_reason(result: Result) -> Literal["stop", "length"]:
    """Why there is no more: only where no answer came of it can the length be to blame."""
    spent = result.spent
    cut = result.answer is None and bool(spent.out_of_tokens or spent.context_full)
    return "length" if cut else "stop"


def usage(result: Result) -> dict[str, int]:
    """Tokens; those of pruned branches and of other samples count as completion tokens."""
    prompt, spent = len(result.prompt_ids), result.spent.tokens
    return {"prompt_tokens": prompt, "completion_tokens": spent, "total_tokens": prompt + spent}
