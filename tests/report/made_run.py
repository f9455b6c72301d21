"""A run made of records, without a model: two problems, verdicts that conflict, pairs, and text that is hostile."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from stepconf.core.ids import content_id
from stepconf.core.records import Pair, Solution, Solved, Step, TokenScores, Verdict
from stepconf.core.schema import solution_of, step_of
from stepconf.core.steps import build_steps
from stepconf.run.shards import Run

GOLDEN = Path(__file__).parents[1] / "golden_rows"
HOSTILE = '<script>window.hacked=1</script><img src=x onerror="window.hacked=1"> </script><!--'
PROBLEMS = (
    f"What is $\\frac{{1}}{{2}} + \\frac{{1}}{{2}}$? It costs $5 and $10. {HOSTILE}",
    "\u05db\u05de\u05d4 \u05d4\u05dd 2 + 3? \u202e right to left \u202c",
    "Broken: $\\frac{1$ and \\(\\notacommand{2}\\) and \\begin{align}a&=b\\end{align}",
)
TEXTS = (
    ("First, $\\tfrac12+\\tfrac12$.\n", f"So it is 1. {HOSTILE}\n", "The answer is \\[1\\]"),
    ("\u05d4\u05ea\u05e9\u05d5\u05d1\u05d4 \u05d4\u05d9\u05d0 5.\n", "The answer is 5"),
    ("It is $\\frac{1$.\n", "x" * 100_000),
)


def golden(table: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{table}.jsonl").read_text().splitlines()]


def made_run(out: Path, finished: bool = True) -> Path:
    """Write the run: the golden rows as one chunk, the hostile ones as another, and pairs of both."""
    with Run(out, {"command": "generate", "model": "", "sampling": {"seed": 7}}) as run:
        _commit(run, "00000", *_golden_rows())
        _commit(run, "00001", *_hostile_rows())
        pairs = [Pair(**row) for row in golden("pairs")]
        kinds = dict(Counter(pair.kind for pair in pairs))
        run.stage_pairs("train-00000", pairs)
        counts = {key: sum(m[key] for m in run.manifests()) for key in ("solutions", "steps", "tokens")}
        empty: dict[str, Any] = {"drops": {}, "splits": {"train": len(pairs)}}
        facts = {
            "kinds": kinds,
            "options": {"strategy": "caspo"},
            "tau": 0.5,
            "solutions": counts["solutions"],
        }
        run.commit_pairs({**facts, **empty})
        if finished:
            run.write_json("summary.json", {**counts, "pairs": kinds, "drops": {"empty solution": 2}})
    return out


def _commit(run: Run, name: str, solutions: list[Solution], steps: list[Step]) -> None:
    facts = {"input": "", "solutions": len(solutions), "steps": len(steps), "drops": {}, "seconds": {}}
    tokens = sum(len(step.token_ids) for step in steps)
    run.commit(name, {"solutions": solutions, "steps": steps}, facts | {"tokens": tokens})


def _golden_rows() -> tuple[list[Solution], list[Step]]:
    solutions = [solution_of(row) for row in golden("solutions")]
    return solutions, [step_of(row) for row in golden("steps")]


def _hostile_rows() -> tuple[list[Solution], list[Step]]:
    all_ = [_solved(problem, parts) for problem, parts in zip(PROBLEMS, TEXTS, strict=True)]
    return [one.solution for one in all_], [step for one in all_ for step in one.steps]


def _solved(problem: str, parts: tuple[str, ...]) -> Solved:
    text = "".join(parts)
    bounds = [sum(map(len, parts[:i])) for i in range(len(parts) + 1)]
    spans = list(pairwise(bounds))
    tokens = list(range(len(parts) * 2))
    starts = [start for low, high in spans for start in (low, (low + high) // 2)]
    scores = TokenScores(*([value] * len(tokens) for value in (-0.1, 0.3, 0.9)))
    ids = content_id(problem), content_id(problem, text)
    steps = build_steps(ids[1], ids[0], text, spans, tokens, starts, scores)
    said = [Verdict("symbolic", "1", "correct", reason=HOSTILE), Verdict("critic", "1", "incorrect", 0.25)]
    steps = [
        replace(step, verdicts=said, label="incorrect", label_source="critic", is_first_error=not i)
        for i, step in enumerate(steps)
    ]
    model = golden("solutions")[0] | {"solution_id": ids[1], "problem_id": ids[0], "problem": problem}
    own = {"text": text, "token_ids": tokens, "n_steps": len(steps), "n_tokens": len(tokens), "extra": "{}"}
    return Solved(solution_of(model | own), steps)
