"""The tokens of a part, one behind the other, and hashes of 64 bits by which stretches of them are compared.

The hash of a stretch is the sum, modulo 2^64, of its tokens, each times a power of one odd number, by its place. So
running sums over all tokens give that of any stretch: a difference, brought to the place that all share.
Tokens can be chosen so that two hashes agree: what becomes a pair is compared token by token (`sides.py`).
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from stepconf.core.pairs.traces import ID_BYTES

_CACHED = 1 << 14  # numbers at a time: what a core's cache holds
_LEAST_BITS = 20  # of the number of powers: as many as most parts need, so that they are computed once
_ODD = np.uint64(0x9E3779B97F4A7C15)


class Lists(NamedTuple):
    """A column of lists of int32: all values, and where each list starts and how long it is."""

    values: Any
    starts: Any
    sizes: Any


class Tokens(NamedTuple):
    """The different prompts of solutions, which samples of a problem share, and the solutions' own tokens (m,).

    `prompt`: the row of each one's among `prompts`.
    """

    prompts: Lists
    prompt: Any
    own: Lists


def read_tokens(solutions: Any) -> Tokens:
    """Those of a table with prompt_token_ids and token_ids."""
    prompts, prompt = _different(lists(solutions["prompt_token_ids"]))
    return Tokens(prompts, prompt, lists(solutions["token_ids"]))


def lists(column: Any) -> Lists:
    """The lists of a column without nulls."""
    whole = one(column)
    bounds = whole.offsets.to_numpy().astype(np.int64)
    values = whole.values.to_numpy(zero_copy_only=False)[bounds[0] : bounds[-1]]
    return Lists(values, bounds[:-1] - bounds[0], np.diff(bounds))


def _different(given: Lists) -> tuple[Lists, Any]:
    """Each list once, and the row of each one's."""
    ends = np.append(given.starts, len(given.values)) * given.values.itemsize
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(given.values))]
    coded = pa.Array.from_buffers(pa.large_binary(), len(given.sizes), buffers).dictionary_encode()
    which = coded.indices.to_numpy().astype(np.int64)
    sizes = np.zeros(len(coded.dictionary), np.int64)
    sizes[which] = given.sizes
    values = np.frombuffer(coded.dictionary.buffers()[2] or b"", np.int32)[: sizes.sum()]
    return Lists(values, np.cumsum(sizes) - sizes, sizes), which


def joined(*columns: Lists) -> Any:
    """Row by row (p,) what the lists of several columns hold, one behind the other: bytes, `pa.LargeBinaryArray`.

    Arrow copies stretches of memory, which it calls views, five times as fast as Python or NumPy do.

    Raises:
        ValueError: the values of a column are more than 2 GiB.
    """
    n, width = len(columns[0].starts), len(columns)
    if (most := max(column.values.nbytes for column in columns)) >= 2**31:
        raise ValueError(f"tokens of one part: {most:,} bytes are more than the 2 GiB that views reach over")
    views = np.empty((n, width, 4), np.int32)
    for place, column in enumerate(columns):
        views[:, place] = _views(column, place)
    data = [pa.py_buffer(np.ascontiguousarray(column.values)) for column in columns]
    buffers = [None, pa.py_buffer(views), *data]
    copied = pa.Array.from_buffers(pa.binary_view(), n * width, buffers).cast(pa.large_binary())
    ends = np.zeros(n + 1, np.int64)
    if n:
        ends = np.ascontiguousarray(_offsets(copied)[::width])
    return pa.Array.from_buffers(pa.large_binary(), n, [None, pa.py_buffer(ends), copied.buffers()[2]])


def _views(column: Lists, buffer: int) -> Any:
    """Arrow's views (p, 4) of lists: bytes, the first four of them, which buffer, and where in it.

    Instead of the last two there are the next eight bytes where there are no more than twelve.
    """
    views = np.zeros((len(column.sizes), 4), np.int32)
    views[:, 0] = column.sizes * ID_BYTES
    long, short = np.flatnonzero(column.sizes > 3), np.flatnonzero(column.sizes <= 3)
    views[long, 1] = column.values[column.starts[long]]
    views[long, 2] = buffer
    views[long, 3] = column.starts[long] * ID_BYTES
    for place in range(3 if len(short) else 0):
        rows = short[column.sizes[short] > place]
        views[rows, 1 + place] = column.values[column.starts[rows] + place]
    return views


def joined_lists(whole: Any) -> Lists:
    """What is `joined`, as lists."""
    ends = _offsets(whole)
    # Behind the last there may be room to spare.
    data = np.frombuffer(whole.buffers()[2] or b"", np.uint8)[: ends[-1]]
    ends = ends // ID_BYTES
    return Lists(data.view(np.int32), ends[:-1], np.diff(ends))


def _offsets(whole: Any) -> Any:
    return np.frombuffer(whole.buffers()[1], np.int64)[: len(whole) + 1]


def step_hashes(tokens: Tokens, owner: Any, start: Any, end: Any) -> tuple[Any, Any]:
    """Of steps (n,), the hash of all tokens before each, the prompt's included, and that of its own.

    `owner`: the row of each one's solution; `start`, `end`: its tokens in it.
    """
    (values, prompt_starts, prompt_sizes), (own, firsts, _) = tokens.prompts, tokens.own
    n = _common(tokens)
    powers = _powers(n + int(prompt_sizes.max(initial=0)))
    sums = _running(values)
    of_prompt = (sums[prompt_starts + prompt_sizes] - sums[prompt_starts]) * powers[n - prompt_starts]
    sums = _running(own)
    before = prompt_sizes[tokens.prompt]
    power = powers[n - firsts + before]
    base = of_prompt[tokens.prompt] - sums[firsts] * power
    place = firsts[owner] + start
    at_start, size = sums[place], end - start
    content = (sums[place + size] - at_start) * powers[n - place]
    prefix = base[owner] + at_start * power[owner]
    return prefix + mixed((before[owner] + start).astype(np.uint64)), content + size.astype(np.uint64)


def content_hash(tokens: Tokens, ids: list[int]) -> int:
    """The hash of a step with these tokens: see `step_hashes`."""
    n = _common(tokens)
    return int((_running(np.array(ids, np.int32))[-1:] * _powers(n)[n] + np.uint64(len(ids)))[0])


def _common(tokens: Tokens) -> int:
    """The power that the first token of a stretch has in its hash."""
    return max(len(tokens.prompts.values), len(tokens.own.values))


def _running(ids: Any) -> Any:
    """Running sums (n + 1,) of all tokens (n,), each times the power of its place."""
    powers = _powers(len(ids))
    sums = np.empty(len(ids) + 1, np.uint64)
    sums[0] = 0
    for start in range(0, len(ids), _CACHED):
        own = ids[start : start + _CACHED].view(np.uint32)
        placed = sums[start + 1 : start + 1 + len(own)]
        np.multiply(own, powers[start : start + len(own)], out=placed)
        placed[:1] += sums[start]
        np.cumsum(placed, out=placed)
    return sums


def _powers(n: int) -> Any:
    """The powers of the odd number from 0 to `n`, or on."""
    return _some_powers(max(n.bit_length(), _LEAST_BITS))


@lru_cache(maxsize=2)
def _some_powers(bits: int) -> Any:
    powers = np.full(1 << bits, _ODD)
    powers[0] = 1
    return np.multiply.accumulate(powers, out=powers)


def mixed(values: Any) -> Any:
    """SplitMix64 (Steele et al. 2014) of unsigned 64-bit integers."""
    result = values + np.uint64(0x9E3779B97F4A7C15)
    for start in range(0, len(result), _CACHED):
        mix = result[start : start + _CACHED]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mix ^= mix >> np.uint64(shift)
            mix *= np.uint64(factor)
        mix ^= mix >> np.uint64(31)
    return result


def one(column: Any) -> Any:
    """A column as one array; copied only where it is several."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
