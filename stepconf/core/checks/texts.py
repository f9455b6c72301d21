"""Problems that are the same, nearly the same, or in a benchmark: by their words.

Words are hashed once to 64 bits; what slides over them (13 words in a row, three words in a row) is
arithmetic on those hashes. Near duplicates are found by MinHash (Broder 1997) with banding. Two problems of
which only the numbers differ are different problems: near duplicates must have the same numbers.
"""

import re
import unicodedata
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


def whole(text: Words) -> int:
    """One hash of all words in order."""
    return int(_windows(text.hashes, len(text.hashes))[0]) if len(text.hashes) else 0


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


def signature(text: Words) -> np.ndarray:
    """The MinHash signature (64,) of the text's shingles of three words."""
    shingles = _windows(text.hashes, min(_SHINGLE, max(len(text.hashes), 1)))
    if not len(shingles):
        return np.zeros(_HASHES, np.uint32)
    mixed = (shingles[:, None] ^ (shingles[:, None] >> np.uint64(31))) * _FACTORS + _OFFSETS
    lowest: np.ndarray = (mixed >> np.uint64(32)).min(0).astype(np.uint32)
    return lowest


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
