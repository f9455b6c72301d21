"""The one Protocol of language models: sample continuations of token ids, and score given token ids."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, Literal, Protocol

from stepconf.core.records import TokenScores
from stepconf.core.topk import TopkScores
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError
from stepconf.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. `temperature` 0 is greedy; `stop` strings end a completion and are not part of it.

    `until` strings end it too, and the token that completes one is its last: a place to go on from.
    `json_schema`: a JSON Schema, as JSON, to which the text is held. Scores are of the raw distribution, or empty.
    """

    temperature: float
    max_tokens: int
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    until: tuple[str, ...] = ()
    json_schema: str | None = None


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """`n` continuations of `prompt_ids`; number i has the random stream `seed + i`. `key` is the caller's."""

    key: str
    prompt_ids: list[int]
    n: int
    seed: int
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Completion:
    """A sampled continuation. `pieces[i]` is the text that token i adds; their join is the text.

    The end-of-sequence token and stop strings are not part of it: `finish_reason` "stop" says that the model
    ended by itself, "length" that the token limit did, "until" that a string of `Sampling.until` was reached.
    `n_sampled` counts all tokens that were drawn, those that are not part of it too. `scores` are empty and `topk` is
    set where a server gives the likeliest tokens only. Of one that gives text alone there are no ids, and one piece;
    `n_sampled` is what it counts, 0 where it does not.
    """

    token_ids: list[int]
    pieces: list[str]
    scores: TokenScores
    finish_reason: Literal["stop", "length", "until"]
    n_sampled: int = 0
    topk: TopkScores | None = None


def joined(first: Completion, second: Completion) -> Completion:
    """A completion, and what was sampled or put after it."""
    return Completion(
        first.token_ids + second.token_ids,
        first.pieces + second.pieces,
        first.scores + second.scores,
        second.finish_reason,
        first.n_sampled + second.n_sampled,
    )


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Score `token_ids` after `prefix_ids` (at least one token). `key` is the caller's."""

    key: str
    prefix_ids: list[int]
    token_ids: list[int]


TEXT_ALONE = "text"  # the runner of a server that gives no token ids


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What ran: stored with every dataset. `entropy_base` is always nats, over the raw distribution."""

    engine: str
    engine_version: str
    model: str
    model_revision: str
    dtype: str
    device: str
    runner: str
    vocabulary: int
    max_model_len: int

    @property
    def has_scores(self) -> bool:
        """Whether its completions have scores; those of a server that gives the likeliest tokens or text have none."""
        return self.runner not in ("tokens", TEXT_ALONE)


class EngineCrashed(StepconfError):
    """A model could not answer what was in flight; other requests it may answer.

    Args:
        dead: the engine has ended and must be opened again.
        out_of_memory: a single sample did not fit.
    """

    def __init__(
        self, problem: str, hint: str = "", *, dead: bool = False, out_of_memory: bool = False
    ) -> None:
        super().__init__(problem, hint)
        self.dead = dead
        self.out_of_memory = out_of_memory


def none_dropped() -> Collection[str]:
    """Every request is wanted to its end."""
    return ()


class Engine(Protocol):
    """A loaded model. Not safe to call from two threads at once.

    `sample` and `score` take their requests lazily, keep the device's batch full, and yield results as they
    finish, in any order. A `None` among the requests means "nothing to add now": the engine goes on with what
    it has, so that a caller can make requests out of earlier results (tree search). A prompt that leaves no room
    for a token within `info.max_model_len` is a ValueError; a completion that reaches it ends with "length".
    `dropped` is asked at every step for the keys of requests under way that are no longer wanted: they are given
    up, and nothing is yielded for them.
    """

    info: EngineInfo
    tokenizer: Tokenizer

    def sample(
        self, requests: Iterable[SampleRequest | None], dropped: Callable[[], Collection[str]] = none_dropped
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        """Completions of each request, in the order of their seeds."""
        ...

    def score(self, requests: Iterable[ScoreRequest | None]) -> Iterator[tuple[ScoreRequest, TokenScores]]:
        """Teacher-forced scores of each request's `token_ids`."""
        ...

    def close(self) -> None:
        """Free the device and end every process of the engine."""
        ...


def _nothing(share: float) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class EngineClass:
    """A kind of engine, by name in `kinds.ENGINES`.

    Args:
        open: loads a model, which is a Hub id or a local folder, as the recipe's `engine` says; raises StepconfError.
        reproducible: the same seeds give the same tokens, whatever else is in the batch.
        on_share: further `engine.options` where it has that share of a GPU, below 1.
        holds_schemas: it can hold a text to `Sampling.json_schema`; one that cannot raises StepconfError.
    """

    open: Callable[[str, Recipe], Engine]
    reproducible: bool = False
    on_share: Callable[[float], dict[str, Any]] = _nothing
    holds_schemas: bool = False


def check_fits(length: int, new_tokens: int, limit: int) -> None:
    """Raise ValueError where `length` + `new_tokens` exceeds the model's context."""
    if length + new_tokens > limit:
        raise ValueError(f"{length} + {new_tokens} tokens exceed the context of {limit}")


def finish(
    token_ids: list[int],
    scores: TokenScores,
    ended_by_model: bool,
    sampling: Sampling,
    tokenizer: Tokenizer,
) -> Completion:
    """A completion without its end-of-sequence token and without what a stop string cut off."""
    keep, paused = len(token_ids), False
    while keep and token_ids[keep - 1] in tokenizer.end_ids:
        keep, ended_by_model = keep - 1, True
    pieces = tokenizer.pieces(token_ids[:keep])
    cut = cut_at_stop(pieces, sampling.stop)
    if cut is not None:
        keep, ended_by_model = cut, True
    elif (last := cut_behind(pieces, sampling.until)) is not None:
        # What an engine drew after the place is dropped; an end of sequence right there still ends it.
        ended_by_model, paused = ended_by_model and last == keep < len(token_ids), True
        keep = last
    trimmed = scores[:keep]
    reason: Literal["stop", "length", "until"] = "stop" if ended_by_model else "until" if paused else "length"
    return Completion(token_ids[:keep], pieces[:keep], trimmed, reason, len(token_ids))


def scores_of(columns: Sequence[Sequence[float]]) -> TokenScores:
    """The scores of tokens from the columns of `stats.token_stats`, each of one value per token."""
    logprobs, entropies, log_max, varentropies, means, log_second = map(list, columns)
    return TokenScores(
        logprobs, entropies, [exp(x) for x in log_max], varentropies, means, [exp(x) for x in log_second]
    )


def cut_at_stop(pieces: list[str], stop: tuple[str, ...]) -> int | None:
    """How many tokens to keep so that none starts at or after the first stop string; None without one.

    A token that straddles the stop string is kept whole: text and tokens always agree.
    """
    text = "".join(pieces)
    found = [at for at in (text.find(s) for s in stop) if at >= 0]
    if not found:
        return None
    at, position = min(found), 0
    for index, piece in enumerate(pieces):
        if position >= at:
            return index
        position += len(piece)
    return len(pieces)


def cut_behind(pieces: list[str], until: tuple[str, ...]) -> int | None:
    """How many tokens to keep so that the last one completes the first of the strings; None without one."""
    text = "".join(pieces)
    ends = [at + len(s) for at, s in ((text.find(s), s) for s in until) if at >= 0]
    if not ends:
        return None
    end, position = min(ends), 0
    for index, piece in enumerate(pieces):
        position += len(piece)
        if position >= end:
            return index + 1
    return len(pieces)
