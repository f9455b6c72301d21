"""Problems that are the same, nearly the same, or in a benchmark: by their words.

Words are hashed once to 64 bits; what slides over them (13 words in a row, three words in a row) is
arithmetic on those hashes. Near duplicates are found by MinHash (Broder 1997) with banding. Two problems of
which only the numbers differ are different problems: near duplicates must have the same numbers.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

LEAK_WORDS = 13  # the n-gram length of the usual contamination checks (Brown et al. 2020, appendix C)
SHORTEST_LEAK = 8  # words; a shorter problem is too common a phrase for its reappearance to say anything
_SHINGLE = 3
_HASHES = 64
_BANDS = 16  # of 4 hashes: at a similarity of 0.8 all but one in ten thousand pairs meet in some band
NEAR = 0.8  # estimated Jaccard similarity of shingles from which two problems are near duplicates

_WORD = re.compile(r"[^\W_]+|[-+*/^=<>%|×÷·√≤≥≠±−]")
_FIGURE = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
_NUMBER = re.compile(r"\d")
_random = np.random.default_rng(7)
_FACTORS = _random.integers(1, 2**63, _HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _random.integers(0, 2**63, _HASHES, dtype=np.uint64)
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Words(NamedTuple):
    """A text's words as 64-bit hashes (w,), and one hash of its numbers in order."""

    hashes: np.ndarray
    numbers: int


def words(text: str) -> Words:
    """The words of a text, whatever its case, spacing, punctuation and Unicode form."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    numbers = hash(tuple(_hash(word) for word in found if _NUMBER.search(word)))  # of ints: no random seed
    return Words(np.fromiter(map(_hash, found), np.uint64, len(found)), numbers)


def wholes(texts: Sequence[Words]) -> np.ndarray:
    """One hash of all words in order, of each text (p,); 0 where there are none."""
    sizes = np.array([len(text.hashes) for text in texts], np.int64)
    found = np.zeros(len(texts), np.uint64)
    some = sizes > 0
    if some.any():
        flat = np.concatenate([text.hashes for text in texts])
        ends = np.cumsum(sizes)
        powers = np.cumprod(np.append(np.uint64(1), np.full(sizes.max() - 1, _BASE)), dtype=np.uint64)
        terms = flat * powers[np.repeat(ends, sizes) - 1 - np.arange(len(flat))]
        found[some] = np.add.reduceat(terms, (ends - sizes)[some])
    return found


def leak_grams(text: str) -> np.ndarray:
    """Hashes of every 13 words in a row; of all words where there are fewer, but at least 8.

    Words are what white space parts, as in the usual checks: in `$x^2+1$` the signs are not words by themselves.
    The code of figures (`[asy]`) is left out: its opening lines are the same in many problems.
    """
    text = unicodedata.normalize("NFKC", _FIGURE.sub(" ", text)).casefold()
    parted = ["".join(inner) for part in text.split() if (inner := _WORD.findall(part))]
    hashes = np.fromiter(map(_hash, parted), np.uint64, len(parted))
    n = len(hashes)
    return _windows(hashes, LEAK_WORDS if n >= LEAK_WORDS else n if n >= SHORTEST_LEAK else n + 1)


def signatures(texts: Sequence[Words]) -> np.ndarray:
    """The MinHash signatures (p, 64) of the texts' shingles of three words, or of all words where they are fewer."""
    found = np.zeros((len(texts), _HASHES), np.uint32)
    sizes = np.array([len(text.hashes) for text in texts], np.int64)
    few = (sizes > 0) & (sizes < _SHINGLE)
    found[few] = _mixed(wholes(texts)[few])
    many = sizes >= _SHINGLE
    if many.any():
        flat = np.concatenate([text.hashes for text in texts])
        left = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(flat))  # words to the end of the text
        shingles = _windows(flat, _SHINGLE)[left[: 1 - _SHINGLE] >= _SHINGLE]
        n_shingles = sizes[many] - _SHINGLE + 1
        found[many] = np.minimum.reduceat(_mixed(shingles), np.cumsum(n_shingles) - n_shingles, axis=0)
    return found


def _mixed(shingles: np.ndarray) -> np.ndarray:
    """64 independent 32-bit hashes (s, 64) of each shingle (s,)."""
    mixed = (shingles ^ (shingles >> np.uint64(31)))[:, None] * _FACTORS + _OFFSETS
    high: np.ndarray = (mixed >> np.uint64(32)).astype(np.uint32)
    return high


def near_duplicates(signatures: np.ndarray, numbers: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (earlier row, row) of near duplicates, each row at most once.

    Args:
        signatures: (p, 64) of p problems.
        numbers: (p,) hashes of their numbers; only rows with the same are compared.
    """
    pairs: dict[int, int] = {}
    width = _HASHES // _BANDS
    for band in range(_BANDS):
        keys = numbers.astype(np.uint64)
        for column in range(band * width, (band + 1) * width):
            keys = (keys ^ signatures[:, column].astype(np.uint64)) * _BASE
            keys ^= keys >> np.uint64(29)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] + np.uint64(1)))
        head = order[np.repeat(starts, np.diff(np.append(starts, len(order))))]
        other = order != head
        likeness = (signatures[head[other]] == signatures[order[other]]).mean(1)
        near = likeness >= NEAR
        for first, row in zip(head[other][near], order[other][near], strict=True):
            pairs.setdefault(int(row), int(first))
    return [(first, row) for row, first in sorted(pairs.items())]


def _windows(hashes: np.ndarray, n: int) -> np.ndarray:
    """A hash of every n values in a row: a polynomial in an odd base, modulo 2^64."""
    if n < 1 or len(hashes) < n:
        return np.zeros(0, np.uint64)
    total = np.zeros(len(hashes) - n + 1, np.uint64)
    for i in range(n):
        total = total * _BASE + hashes[i : len(hashes) - n + 1 + i]
    return total


@lru_cache(maxsize=1 << 18)
def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
