"""An engine that outlives its crashes: the request to blame is found by halving, the others are answered.

A crash loses what was in flight. Those requests are asked again in halves, the halves that crash again in
theirs, until a request has crashed the engine twice, the second time alone: it gets `Failed` as its result,
once the engine has answered another or has none else to answer.
A crash that does not come back costs the work in flight and nothing else.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from stepconf.core.records import TokenScores
from stepconf.engines.base import Completion, Engine, EngineCrashed, SampleRequest, ScoreRequest, none_dropped

# So many requests one after the other, with no answer between: it is the engine that fails, not they.
MAX_IN_A_ROW = 3
CRASHED = "crashed the engine"

R = TypeVar("R", SampleRequest, ScoreRequest)


@dataclass(frozen=True, slots=True)
class Failed:
    """In the place of a result: why there is none."""

    reason: str


class Guard:
    """An engine, opened by `open_engine` and again when its process has died. See `engines.base.Engine`.

    `sample` and `score` are the engine's own, and raise what it raises; `sample_each` and `score_each` go on
    after a crash.

    Args:
        open_engine: loads the model.
        warn: gets a sentence about each crash.
    """

    def __init__(self, open_engine: Callable[[], Engine], warn: Callable[[str], None]) -> None:
        self._open, self._warn = open_engine, warn
        self._engine = open_engine()
        self.info, self.tokenizer = self._engine.info, self._engine.tokenizer

    def sample(
        self, requests: Iterable[SampleRequest | None], dropped: Callable[[], Collection[str]] = none_dropped
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        """As the engine."""
        return self._engine.sample(requests, dropped)

    def score(self, requests: Iterable[ScoreRequest | None]) -> Iterator[tuple[ScoreRequest, TokenScores]]:
        """As the engine."""
        return self._engine.score(requests)

    def close(self) -> None:
        """As the engine."""
        self._engine.close()

    def sample_each(
        self, requests: Iterator[SampleRequest | None]
    ) -> Iterator[tuple[SampleRequest, list[Completion] | Failed]]:
        """Completions of each request, or that it crashes the engine.

        Raises:
            StepconfError: the engine cannot be opened again, lacks memory for a single request, or crashes on
                `MAX_IN_A_ROW` requests, one after the other.
        """
        return self._each(requests, lambda group: self._engine.sample(group))

    def score_each(
        self, requests: Iterator[ScoreRequest | None]
    ) -> Iterator[tuple[ScoreRequest, TokenScores | Failed]]:
        """Scores of each request, or that it crashes the engine; raises as `sample_each`."""
        return self._each(requests, lambda group: self._engine.score(group))

    def _each(
        self, requests: Iterator[R | None], run: Callable[[Iterator[R | None]], Iterator[tuple[R, Any]]]
    ) -> Iterator[tuple[R, Any]]:
        blamed: list[R] = []  # not yet reported: the engine may be at fault, see MAX_IN_A_ROW
        in_a_row = 0
        groups: list[Iterator[R | None]] = [requests]  # the last one is next
        while groups:
            group = groups.pop()
            asked: dict[str, R] = {}
            try:
                for request, result in run(_noted(group, asked, blamed)):
                    del asked[request.key]
                    in_a_row = 0
                    yield from _failed(blamed)
                    yield request, result
            except EngineCrashed as crash:
                suspects = list(asked.values())
                if len(suspects) == 1 and group is not requests:
                    blamed.append(suspects.pop())
                    if crash.out_of_memory:
                        raise
                    in_a_row += 1
                    if in_a_row == MAX_IN_A_ROW:
                        raise engine_at_fault(crash) from crash
                elif not suspects:
                    raise
                self._recover(crash)
                middle = (len(suspects) + 1) // 2
                groups += [group, iter(suspects[middle:]), iter(suspects[:middle])]
            else:
                if group is requests and blamed:
                    yield from _failed(blamed)
                    groups.append(requests)  # it ended to let these out, or has ended and stays so

    def _recover(self, crash: EngineCrashed) -> None:
        self._warn(f"{crash.problem} Going on, with the requests in flight in smaller groups.")
        if crash.dead:
            self._engine.close()
            self._engine = self._open()


def engine_at_fault(crash: EngineCrashed) -> EngineCrashed:
    """The crash of an engine that has done so on `MAX_IN_A_ROW` requests, one after the other."""
    return EngineCrashed(
        f"{crash.problem} It did on {MAX_IN_A_ROW} requests in a row, so they are not to blame.",
        crash.hint or "Try another --engine, engine.dtype or model; stepconf doctor looks.",
    )


def _failed(blamed: list[R]) -> Iterator[tuple[R, Failed]]:
    while blamed:
        yield blamed.pop(0), Failed(CRASHED)


def _noted(requests: Iterator[R | None], asked: dict[str, R], blamed: list[R]) -> Iterator[R | None]:
    """The requests, up to where none comes before the blamed are reported: the engine has nothing else to do."""
    for one in requests:
        if one is not None:
            asked[one.key] = one
        elif blamed and not asked:
            return
        yield one
