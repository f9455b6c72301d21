"""Brings steps within the limits on their length: short ones are merged, long ones cut. Linear time."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise
from unicodedata import category

from stepconf.core.protected import Span, protected_regions
from stepconf.core.sentences import COMBINING, sentence_cuts

_LAST_SPACE = re.compile(rf".*\s(?=[^\s{COMBINING}])", re.DOTALL)
_SPACES = re.compile(r"\s*+")


def merge_short(masked: str, cuts: list[int], lead: int, content_end: int, min_chars: int) -> list[int]:
    """The cuts that leave steps of at least `min_chars` between `lead` and `content_end`."""
    kept: list[int] = []
    start = lead
    for cut in cuts:
        if cut - start >= min_chars and len(masked[start:cut].strip()) >= min_chars:
            kept.append(cut)
            start = cut
    if kept and len(masked[start:content_end].strip()) < min_chars:
        kept.pop()
    return kept


def split_long(text: str, masked: str, spans: list[Span], limit: int) -> list[Span]:
    """The spans, those over `limit` characters replaced by pieces. Line ends of `text` are plain."""
    regions: list[Span] | None = None
    pieces: list[Span] = []
    for start, end in spans:
        if end - start <= limit or len(masked[start:end].strip()) <= limit:
            pieces.append((start, end))
            continue
        if regions is None:
            regions = protected_regions(text)
        pieces += pairwise([start, *_forced_cuts(text, masked, regions, (start, end), limit), end])
    return pieces


def _forced_cuts(text: str, masked: str, regions: list[Span], span: Span, limit: int) -> Iterator[int]:
    """Cuts of one long step: at the last sentence end in reach (not before a quarter of it), at space, or
    anywhere."""
    start, end = span
    content_end = start + len(masked[start:end].rstrip())
    sentences = sorted(sentence_cuts(masked, start, content_end))
    at = _after_spaces(masked, start)
    while content_end - at > limit:
        reach = at + limit
        index = bisect_right(sentences, reach) - 1
        if index >= 0 and sentences[index] > at + limit // 4:
            cut = sentences[index]
        elif space := _LAST_SPACE.match(masked, at, reach + 1):
            cut = space.end()
        else:
            cut = _after_spaces(masked, _hard_cut(text, regions, at, reach))
        if cut >= content_end:
            return
        yield cut
        at = cut


def _after_spaces(masked: str, at: int) -> int:
    found = _SPACES.match(masked, at)
    return found.end() if found else at


def _hard_cut(text: str, regions: list[Span], at: int, reach: int) -> int:
    """A cut at or before `reach`, or after the region that fills everything up to it.

    A character and its combining marks stay together, unless there are more than 32 of them.
    """
    index = bisect_left(regions, (reach, reach)) - 1
    region_end = at
    if index >= 0:
        region_start, region_end = regions[index]
        if reach < region_end:
            return region_start if region_start > at else region_end
    for cut in range(reach, max(at, region_end, reach - 32), -1):
        if text[cut - 1] != "\u200d" and not _joins(text[cut]):
            return cut
    return reach


def _joins(character: str) -> bool:
    """Whether the character belongs to the one before it: a mark, a joiner, a skin tone."""
    return character > "\u02ff" and (
        category(character)[0] == "M" or character == "\u200d" or "\U0001f3fb" <= character <= "\U0001f3ff"
    )
