"""A policy with known probabilities behind the engine Protocol: tokens are characters."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

from stepconf.core.records import TokenScores
from stepconf.core.segment import SegmentOptions
from stepconf.engines.base import Completion, EngineInfo, SampleRequest, finish, none_dropped
from stepconf.inference.base import Question, Setting
from stepconf.recipe import InferRecipe, SamplingRecipe

END = 0
CONTEXT = 400
PROMPT = "Q?\n"


class Characters:
    """A tokenizer whose tokens are characters."""

    digest = "characters"
    end_ids = frozenset({END})

    def pieces(self, token_ids: list[int]) -> list[str]:
        return [chr(i) for i in token_ids]


@dataclass(frozen=True)
class Says:
    """What the policy may say next: a text of this confidence (every token's entropy is -log of it)."""

    text: str
    confidence: float
    ends: bool = False


Policy = Callable[[str], Sequence[Says]]


@dataclass
class ScriptedEngine:
    """Draw i of a request is the policy's saying number i (modulo how many it has). Results come in bursts,
    the newest first, so that nothing may rely on their order."""

    policy: Policy
    context: int = CONTEXT
    burst: int = 3
    asked: list[tuple[str, int]] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    tokenizer: Any = field(default_factory=Characters)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("scripted", "0", "policy", "", "float32", "cpu", "script", 128, self.context)

    def sample(
        self, requests: Iterable[SampleRequest | None], dropped: Callable[[], Collection[str]] = none_dropped
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        held: list[SampleRequest] = []
        for request in requests:
            if request is not None:
                held.append(request)
            if request is None or len(held) == self.burst:
                assert held, "the stream says that it waits, and nothing is under way"
                yield from self._answered(held, dropped)
        yield from self._answered(held, dropped)

    def _answered(
        self, held: list[SampleRequest], dropped: Callable[[], Collection[str]]
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        while held:
            unwanted = dropped()
            self.given_up += [one.key for one in held if one.key in unwanted]
            held[:] = [one for one in held if one.key not in unwanted]
            if held:
                one = held.pop()
                yield one, self.completions(one)

    def completions(self, request: SampleRequest) -> list[Completion]:
        assert len(request.prompt_ids) + request.sampling.max_tokens <= self.context
        before = "".join(map(chr, request.prompt_ids)).removeprefix(PROMPT)
        self.asked.append((before, request.n))
        self.temperatures.append(request.sampling.temperature)
        sayings = self.policy(before)
        return [self._say(sayings[i % len(sayings)], request) for i in range(request.n)]

    def _say(self, said: Says, request: SampleRequest) -> Completion:
        text, how = said.text, request.sampling
        ends = [text.find(s) + len(s) for s in how.stop + how.until if s in text]
        ids = [ord(c) for c in text[: min(ends, default=None)]]
        ids += [END] if said.ends and len(ids) == len(text) else []
        ids = ids[: how.max_tokens]
        n = len(ids)
        others = [0.0] * n, [-log(128)] * n, [0.0] * n
        scores = TokenScores([0.0] * n, [-log(said.confidence)] * n, [1.0] * n, *others)
        return finish(ids, scores, False, request.sampling, self.tokenizer)

    def score(self, requests: Iterable[Any]) -> Iterator[Any]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def question(key: str = "q", text: str = "Q?") -> Question:
    return Question(key, text, ([ord(c) for c in PROMPT],))


def setting(
    max_tokens: int = 200, stop: tuple[str, ...] = (), context: int = CONTEXT, **infer: Any
) -> Setting:
    return Setting(
        InferRecipe(**infer),
        SamplingRecipe(max_tokens=max_tokens),
        SegmentOptions("lines", 1),
        stop,
        context,
        lambda kind: lambda a, b: a == b,
    )
