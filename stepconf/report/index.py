"""What the explorer filters by: some 30 bytes a step, for all steps of a run, and the texts of its problems.

Problems, solutions and steps are numbers here: problems in the order of their first solution, solutions and steps
by their row in the table.

Arrow's arrays become NumPy's by DLPack and back by buffers: `to_numpy` and `pa.array` import pandas, 0.4 s of the time
to the first page.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.records import Label, PairKind
from stepconf.report.tables import Tables, containing

LABELS: tuple[str, ...] = get_args(Label)
KINDS: tuple[str, ...] = get_args(PairKind)
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_VERDICT_LABEL = "verdicts.list.element.label"
# Of each table the columns, and which of them come as codes.
_READ = {
    "solutions": (
        ["solution_id", "problem_id", "problem", "answer_correct", "parent_solution_id", "branch_step"],
        ["problem_id", "problem"],
    ),
    "steps": (
        ["solution_id", "label", "entropy_mean", _VERDICT_LABEL],
        ["solution_id", "label", _VERDICT_LABEL],
    ),
    "pairs": (["solution_id", "step_index", "kind"], ["solution_id", "kind"]),
}
_Reading = Callable[[], pa.Table | None]


@dataclass(frozen=True)
class Index:
    """The columns that all questions about a run are answered from.

    Per problem: `problem_ids`, `texts` (Arrow, of strings). Per solution: `solution_ids`, `owner` (its problem),
    `right` (1, 0, or -1 where unknown), `is_branch`, `parent` (the solution that a branch leaves; -1 for samples, and
    where it is not there), `node` (the step of the parent before which it does). Per step: `solution` (-1 where its
    solution is not there), `label` (place in LABELS), `conflict` (one verifier calls it correct, another incorrect),
    `entropy` (mean, nats; NaN where there is none), `kinds` (bits, places in KINDS: the pairs made from it). Per pair:
    `pair_step`, -1 where it is not there.
    """

    problem_ids: pa.Array
    texts: pa.Array
    solution_ids: pa.Array
    owner: Ints
    right: npt.NDArray[np.int8]
    is_branch: Bools
    parent: Ints
    node: Ints
    solution: Ints
    label: npt.NDArray[np.uint8]
    conflict: Bools
    entropy: Floats
    kinds: npt.NDArray[np.uint8]
    pair_step: Ints

    @cached_property
    def problem(self) -> Ints:
        """The problem of each step; -1 where its solution is not there."""
        return (
            np.where(self.solution >= 0, self.owner[self.solution], -1) if self.owner.size else self.solution
        )

    @cached_property
    def of_sample(self) -> Bools:
        """Which steps are of samples."""
        return (
            (self.solution >= 0) & ~self.is_branch[self.solution] if self.owner.size else self.solution >= 0
        )

    @cached_property
    def samples_of(self) -> "Groups":
        """The samples of each problem."""
        return Groups(np.where(self.is_branch, -1, self.owner), len(self.problem_ids))

    @cached_property
    def solutions_of(self) -> "Groups":
        """The samples of each problem and their branches."""
        return Groups(self.owner, len(self.problem_ids))

    @cached_property
    def branches_of(self) -> "Groups":
        """The branches that leave each solution."""
        return Groups(self.parent, len(self.owner))

    @cached_property
    def steps_of(self) -> "Groups":
        """The steps of each solution."""
        return Groups(self.solution, len(self.owner))

    @cached_property
    def pairs_of(self) -> "Groups":
        """The pairs of each step."""
        return Groups(self.pair_step, len(self.label))

    def find_problem(self, problem_id: str) -> int:
        """The problem's number, -1 where there is none."""
        return int(pc.index(self.problem_ids, problem_id).as_py())

    def find_solution(self, solution_id: str) -> int:
        """The solution's number, -1 where there is none."""
        return int(pc.index(self.solution_ids, solution_id).as_py())

    @cached_property
    def label_counts(self) -> Ints:
        """The samples' steps by problem and label, in the order of LABELS."""
        known = self.of_sample
        flat = self.problem[known] * len(LABELS) + self.label[known]
        return np.bincount(flat, minlength=len(self.problem_ids) * len(LABELS)).reshape(-1, len(LABELS))


class Groups:
    """Row numbers by the group they belong to, in order; rows of group -1 are in none."""

    def __init__(self, group: Ints, n: int) -> None:
        self._order = np.argsort(group, kind="stable")
        self._bounds = np.searchsorted(group[self._order], np.arange(n + 1))

    def __getitem__(self, group: int) -> Ints:
        rows: Ints = self._order[self._bounds[group] : self._bounds[group + 1]]
        return rows


def build_index(tables: Tables) -> Index:
    """Read the columns that filters need.

    Raises:
        StepconfError: a shard cannot be read.
    """
    with ThreadPoolExecutor(len(_READ)) as pool:
        reading = {table: pool.submit(tables.columns, table, *asked) for table, asked in _READ.items()}
        return _built(*(reading[table].result for table in ("solutions", "steps", "pairs")))


def _built(read_solutions: _Reading, read_steps: _Reading, read_pairs: _Reading) -> Index:
    """The index of tables that are being read: each is waited for when it is its turn."""
    solutions = read_solutions()
    if solutions is None:
        solutions = pa.table(
            {name: pa.array([], pa.string()) for name in ("solution_id", "problem_id", "problem")}
        )
        others = {"answer_correct": pa.bool_(), "parent_solution_id": pa.string(), "branch_step": pa.int32()}
        for name, kind in others.items():
            solutions = solutions.append_column(name, pa.array([], kind))
    solution_ids = _joined(solutions["solution_id"])
    ids, owner, first = _numbered(solutions["problem_id"])
    steps = _steps(read_steps(), solution_ids)
    kinds, pair_step = _pairs(read_pairs(), solution_ids, steps["solution"])
    return Index(
        problem_ids=ids,
        texts=_plain(solutions["problem"].take(_rows(first))),
        solution_ids=solution_ids,
        owner=owner,
        right=_filled(pc.cast(_joined(solutions["answer_correct"]), pa.int8()), np.int8(-1)),
        **_branches(solutions, solution_ids),
        **steps,
        kinds=kinds,
        pair_step=pair_step,
    )


def _branches(solutions: pa.Table, solution_ids: pa.Array) -> dict[str, Any]:
    said = solutions["parent_solution_id"]
    parent = _places(pc.fill_null(said, ""), solution_ids)
    return {
        "is_branch": _filled(pc.cast(_joined(pc.is_valid(said)), pa.int8()), np.int8(0)) == 1,
        # A parent stands before its branches, so no solution descends from itself.
        "parent": np.where(parent < np.arange(len(parent)), parent, -1),
        "node": _filled(_joined(solutions["branch_step"]), np.int32(-1)).astype(np.int64),
    }


def _steps(rows: pa.Table | None, solution_ids: pa.Array) -> dict[str, Any]:
    if rows is None:
        none = np.zeros(0)
        return {
            "solution": none.astype(np.int64),
            "label": none.astype(np.uint8),
            "conflict": none.astype(np.bool_),
            "entropy": none,
        }
    return {
        "solution": _places(rows["solution_id"], solution_ids),
        # A label that is none of ours reads as unknown: the last.
        "label": np.asarray(_word_places(rows["label"], LABELS) % len(LABELS), dtype=np.uint8),
        "conflict": np.concatenate([_conflicts(chunk) for chunk in rows["verdicts"].chunks]),
        "entropy": _filled(_joined(rows["entropy_mean"]), np.float64(np.nan)),
    }


def _pairs(rows: pa.Table | None, solution_ids: pa.Array, owner: Ints) -> tuple[npt.NDArray[np.uint8], Ints]:
    """The kinds of pairs of each step, and the step of each pair."""
    kinds = np.zeros(len(owner), dtype=np.uint8)
    if rows is None or not len(rows) or not len(owner):
        return kinds, np.full(0 if rows is None else len(rows), -1)
    solution = _places(rows["solution_id"], solution_ids)
    index = np.from_dlpack(_joined(rows["step_index"])).astype(np.int64)
    # The k-th step of a solution, counted in the order of the table.
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(len(solution_ids) + 1))
    at = starts[solution] + index
    known = (solution >= 0) & (index >= 0) & (at < starts[solution + 1])
    step = np.where(known, order[np.minimum(at, len(order) - 1)], -1)
    kind = _word_places(rows["kind"], KINDS)
    for place in range(len(KINDS)):
        kinds[step[known & (kind == place)]] |= np.uint8(1 << place)
    return kinds, step


def _conflicts(verdicts: pa.Array) -> Bools:
    """Which steps one verifier calls correct and another incorrect."""
    labels = pc.list_flatten(verdicts).field(0)
    labels = labels if pa.types.is_dictionary(labels.type) else labels.dictionary_encode()
    words, codes = labels.dictionary.to_pylist(), _filled(labels.indices, np.int32(-1))
    owner = np.from_dlpack(pc.list_parent_indices(verdicts))
    said = [
        np.bincount(owner[codes == words.index(label)], minlength=len(verdicts)) > 0
        for label in ("correct", "incorrect")
        if label in words
    ]
    return np.asarray(said[0] & said[1]) if len(said) == 2 else np.zeros(len(verdicts), dtype=np.bool_)


def text_hits(tables: Tables, index: Index, wanted: str) -> Bools:
    """Which steps have the text in them, in their problem, or at the start of its or their solution's id."""
    by_problem = containing(pa.chunked_array([index.texts]), wanted) | _starting(index.problem_ids, wanted)
    hits = (
        by_problem[index.problem] & (index.problem >= 0)
        if by_problem.size
        else np.zeros(len(index.label), bool)
    )
    hits = hits | (_starting(index.solution_ids, wanted)[index.solution] & (index.solution >= 0))
    rows = tables.columns("steps", ["text"])
    return hits if rows is None else np.asarray(hits | containing(rows["text"], wanted))


def _starting(ids: pa.Array, wanted: str) -> Bools:
    return np.asarray(pc.starts_with(ids, wanted).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _numbered(column: pa.ChunkedArray) -> tuple[pa.Array, Ints, Ints]:
    """Distinct values in the order of their first row, each row's place among them, and those first rows."""
    values, codes = _coded(column)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    rows = first[order]
    return values.take(_rows(codes[rows])), rank[inverse], rows


def _places(column: pa.ChunkedArray, values: pa.Array) -> Ints:
    """The place of each row's value in `values`; -1 where it is not among them."""
    own, codes = _coded(column)
    places = _filled(pc.index_in(own, values), np.int32(-1)).astype(np.int64)
    return places[codes] if len(places) else np.full(len(codes), -1)


def _word_places(column: pa.ChunkedArray, words: tuple[str, ...]) -> Ints:
    """The place of each row's word in `words`; -1 where it is not among them."""
    own, codes = _coded(column)
    places = [words.index(word) if word in words else -1 for word in own.to_pylist()]
    return np.array(places, dtype=np.int64)[codes] if places else np.full(len(codes), -1)


def _coded(column: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """Distinct values, and each row's place among them; a column of codes has one dictionary for all chunks."""
    chunks = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).chunks
    if not chunks:
        return pa.array([], pa.string()), np.zeros(0, dtype=np.int64)
    # Not `combine_chunks` or `unify_dictionaries`, which go through all values once a chunk.
    codes = [np.from_dlpack(chunk.indices) for chunk in chunks]
    return chunks[0].dictionary, np.concatenate(codes).astype(np.int64)


def _rows(numbers: Ints) -> pa.Array:
    """Row numbers as `take` wants them."""
    return pa.Array.from_buffers(
        pa.int64(), len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers))]
    )


def _filled(column: pa.Array, value: np.generic) -> Any:
    """The numbers of a column, `value` (of its type) where there is none."""
    instead = pa.py_buffer(np.full(len(column), value))
    return np.from_dlpack(
        pc.coalesce(column, pa.Array.from_buffers(column.type, len(column), [None, instead]))
    )


def _plain(texts: Any) -> pa.Array:
    texts = _joined(texts) if isinstance(texts, pa.ChunkedArray) else texts
    return texts.dictionary_decode() if pa.types.is_dictionary(texts.type) else texts


def _joined(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        return joined.chunk(0) if joined.num_chunks else pa.array([], column.type)
    return joined


def kind_names(bits: int) -> list[str]:
    """The kinds of pairs that are the bits of `Index.kinds`."""
    return [kind for place, kind in enumerate(KINDS) if bits >> place & 1]


def counted(labels: Sequence[int] | Ints) -> dict[str, int]:
    """A row of `label_counts` by name."""
    return {label: int(n) for label, n in zip(LABELS, labels, strict=True)}
