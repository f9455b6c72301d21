"""The questions of the page, answered from a source: which problems, one problem, one solution."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from stepconf.report.filters import Filter, matching_problems
from stepconf.report.index import Bools, Index, Ints, build_index, counted, kind_names, text_hits
from stepconf.report.rows import (
    BRANCH_COLUMNS,
    PAIR_COLUMNS,
    SOLUTION_COLUMNS,
    STEP_COLUMNS,
    branch_row,
    problem_row,
    solution_row,
    step_rows,
    with_branches,
)
from stepconf.report.source import Source
from stepconf.report.tables import Tables
from stepconf.report.token_texts import TokenTexts

PAGE = 50  # problems in one page of the list
SNIPPET = 240  # characters of a problem in the list
_SEARCHES = 8  # masks of one byte a step that are kept


class Explorer:
    """A source whose index is in memory; everything else is read when it is asked for.

    Raises:
        StepconfError: a shard cannot be read.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tables = Tables(source)
        self.index: Index = build_index(self.tables)
        self._hits = lru_cache(_SEARCHES)(lambda text: text_hits(self.tables, self.index, text))

    def token_texts(self) -> TokenTexts:
        """The tokenizer of the run; opening it may take seconds."""
        metadata = self.tables.metadata("steps")
        model = metadata.get("model") or str(self.source.recipe.get("model") or "")
        revision = self.source.recipe.get("model_revision")
        revision = revision if isinstance(revision, str) else None  # others may have written it
        return TokenTexts(model, revision, metadata.get("tokenizer", ""))

    def list_problems(self, wanted: Filter, page: int) -> dict[str, Any]:
        """One page of the problems that the filter lists, and how many there are."""
        found = matching_problems(self.index, wanted, self._hits_of(wanted))
        shown = found[page * PAGE : (page + 1) * PAGE]
        return {
            "total": len(self.index.problem_ids),
            "matching": len(found),
            "page": page,
            "page_size": PAGE,
            "problems": [self.list_row(problem) for problem in shown.tolist()],
        }

    def list_row(self, problem: int) -> dict[str, Any]:
        """A problem in the list."""
        index = self.index
        solutions = index.samples_of[problem]
        steps = self._steps(solutions)
        all_steps = self._steps(index.solutions_of[problem])
        entropy = index.entropy[steps]
        entropy = entropy[~np.isnan(entropy)]
        right = index.right[solutions]
        text = index.texts[problem].as_py()
        return {
            "id": index.problem_ids[problem].as_py(),
            "text": text if len(text) <= SNIPPET else text[:SNIPPET] + "…",
            "solutions": len(solutions),
            "branches": len(index.solutions_of[problem]) - len(solutions),
            "right": int((right == 1).sum()),
            "decided": int((right >= 0).sum()),
            "labels": counted(index.label_counts[problem]),
            "conflicts": int(index.conflict[steps].sum()),
            "entropy": [float(entropy.min()), float(entropy.max())] if entropy.size else None,
            "kinds": kind_names(int(np.bitwise_or.reduce(index.kinds[all_steps], initial=0))),
        }

    def problem(self, problem: int) -> dict[str, Any]:
        """A problem with its samples, without their steps."""
        rows = self.tables.rows("solutions", self.shown(problem), SOLUTION_COLUMNS)
        return {**problem_row(rows[0]), "solutions": [solution_row(row) for row in rows]}

    def shown(self, problem: int) -> Ints:
        """The samples of a problem; where none is there, one of the branches stands for it."""
        samples = self.index.samples_of[problem]
        return samples if samples.size else self.index.solutions_of[problem][:1]

    def steps(self, solutions: Sequence[int] | Ints, texts: TokenTexts) -> list[list[dict[str, Any]]]:
        """The steps of each of these solutions, with tokens, verdicts, pairs, and the branches that leave them."""
        wanted = [int(one) for one in solutions]
        family = self._with_descendants(wanted)
        rows = dict(zip(family, self.tables.rows("solutions", family, BRANCH_COLUMNS), strict=True))
        numbers = {one: self.index.steps_of[one].tolist() for one in family}
        flat = [step for own in numbers.values() for step in own]
        steps = dict(zip(flat, self.tables.rows("steps", flat, STEP_COLUMNS), strict=True))
        pairs = self._pairs_of([step for step in flat if self.index.kinds[step]])

        def shown(one: int) -> list[dict[str, Any]]:
            by_index = {int(steps[n]["step_index"]): pairs[n] for n in numbers[one] if n in pairs}
            starts = texts.starts(rows[one]["text"], rows[one]["token_ids"])
            branches: dict[int, list[dict[str, Any]]] = {}
            for branch in self.index.branches_of[one].tolist():
                own = branch_row(rows[branch], shown(branch))
                branches.setdefault(int(self.index.node[branch]), []).append(own)
            return with_branches(step_rows([steps[n] for n in numbers[one]], by_index, starts), branches)

        return [shown(one) for one in wanted]

    def _with_descendants(self, solutions: list[int]) -> list[int]:
        """The solutions, their branches, those of these, and so on, each once."""
        found = dict.fromkeys(solutions)
        level = solutions
        while level:
            level = [branch for one in level for branch in self.index.branches_of[one].tolist()]
            found |= dict.fromkeys(level)
        return list(found)

    def _pairs_of(self, steps: list[int]) -> dict[int, list[dict[str, Any]]]:
        numbers = {step: self.index.pairs_of[step].tolist() for step in steps}
        flat = [pair for own in numbers.values() for pair in own]
        rows = dict(zip(flat, self.tables.rows("pairs", flat, PAIR_COLUMNS), strict=True))
        return {step: [rows[pair] for pair in own] for step, own in numbers.items()}

    def _steps(self, solutions: Sequence[int] | Ints) -> Ints:
        parts = [self.index.steps_of[int(one)] for one in solutions]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _hits_of(self, wanted: Filter) -> Bools | None:
        return self._hits(wanted.text) if wanted.text else None
