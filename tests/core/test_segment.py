"""Segmentation: cases to read, laws on generated and real text, hostile text by work counted."""

import re
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepconf.core.segment import SegmentOptions, at_tokens, segment, spans_of_parts, token_spans
from stepconf.core.statements import states_something, without_tags
from stepconf.errors import StepconfError
from tests.shared_data import shared_rows

Mode = Literal["auto", "lines", "paragraphs", "sentences"]
MODES: tuple[Mode, ...] = ("auto", "lines", "paragraphs", "sentences")


def steps(text: str, **options: object) -> list[str]:
    return [text[start:end] for start, end in segment(text, SegmentOptions(**options))]  # type: ignore[arg-type]


def assert_partition(text: str, spans: list[tuple[int, int]]) -> None:
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)
    assert all(end == after for (_, end), (after, _) in pairwise(spans))
    assert len(spans) <= 1 or not any(text[start:end].isspace() for start, end in spans)


# In each case ¦ stands where a step ends.
CASES: list[tuple[Mode, str]] = [
    # lines, items, headings, answers
    ("auto", "Two and two is 4.\n¦Times three is 12.\n¦#### 12"),
    ("auto", "First, add 2 and 3.\n\n¦Then double it.\n\n¦The answer is 10."),
    ("auto", "1. Add two.\n¦2. Double it.\n¦3. Done."),
    ("auto", "1) Add two.\n¦2) Double it."),
    ("auto", "(1) Add two.\n¦(2) Double it."),
    ("auto", "We know:\n- it costs 5\n¦- it weighs 3\n¦So we pay 15."),
    ("auto", "Facts:\n* red\n¦• blue\n¦Then count."),
    ("auto", "Step 1: Add.\n¦Step 2: Double."),
    ("auto", "**Step 1**\nAdd the numbers.\n¦**Step 2**\nDouble the sum."),
    ("auto", "### Step 1: Add\n\nIt is 5.\n\n¦### Step 2: Double\n\nIt is 10."),
    ("auto", "## Solution\n\n### Step 1\n\nIt is 5."),
    ("auto", "We add.\n\n¦**Final Answer**\n\n\\boxed{5}"),
    ("auto", "We add them.\n¦\\boxed{5}"),
    ("auto", "Add them. Double them.\n¦#### 12"),
    ("lines", "So 2+3=5. ¦The answer is 5.\n¦I hope so."),
    ("auto", "It is 12. So we are done #### 12".replace(" So", " ¦So").replace(" ####", " ¦####")),
    ("lines", "It is 7. ¦The answer is 7. ¦The answer is 7. ¦The answer is 7."),
    ("paragraphs", "Add.\nDouble.\n\n¦Halve.\n- one\n- two"),
    ("paragraphs", "Add.\n¦1. Double.\n¦The final answer is 3."),
    ("auto", "Add these up\nand double the sum.\n\n¦Then halve it\nand stop."),
    ("lines", "Add.\n---\n¦Double."),
    ("lines", "  Add.\n¦  Double.\n"),
    # sentences
    ("auto", "There are 3 cats. ¦Each eats 2 fish. ¦So 6 fish."),
    ("auto", "It is 3.14 or so. ¦Then 2.5 is left."),
    ("auto", "Some primes, e.g. 2 and 3, i.e. Two of them, stay. ¦Done."),
    ("auto", "Dr. Smith and Mr. Jones met. ¦They left."),
    ("auto", "See Fig. 2 and Eq. (3) and No. 7. ¦Then go on."),
    ("auto", "The answer is no. ¦Then we stop."),
    ("auto", "It is red vs. Blue here. ¦Done."),
    ("auto", "Apples, pears, etc. are sold. ¦We buy pens, etc. ¦Then we go."),
    ("auto", "So 1, 2, 3, ... 10 are added. ¦Wait... Then it is 55."),
    ("auto", "Let $f(x. Y) = 3. Then$ hold. ¦Next."),
    ("auto", "Let \\(a. B\\) hold. ¦Next."),
    ("auto", "We get $x = 5.$ ¦Then $y = 2.$"),
    ("auto", 'He said "It is 5." ¦Then he left (at 3 p.m.). ¦Done.'),
    ("auto", "他有三个苹果。¦她有两个！¦一共几个？¦五个。"),
    ("auto", "「是的。」¦他走了。"),
    ("auto", "It costs $5. ¦She pays $7. ¦He pays $8."),
    ("auto", "Is it 5? ¦Yes! ¦It is 5! = 120."),
    ("auto", "1. Add two. ¦2. Double it. ¦3. Done."),
    ("auto", "Step 1. Add two. ¦Step 2. Double it."),
    ("auto", "The line ends at point A. ¦The other at B."),
    ("auto", "George W. Bush paid. ¦J. R. Smith did not."),
    ("auto", "A long sentence that goes on\nover two lines. ¦Then another."),
    # blocks
    ("auto", "We have\n\\[x = 5.\\]¦Then $y$ is 3."),
    ("auto", "We have\n\\[x = 5,\\]\nwhere $x$ is odd. ¦Then stop."),
    ("auto", "We get:\n\n\\[ x = 5 \\]\n\n¦So it is odd."),
    ("auto", "We get: $$a. B$$ ¦So it is odd."),
    (
        "auto",
        "Thus\n\\begin{align*}\na &= b. \\\\\n\nC &= \\begin{cases}1\\\\2\\end{cases}\n\\end{align*}¦Done.",
    ),
    ("lines", "Code:\n```python\na = 1\n\n\nb = 2\n```\n¦Done."),
    ("lines", "Code:\n~~~\n1. a\n~~~\n¦Done."),
    ("lines", "Table:\n| a | b |\n|---|---|\n| 1 | 2 |\n¦Done."),
    ("lines", "Draw\n[asy]\ndraw(a);\n\ndot(b);\n[/asy]\n¦Done."),
    ("lines", "Stop here.\n\n¦\\[x\\]\n¦Done."),
    ("lines", "We code.\n\n¦```python\na = 1\n\nb = 2\n\nprint(a"),
    ("lines", "Code:\n````\n```\na = 1\n```\n\nb = 2\n"),
    ("lines", "Draw\n[asy]\ndraw(a);\n\ndot(b"),
    ("lines", "Open \\[ it\n¦You see\n¦Zero"),
    ("lines", "Open $$ x\n\n¦Two $$ y\n\n¦Zero"),
    ("lines", "Open \\begin{align} x\n¦You see"),
    # announcements
    ("lines", "Let's add the two:\n3 + 4 = 7\n¦So it is 7."),
    ("lines", "To solve this, follow these steps:\n\n1. **Add the two**:\n   - It is 7.\n¦2. Double it."),
    ("paragraphs", "Let's see.\n\nFirst, find the cost:\n\nIt is 7.\nOr so.\n\n¦Then double it."),
    ("sentences", "Let's break it down. How many are left? It is 7. ¦Then double it."),
    ("lines", "### Costs\n\n**Pens:**\n\nLet's add them:\n3 + 4 = 7"),
    ("lines", "Step 1: 3 + 4 = 7\n¦Step 2: Calculate the rest:\n7 - 2 = 5"),
    ("lines", "### Step 1: 3 + 4 = 7\n¦So 3 + 4 = 7:\n¦Done."),
    ("lines", "The final answer is:\n\\boxed{5}"),
    ("lines", "3 + 4 = 7\n¦Now, let's find the rest:\n### Rest"),
    # tags
    ("auto", "<think>\nLet me see. 2+2 = 4.\n</think>\n\n¦The sum is 4."),
    ("auto", "\\begin{enumerate}\n\\item We add.\n¦\\item We double.\n\\end{enumerate}\n¦Done."),
    ("lines", "We add.\n<br/>\n¦We double.<br>\n</p>\n¦<answer>\n7\n</answer><|im_end|>"),
    ("sentences", "[THINK]We add.[/THINK] ¦We double. </p> ¦Done."),
    ("lines", "<think>\n</think>\n<tool_call>\n</tool_call>"),
    ("lines", "</think>\nWe add.\n<answer>\n</answer>"),
    ("lines", "Two <b>red</b> ones.\n¦So 2 < x and x > 1."),
    ("lines", "```\n</p>\n```\n¦Done."),
    # line ends
    ("auto", "One thing.\r\n¦Two things.\r\n\r\n¦Three."),
    ("lines", "One thing.\u2028¦Two things.\f¦Three.\r¦Four."),
]


@pytest.mark.parametrize(("mode", "marked"), CASES, ids=[repr(text[:28]) for _, text in CASES])
def test_cases(mode: Mode, marked: str) -> None:
    assert steps(marked.replace("¦", ""), mode=mode) == marked.split("¦")


def test_short_steps_are_merged_forward_and_the_last_backward() -> None:
    assert steps("So\nwe add.\nOK", mode="lines", min_chars=3) == ["So\nwe add.\nOK"]
    assert steps("a\nb\nccc\nd", mode="lines", min_chars=1) == ["a\n", "b\n", "ccc\n", "d"]
    assert [len(step) for step in steps("Add it. " * 20, mode="sentences", min_chars=20)] == [24] * 5 + [40]


def test_long_steps_are_cut_at_sentences_then_spaces_then_anywhere() -> None:
    assert steps("Aaa bbb. Ccc ddd. Eee", mode="lines", max_chars=18) == ["Aaa bbb. Ccc ddd. ", "Eee"]
    assert steps("aaa bbb ccc ddd", max_chars=8) == ["aaa bbb ", "ccc ddd"]
    assert steps("a" * 10, max_chars=4) == ["aaaa", "aaaa", "aa"]
    assert steps("aa $b c d e f$ gg", max_chars=6) == ["aa ", "$b c d e f$ ", "gg"]
    assert steps("e\u0301" * 4, max_chars=3) == ["e\u0301"] * 4


@pytest.mark.parametrize("bad", [{"min_chars": 0}, {"min_chars": 9, "max_chars": 8}, {"mode": "words"}])
def test_impossible_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(StepconfError):
        SegmentOptions(**bad)  # type: ignore[arg-type]


# --- laws --------------------------------------------------------------------------------------------

FRAGMENTS = [
    *" \t\n.!?。,:;$\\()[]{}|-*#`~'\"=57aB\r\f\u2028\u0301\u200d\x01\x02\x03x",
    *(
        "\r\n",
        "\n\n",
        "$$",
        "\\(",
        "\\)",
        "\\[",
        "\\]",
        "\\begin{align}",
        "\\end{align}",
        "```\n",
        "\n~~~",
        "[asy]",
    ),
    *(
        "[/asy]",
        "| a | b |\n|---|---|\n",
        "e.g. ",
        "Dr. ",
        "1. ",
        "Step 2: ",
        "#### 5",
        "The answer is ",
        "**",
        "We ",
    ),
    *("\\boxed{5}", "\n- ", ". Then ", "$x$", "\\\\", "\\$", "word ", "👩🏽‍🚀"),
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join) | st.text(max_size=80)
LIMITS = st.tuples(st.integers(1, 12), st.integers(12, 60))


@given(TEXTS, st.sampled_from(MODES), LIMITS)
@example("\r1.    Step 2: ", "auto", (1, 12))  # a label behind nothing but white space
@settings(max_examples=400, deadline=None)
def test_spans_partition_any_text(text: str, mode: Mode, limits: tuple[int, int]) -> None:
    spans = segment(text, SegmentOptions(mode, *limits))
    assert_partition(text, spans)
    assert spans or not text
    assert not any(text[end - 1 : end + 1] == "\r\n" for _, end in spans)


@given(st.text(alphabet="ab .\n", max_size=300), st.sampled_from(MODES), st.integers(1, 40))
@settings(deadline=None)
def test_plain_text_keeps_max_chars(text: str, mode: Mode, limit: int) -> None:
    assert all(len(step.strip()) <= limit for step in steps(text, mode=mode, min_chars=1, max_chars=limit))


@given(st.lists(st.sampled_from(["So it is", "Add 3", "x = 5.", "done;"]), min_size=1, max_size=8))
def test_a_step_of_plain_lines_is_its_own_only_step(lines: list[str]) -> None:
    """Not true in general: a step alone has lost what told its mode, and its limits."""
    for step in steps("\n".join(lines), mode="lines"):
        assert steps(step, mode="lines") == [step]


@given(TEXTS, LIMITS)
@settings(deadline=None)
def test_the_limits_only_merge_or_only_cut(text: str, limits: tuple[int, int]) -> None:
    natural = {end for _, end in segment(text, SegmentOptions("lines", 1, 10**6))}
    merged = {end for _, end in segment(text, SegmentOptions("lines", limits[0], 10**6))}
    cut = {end for _, end in segment(text, SegmentOptions("lines", 1, limits[1]))}
    assert merged <= natural <= cut


ANNOUNCED = ["Let's see.", "Now, let's add the two:", "### Costs", "The total is:", "**Pens**", "Step 2:"]
STATED = ["3 + 4 = 7.", "She has 5 pens left.", "So it is 7:", "We multiply them.", "The answer is 7."]
OPENING = [
    "<think>",
    "<answer>",
    "<tool_call>",
    '<p class="a">',
    "[THINK]",
    "<|im_start|>",
    "\\begin{itemize}",
]
CLOSING = [
    "</think>",
    "</answer>",
    "</tool_call>",
    "<br/>",
    "<br>",
    "[/THINK]",
    "<|im_end|>",
    "\\end{itemize}",
]
FIXED_MODES: tuple[Mode, ...] = ("lines", "paragraphs", "sentences")


@given(
    st.lists(st.sampled_from(ANNOUNCED + STATED + OPENING + CLOSING), min_size=1, max_size=12),
    st.sampled_from(MODES),
)
@settings(deadline=None)
def test_only_the_last_step_may_state_nothing(parts: list[str], mode: Mode) -> None:
    for separator in ("\n\n", "\n"):
        text = separator.join(parts)
        spans = segment(text, SegmentOptions(mode))
        assert_partition(text, spans)
        found = [text[start:end] for start, end in spans]
        assert all(states_something(step) for step in found[:-1])
        assert all(without_tags(step).strip() for step in found[1:])
        assert not any(step.startswith(tuple(CLOSING)) for step in found[1:])
        assert not any(step.rstrip().endswith(tuple(OPENING)) for step in found[:-1])


@given(st.lists(st.sampled_from(ANNOUNCED + STATED), min_size=1, max_size=12))
@settings(deadline=None)
def test_a_statement_ends_a_step_with_all_announcements_before_it(parts: list[str]) -> None:
    expected, step = [], ""
    for part in parts:
        step += part + "\n\n"
        if part in STATED:
            expected.append(step)
            step = ""
    for mode in FIXED_MODES:
        found = steps("\n\n".join([*parts, ""]), mode=mode)
        assert found == [*expected, step][: len(found)] and len(found) == len(expected) + bool(step)


@pytest.mark.parametrize("mode", FIXED_MODES)
@given(parts=st.lists(st.sampled_from(ANNOUNCED + STATED + OPENING + CLOSING), min_size=1, max_size=12))
@settings(deadline=None)
def test_a_text_cut_at_a_step_keeps_its_steps(mode: Mode, parts: list[str]) -> None:
    for separator in ("\n\n", "\n", " "):
        text = separator.join(parts)
        spans = segment(text, SegmentOptions(mode))
        for index, (_, end) in enumerate(spans, start=1):
            assert segment(text[:end], SegmentOptions(mode)) == spans[:index]


REGIONS = ["$a. B$", "\\(a. B\\)", "$$a.\nB$$", "\\[a.\n\nB\\]", "\\begin{align}a.\n\nB\\end{align}"]
LINED = [
    "```py\na. B\n\n1. c\n```",
    "~~~\nA. B\n\nC\n~~~",
    "| a. B | c |\n|---|---|\n| 1. D | 2 |",
    "[asy]\na;\n\nB;\n[/asy]",
]


@given(st.lists(st.sampled_from([*REGIONS, *LINED, "word", "Then. So", "\n\n", "\n"]), max_size=12), LIMITS)
@settings(deadline=None)
def test_a_protected_region_is_never_cut(parts: list[str], limits: tuple[int, int]) -> None:
    text, inside = "", []
    for part in parts:
        text += "\n" if part in LINED else " "
        if part in REGIONS or part in LINED:
            inside.append(range(len(text) + 1, len(text) + len(part)))
        text += part + ("\n\n" if part in LINED else " ")
    for mode in MODES:
        ends = {end for _, end in segment(text, SegmentOptions(mode, *limits))}
        assert not any(end in region for region in inside for end in ends)


# --- given steps and tokens --------------------------------------------------------------------------


@given(
    st.lists(st.text(min_size=1).filter(lambda part: not part.isspace()), max_size=6),
    st.sampled_from(["", "\n\n"]),
)
def test_given_steps_are_the_spans(parts: list[str], separator: str) -> None:
    text, spans = spans_of_parts(parts, separator)
    assert text == separator.join(parts)
    assert len(spans) == len(parts)
    assert_partition(text, spans)
    assert [text[start:end].removesuffix(separator) for start, end in spans[:-1]] == parts[
        :-1
    ] or not separator


def test_a_blank_given_step_is_refused() -> None:
    with pytest.raises(StepconfError, match="step 1 of 3"):
        spans_of_parts(["a", " \n", "b"], "\n")


@given(TEXTS.filter(bool), st.data())
@settings(deadline=None)
def test_token_spans_partition_the_tokens(text: str, data: st.DataObject) -> None:
    spans = segment(text, SegmentOptions("lines", 1, 8))
    starts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    tokens = token_spans(spans, starts)
    assert [token for start, end in tokens for token in range(start, end)] == list(range(len(starts)))
    for (first, last), (start, end) in zip(tokens, spans, strict=True):
        assert all(start <= at < end or (at == len(text) and end == at) for at in starts[first:last])


def test_token_spans_of_shared_starts_and_empty_steps() -> None:
    assert token_spans([(0, 2), (2, 3), (3, 9)], [0, 0, 0, 3, 9]) == [(0, 3), (3, 3), (3, 5)]
    assert token_spans([], []) == []
    with pytest.raises(ValueError, match="no steps"):
        token_spans([], [0])
    with pytest.raises(ValueError, match="token 2 starts at character 0"):
        token_spans([(0, 9)], [0, 4, 0])


@given(TEXTS.filter(str.strip), st.data())
@settings(deadline=None)
def test_borders_move_over_blanks_to_where_a_token_starts(text: str, data: st.DataObject) -> None:
    spans = segment(text, SegmentOptions("sentences", 1, 8))
    starts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    moved = at_tokens(text, spans, starts)
    assert len(moved) == len(spans)
    assert [moved[0][0], *(end for _, end in moved)] == [0, *(start for start, _ in moved[1:]), len(text)]
    for (_, end), (_, before) in zip(moved, spans, strict=True):
        assert end == before or (end in starts and text[end:before].isspace())
    assert all(text[start:end].strip() for start, end in moved)


def test_a_word_belongs_to_the_step_that_it_begins() -> None:
    text = "3 + 4 is 7. Then 7 times 2 is 14."
    pieces = ["3", " +", " 4", " is", " 7", ".", " Then", " 7", " times", " 2", " is", " 14", "."]
    starts = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    spans = segment(text, SegmentOptions("sentences"))
    assert [text[a:b] for a, b in spans] == ["3 + 4 is 7. ", "Then 7 times 2 is 14."]
    moved = at_tokens(text, spans, starts)
    assert [text[a:b] for a, b in moved] == ["3 + 4 is 7.", " Then 7 times 2 is 14."]
    assert token_spans(moved, starts) == [(0, 6), (6, 13)]
    assert at_tokens(text, spans, []) == spans
    blank = [*starts[:6], 11, 12, *starts[7:]]  # a token of blanks alone stays where it is
    assert at_tokens(text, spans, blank) == spans
    assert at_tokens("7.Then 8.", [(0, 2), (2, 9)], [0, 1]) == [(0, 2), (2, 9)]  # words on both sides
    assert at_tokens("", [], []) == []


# --- real text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train", "test"])
def test_math_solutions(part: str) -> None:
    """Blocks by patterns independent of ours; a dollar pair only where no dollar is escaped or doubled."""
    block = re.compile(
        r"(?<!\\)\\\[.*?\\\]|\[asy\].*?\[/asy\]|\\begin\{(align\*?)\}.*?\\end\{\1\}", re.DOTALL
    )
    for index, row in enumerate(shared_rows(f"math/{part}.jsonl.gz")):
        text = row["solution"]
        inside = [m.span() for m in block.finditer(text)]
        if "\\$" not in text and "$$" not in text and not inside:
            inside = [m.span() for m in re.finditer(r"\$(?=\S)[^$]+(?<=\S)\$", text) if "\n\n" not in m[0]]
        for mode in (MODES[index % 4], "sentences"):
            spans = segment(text, SegmentOptions(mode))
            assert_partition(text, spans)
            ends = [end for _, end in spans]
            assert not any(start < end < stop for start, stop in inside for end in ends), text


@pytest.mark.parametrize(("name", "precision"), [("gsm8k", 0.75), ("math", 0.75)])
def test_processbench_steps_are_found(name: str, precision: float) -> None:
    """The given steps are paragraphs; ours are finer at bullets, items and final answers, by intent.

    A given step that states nothing is no step of ours.
    """
    found = ours = given_ = n_silent = 0
    for row in shared_rows(f"processbench/{name}_dev.jsonl.gz"):
        text, spans = spans_of_parts(row["steps"], "\n\n")
        mine = segment(text)
        assert_partition(text, mine)
        silent = {end for start, end in spans[:-1] if not states_something(text[start:end])}
        theirs, cuts = {end for _, end in spans[:-1]} - silent, {end for _, end in mine[:-1]}
        assert not silent & cuts
        n_silent += len(silent)
        found, ours, given_ = found + len(theirs & cuts), ours + len(cuts), given_ + len(theirs)
    print(f"{name}: recall {found / given_:.3f}, precision {found / ours:.3f} of {given_} boundaries")
    assert found / given_ > 0.99
    assert 0 < n_silent / given_ < 0.05
    assert found / ours > precision


# --- hostile text ------------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[int], str]] = {
    "dollars": lambda n: "$" * n,
    "openers": lambda n: "\\(\\[$ " * (n // 6),
    "backslashes": lambda n: "\\" * n,
    "begins": lambda n: "\\begin{a}" * (n // 9),
    "crossed": lambda n: "\\begin{a}\\begin{b}\\end{a}" * (n // 25),
    "fences": lambda n: "```x\n~~~~~\n````\n" * (n // 16) + "\n".join("`" * k for k in range(60, 2, -1)),
    "asy": lambda n: "[asy]" * (n // 5),
    "rules": lambda n: "x\n|-|\n" * (n // 6),
    "pipes": lambda n: "|" * n,
    "stops": lambda n: "." * n + " A",
    "brackets": lambda n: "." + ")" * n + ". " + "(" * n,
    "cjk": lambda n: "。" * n + "\n。",
    "spaces": lambda n: ("a" + " " * 999 + "\n") * (n // 1001),
    "blank": lambda n: "a" + "\n \t" * (n // 3) + "a",
    "marks": lambda n: "e" + "\u0301" * n,
    "stars": lambda n: "**a" * (n // 3),
    "labels": lambda n: "1. " * (n // 3),
    "answers": lambda n: ". The answer is" * (n // 15),
    "announcements": lambda n: "Let's add the two:\n" * (n // 19),
    "headings": lambda n: "## a\n" * (n // 5),
    "purposes": lambda n: "To a, to a, now we do a, " * (n // 25) + "\n" + "To a, to b, to c:\n" * (n // 17),
    "opening tags": lambda n: "<a b=c>\n" * (n // 8) + "<a " + "b=c " * (n // 4),
    "closing tags": lambda n: "</a>" * (n // 4) + "\\end{itemize}" * (n // 12) + "</" * n,
    "one line": lambda n: "Add it up. " * (n // 11),
    "one word": lambda n: "a" * n,
    "masks": lambda n: "\x01\x02\x03(" * (n // 4),
    "returns": lambda n: "\r" * n + "a\r\n" * (n // 3),
}


def lines_run(text: str, options: SegmentOptions) -> int:
    """How many lines of our code run: a count of work that no clock disturbs."""
    count = 0

    def trace(_frame: object, event: str, _argument: object) -> Callable[..., object]:
        nonlocal count
        count += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        segment(text, options)
    finally:
        sys.settrace(previous)
    return count


@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_linearly(name: str) -> None:
    for mode in ("lines", "sentences"):
        options = SegmentOptions(mode, max_chars=200)  # type: ignore[arg-type]
        small, large = (lines_run(HOSTILE[name](size), options) for size in (2_000, 20_000))
        assert large <= 11 * small + 2_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_what_regular_expressions_do_stays_linear_too(name: str) -> None:
    """150,000 characters: anything quadratic would take many minutes in the regular expressions alone."""
    text = HOSTILE[name](150_000)
    for mode in ("lines", "sentences"):
        assert_partition(text, segment(text, SegmentOptions(mode, max_chars=1000)))  # type: ignore[arg-type]


@pytest.mark.timeout(60)
def test_a_megabyte_of_announcements_is_one_step() -> None:
    text = "Let's add the two:\n" * 55_000 + "3 + 4 = 7"
    assert segment(text, SegmentOptions("lines", max_chars=len(text))) == [(0, len(text))]
    assert all(end - start <= 4000 for start, end in segment(text, SegmentOptions("lines")))


def test_five_thousand_nested_environments_are_one_block() -> None:
    nested = "\\begin{a}\n\n" * 5000 + "\\end{a}\n\n" * 4999 + "\\end{a}"
    text = f"We get\n{nested}\n\nThen we stop."
    assert steps(text, max_chars=len(text)) == [f"We get\n{nested}\n\n", "Then we stop."]
