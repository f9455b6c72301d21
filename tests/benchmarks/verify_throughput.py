"""`final` against a plain math-verify loop: solutions per second, and how many verdicts are right.

Mix: labelled GSM8K solutions and MATH-500 solutions (right ones, and wrong ones that end in another
problem's answer), shuffled; 2 % of all answers are hostile. math-verify runs at its default settings, in the
main thread, on whole texts, as its readme shows. `final` runs as the pipeline runs it, its start-up counted.
GSM8K labels that misread "57,500" as "500" are put right first.

    python -m tests.benchmarks.verify_throughput [solutions]
"""

import logging
import random
import re
import sys
import time
from fractions import Fraction

from stepconf.verifiers.final import FinalVerifier
from stepconf.workers.pool import Pool
from tests.shared_data import large_rows
from tests.verifiers.test_final import labelled_solutions, solved

Item = tuple[str, str, bool]  # gold, solution, whether its answer is right
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?")
HOSTILE_SHARE = 0.02
HOSTILE = (
    "9^{9^{9^{9}}}", "(10^9)!", "\\{1, 9^{9^{9^{9}}}\\}", "\\frac{1}{9^{9^{9}}}", "(" * 300 + "1" + ")" * 300,
    "\\int_0^\\infty \\frac{\\sin(x^x)}{e^{x^2}+x} dx", "2^{2^{2^{2^{2^{2}}}}}", "\\prod_{k=1}^{10^9} k",
    "__import__('os').system('true')", "(1+x)^{10^7}", "x+" * 20_000, "\\sqrt{" * 200,
)  # fmt: skip


def mix(size: int, rng: random.Random) -> list[Item]:
    """`size` solutions with the truth about each."""
    items: list[Item] = []
    for _, gold, text, correct, theirs in labelled_solutions():
        last = _NUMBER.findall(text)[-1] if theirs else ""
        if last.endswith("," + theirs):
            correct = Fraction(last.replace(",", "")) == Fraction(gold)
        items.append((gold, text, correct))
    math = large_rows("benchmarks/math500.jsonl.gz")
    for row, other in zip(math, math[1:] + math[:1], strict=True):
        items.append((row["answer"], row["solution"], True))
        if not row["answer"].endswith(other["answer"]) and not other["answer"].endswith(row["answer"]):
            items.append((row["answer"], other["solution"], False))
    items = rng.sample(items, size)
    for i in rng.sample(range(size), round(HOSTILE_SHARE * size)):
        items[i] = (items[i][0], f"so we get \\boxed{{{rng.choice(HOSTILE)}}}", False)
    return items


def by_math_verify(items: list[Item]) -> list[bool]:
    """The plain loop, as its readme shows it."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    # Gold columns are bare answers; a "####" or "A:" solution is not what `parse` expects of one.
    return [bool(verify(parse(f"${gold_of(gold)}$"), parse(text))) for gold, text, _ in items]


def gold_of(gold: str) -> str:
    return gold.rsplit("A: ", 1)[-1].strip()


def right(items: list[Item], verdicts: list[bool]) -> int:
    return sum(verdict == truth for (*_, truth), verdict in zip(items, verdicts, strict=True))


def main(size: int) -> None:
    items = mix(size, random.Random(0))
    batch = [solved(text, gold, n_steps=1) for gold, text, _ in items]
    start = time.perf_counter()
    with Pool() as pool:
        rows = FinalVerifier(pool).verify(batch)
        cold_s = time.perf_counter() - start
    ours = [verdict is not None and verdict.label == "correct" for (verdict,) in rows]
    start = time.perf_counter()
    theirs = by_math_verify(items)
    loop_s = time.perf_counter() - start
    unknown = sum(verdict is None or verdict.label == "unknown" for (verdict,) in rows)
    print(f"{size} solutions, {HOSTILE_SHARE:.0%} hostile")
    print(f"final:       {size / cold_s:8.1f} solutions/s, {right(items, ours)} right, {unknown} unknown")
    print(f"math-verify: {size / loop_s:8.1f} solutions/s, {right(items, theirs)} right")
    for (gold, text, truth), mine, its in zip(items, ours, theirs, strict=True):
        if mine != its and mine != truth:
            print(f"  final is wrong, math-verify right: gold {gold[-40:]!r}, text ends {text[-60:]!r}")
    print(f"ratio verify_throughput: {loop_s / cold_s:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
