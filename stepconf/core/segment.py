"""Where the steps of a solution begin and end: pure, by regular expressions, in linear time.

1. `mask` paints over what may never be cut, character for character; all that follows reads the masked text.
2. `_line_cuts` judges each line break by what its next line is, `_inner_cuts` looks inside the lines.
3. `_without_announcements` joins what states nothing with the step after it.
4. `merge_short` and `split_long` bring the steps within the limits.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

from stepconf.core.protected import BLOCK_END, OPENING_TAG, Span, mask, plain_newlines
from stepconf.core.reasoning import Parts, holds_words
from stepconf.core.sentences import (
    CLOSERS,
    STARTS_CAPITAL,
    STOPS,
    ends_in_abbreviation,
    sentence_cuts,
)
from stepconf.core.statements import states_something, without_tags
from stepconf.core.step_limits import merge_short, split_long
from stepconf.errors import StepconfError

Mode = Literal["lines", "paragraphs", "sentences"]


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """How `segment` divides a text. Lengths are characters without surrounding whitespace.

    `mode`: `lines`, every line is a step; `paragraphs`, every blank line ends one; `sentences`, every
    sentence is one, and so is every line that is not a wrapped sentence; `auto`, the one of these that the
    text's own layout suggests.
    `min_chars` (>= 1): a shorter step is merged with the one after it, the last with the one before it.
    `max_chars` (>= min_chars): a longer step is cut at the last sentence end in reach, else at whitespace,
    else between any two characters. Only a protected region, which is never cut, and the whitespace around a
    step, closing tags included, may exceed it. Where the two limits conflict, `max_chars` wins.
    `reasoning_mode`: the mode inside the thinking of a reasoning model.
    """

    mode: Literal["auto", "lines", "paragraphs", "sentences"] = "auto"
    min_chars: int = 3
    max_chars: int = 4000
    reasoning_mode: Literal["auto", "lines", "paragraphs", "sentences"] = "paragraphs"

    def __post_init__(self) -> None:
        for mode in (self.mode, self.reasoning_mode):
            if mode not in ("auto", "lines", "paragraphs", "sentences"):
                raise StepconfError(
                    f"unknown segmentation mode {mode!r}", "use auto, lines, paragraphs or sentences"
                )
        if not 1 <= self.min_chars <= self.max_chars:
            raise StepconfError(
                f"step length limits min_chars={self.min_chars}, max_chars={self.max_chars} cannot be met",
                "use 1 <= min_chars <= max_chars",
            )


def segment(text: str, options: SegmentOptions = SegmentOptions()) -> list[Span]:
    """Half-open character spans of the steps, in order; they partition `text` exactly.

    `[]` for the empty text. No span is whitespace only, unless the text is. Besides what the mode says:

    - A step begins at a numbered item, `Step k`, a heading and a final-answer marker that starts a line or
      follows a sentence, and at a bullet except in `paragraphs`.
    - What states nothing (`core.statements`: a heading, `Let's add them:`, an opening tag) goes with the step
      after it, however many such lines there are; at the end of a text it stands alone.
    - Tags are no steps: closing tags, `<br>` and a last opening tag go with the step before.
    - A block goes with the sentence that introduces it: all before it, unless that ends in a full stop and a
      blank line. Code or a figure that was cut off goes to the end of the text.
    - A line that goes on in small letters after a block goes with that block.
    - A line without a word or a block (`---`, `∎`) and trailing whitespace go with the step before.
    - Indentation goes with its line. No cut falls inside `\\r\\n`.

    A text that is cut at the end of one of its steps has the same steps up to there, so that a solution can
    be sampled again from any step. Not in mode `auto`, whose choice depends on the whole text, and not always
    where `max_chars` cut: the rest of a step may have been needed to judge it, or be shorter than `min_chars`.
    """
    text = plain_newlines(text)
    masked = mask(text)
    content_end = len(masked.rstrip())
    if not content_end:
        return [(0, len(text))] if text else []
    lead = len(masked) - len(masked.lstrip())
    breaks = _line_breaks(text, masked, lead, content_end)
    mode = options.mode if options.mode != "auto" else _natural_mode(masked, breaks, content_end)
    cuts = _line_cuts(masked, breaks, mode)
    inner = [cut for cut in _inner_cuts(masked, lead, content_end, mode) if lead < cut < content_end]
    if inner:
        cuts = sorted({*cuts, *inner})
    cuts = _without_announcements(text, _before_opening_tags(masked, cuts))
    cuts = merge_short(masked, cuts, lead, content_end, options.min_chars)
    spans = list(pairwise([0, *cuts, len(text)]))
    if len(text) > options.max_chars:
        spans = split_long(text, masked, spans, options.max_chars)
    return spans


def segment_parts(text: str, parts: Parts | None, options: SegmentOptions = SegmentOptions()) -> list[Span]:
    """As `segment`, of a text whose thinking is `parts`: it and the answer are divided each for itself.

    No step holds words of both, and no step is a mark alone: the marks, and the white space after them, go with the
    steps beside them inside the thinking. An empty thinking goes with the first step of the answer.
    """
    if parts is None:
        return segment(text, options)
    inside = replace(options, mode=options.reasoning_mode)
    answer = len(text) - len(text[parts.end :].lstrip())
    areas = (
        (0, text[: parts.start], options, 0),
        (parts.start, text[parts.body_start : parts.body_end], inside, parts.body_start),
        (answer, text[answer:], options, answer),
    )
    cuts: list[int] = []
    pending: int | None = None  # where an area begins that holds no step of its own
    for begin, area, how, offset in areas:
        pending = begin if pending is None else pending
        if holds_words(area):
            _, *later = (offset + start for start, _ in segment(area, how))
            cuts += [pending, *later]
            pending = None
    return list(pairwise([*cuts, len(text)])) if cuts else segment(text, options)


def _before_opening_tags(masked: str, cuts: list[int]) -> list[int]:
    """The cuts, those after an opening tag moved to before it."""
    moved = []
    for start, cut in pairwise([0, *cuts]):
        at = cut
        if masked[start:cut].rstrip().endswith((">", "]", "}")):
            for tag in reversed(list(OPENING_TAG.finditer(masked, start, cut))):
                if masked[tag.end() : at].strip():
                    break
                at = tag.start()
        moved.append(at if masked[start:at].strip() else cut)
    return moved


def _without_announcements(text: str, cuts: list[int]) -> list[int]:
    """The cuts that end something stated. Each piece is judged alone: the work is linear."""
    kept = [cut for start, cut in pairwise([0, *cuts]) if states_something(text[start:cut])]
    if kept and not without_tags(text[kept[-1] :]).strip():
        kept.pop()
    return kept


def spans_of_parts(parts: Sequence[str], separator: str) -> tuple[str, list[Span]]:
    """A solution given as its steps: the text joined by `separator`, and the spans that partition it.

    One span per part, in order, so that labels by step index stay valid; a separator belongs to the step
    before it. `("", [])` for no parts.

    Raises:
        StepconfError: a part is empty or whitespace only. It would own no characters; dropping it would
            shift the indices of the labels.
    """
    spans: list[Span] = []
    start = 0
    for index, part in enumerate(parts):
        if not part or part.isspace():
            raise StepconfError(
                f"step {index} of {len(parts)} (counted from 0) is blank: {part[:20]!r}",
                "remove it, or give it text",
            )
        end = start + len(part) + (len(separator) if index < len(parts) - 1 else 0)
        spans.append((start, end))
        start = end
    return separator.join(parts), spans


def at_tokens(text: str, char_spans: Sequence[Span], token_starts: Sequence[int]) -> list[Span]:
    """The spans, with each border moved to the start of the token that crosses it, if only blanks lie between.

    In most vocabularies a word's token begins with the blank before it, which `segment` gives to the step before: that
    step would have the first word of the next one among its tokens, and what leaves after it would go on from there.
    """
    borders: list[int] = []
    for end in (end for _, end in char_spans[:-1]):
        crossing = bisect_left(token_starts, end) - 1
        start = token_starts[crossing] if crossing >= 0 else end
        stop = token_starts[crossing + 1] if crossing + 1 < len(token_starts) else len(text)
        crosses = stop > end and text[start:end].isspace()
        borders.append(start if crosses and start > (borders[-1] if borders else 0) else end)
    return list(pairwise([0, *borders, char_spans[-1][1]])) if char_spans else []


def token_spans(char_spans: Sequence[Span], token_starts: Sequence[int]) -> list[Span]:
    """Half-open token spans, one per step, that partition `range(len(token_starts))`.

    A token belongs to the step in which it starts; one that starts at or after the end of the text (an
    end-of-sequence token) to the last step. A step may own no token. `token_starts` holds the character
    offset of each token, non-decreasing: the tokens of one multi-byte character share theirs.

    Raises:
        ValueError: `token_starts` decreases, or there are tokens but no steps.
    """
    for position, (before, after) in enumerate(pairwise(token_starts), start=1):
        if after < before:
            raise ValueError(f"token {position} starts at character {after}, the one before it at {before}")
    if not char_spans:
        if token_starts:
            raise ValueError(f"{len(token_starts)} tokens cannot be divided among no steps")
        return []
    inner = [bisect_left(token_starts, end) for _, end in char_spans[:-1]]
    return list(pairwise([0, *inner, len(token_starts)]))


# --- line breaks ---------------------------------------------------------------------------------------

_NUMBER = (
    r"(?:\d{1,3}+[.)]|\(\d{1,3}+\)|\((?:[a-z]|i{2,3}|i?v|vi{1,3}|ix)\)|[A-Za-z]\)"
    r"|第[\d一二三四五六七八九十]+步|[①-⑳])"
)
_STEP = r"(?:[Ss]tep|STEP|Case|Part|Method|Claim|Lemma)[ ](?:\d{1,3}+|[A-Z]|[IVX]{1,4}+|[a-z]{3,6}+)"
_ANSWER = (
    r"(?:(?:So|Thus|Hence|Therefore|Finally)\b,?[ ])?(?:(?:[Tt]he|[Mm]y|[Oo]ur)[ ])?"
    r"(?:(?:[Ff]inal|[Cc]orrect)[ ])?(?:[Aa]nswer|ANSWER)(?:[ ](?:is|to|will)\b|(?:\*\*|__)?[ ]?[:=：])"
    r"|(?:So|Thus|Hence|Therefore),?[ ]the[ ](?:final[ ])?answer\b"
    r"|(?:所以|因此)?，?(?:最终)?答案(?:是|为|：|:)"
)
_ANSWER_WORD = re.compile("nswer|ANSWER|答案")
_LINE_END = r"[ \t]*+(?=\n|\Z)"
_LINE = re.compile(
    rf"""[^\S\n]*+(?:
    (?P<block>[\x02\x03])
    |(?P<marked_answer>\#{{4}}[ \t]++[-+$\\\d\x01(])
    |(?P<heading>\#{{1,6}}+[ \t]++[^\n]*+
        |(?:\*\*|__)?(?:{_STEP}|{_NUMBER})[.:]?(?:\*\*|__)?:?{_LINE_END}
        |(?:{_NUMBER}[ \t])?(?P<strong>\*\*|__)[^*\n\x01-\x03=]{{1,120}}(?<![.!?])(?P=strong):?{_LINE_END})
    |(?P<answer>(?:\*\*|__)?(?:{_ANSWER}|[Ff]inal[ ][Aa]nswer\b)|\\boxed\b)
    |(?P<item>(?:\*\*|__)?(?:{_NUMBER}(?=\s|\*\*)|{_STEP}(?=[:.)*]|[ ][—–-]))|第[\d一二三四五六七八九十]+步)
    |(?P<bullet>[-*+•·‣▪◦–—][ \t]|\\item\b)
    |(?P<formula>\x01++\.?{_LINE_END})
    |(?P<connective>(?:so|then|thus|hence|therefore|next|now|finally|first|second|third)\b)
    |(?P<small>(?:a|[a-z\xdf-\xff]{{2,}}+)(?![\w(]|[ ]?[=:<>≈]))
    |(?P<text>[^\w\x01-\x03\n]*+[\w\x01-\x03]))""",
    re.VERBOSE | re.MULTILINE,
)
# Initials with which no alternative but `text` begins, unless a bracket follows.
_PLAIN_INITIALS = frozenset("BDEGIJKNQRUVWXYZ")
_PLAIN_INITIALS_WITHOUT_ANSWER = _PLAIN_INITIALS | frozenset("AFHOT")
_BREAK = re.compile(r"\n(?:[^\S\n]*+\n)*+")
_UNFINISHED = frozenset(
    "a an the that of and or is are be to by with for in on at from as we if have has".split()
)


def _has_answer_word(masked: str) -> bool:
    return "nswer" in masked or "ANSWER" in masked or "答案" in masked


class _Break(NamedTuple):
    """A run of line ends. `end` of the text before it; `cut`, where the next line begins; `headed`, whether
    the line before is a heading; `kind`, the group of `_LINE` that the next line is, None without content."""

    end: int
    cut: int
    blank: bool
    headed: bool
    kind: str | None


def _line_breaks(text: str, masked: str, lead: int, content_end: int) -> list[_Break]:
    breaks: list[_Break] = []
    line_start = lead
    plain = _PLAIN_INITIALS if _has_answer_word(masked) else _PLAIN_INITIALS_WITHOUT_ANSWER
    headed = _line_kind(text, masked, lead, plain) == "heading"
    for found in _BREAK.finditer(masked, lead, content_end):
        end, cut = found.span()
        blank = cut - end > 1
        if masked[end - 1].isspace():
            end = line_start + len(masked[line_start:end].rstrip())
        line_start = cut
        kind = _line_kind(text, masked, cut, plain)
        breaks.append(_Break(end, cut, blank, headed, kind))
        headed = kind == "heading" or (kind is None and headed)
    return breaks


def _line_kind(text: str, masked: str, start: int, plain: frozenset[str]) -> str | None:
    """The group of `_LINE` that the line is; most lines are recognised by their first letter, much faster."""
    if masked[start] in plain and masked[start + 1 : start + 2] != ")":
        return "text"
    line = _LINE.match(masked, start)
    kind = line.lastgroup if line else None
    if kind == "marked_answer" or (kind == "formula" and "\\boxed" in text[start : start + 16]):
        return "answer"
    return kind


def _is_wrapped(masked: str, at: _Break) -> bool:
    """Whether one sentence goes on across a single line break."""
    if at.blank or at.kind not in ("small", "text", "formula", "connective"):
        return False
    last = masked[at.end - 1]
    if last == ".":
        return ends_in_abbreviation(masked, at.end)
    tail = masked[max(0, at.end - 16) : at.end]
    if last in ",=+<>≤≥×·" or tail.split()[-1] in _UNFINISHED:
        return True
    return at.kind == "small" and not tail.rstrip(CLOSERS).endswith((*STOPS, ":", ";"))


def _natural_mode(masked: str, breaks: list[_Break], content_end: int) -> Mode:
    """Lines, unless all single line breaks (or most, between blank lines) are wraps or stand at a block."""
    blank = wrapped = hard = 0
    for at in breaks:
        if at.kind is None or at.headed:
            continue
        at_block = at.kind == "block" or masked[at.end - 1] == BLOCK_END
        if at.blank:
            blank += at.kind != "block"
        elif at_block and at.kind not in ("item", "bullet", "heading", "answer"):
            continue
        elif _is_wrapped(masked, at):
            wrapped += 1
        else:
            hard += 1
    if blank:
        return "paragraphs" if wrapped >= 2 * hard else "lines"
    is_prose = not wrapped or masked.endswith((*STOPS, BLOCK_END), 0, content_end)
    return "sentences" if is_prose and not hard else "lines"


def _line_cuts(masked: str, breaks: list[_Break], mode: Mode) -> list[int]:
    cuts = []
    for at in breaks:
        if at.kind is None:
            continue
        before = masked[at.end - 1]
        if at.kind == "block":
            starts = at.blank and before in STOPS
        elif before == BLOCK_END and at.kind in ("small", "connective"):
            starts = False
        elif at.blank or mode == "lines" or at.kind in ("answer", "heading", "item"):
            starts = True
        else:
            starts = mode == "sentences" and not _is_wrapped(masked, at)
        if starts:
            cuts.append(at.cut)
    return cuts


# --- inside the lines ----------------------------------------------------------------------------------

_INNER_ANSWER = re.compile(
    rf"(?:[.!?][ ]{{1,2}}|[。！？])(?=(?:\*\*)?(?:{_ANSWER}|Final[ ][Aa]nswer\b))", re.VERBOSE
)
_INNER_MARK = re.compile(r"####(?=[ \t])|Step \d{1,3}+:")
_AFTER_BLOCK = re.compile(rf"\x02[^\S\n]*+{STARTS_CAPITAL}")


def _inner_cuts(masked: str, lead: int, content_end: int, mode: Mode) -> Iterator[int]:
    """Cuts that are not at line breaks; they may repeat each other or lie at the ends of the text."""
    if _has_answer_word(masked):
        for word in _ANSWER_WORD.finditer(masked, lead, content_end):
            at, end = word.span()
            for found in _INNER_ANSWER.finditer(masked, max(lead, at - 40), min(end + 8, content_end)):
                yield found.end()
    if "####" in masked or (mode == "sentences" and "Step " in masked):
        for found in _INNER_MARK.finditer(masked, lead + 2, content_end):
            at = found.start()
            before = masked[at - 2]
            if masked[at - 1] in " \t" and (
                found[0] == "####" or (mode == "sentences" and not _ties(before))
            ):
                yield at
    if mode != "paragraphs" and BLOCK_END in masked:
        for found in _AFTER_BLOCK.finditer(masked, lead, content_end):
            yield found.end()
    if mode == "sentences":
        yield from sentence_cuts(masked, lead, content_end)


def _ties(character: str) -> bool:
    """Whether what follows this character and a space belongs to it, as in `see Step 2:`."""
    return character.islower() or character.isspace() or character in ",;("
