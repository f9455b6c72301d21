"""Labels by columns are those of the rules, step by step, whatever was said and in whatever order the rows lie."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.labels import POLICIES, label_steps, taken_back
from stepconf.core.reasoning import Part
from stepconf.core.records import Verdict
from stepconf.core.schema import arrow_schema
from stepconf.labels.columns import label_chunk
from tests.verifiers.solutions import solved

SPOKEN = st.lists(
    st.builds(
        Verdict,
        st.sampled_from(["symbolic", "final", "critic", "rollout", "new one"]),
        st.just("1"),
        st.sampled_from(["correct", "incorrect", "unknown"]),
    ),
    max_size=4,
)
CHUNKS = st.lists(st.lists(SPOKEN, max_size=5), max_size=6)  # verdicts of the steps of each solution
# Texts of steps, and their part and is_reconsidering.
TEXTS: dict[str, tuple[Part, bool]] = {
    "It is 4.": ("answer", False),
    "However, no.": ("answer", True),
    "2 + 2 = 5": ("reasoning", False),
    "Wait, no.": ("reasoning", True),
    "So 5. Wait, no.": ("reasoning", True),
}


LABELS = {"label", "label_source", "is_first_error", "after_error"}
Parent = tuple[int, int] | None  # the solution that a branch leaves, and before which of its steps


def tables(
    chunk: list[list[list[Verdict]]], texts: list[list[str]], order: list[int], parents: list[Parent]
) -> tuple[pa.Table, pa.Table]:
    """Both tables with the columns that matter; the steps' rows in the order of `order`, stable."""
    names = [str(i) for i in range(len(chunk))]
    steps: list[dict[str, Any]] = [
        {
            "solution_id": name,
            "text": text,
            "part": TEXTS[text][0],
            "is_reconsidering": TEXTS[text][1],
            "verdicts": [{key: getattr(verdict, key) for key in Verdict.__slots__} for verdict in said],
            "label": "unknown",
            "label_source": "",
            "is_first_error": False,
            "after_error": False,
        }
        for name, solution, own in zip(names, chunk, texts, strict=True)
        for said, text in zip(solution, own, strict=True)
    ]
    steps = [row for _, row in sorted(zip(order, steps, strict=False), key=lambda pair: pair[0])]
    solutions = [
        {
            "solution_id": name,
            "answer_correct": None,
            "parent_solution_id": None if parent is None else str(parent[0]),
            "branch_step": None if parent is None else parent[1],
        }
        for name, parent in zip(names, parents, strict=True)
    ]
    declared = [
        pa.schema([field for field in arrow_schema(table) if field.name in wanted])
        for table, wanted in (
            ("solutions", {"solution_id", "answer_correct", "parent_solution_id", "branch_step"}),
            (
                "steps",
                set(steps[0])
                if steps
                else {"solution_id", "text", "part", "is_reconsidering", "verdicts"} | LABELS,
            ),
        )
    ]
    return pa.Table.from_pylist(solutions, declared[0]), pa.Table.from_pylist(steps, declared[1])


@pytest.mark.parametrize("policy", POLICIES)
@given(chunk=CHUNKS, mixed=st.data())
def test_as_step_by_step(policy: str, chunk: list[list[list[Verdict]]], mixed: st.DataObject) -> None:
    n_steps = sum(map(len, chunk))
    # Solutions may lie among each other, the steps of each in order.
    groups = mixed.draw(st.lists(st.integers(0, 2), min_size=len(chunk), max_size=len(chunk)))
    order = [group for group, solution in zip(groups, chunk, strict=True) for _ in solution]
    parents: list[Parent] = [
        mixed.draw(st.none() | st.tuples(st.sampled_from(there), st.integers(0, 5))) if there else None
        for there in ([j for j in range(i) if chunk[j]] for i in range(len(chunk)))
    ]
    texts = [
        mixed.draw(st.lists(st.sampled_from(list(TEXTS)), min_size=len(own), max_size=len(own)))
        for own in chunk
    ]
    solutions, steps = tables(chunk, texts, order, parents)
    made = label_chunk(solutions, steps, policy)
    assert made.steps.schema == steps.schema and len(made.steps) == n_steps
    assert made.steps["text"].equals(steps["text"]), "rows stay where they are"
    found: dict[str, list[tuple[Any, ...]]] = {str(i): [] for i in range(len(chunk))}
    for row in made.steps.to_pylist():
        found[row["solution_id"]].append(
            (row["label"], row["label_source"], row["is_first_error"], row["after_error"])
        )
    late: list[bool] = []
    expected = []
    for solution, own, parent in zip(chunk, texts, parents, strict=True):
        late.append(
            parent is not None
            and (
                late[parent[0]] or any(label == "incorrect" for label, *_ in expected[parent[0]][: parent[1]])
            )
        )
        blank = solved("P", ["x"]).steps[0]
        rows = [
            replace(blank, text=text, part=TEXTS[text][0], is_reconsidering=TEXTS[text][1]) for text in own
        ]
        expected.append(label_steps(solution, policy, late[-1], taken_back(rows)))
    for name, labels in enumerate(expected):
        assert found[str(name)] == [tuple(label) for label in labels]
    finals = [
        [v.label for v in (solution or [[]])[-1] if v.verifier == "final" and v.label != "unknown"]
        for solution in chunk
    ]
    right = [said[-1] == "correct" if said else None for said in finals]
    assert made.solutions["answer_correct"].to_pylist() == right
    again = label_chunk(made.solutions, made.steps, policy)
    assert again.changed == (), "labelled twice is labelled once"
    assert ("solutions" in made.changed) == any(one is not None for one in right)
