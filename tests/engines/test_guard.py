"""The guard: whatever crashes an engine, every request that does not is answered as if it had not happened."""

from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.engines.base import EngineCrashed, SampleRequest, Sampling
from stepconf.engines.guard import MAX_IN_A_ROW, Failed, Guard
from stepconf.engines.transformers import TransformersEngine
from stepconf.stages.chunks import Chunk
from stepconf.stages.stream import Made, Task, through
from tests.tiny import tiny_model


def request(number: int, n: int = 1) -> SampleRequest:
    return SampleRequest(str(number), [number], n, 0, Sampling(0.7, 8))


class Batching:
    """Answers `size` requests at a time, last first; dies of any in `poison` or at the `fatal`-th batch."""

    info: Any = None
    tokenizer: Any = None

    def __init__(self, size: int, poison: set[int], fatal: int, batches: list[int], memory: bool) -> None:
        self.size, self.poison, self.fatal, self.batches, self.memory = size, poison, fatal, batches, memory
        self.dead = False

    def sample(self, requests: Iterable[Any], dropped: Any = None) -> Iterator[tuple[Any, Any]]:
        assert not self.dead, "a dead engine was asked"
        source = iter(requests)
        while batch := self.batch(source):
            self.batches.append(len(batch))
            if self.poison & {one.prompt_ids[0] for one in batch} or len(self.batches) == self.fatal:
                self.dead = True
                raise EngineCrashed("it died.", dead=True, out_of_memory=self.memory)
            yield from ((one, f"answer {one.key}") for one in reversed(batch))

    def batch(self, source: Iterator[Any]) -> list[Any]:
        """Up to `size`, fewer where there are none to add now."""
        batch, waits = [], 0
        for one in source:
            if one is not None:
                batch.append(one)
            waits += one is None
            assert waits < 1000, "the source waits for the engine, which has nothing to do"
            if len(batch) == self.size or (batch and one is None):
                break
        return batch

    def score(self, requests: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        return self.sample(requests)

    def close(self) -> None:
        assert self.dead


def guarded(size: int, poison: set[int], fatal: int = 0, memory: bool = False) -> tuple[Guard, list[int]]:
    batches: list[int] = []
    return Guard(lambda: Batching(size, poison, fatal, batches, memory), lambda sentence: None), batches


@given(
    st.integers(0, 40),
    st.integers(1, 9),
    st.sets(st.integers(0, 39), max_size=MAX_IN_A_ROW - 1),
    st.booleans(),
)
def test_only_the_poisoned_fail(count: int, size: int, poison: set[int], score: bool) -> None:
    guard, _ = guarded(size, poison)
    each: Any = guard.score_each if score else guard.sample_each
    results = [(asked.prompt_ids[0], result) for asked, result in each(map(request, range(count)))]
    assert sorted(number for number, _ in results) == list(range(count)), "each is answered once"
    for number, result in results:
        assert isinstance(result, Failed) == (number in poison)
        assert number in poison or result == f"answer {number}"


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 12))
def test_a_crash_that_does_not_come_back_costs_nothing(count: int, size: int, fatal: int) -> None:
    guard, _ = guarded(size, set(), fatal)
    results = list(guard.sample_each(map(request, range(count))))
    assert sorted(int(asked.key) for asked, _ in results) == list(range(count))
    assert not any(isinstance(result, Failed) for _, result in results)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.integers(1, 9),
    st.sets(st.integers(0, 11), max_size=MAX_IN_A_ROW - 1),
)
def test_a_source_that_waits_for_its_results_goes_on(sizes: list[int], size: int, poison: set[int]) -> None:
    """Chunks go through whole, also where the last request in flight is the one that crashes the engine."""

    def task(number: int) -> Task[SampleRequest]:
        made = Made()
        for _ in range(2):
            [result] = yield [request(number)]
            if isinstance(result, Failed):
                made.drops["failed"] += 1
                break
        return made

    numbers = count()
    chunks = [Chunk(str(i), "", list(islice(numbers, items))) for i, items in enumerate(sizes)]
    guard, _ = guarded(size, poison)
    done = list(through(iter(chunks), guard.sample_each, task, "sample"))
    assert sorted(chunk.name for chunk in done) == [chunk.name for chunk in chunks]
    assert all(chunk.drops["failed"] == len(poison & set(chunk.items)) for chunk in chunks)


def test_halving_takes_few_batches() -> None:
    guard, batches = guarded(64, {37})
    assert len(list(guard.sample_each(map(request, range(64))))) == 64
    assert len(batches) <= 1 + 2 * 6 + 1


@pytest.mark.parametrize("size", [1, 8])
def test_an_engine_that_always_crashes_ends_the_run(size: int) -> None:
    guard, batches = guarded(size, set(range(100)))
    with pytest.raises(EngineCrashed, match="on 3 requests in a row"):
        list(guard.sample_each(map(request, range(100))))
    assert len(batches) < 20


def test_crashes_are_counted_where_one_request_at_a_time_goes_through() -> None:
    def task(number: int) -> Task[SampleRequest]:
        [_] = yield [request(number)]
        return Made()

    guard, batches = guarded(8, set(range(100)))
    one_by_one = (chunk for number in range(100) for chunk in (Chunk(str(number), "", [number]), None))
    with pytest.raises(EngineCrashed, match="on 3 requests in a row"):
        list(through(one_by_one, guard.sample_each, task, "sample"))
    assert len(batches) < 20


def test_memory_that_is_short_for_one_request_ends_the_run() -> None:
    """What fits into a machine must not decide what is in the data."""
    guard, batches = guarded(4, {2}, memory=True)
    with pytest.raises(EngineCrashed, match="it died"):
        list(guard.sample_each(map(request, range(8))))
    assert batches == [4, 2, 2, 1] and batches[-1] == 1


class Small:
    """A head on a device with room for so many rows."""

    def __init__(self, head: Any, rows: int) -> None:
        self.head, self.rows, self.refused = head, rows, 0

    def __call__(self, hidden: Any) -> Any:
        import torch

        if len(hidden) > self.rows:
            self.refused += 1
            raise torch.OutOfMemoryError(f"{len(hidden)} rows, room for {self.rows}")
        return self.head(hidden)


def test_out_of_memory_makes_the_batch_smaller() -> None:
    engine = TransformersEngine(str(tiny_model()))
    ask = SampleRequest("a", engine.tokenizer.encode_prompt("1 + 2?"), 7, 5, Sampling(0.7, 12))
    [(_, whole)] = engine.sample([ask])
    engine._head = Small(engine._head, 2)
    [(_, parts)] = engine.sample([ask])
    assert engine._head.refused == 3, "7, once more, and 4"
    assert [one.token_ids for one in parts] == [one.token_ids for one in whole]
    assert parts[3].scores.entropies == pytest.approx(whole[3].scores.entropies, abs=1e-5)


def test_out_of_memory_for_one_sample_is_told() -> None:
    engine = TransformersEngine(str(tiny_model()))
    engine._head = Small(engine._head, 0)
    with pytest.raises(EngineCrashed, match="out of memory for a single sample") as caught:
        list(engine.sample([SampleRequest("a", [5], 4, 5, Sampling(0.7, 12))]))
    assert caught.value.out_of_memory and "max_tokens" in caught.value.hint
