"""A model at an OpenAI-compatible server: sampled there, with what the server can give of each token.

Three kinds, found out before any work. `stepconf serve` gives token ids and exact statistics: its rows are those of
the engine that it runs. A server that returns token ids and the likeliest tokens (vLLM, SGLang) gives `entropy_topk`
and its bounds, no entropy. Any other one gives text alone. Token ids are never made from text again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from math import inf, isfinite, log
from pathlib import Path
from typing import Any, Literal

from stepconf.core.records import TokenScores
from stepconf.core.topk import topk_scores
from stepconf.engines.base import (
    Completion,
    EngineCrashed,
    EngineInfo,
    SampleRequest,
    Sampling,
    ScoreRequest,
    check_fits,
    finish,
    none_dropped,
)
from stepconf.engines.client import Client, Post, Reply, Servers, counted
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError
from stepconf.recipe import Recipe

_PROBE = "What is 2 + 2? Say why, in one line.\n"
_TOP = 20  # the most that vLLM gives unless it is set otherwise
_ROUNDING = 1e-3  # by which a server's number may leave its range
_UNSCORED = TokenScores([], [], [])


class ServerEngine:
    """See `engines.base.Engine`; it samples only.

    Args:
        model: a Hub id or local folder: its tokenizer, with which prompts are made.
        recipe: its `engine` says where the servers are.

    Raises:
        StepconfError: no server is named, or one does not answer, has other models or another tokenizer, or says
            nothing of its context.
    """

    def __init__(self, model: str, recipe: Recipe) -> None:
        options = recipe.engine
        urls = [options.base_url] if isinstance(options.base_url, str) else options.base_url or []
        if not urls:
            raise StepconfError(
                "the engine openai needs a server.", "Type: --set engine.base_url=http://127.0.0.1:8000/v1"
            )
        self.tokenizer = Tokenizer(model, recipe.model_revision, trust_remote_code=options.trust_remote_code)
        self._client = Client(
            Servers(
                tuple(urls),
                options.api_key_env,
                options.timeout_s,
                options.attempts,
                options.patience_s,
                options.concurrency,
            )
        )
        try:
            card = _card(self._client.models(), model)
            self._name = str(card["id"])
            own = card.get("stepconf")
            self._gives: Gives = "statistics" if isinstance(own, dict) else self._probed()
            self.info = self._described(card, model, recipe)
        except (
            BaseException
        ):  # Ctrl-C too: the client has a thread and connections, and nobody else can end them
            self.close()
            raise

    def sample(
        self, requests: Iterable[SampleRequest | None], dropped: Callable[[], Collection[str]] = none_dropped
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        """Completions of each request; `stepconf serve` is asked for all of one at once, others for one at a time.

        Raises:
            EngineCrashed: a server refuses a request.
            StepconfError: a server stays away, or its answers lack what they had at the start.
        """
        for post, reply in self._client.post_each(self._posts(requests), dropped):
            whole, part = post.tag
            if reply.failure:
                raise self._failed(reply)
            try:
                found = self._read(reply.data, whole.request)
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise StepconfError(
                    f"{self._name} answers without what it gave at the start: {type(error).__name__}: {error}.",
                    "The answers so far are kept. Look at the server, then type the same command again.",
                ) from error
            whole.parts[part] = found
            if len(whole.parts) == whole.n_parts:
                yield whole.request, [one for number in sorted(whole.parts) for one in whole.parts[number]]

    def score(self, requests: Iterable[ScoreRequest | None]) -> Iterator[tuple[ScoreRequest, TokenScores]]:
        """Not given by servers.

        Raises:
            StepconfError: always.
        """
        raise StepconfError(
            "a server samples; it does not score given solutions.",
            "Score with --engine vllm or transformers.",
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _posts(self, requests: Iterable[SampleRequest | None]) -> Iterator[Post | None]:
        for request in requests:
            if request is None:
                yield None
                continue
            check_fits(len(request.prompt_ids), 1, self.info.max_model_len)
            bodies = self._bodies(request)
            whole = _Whole(request, len(bodies))
            yield from (Post(request.key, "completions", body, (whole, i)) for i, body in enumerate(bodies))

    def _bodies(self, request: SampleRequest) -> list[dict[str, Any]]:
        how = request.sampling
        common = {
            "model": self._name,
            "prompt": request.prompt_ids,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "max_tokens": how.max_tokens,
        }
        if self._gives == "statistics":
            own = {"n": request.n, "seed": request.seed, **_stops(how.stop)}
            return [common | own | {"stepconf": {"until": list(how.until)}}]
        if self._gives == "tokens":
            common |= _stops((*how.stop, *how.until)) | {"stop_token_ids": sorted(self.tokenizer.end_ids)}
            common |= _TOKENS | _PLAIN | {"include_stop_str_in_output": True}
        else:
            if how.until:
                raise StepconfError(
                    f"{self._name} gives no token ids, so a solution cannot be continued from a step.",
                    "Sample whole solutions: --set branch.where=[]; or use a server that knows return_token_ids.",
                )
            common |= {"prompt": self._text(request.prompt_ids), **_stops(how.stop)}
        return [common | {"n": 1, "seed": request.seed + i} for i in range(request.n)]

    def _text(self, prompt_ids: list[int]) -> str:
        """A prompt as text, without the token in front that the server's tokenizer adds to any text."""
        front = self.tokenizer.encode_prompt("")
        is_added = len(front) == 1 and prompt_ids[:1] == front
        return self.tokenizer.decode(prompt_ids[1:] if is_added else prompt_ids)

    def _read(self, data: dict[str, Any], request: SampleRequest) -> list[Completion]:
        """The completions of one answer; raises what Python does of odd values where it is none."""
        choices = data["choices"]
        wanted = request.n if self._gives == "statistics" else 1
        if len(choices) != wanted:
            raise ValueError(f"{len(choices)} choices where {wanted} were asked for")
        if self._gives == "text":
            return [self._with_text(choices[0], data.get("usage"))]
        read = self._with_statistics if self._gives == "statistics" else self._with_tokens
        return [read(choice, request.sampling) for choice in choices]

    def _with_statistics(self, choice: dict[str, Any], sampling: Sampling) -> Completion:
        ids, own = _ids(choice["token_ids"], self.info.vocabulary), choice["stepconf"]
        ranges = _RANGES | {"entropies": (0.0, log(self.info.vocabulary))}
        scores = TokenScores(
            **{one.name: _numbers(own[one.name], len(ids), *ranges[one.name]) for one in fields(TokenScores)}
        )
        reason = own["finish_reason"]
        if reason not in ("stop", "length", "until"):
            raise ValueError(f"finish_reason {reason!r:.50}")
        return Completion(ids, self.tokenizer.pieces(ids), scores, reason, int(own["n_sampled"]))

    def _with_tokens(self, choice: dict[str, Any], sampling: Sampling) -> Completion:
        ids = _ids(choice["token_ids"], self.info.vocabulary)
        rows = choice["logprobs"]["top_logprobs"]
        if len(rows) != len(ids):
            raise ValueError(f"log-probabilities of {len(rows)} tokens for {len(ids)}")
        # A drawn token that is none of the likeliest stands among them, too.
        likeliest = [
            sorted(_numbers(list(row.values()), None, -inf, 0.0), reverse=True)[:_TOP] for row in rows
        ]
        ended = choice["finish_reason"] == "stop"
        found = finish(ids, _UNSCORED, ended, sampling, self.tokenizer)
        kept = topk_scores(likeliest, self.info.vocabulary)[: len(found.token_ids)]
        return Completion(found.token_ids, found.pieces, _UNSCORED, found.finish_reason, len(ids), kept)

    def _with_text(self, choice: dict[str, Any], usage: Any) -> Completion:
        """`usage` is that of this choice alone, since each is asked for by itself; what it lacks is 0."""
        text, reason = choice["text"], choice["finish_reason"]
        if not isinstance(text, str):
            raise ValueError("no text")
        drawn = counted(usage.get("completion_tokens")) if isinstance(usage, dict) else 0
        drawn = drawn if drawn <= self.info.max_model_len else 0
        return Completion([], [text], _UNSCORED, "stop" if reason == "stop" else "length", drawn)

    def _failed(self, reply: Reply) -> StepconfError:
        if 400 <= reply.status < 500 and reply.status not in (401, 403, 404, 429):
            return EngineCrashed(f"{self._name} refuses a request: {reply.failure}.")
        return StepconfError(
            f"no answer from the server of {self._name}: {reply.failure}.",
            "Start it again, then type the same command again: it goes on.",
        )

    def _probed(self) -> "Gives":
        """What the server gives of a token, of one that it draws now.

        Raises:
            StepconfError: it does not answer, or its tokenizer makes other ids of a text.
        """
        asked = {"model": self._name, "prompt": _PROBE, "max_tokens": 1, "temperature": 0.0}
        reply = self._client.post(Post("", "completions", asked | _TOKENS))
        if 400 <= reply.status < 500:
            reply = self._client.post(Post("", "completions", asked))
        if reply.failure:
            raise self._failed(reply)
        try:
            choice = reply.data["choices"][0]
            prompt = choice.get("prompt_token_ids") or reply.data.get("prompt_token_ids")
            ids, rows = choice["token_ids"], choice["logprobs"]["top_logprobs"]
        except (KeyError, IndexError, TypeError, AttributeError):
            return "text"
        if not ids or not rows or not rows[0]:
            return "text"
        if prompt is not None and prompt != self.tokenizer.encode_prompt(_PROBE):
            raise _other_tokenizer(self._name)
        return "tokens"

    def _described(self, card: dict[str, Any], model: str, recipe: Recipe) -> EngineInfo:
        own, limit = card.get("stepconf"), card.get("max_model_len") or recipe.engine.max_model_len
        if not isinstance(limit, int):
            raise StepconfError(
                f"the server does not say how many tokens {self._name} reads.",
                "Add --set engine.max_model_len=N",
            )
        limit = min(limit, recipe.engine.max_model_len or limit)
        if not isinstance(own, dict):
            vocabulary = self.tokenizer.vocabulary
            revision = recipe.model_revision or ""
            return EngineInfo("openai", "", model, revision, "", "", self._gives, vocabulary, limit)
        if own.get("tokenizer") != self.tokenizer.digest:
            raise _other_tokenizer(self._name)
        known = own.get("vocabulary")
        if not isinstance(known, int) or known < 1:
            raise StepconfError(
                f"the server does not say how many tokens {self._name} knows: vocabulary is {known!r:.50}.",
                "Ask a server that stepconf serve has started, of this version.",
            )
        same = {
            name: str(own.get(name, "")) for name in ("engine", "engine_version", "dtype", "device", "runner")
        }
        return EngineInfo(
            model=model,
            model_revision=str(own.get("model_revision", "")),
            vocabulary=known,
            max_model_len=limit,
            **same,
        )


Gives = Literal["statistics", "tokens", "text"]
_RANGES = {
    "logprobs": (-inf, 0.0),
    "max_probs": (0.0, 1.0),
    "varentropies": (0.0, inf),
    "mean_logprobs": (-inf, 0.0),
    "second_probs": (0.0, 0.5),
}
# What a server would take from the model's generation_config.json: the rows say temperature and top_p alone.
_PLAIN = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_TOKENS = {"logprobs": _TOP, "return_token_ids": True, "return_tokens_as_token_ids": True}


@dataclass(slots=True)
class _Whole:
    """A request, with the completions that have come of its parts."""

    request: SampleRequest
    n_parts: int
    parts: dict[int, list[Completion]] = field(default_factory=dict)


def _stops(texts: Sequence[str]) -> dict[str, list[str]]:
    """Where a text ends; some servers fail over an empty list."""
    return {"stop": list(texts)} if texts else {}


def _card(cards: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """That of the model: of its name, or the only one; some servers list none and answer nevertheless."""
    if not cards:
        return {"id": model}
    named = [card for card in cards if card["id"] in (model, Path(model).name)]
    if len(found := named or cards) != 1:
        names = ", ".join(str(card["id"])[:100] for card in cards[:10])
        raise StepconfError(
            f"the server has no model {model}: {names}.",
            "Give --model as the server names it, or serve one model.",
        )
    return found[0]


def _other_tokenizer(name: str) -> StepconfError:
    return StepconfError(
        f"the server's tokenizer of {name} is not that of --model.",
        "Give --model as the model that is served there: a Hub id, or a folder with its tokenizer.",
    )


def _ids(values: Any, vocabulary: int) -> list[int]:
    if not isinstance(values, list) or not all(isinstance(x, int) and 0 <= x < vocabulary for x in values):
        raise ValueError("token ids that the tokenizer does not have")
    return values


def _numbers(values: Any, n: int | None, low: float, high: float) -> list[float]:
    """Of `n` tokens, or of however many; what rounding took out of the range is put back."""
    if not isinstance(values, list) or (n is not None and len(values) != n):
        raise ValueError(f"statistics of {n} tokens are missing")
    numbers = [float(x) for x in values]
    if not all(map(isfinite, numbers)):
        raise ValueError("a statistic is not finite")
    if odd := [x for x in numbers if not low - _ROUNDING <= x <= high + _ROUNDING]:
        raise ValueError(f"a statistic is {odd[0]:.6g}, not from {low:.4g} to {high:.4g}")
    return [min(max(x, low), high) for x in numbers]
