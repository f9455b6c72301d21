"""`symbolic` on a run of `stepconf demo` (or one like it) against the exact truth of every line of arithmetic.

The truth comes from a checker of its own, which shares nothing with ours: a regular expression finds
`a op b op ... = c` in a step, fractions say whether it is so. Only the arithmetic counts, not whether the
operands are the problem's. The steps are checked anew, by the code at hand.

    python -m tests.benchmarks.symbolic_on_demo RUN
"""

import re
import sys
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

from stepconf.core.claims import check_steps
from stepconf.run.tables import read_shards

MIN_DECIDED = 0.95  # of the steps with an equation
MIN_AGREEMENT = 0.99  # of those that are decided and have a known truth

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_OPERAND = rf"(?:{_NUMBER}|\({_NUMBER}\))"
_EQUATION = re.compile(
    rf"(?<![\w.,)+*/=(-])(?<![+*/=(-] )({_OPERAND}(?:[ ]*[-+*/][ ]*{_OPERAND})+)[ ]*=[ ]*({_NUMBER})"
    r"(?![\w(]|[.,][0-9]|[ ]*[-+*/=(])"
)
_TERM = re.compile(rf"([-+*/])?[ ]*({_OPERAND})[ ]*")
_ANY_EQUATION = re.compile(r"[0-9)][ ]*=[ ]*[-(]?[0-9]")
_SIGNS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/"})


def value_of(expression: str) -> Fraction:
    """The value of `2 + 3 * -4`: products and quotients first. Raises ZeroDivisionError."""
    terms: list[Fraction] = []
    for op, written in _TERM.findall(expression):
        number = Fraction(written.strip("()"))
        if op == "*":
            terms[-1] *= number
        elif op == "/":
            terms[-1] /= number
        else:
            terms.append(-number if op == "-" else number)
    return sum(terms, Fraction(0))


def truth(step: str) -> bool | None:
    """Whether every equation in the step is so; None where it has none that is plain arithmetic."""
    found = _EQUATION.findall(step.translate(_SIGNS))
    try:
        return all(value_of(left) == Fraction(right) for left, right in found) if found else None
    except ZeroDivisionError:
        return None


def solutions_of(run: Path) -> list[tuple[str, list[str]]]:
    """(problem, steps in order) of every solution."""
    steps: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for shard in read_shards(run, "steps", ["solution_id", "step_index", "text"]):
        for row in shard:
            steps[row["solution_id"]].append((row["step_index"], row["text"]))
    return [
        (row["problem"], [text for _, text in sorted(steps[row["solution_id"]])])
        for shard in read_shards(run, "solutions", ["solution_id", "problem"])
        for row in shard
    ]


def main(run: Path) -> bool:
    """Print the comparison; whether both bars are met."""
    total = without = unread = equations = decided = known = agreed = 0
    disagreements, undecided = [], []
    for problem, steps in solutions_of(run):
        for step, found in zip(steps, check_steps(problem, steps), strict=True):
            total += 1
            true = truth(step)
            if true is None and not _ANY_EQUATION.search(step.translate(_SIGNS)):
                without += 1
                continue
            equations += 1
            unread += true is None
            if found.label == "unknown":
                undecided.append(step)
                continue
            decided += 1
            if true is not None:
                known += 1
                agreed += found.label == ("correct" if true else "incorrect")
                if found.label != ("correct" if true else "incorrect"):
                    disagreements.append((step, true, found))
    print(f"{total} steps of {run}: {without} without an equation (not decidable), {equations} with one")
    print(f"of these the independent checker reads {equations - unread}, symbolic decides {decided}")
    for step in undecided:
        print(f"  undecided: {step.strip()!r}")
    for step, true, found in disagreements:
        print(f"  disagree: {step.strip()!r} is {true}, symbolic says {found.label}: {found.reason}")
    shares = decided / max(1, equations), agreed / max(1, known)
    print(f"decided {decided}/{equations} = {shares[0]:.4f} (at least {MIN_DECIDED})")
    print(f"agreement {agreed}/{known} = {shares[1]:.4f} (at least {MIN_AGREEMENT})")
    print(f"ratio symbolic_on_demo_decided: {shares[0]:.2f}")
    print(f"ratio symbolic_on_demo_agreement: {shares[1]:.2f}")
    return shares[0] >= MIN_DECIDED and shares[1] >= MIN_AGREEMENT


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{__doc__}\nGive the folder of a run: stepconf demo writes one.")
    sys.exit(0 if main(Path(sys.argv[1])) else 1)
