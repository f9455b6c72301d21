"""Many searches in one stream of requests: a question that waits for nothing holds nobody up.

An engine that crashes and lives is asked again for what it had, in halves, those that crash it again in theirs. A
request that does so alone ends its own search; the others go on as if nothing had happened.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from stepconf.engines.base import Completion, Engine, EngineCrashed, SampleRequest
from stepconf.engines.guard import MAX_IN_A_ROW, engine_at_fault
from stepconf.inference.base import Ask, Result, Search

T = TypeVar("T")


@dataclass(slots=True)
class Clock:
    """Where the time went. `seconds` in all; `own` of them outside the engine, in searches and bookkeeping.

    `under_way_seconds`: continuations under way, added up over time; divided by `seconds`, how full the
    engine's batch was on average. `peak_under_way`: most of them at once.
    """

    seconds: float = 0.0
    own: float = 0.0
    under_way_seconds: float = 0.0
    peak_under_way: int = 0

    @property
    def occupancy(self) -> float:
        """Continuations under way, on average."""
        return self.under_way_seconds / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Open:
    """A search that waits for `missing` results."""

    search: Search
    started: float
    asks: list[Ask] = field(default_factory=list)
    missing: int = 0
    results: list[list[Completion]] = field(default_factory=list)


def answer(
    engine: Engine,
    searches: Iterable[Search | None],
    clock: Clock | None = None,
    abandoned: Callable[[], Iterable[Search]] | None = None,
) -> Iterator[Result]:
    """Run searches over one engine; yields each result as it comes, in any order.

    A search is started when the engine has room and no other search has a request to make.

    With `abandoned` it is a server's stream, which somebody waits for at each search: all are started as they
    come, and take turns at making requests. A `None` among the searches means that none is there for now; with
    none under way either, this ends. `abandoned` is asked at every step of the engine for searches that nobody
    waits for any more: they are closed and have no result.

    A search is thrown the `EngineCrashed` of its request; what it does not catch ends all.

    Raises:
        EngineCrashed: the engine is dead; or, but not of a server's stream, which others wait for, it lacks memory
            for a single request or crashes on `MAX_IN_A_ROW` of them, one after the other.
    """
    stream = _Stream(iter(searches), clock or Clock(), abandoned)
    answers = stream.asked(engine)
    try:
        while True:
            crash = found = None
            try:
                found = next(answers, None)
            except EngineCrashed as error:
                crash = error
            stream.enter()
            if crash is not None:
                stream.lost(crash)
                answers = stream.asked(engine)
            elif found is not None:
                stream.take(*found)
            done = list(stream.finished)
            stream.finished.clear()
            stream.leave()
            yield from done
            stream.resume()
            if found is None and crash is None:
                return
    finally:
        stream.stop()


class _Stream:
    def __init__(
        self,
        searches: Iterator[Search | None],
        clock: Clock,
        abandoned: Callable[[], Iterable[Search]] | None,
    ) -> None:
        self._searches, self._clock = searches, clock
        self._fair, self._abandoned = abandoned is not None, abandoned or tuple
        self._ready: dict[str, deque[tuple[str, Ask]]] = {}  # of each search, in the order of their turns
        self._open: dict[str, _Open] = {}
        self._sent: dict[str, SampleRequest] = {}  # what the engine has
        self._again: list[list[SampleRequest]] = []  # groups that it has lost, the last one next
        self._count = self._under_way = self._in_a_row = 0
        self.finished: deque[Result] = deque()
        self._started = self._seen = time.perf_counter()
        self._entered = 0.0

    def enter(self) -> None:
        """Our own work begins."""
        self._entered = self._tally()

    def leave(self) -> None:
        """Our own work ends."""
        self._clock.own += self._tally() - self._entered

    def resume(self) -> None:
        """What the caller did with its results is on neither clock."""
        self._seen = time.perf_counter()

    def stop(self) -> None:
        """Close what was not answered."""
        for one in self._open.values():
            one.search.close()

    def _tally(self) -> float:
        now = time.perf_counter()
        self._clock.under_way_seconds += self._under_way * (now - self._seen)
        self._clock.seconds += now - self._seen
        self._seen = now
        return now

    def asked(self, engine: Engine) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        """What the engine answers, from now on."""
        return (
            engine.sample(self._requests(), self._dropped) if self._fair else engine.sample(self._requests())
        )

    def _requests(self) -> Iterator[SampleRequest | None]:
        """The engine's stream: what it has lost, else what is ready, else another search, else nothing for now."""
        while True:
            self.enter()
            while self._again and not self._again[-1] and not self._sent:
                self._again.pop()
            busy = self._again or self._ready
            while (self._fair or not busy) and (search := next(self._searches, None)) is not None:
                self._begin(search)
                busy = busy or self._ready
            request = self._next()
            idle = request is None and not self._open
            self.leave()
            if idle:
                return
            yield request

    def take(self, request: SampleRequest, completions: list[Completion]) -> None:
        """Put a result where it is waited for."""
        name, _, part = request.key.partition("/")
        self._in_a_row = 0
        self._forget([request.key])
        waiting = self._open[name]
        waiting.results[int(part)] = completions
        waiting.missing -= 1
        if not waiting.missing:
            self._advance(name, waiting)

    def lost(self, crash: EngineCrashed) -> None:
        """Ask for what the engine had in halves; or end the search of a request that crashes it for the second time,
        alone."""
        suspects = self._forget(list(self._sent))
        if crash.dead or not suspects:
            raise crash
        if self._again and len(suspects) == 1:
            self._blame(suspects[0], crash)
        else:
            middle = (len(suspects) + 1) // 2
            self._again += [suspects[middle:], suspects[:middle]]

    def _blame(self, request: SampleRequest, crash: EngineCrashed) -> None:
        self._in_a_row += 1
        if not self._fair and crash.out_of_memory:
            raise crash
        if not self._fair and self._in_a_row == MAX_IN_A_ROW:
            raise engine_at_fault(crash) from crash
        name = request.key.partition("/")[0]
        self._unask(name)
        self._advance(name, self._open[name], crash)

    def _dropped(self) -> list[str]:
        """Close the searches that nobody waits for; the keys of their requests that the engine has."""
        keys: list[str] = []
        self.enter()
        for search in self._abandoned():
            name = next((name for name, one in self._open.items() if one.search is search), None)
            if name is not None:  # else it was answered in the meantime
                self._open.pop(name).search.close()
                keys += self._unask(name)
        self.leave()
        return keys

    def _unask(self, name: str) -> list[str]:
        """Ask nothing more for a search; the keys of its requests that the engine has."""
        self._ready.pop(name, None)
        self._again = [[one for one in group if one.key.partition("/")[0] != name] for group in self._again]
        keys = [key for key in self._sent if key.partition("/")[0] == name]
        self._forget(keys)
        return keys

    def _forget(self, keys: list[str]) -> list[SampleRequest]:
        """Requests that the engine has no more."""
        gone = [self._sent.pop(key) for key in keys]
        self._under_way -= sum(one.n for one in gone)
        return gone

    def _begin(self, search: Search) -> None:
        name = str(self._count)
        self._count += 1
        self._open[name] = _Open(search, time.perf_counter())
        self._advance(name, self._open[name])

    def _advance(self, name: str, waiting: _Open, crash: EngineCrashed | None = None) -> None:
        """Send a search its results, or what came in their place; queue what it asks for next."""
        try:
            if crash is not None:
                asks = waiting.search.throw(crash)
            else:
                asks = waiting.search.send(waiting.results) if waiting.results else next(waiting.search)
        except StopIteration as end:
            del self._open[name]
            result: Result = end.value
            self.finished.append(replace(result, seconds=time.perf_counter() - waiting.started))
            return
        waiting.asks, waiting.results, waiting.missing = asks, [[] for _ in asks], len(asks)
        self._ready[name] = deque((f"{name}/{part}", ask) for part, ask in enumerate(asks))

    def _next(self) -> SampleRequest | None:
        """What the engine is asked next; while it has a lost group, nothing else."""
        if self._again:
            request = self._again[-1].pop(0) if self._again[-1] else None
        else:
            request = _request(*self._turn()) if self._ready else None
        if request is not None:
            self._sent[request.key] = request
            self._under_way += request.n
            self._clock.peak_under_way = max(self._clock.peak_under_way, self._under_way)
        return request

    def _turn(self) -> tuple[str, Ask]:
        """The next request of the search whose turn it is."""
        name = next(iter(self._ready))
        found = self._ready[name].popleft()
        if not self._ready[name]:
            del self._ready[name]
        elif self._fair:
            self._ready[name] = self._ready.pop(name)
        return found


def _request(key: str, ask: Ask) -> SampleRequest:
    return SampleRequest(key, ask.prefix_ids, ask.n, ask.seed, ask.sampling)
