"""Segmentation speed on one core: `python -m tests.benchmarks.segment_throughput`.

Texts: MATH solutions, GSM8K answers, ProcessBench solutions (steps joined by blank lines), all in memory.
Rival: a plain regular-expression split at line ends, which decides nothing: an upper bound. Rounds of all
contestants alternate; the median round counts. Megabytes are 10^6 bytes of UTF-8.

Thinking: 10 MB of those solutions as paragraphs between the marks of one text, half of them after a turn of thought.
All that makes its steps is timed: finding the marks, the cuts, the part and the turns of each step.
"""

import re
import statistics
import time
from collections.abc import Callable
from itertools import cycle

from stepconf.core.reasoning import divide, is_reconsidering, part_of
from stepconf.core.segment import SegmentOptions, segment, segment_parts
from tests.shared_data import large_rows

ROUNDS = 5
THINKING_BYTES = 10_000_000


def texts() -> list[str]:
    """At least 5 MB of solutions, each once."""
    math = [row["solution"] for part in ("train", "test") for row in large_rows(f"math/{part}.jsonl.gz")]
    gsm8k = [row["answer"] for part in ("train", "test") for row in large_rows(f"gsm8k/{part}.jsonl.gz")]
    bench = [
        "\n\n".join(row["steps"])
        for part in ("gsm8k", "math")
        for row in large_rows(f"processbench/{part}_dev.jsonl.gz")
    ]
    return math + gsm8k + bench


def seconds(work: Callable[[str], object], corpus: list[str]) -> float:
    """CPU seconds of one pass."""
    start = time.process_time()
    for text in corpus:
        work(text)
    return time.process_time() - start


def thinking(corpus: list[str]) -> str:
    """One text with 10 MB of thinking, and an answer."""
    paragraphs: list[str] = []
    size = 0
    for index, text in enumerate(cycle(corpus)):
        if size >= THINKING_BYTES:
            break
        paragraphs.append(f"Wait, let me check. {text}" if index % 2 else text)
        size += len(paragraphs[-1].encode()) + 2
    return "<think>\n" + "\n\n".join(paragraphs) + "\n</think>\n\nThe answer is \\boxed{12}."


def steps_of(text: str) -> list[tuple[str, bool]]:
    """The part of each step, and whether it holds a turn of thought."""
    parts = divide(text)
    spans = segment_parts(text, parts)
    return [(part_of(text, span, parts), is_reconsidering(text[slice(*span)])) for span in spans]


def main() -> None:
    corpus = texts()
    megabytes = sum(len(text.encode()) for text in corpus) / 1e6
    newline = re.compile(r"\n+")
    modes = {mode: SegmentOptions(mode=mode) for mode in ("auto", "lines", "paragraphs", "sentences")}
    contestants: dict[str, Callable[[str], object]] = {
        f"segment, {mode}": lambda text, options=options: segment(text, options)  # type: ignore[misc]
        for mode, options in modes.items()
    }
    contestants["re.split at line ends (upper bound)"] = newline.split
    passes: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, work in contestants.items():
            passes[name].append(seconds(work, corpus))
    speed = {name: megabytes / statistics.median(times) for name, times in passes.items()}
    print(
        f"{len(corpus):,} solutions, {megabytes:.1f} MB, median of {ROUNDS} alternating passes, CPU seconds"
    )
    for name, rate in speed.items():
        spread = megabytes / max(passes[name]), megabytes / min(passes[name])
        print(f"{name:38} {rate:8.1f} MB/s  ({spread[0]:.1f} to {spread[1]:.1f})")
    long = thinking(corpus)
    rates = [len(long.encode()) / 1e6 / seconds(steps_of, [long]) for _ in range(ROUNDS)]
    rate = statistics.median(rates)
    print(f"{'thinking, one text of 10 MB':38} {rate:8.1f} MB/s  ({min(rates):.1f} to {max(rates):.1f})")
    print(f"ratio thinking_mb_per_s_over_5: {rate / 5:.2f}")
    slowest = min(rate for name, rate in speed.items() if name.startswith("segment"))
    upper = speed["re.split at line ends (upper bound)"]
    print(f"ratio segment_mb_per_s_over_5: {speed['segment, auto'] / 5:.2f}")
    print(f"ratio segment_slowest_mode_mb_per_s_over_5: {slowest / 5:.2f}")
    print(f"ratio segment_over_newline_split: {speed['segment, auto'] / upper:.3f}")


if __name__ == "__main__":
    main()
