"""Searches that come, and go, while others are under way; on a scripted policy."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from queue import SimpleQueue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepconf.engines.base import Completion, EngineCrashed, SampleRequest
from stepconf.inference.base import Question, Result, Search, Spent, StepScore, failed
from stepconf.inference.live import Live
from stepconf.inference.run import Clock, answer
from stepconf.inference.strategies import search
from tests.inference.scripted import PROMPT, Policy, Says, ScriptedEngine, question, setting

ANSWER = Says("The answer is 7", 0.9, True)
LINES = [Says("One line more.\n", 0.9), Says("Another line.\n", 0.8)]
PATIENCE_S = 60


@contextmanager
def live(policy: Policy) -> Iterator[tuple[Live, ScriptedEngine]]:
    engine = ScriptedEngine(policy)
    with run(Live(engine)) as running:
        yield running, engine


@contextmanager
def run(running: Live) -> Iterator[Live]:
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def cat(key: str, **infer: object) -> Callable[[], Search]:
    return lambda: search("cat", question(key), setting(k=2, tau=0, **infer))  # type: ignore[arg-type]


def greedy(key: str) -> Callable[[], Search]:
    return lambda: search("greedy", question(key), setting())


def test_every_question_has_its_own_answer() -> None:
    told: SimpleQueue[Result | Exception] = SimpleQueue()
    with live(lambda before: [ANSWER]) as (running, _):
        senders = [
            threading.Thread(
                target=lambda n=n: [
                    running.submit(f"{n}-{i}", greedy(f"{n}-{i}"), told.put) for i in range(25)
                ]
            )
            for n in range(8)
        ]
        for sender in senders:
            sender.start()
        found = [told.get(timeout=PATIENCE_S) for _ in range(200)]
    keys = [one.key for one in found if isinstance(one, Result) and one.answer == "7"]
    assert sorted(keys) == sorted(f"{n}-{i}" for n in range(8) for i in range(25))
    assert told.empty()


def test_one_joins_while_another_is_under_way() -> None:
    entered, go_on = threading.Event(), threading.Event()
    told: SimpleQueue[Result | Exception] = SimpleQueue()

    def policy(before: str) -> list[Says]:
        entered.set()
        assert go_on.wait(PATIENCE_S)
        return LINES if before.count("\n") < 6 else [ANSWER]

    with live(policy) as (running, _):
        running.submit("long", cat("long"), told.put)
        assert entered.wait(PATIENCE_S)
        running.submit("short", greedy("short"), told.put)
        go_on.set()
        found = [told.get(timeout=PATIENCE_S) for _ in range(2)]
    assert [one.key for one in found if isinstance(one, Result)] == ["short", "long"]


def test_a_wide_tree_takes_turns_with_others() -> None:
    entered, go_on = threading.Event(), threading.Event()
    told: SimpleQueue[Result | Exception] = SimpleQueue()

    def policy(before: str) -> list[Says]:
        if before.count("\n") == 4 and not entered.is_set():
            entered.set()
            assert go_on.wait(PATIENCE_S)
        return [Says(f"Line {i} of {before.count(chr(10))}.\n", 0.9) for i in range(40)]

    with live(policy) as (running, engine):
        wide = search("cat", question("wide"), setting(k=40, tau=0, stop_early=False))
        running.submit("wide", lambda: wide, told.put)
        assert entered.wait(PATIENCE_S)
        asked = len(engine.asked)
        running.submit("short", greedy("short"), told.put)
        go_on.set()
        found = told.get(timeout=PATIENCE_S)
        running.give_up("wide")
    assert isinstance(found, Result) and found.key == "short"
    assert engine.asked.index(("", 1)) <= asked + 2 * engine.burst


def test_one_that_is_given_up_costs_nothing_more() -> None:
    entered, go_on = threading.Event(), threading.Event()
    told: SimpleQueue[Result | Exception] = SimpleQueue()

    def policy(before: str) -> list[Says]:
        if before.count("\n") == 3 and not entered.is_set():
            entered.set()
            assert go_on.wait(PATIENCE_S)
        return LINES

    def closed() -> Search:
        try:
            return (yield from cat("long", stop_early=False)())
        finally:
            ended.set()

    ended = threading.Event()
    with live(policy) as (running, engine):
        running.submit("long", closed, told.put)
        assert entered.wait(PATIENCE_S)
        running.submit("waits", greedy("waits"), told.put)
        running.give_up("long")
        running.give_up("waits")
        running.give_up("nobody")
        asked = len(engine.asked)
        go_on.set()
        assert ended.wait(PATIENCE_S)
        running.submit("last", greedy("last"), told.put)
        found = told.get(timeout=PATIENCE_S)
    assert isinstance(found, Result) and found.key == "last" and told.empty()
    assert engine.given_up, "what the engine held of it was dropped"
    assert len(engine.asked) == asked + 1, "only the last question cost anything after that"


def test_a_fault_in_one_ends_no_other() -> None:
    told: SimpleQueue[Result | Exception] = SimpleQueue()

    def unbegun() -> Search:
        raise ValueError("at once")

    def broken() -> Search:
        yield from greedy("a")()
        raise RuntimeError("in the midst")

    with live(lambda before: [ANSWER]) as (running, _):
        running.submit("a", broken, told.put)
        running.submit("b", unbegun, told.put)
        running.submit("c", greedy("c"), told.put)
        found = [told.get(timeout=PATIENCE_S) for _ in range(3)]
        assert sorted(type(one).__name__ for one in found) == ["Result", "RuntimeError", "ValueError"]
    assert running.fault is None


def test_the_engines_end_is_told_to_all() -> None:
    told: SimpleQueue[Result | Exception] = SimpleQueue()
    entered, go_on = threading.Event(), threading.Event()

    def policy(before: str) -> list[Says]:
        entered.set()
        assert go_on.wait(PATIENCE_S)
        raise RuntimeError("the device is gone")

    with live(policy) as (running, _):
        for key in "abc":
            running.submit(key, greedy(key), told.put)
        assert entered.wait(PATIENCE_S)
        go_on.set()
        found = [told.get(timeout=PATIENCE_S) for _ in range(3)]
        assert all(isinstance(one, RuntimeError) for one in found)
        running.submit("late", greedy("late"), told.put)
        assert told.get(timeout=PATIENCE_S) is running.fault is not None


class Refusing(ScriptedEngine):
    """Crashes over prompts that end in one of `poison`, and lives; has `burst` requests when it does."""

    poison: Collection[str] = ()
    crashes = 0

    def completions(self, request: SampleRequest) -> list[Completion]:
        if chr(request.prompt_ids[-1]) in self.poison:
            self.crashes += 1
            raise EngineCrashed("it refuses a request.", out_of_memory=True)
        return super().completions(request)


def ending_in(mark: str) -> Callable[[], Search]:
    """A search whose prompt ends in a mark."""
    return lambda: search("greedy", Question(mark, mark, ([ord(c) for c in PROMPT + mark],)), setting())


@given(st.integers(1, 30), st.integers(1, 9), st.sets(st.integers(0, 29), max_size=12))
@settings(deadline=None)
def test_a_request_that_the_engine_refuses_fails_alone(count: int, burst: int, bad: set[int]) -> None:
    told: SimpleQueue[tuple[str, Result | Exception]] = SimpleQueue()
    marks = [chr(ord("A") + i) for i in range(count)]
    poison = {mark for i, mark in enumerate(marks) if i in bad}
    engine = Refusing(lambda before: [ANSWER], burst=burst)
    engine.poison = poison
    running = Live(engine)
    for mark in marks:
        running.submit(mark, ending_in(mark), lambda found, mark=mark: told.put((mark, found)))
    with run(running):
        found = dict(told.get(timeout=PATIENCE_S) for _ in marks)
        running.submit("z", ending_in("z"), lambda found: told.put(("z", found)))
        _, late = told.get(timeout=PATIENCE_S)
    assert isinstance(late, Result) and late.answer == "7" and running.fault is None and told.empty()
    for mark in marks:
        assert isinstance(found[mark], EngineCrashed) == (mark in poison)
    assert engine.crashes <= len(poison) * (2 + burst.bit_length())


def test_one_that_is_given_up_while_the_guilty_one_is_looked_for_is_not_asked_again() -> None:
    told: SimpleQueue[Result | Exception] = SimpleQueue()

    class GivingUp(Refusing):
        def completions(self, request: SampleRequest) -> list[Completion]:
            try:
                return super().completions(request)
            finally:
                if self.crashes:
                    running.give_up("A")

    engine = GivingUp(lambda before: [ANSWER], burst=4)
    engine.poison = {"C"}
    running = Live(engine)
    for mark in "ABCD":
        running.submit(mark, ending_in(mark), told.put)
    with run(running):
        found = [told.get(timeout=PATIENCE_S) for _ in range(3)]
    assert running.fault is None and told.empty()
    assert sorted(one.key for one in found if isinstance(one, Result)) == ["B", "D"]
    assert not any(before == "A" for before, _ in engine.asked)


def test_steps_that_were_told_are_told_once_though_the_engine_crashes() -> None:
    """What a client has read stays: the search goes on where it was."""

    def policy(before: str) -> list[Says]:
        return LINES[:1] if before.count("\n") < 3 else [ANSWER]

    told: list[StepScore] = []
    how = setting(k=1, tau=0)
    how = replace(how, settled=told.append)
    engine = Refusing(policy, burst=2)
    engine.poison = {"B"}
    long = search("cat", question("long"), how)
    results: list[Result] = []

    def bad() -> Search:
        try:
            return (yield from ending_in("B")())
        except EngineCrashed as crash:
            return failed(question("bad"), str(crash), Spent())

    waiting = iter([long, None, None, bad()])
    results += answer(engine, (next(waiting, None) for _ in count()), abandoned=tuple)
    assert sorted(one.key for one in results) == ["bad", "long"] and engine.crashes == 2
    by_key = {one.key: one for one in results}
    assert told == by_key["long"].steps and by_key["long"].answer == "7"


def test_without_a_server_an_engine_that_refuses_all_ends_the_run() -> None:
    def caught(mark: str) -> Search:
        try:
            return (yield from ending_in(mark)())
        except EngineCrashed as crash:
            return failed(question(mark), str(crash), Spent())

    class Failing(Refusing):
        def completions(self, request: SampleRequest) -> list[Completion]:
            try:
                return super().completions(request)
            except EngineCrashed as crash:
                raise EngineCrashed(crash.problem, crash.hint) from crash

    engine = Failing(lambda before: [ANSWER])
    engine.poison = set("ABCDEFG")
    with pytest.raises(EngineCrashed, match="3 requests in a row"):
        list(answer(engine, map(caught, "xyABCDEFGz")))
    engine.poison = set("AC")
    results = list(answer(engine, map(caught, "xABCDy")))
    assert sorted(one.key for one in results if one.failure) == ["A", "C"] and len(results) == 6
    with pytest.raises(EngineCrashed, match="refuses a request"):
        list(answer(engine, (ending_in(mark)() for mark in "xABy")))


@pytest.mark.parametrize("strategy", ["cat", "beam"])
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("stop_early", [True, False])
def test_settled_steps_are_the_first_of_the_answer(strategy: str, k: int, stop_early: bool) -> None:
    """On a policy whose branches part and die out, so that steps are settled one after another."""

    def policy(before: str) -> list[Says]:
        n = before.count("\n")
        if n >= 5:
            return [ANSWER]
        sure = [
            Says(f"We add 1 to {n}.\n", 0.99),
            Says(f"Doubt {n} grows.\n", 0.4),
            Says(f"It is {n}", 0.3, True),
        ]
        return sure if "Doubt" not in before else [Says("Nothing.\n", 0.2)]

    told: list[tuple[int, StepScore]] = []
    engine = ScriptedEngine(policy)
    how = setting(k=k, tau=0.05, strategy=strategy, stop_early=stop_early)
    how = type(how)(
        *(getattr(how, name) for name in ("infer", "sampling", "segment", "stop", "context", "equal")),
        settled=lambda step: told.append((len(engine.asked), step)),
    )
    found = next(answer(engine, [search(strategy, question(), how)], Clock()))
    steps = [step for _, step in told]
    assert found.answer == "7" and steps == found.steps[: len(steps)] and steps
    assert k != 1 or told[0][0] < len(engine.asked), "the first step is told before the tree ends"
