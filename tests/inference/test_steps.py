"""Steps of a tree: as `segment` cuts them, on exact tokens, with every token counted."""

import pytest

from stepconf.core.segment import SegmentOptions, segment
from stepconf.engines.base import SampleRequest
from stepconf.inference.base import Spent
from stepconf.inference.run import answer
from stepconf.inference.steps import Candidate, Path, Stepper, marks_answer
from stepconf.inference.strategies import search
from tests.inference.scripted import PROMPT, Says, ScriptedEngine, question, setting


def written(whole: str, ends: bool = True):  # type: ignore[no-untyped-def]
    """A policy that goes on with one text wherever it is."""

    def policy(before: str) -> list[Says]:
        assert whole.startswith(before)
        return [Says(whole[len(before) :], 0.9, ends)]

    return policy


def next_step(whole: str, before: str = "", ends: bool = True, **options: object) -> tuple[Candidate, Spent]:
    spent = Spent()
    stepper = Stepper([ord(c) for c in PROMPT], setting(**options), spent, 0)  # type: ignore[arg-type]
    engine = ScriptedEngine(written(whole, ends))
    asking = stepper.steps([(Path([ord(c) for c in before], before), 1)])
    asks = next(asking)
    while True:
        results = [engine.completions(SampleRequest("", a.prefix_ids, a.n, a.seed, a.sampling)) for a in asks]
        try:
            asks = asking.send(results)
        except StopIteration as end:
            return end.value[0][0], spent


TEXTS = [
    "3 + 4 = 7\n7 - 2 = 5\nThe answer is 5",
    "### First\n\nWe add the numbers.\n\n3 + 4 = 7\n\nSo it is 7.\n",
    "\\[\nx = 3\n\\]\nThen 2x is 6.\nAnd 3x is 9.",
    "a = 1\n\n\nb = 2\n\nc = 3",
    "Step 1: add.\nStep 2: so 3 + 4 = 7. The answer is 7.",
]


@pytest.mark.parametrize("text", TEXTS)
def test_steps_are_those_of_segment(text: str) -> None:
    engine = ScriptedEngine(written(text))
    # A marked answer ends a branch, so what is compared is what stands before it.
    found = next(answer(engine, [search("cat", question(), setting(k=1, tau=0))]))
    whole = segment(text, SegmentOptions("lines", 1))
    # A blank line is sampled behind the step's end: it leads the next step, where `segment` sees it trail.
    cut = [text[a:b].strip() for a, b in whole][: len(found.steps)]
    assert [step.text.strip() for step in found.steps] == cut
    assert found.text == "".join(step.text for step in found.steps)
    assert found.token_ids == [ord(c) for c in found.text]
    assert found.text.rstrip() == text.rstrip()


def test_tokens_behind_the_cut_are_dropped_and_counted() -> None:
    step, spent = next_step("so 3 + 4 = 7. The answer is 7.")
    assert (step.text, step.ending) == ("so 3 + 4 = 7. ", "step")
    assert spent.tokens == len("so 3 + 4 = 7. The answer is 7.") + 1
    assert len(step.token_ids) == len(step.scores) == len(step.text)


def test_a_heading_goes_on() -> None:
    step, spent = next_step("### Title\nIt is 5.\nThen 6.\n")
    assert (step.text, spent.requests) == ("### Title\nIt is 5.\n", 2)


def test_an_announcement_goes_on() -> None:
    step, spent = next_step("<think>\nLet's add them:\n3 + 4 = 7\nThen 6.\n")
    assert (step.text, spent.requests) == ("<think>\nLet's add them:\n3 + 4 = 7\n", 3)


def test_a_closing_tag_leads_the_next_step_or_ends_the_solution() -> None:
    step, _ = next_step("a = 1\n</think>\nb = 2\nc = 3", before="a = 1\n")
    assert step.text == "</think>\nb = 2\n"
    step, _ = next_step("a = 1\n</think>", before="a = 1\n")
    assert (step.text, step.ending) == ("</think>", "solution")


def test_a_stop_string_that_begins_in_the_step_before() -> None:
    step, spent = next_step("a = 1\n\nProblem: 2", before="a = 1\n", stop=("\n\nProblem:",), ends=False)
    assert (step.text, step.token_ids, step.ending) == ("", [], "solution")
    assert spent.tokens == len("\nProblem: 2")


def test_a_solution_that_had_ended() -> None:
    step, _ = next_step("a = 1\n", before="a = 1\n")
    assert (step.token_ids, step.ending) == ([], "solution")


@pytest.mark.parametrize(
    ("max_tokens", "context", "ending"), [(4, 400, "out_of_tokens"), (200, 7, "context_full")]
)
def test_no_room(max_tokens: int, context: int, ending: str) -> None:
    step, _ = next_step("a long line without an end", max_tokens=max_tokens, context=context)
    assert step.ending == ending and step.text == "a long line"[:4]


def test_marked_answers() -> None:
    assert marks_answer("The answer is 5\n", "math", "step")
    assert marks_answer("so \\boxed{5}\n", "number", "step")
    assert not marks_answer("3 + 4 = 7\n", "math", "step")
    assert not marks_answer("return 5\n", "code", "step")


@pytest.mark.parametrize("strategy", ["greedy", "cat", "beam", "particle", "deepconf-online"])
@pytest.mark.parametrize(
    "announced",
    [
        "Now the answer is easy to find.",
        "Thus, the answer is clear:",
        "The answer is obtained as follows:",
        "To find the answer: add the numbers.",
        "Let's break down the answer:\n1. First we add.",
        "The final answer is a number in dollars.",
    ],
)
def test_an_announcement_is_no_answer(strategy: str, announced: str) -> None:
    text = f"There are 3 and 4 apples.\n{announced}\nWe add: 3 + 4 = 7.\nThe answer is \\boxed{{7}}."
    found = next(answer(ScriptedEngine(written(text)), [search(strategy, question(), setting(k=2, tau=0))]))
    assert (found.answer, found.text) == ("7", text)


def test_words_are_the_answer_where_the_solution_ends() -> None:
    text = "We think of maps.\nThe answer is Paris.\n"
    found = next(answer(ScriptedEngine(written(text)), [search("cat", question(), setting(k=1, tau=0))]))
    assert (found.answer, found.text) == ("Paris", text)
