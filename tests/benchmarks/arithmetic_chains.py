"""Worked solutions of arithmetic chains (reasoning-gym chain_sum), as JSON lines: what a small model learns from.

python -m tests.benchmarks.arithmetic_chains --size 800 > gold.jsonl
stepconf score gold.jsonl --model demo --recipe recipes/smollm2-135m/chains.yaml --out gold
stepconf train gold --objective sft --recipe recipes/smollm2-135m/chains.yaml --out solver
"""

import argparse
import json
import re

from stepconf.problems.load import load_problems
from stepconf.recipe import ProblemsRecipe

TERMS = "min_terms=3&max_terms=4&min_digits=1&max_digits=1"  # as the demo's


def worked(problem: str) -> str:
    """A line for every operation of `... problem: a + b - c =`, and the answer."""
    first, *rest = re.findall(r"[-+]?\s*\d+", problem.rpartition(":")[2])
    total = int(first.replace(" ", ""))
    lines = []
    for term in rest:
        sign, number = term[0], int(term[1:])
        before, total = total, total + number if sign == "+" else total - number
        lines.append(f"{before} {sign} {number} = {total}")
    return "\n".join([*lines, f"The answer is {total}"])


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--terms", default=TERMS)
    parser.add_argument("--seed", type=int, default=99)
    options = parser.parse_args()
    source = f"reasoning-gym:chain_sum?{options.terms}&size={options.size}"
    for problem in load_problems(source, ProblemsRecipe(), options.seed).problems:
        solution = worked(problem.text)
        assert solution.endswith(f" {problem.gold_answer}"), (problem, solution)
        print(json.dumps({"problem": problem.text, "answer": problem.gold_answer, "solution": solution}))


if __name__ == "__main__":
    main()
