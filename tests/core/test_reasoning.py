"""Thinking and answers told apart: shapes of output as reasoning models write it, and the laws that hold for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.answers import extract_answer
from stepconf.core.labels import TAKEN_BACK, label_steps, taken_back
from stepconf.core.reasoning import (
    FAMILIES,
    Thinking,
    after_thinking,
    divide,
    family_in,
    is_reconsidering,
    opened_by,
    part_of,
    takes_itself_back,
)
from stepconf.core.records import Verdict
from stepconf.core.segment import SegmentOptions, segment, segment_parts
from stepconf.core.steps import build_steps
from tests.thinking_shapes import SHAPES, Shape


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_is_divided_as_a_person_would(shape: Shape) -> None:
    parts = divide(shape.text, shape.thinking)
    assert extract_answer(shape.text, guess=not shape.cut, thinking=shape.thinking) == shape.answer
    spans = segment_parts(shape.text, parts)
    steps = [(part_of(shape.text, span, parts), shape.text[slice(*span)]) for span in spans]
    assert [(part, text.strip()) for part, text in steps] == list(shape.steps)
    assert "".join(text for _, text in steps) == shape.text
    assert (parts is not None and not parts.closed) == shape.endless


WORDS = st.lists(
    st.sampled_from(["Add 2 and 3.", "It is 5.", "\n", "\n\n", "Wait, no.", "$x = 2$", " "]), max_size=8
)
TEXTS = st.builds("".join, WORDS)


@given(family=st.sampled_from(FAMILIES), body=TEXTS, answer=TEXTS, opened=st.booleans())
def test_dividing_what_was_joined_gives_the_parts_back(
    family: tuple[str, ...], body: str, answer: str, opened: bool
) -> None:
    _, opening, closing, *_ = family
    text = f"{'' if opened else opening}{body}{closing}{answer}"
    parts = divide(text, Thinking(family[0], opened))
    assert parts is not None and parts.closed and parts.family == family[0]
    assert text[parts.body_start : parts.body_end] == body
    assert after_thinking(text, parts) == (answer if answer.strip() else "")


@given(text=TEXTS, mode=st.sampled_from(["auto", "lines", "paragraphs", "sentences"]))
def test_a_text_without_marks_is_answer_alone(text: str, mode: str) -> None:
    options = SegmentOptions(mode=mode)  # type: ignore[arg-type]  # one of its literals
    assert divide(text) is None
    assert segment_parts(text, None, options) == segment(text, options)


MARKS = [mark for family in FAMILIES for mark in (family.opening, family.closing)] + [
    "```",
    "```py\n",
    "`",
    "[asy]",
]
HOSTILE = st.builds("".join, st.lists(st.sampled_from(MARKS) | TEXTS | st.text(max_size=4), max_size=12))


@given(text=HOSTILE, family=st.sampled_from(["auto", "none", "think", "harmony"]), opened=st.booleans())
def test_spans_partition_any_text(text: str, family: str, opened: bool) -> None:
    parts = divide(text, Thinking(family, opened))
    if parts is not None:
        assert 0 <= parts.start <= parts.body_start <= parts.body_end <= parts.end <= len(text)
    spans = segment_parts(text, parts)
    assert [a for a, _ in spans] == [0, *(b for _, b in spans[:-1])][: len(spans)]
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)
    assert (family == "none") <= (parts is None)


@given(text=HOSTILE, at=st.integers(0, 200))
def test_what_follows_a_place_has_the_rest_of_the_thinking(text: str, at: int) -> None:
    parts = divide(text)
    at = min(at, len(text))
    rest = parts.after(at) if parts else None
    if parts is not None:
        assert (rest is None) == (parts.end <= at)
        assert rest is None or text[at:][: rest.end] == text[at : max(at, parts.end)]


def test_long_thinking_is_capped_and_whole() -> None:
    text = "<think>\n" + "We add one more and go on with it. " * 2000 + "\n</think>\n\nIt is 5."
    parts = divide(text)
    spans = segment_parts(text, parts, SegmentOptions(max_chars=500))
    assert max(end - start for start, end in spans) < 600 and len(spans) > 100
    assert part_of(text, spans[-1], parts) == "answer" and part_of(text, spans[-2], parts) == "reasoning"


@pytest.mark.parametrize(
    ("template", "family"),
    [
        ("{% if enable_thinking %}<think>\n{% endif %}", "think"),
        ("{{ '<|channel|>analysis<|message|>' + message.thinking }}", "harmony"),
        ("{{ '<|channel>thought\n' }}", "gemma"),
        ("{% for block in content %}[THINK]{{ block }}[/THINK]{% endfor %}", "mistral"),
        ("{% for message in messages %}{{ message.content }}{% endfor %}", "auto"),
    ],
)
def test_a_chat_template_names_its_family(template: str, family: str) -> None:
    assert family_in(template) == family


@pytest.mark.parametrize(
    ("prompt", "family", "opened"),
    [
        ("<|im_start|>assistant\n<think>\n", "auto", "think"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "think", ""),
        ("<|im_start|>assistant\n", "think", ""),
        ("assistant\n<think>\n", "none", ""),
        ("assistant\n<think>\n", "mistral", ""),
    ],
)
def test_a_prompt_opens_the_thinking(prompt: str, family: str, opened: str) -> None:
    assert opened_by(prompt, family) == opened


@pytest.mark.parametrize(
    "text",
    [
        "Wait, 7 * 8 is 56.", "Hmm, that is odd.", "Alternatively, factor it.", "Let me check: 2 + 2 = 4.",
        "So x = 3. But wait, x > 4.", "However, n must be even.", "Let me double-check this.", "等等，不对。",
    ],
)  # fmt: skip
def test_turns_of_thought(text: str) -> None:
    assert is_reconsidering(text)


@pytest.mark.parametrize(
    "text",
    ["They wait 5 minutes.", "We check that 2 + 2 = 4.", "Waiting time is 5.", "Wait time: 5 minutes."],
)
def test_no_turns_of_thought(text: str) -> None:
    assert not is_reconsidering(text)


def test_what_stands_before_a_turn_is_taken_back_by_the_step_itself() -> None:
    assert takes_itself_back("2 + 2 = 5. Wait, it is 4.") and not takes_itself_back("Wait, 2 + 2 = 5.")


WRONG = [Verdict("symbolic", "1", "incorrect")]


def labels_of(text: str, wrong: set[int]) -> list[tuple[str, str, bool, bool]]:
    parts = divide(text)
    steps = build_steps("s", "p", text, segment_parts(text, parts), parts=parts)
    verdicts = [WRONG if index in wrong else [] for index in range(len(steps))]
    return [tuple(one) for one in label_steps(verdicts, is_taken_back=taken_back(steps))]


def test_an_error_that_the_thinking_takes_back_is_none_of_the_solution() -> None:
    text = "<think>\n2 + 2 = 5.\n\nWait, 2 + 2 = 4.\n</think>\n\nIt is 4."
    assert labels_of(text, {0})[0] == ("unknown", TAKEN_BACK, False, False)
    assert not any(after for *_, after in labels_of(text, {0}))


def test_an_error_after_the_last_turn_or_in_the_answer_stays_one() -> None:
    text = "<think>\nWait, 2 + 2 = 4.\n\nSo 4 + 4 = 9.\n</think>\n\nIt is 9."
    assert [label for label, *_ in labels_of(text, {1})] == ["unknown", "incorrect", "unknown"]
    assert labels_of("It is 5.\n\nWait, it is 4.", {0})[0][0] == "incorrect", "no thinking, no taking back"
    assert labels_of("<think>\nSo 5.\n</think>\n\nIt is 5.\n\nWait, no.", {1})[1][0] == "incorrect"


def test_an_error_and_its_correction_in_one_step() -> None:
    text = "<think>\n2 + 2 = 5. Wait, it is 4.\n</think>\n\nIt is 4."
    assert labels_of(text, {0})[0][:2] == ("unknown", TAKEN_BACK)
