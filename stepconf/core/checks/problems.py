"""The run's problems, each looked at once: identity, repetition, near repetition, and leaks from benchmarks."""

from typing import Any

import numpy as np

from stepconf.core.checks.findings import Findings
from stepconf.core.checks.texts import (
    LEAK_WORDS,
    leak_grams,
    near_duplicates,
    signatures,
    wholes,
    words,
)
from stepconf.core.ids import problem_id

_MOST_REPEATED = 0.5  # share of solutions that repeat another of their problem, above which it is said
_FEW_SAMPLES = 20


class ProblemChecks:
    """Takes solutions chunk by chunk; says at the end what only all problems together show."""

    def __init__(self, against: dict[str, list[str]]) -> None:
        self._against = {name: _grams(texts) for name, texts in against.items()}
        self._seen: set[int] = set()  # hashes of the problems' ids
        self._names: list[str] = []
        self._wholes: list[int] = []
        self._numbers: list[int] = []
        self._signatures: list[np.ndarray] = []
        self._leaks = dict.fromkeys(against, 0)
        self._repeated = self._shared = 0

    def add(self, solutions: Any, id_hashes: np.ndarray, found: Findings) -> None:
        """The solutions of a chunk; `id_hashes` (m,) are of their problem_id."""
        import pyarrow as pa

        names = ("problem_id", "problem", "gold_answer")
        distinct = pa.table({name: solutions[name] for name in names} | {"hash": id_hashes})
        # One id with two texts is two rows here: each is compared with the id.
        new = []
        for row in distinct.group_by([*names, "hash"], use_threads=False).aggregate([]).to_pylist():
            name, text = row["problem_id"], row["problem"]
            if problem_id(text, row["gold_answer"]) != name:
                found.add("problem-id", name)
            if row["hash"] not in self._seen:
                self._seen.add(row["hash"])
                new.append((name, text))
        self._look(new, found)
        self._count_repeats(solutions)

    def _look(self, problems: list[tuple[str, str]], found: Findings) -> None:
        """Read problems, by id, that were not met before."""
        read = [words(text) for _, text in problems]
        self._names += [name for name, _ in problems]
        self._wholes += wholes(read).tolist()
        self._numbers += [one.numbers & (2**64 - 1) for one in read]
        self._signatures.append(signatures(read))
        for benchmark, grams in self._against.items():
            for name, text in problems:
                shared = _among(leak_grams(text), grams)
                if shared.any():
                    self._leaks[benchmark] += 1
                    found.add("leak", f"{name} with {benchmark}: {_passage(text, int(shared.argmax()))}")

    def _count_repeats(self, solutions: Any) -> None:
        """Samples that are, to the letter, another one of their problem in this shard; branches may be."""
        import pyarrow as pa

        solutions = solutions.filter(solutions["parent_solution_id"].is_null())
        if not len(solutions):
            return
        of = pa.table({name: solutions[name] for name in ("problem_id", "text")})
        groups = of.group_by(["problem_id", "text"]).aggregate([])
        per_problem = of.group_by("problem_id").aggregate([([], "count_all")])["count_all"].to_numpy()
        self._repeated += len(solutions) - len(groups)
        self._shared += int(per_problem[per_problem > 1].sum())

    def finish(self, found: Findings) -> None:
        """Problems that repeat each other."""
        first: dict[int, int] = {}
        same = set()
        for row, key in enumerate(self._wholes):
            if first.setdefault(key, row) != row:
                same.add(row)
                found.add("duplicate-problem", f"{self._names[first[key]]} and {self._names[row]}")
        if self._names:
            pairs = near_duplicates(np.concatenate(self._signatures), np.array(self._numbers, np.uint64))
            for one, row in pairs:
                if row not in same:
                    found.add("near-duplicate", f"{self._names[one]} and {self._names[row]}")
        if self._shared >= _FEW_SAMPLES and self._repeated > _MOST_REPEATED * self._shared:
            found.add("repeated-samples", f"{self._repeated:,} of {self._shared:,} solutions")

    def facts(self) -> dict[str, Any]:
        """Counts, for the reader."""
        return {
            "problems": len(self._names),
            "repeated_samples": self._repeated,
            "leaks": {name: {"problems": n, "words": LEAK_WORDS} for name, n in self._leaks.items()},
        }


def _grams(texts: list[str]) -> np.ndarray:
    grams = [leak_grams(text) for text in texts]
    return np.unique(np.concatenate(grams)) if grams else np.zeros(0, np.uint64)


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are in the sorted `known`."""
    if not len(known):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    mask: np.ndarray = known[at] == values
    return mask


def _passage(text: str, first_word: int) -> str:
    """About the words that are shared; words of punctuation make it approximate."""
    return " ".join(text.split()[max(first_word - 1, 0) : first_word + LEAK_WORDS])
