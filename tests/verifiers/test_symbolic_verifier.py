"""The symbolic verifier behind its Protocol, in real workers."""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

import pytest

from stepconf.core.records import Solution, Solved
from stepconf.core.statements import STATES_NOTHING
from stepconf.core.steps import build_steps
from stepconf.verifiers.base import OpenVerifier
from stepconf.verifiers.symbolic import SymbolicVerifier
from stepconf.workers.pool import Pool
from tests.verifiers.hostile import hostile_strings


def solved(*texts: str) -> Solved:
    text = "".join(texts)
    steps = build_steps("s", "p", text, list(pairwise([0, *accumulate(map(len, texts))])))
    solution = Solution(
        solution_id="s", problem_id="p", external_id=None, source="test", split="", problem="What is it?",
        gold_answer=None, answer_type="math", model="", model_revision="", engine="imported", prompt_token_ids=[],
        text=text, token_ids=[], temperature=None, top_p=None, seed=None, sample_index=0,
        finish_reason="imported",
        predicted_answer=None, answer_correct=None, n_steps=len(steps), n_tokens=0, entropy_mean=None,
        confidence=None,
    )  # fmt: skip
    return Solved(solution, steps)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(workers=2, deadline_s=10) as pool:
        yield pool


def test_a_verdict_for_every_step(pool: Pool) -> None:
    verifier: OpenVerifier = SymbolicVerifier(pool)
    (verdicts, nothing) = verifier.verify(
        [solved("47 + 38 = 85\n", "So 85 - 20 = 75\n", "We are done."), solved()]
    )
    assert [verdict.label for verdict in verdicts if verdict] == ["correct", "incorrect", "unknown"]
    assert verdicts[1] is not None and "85 - 20 = 75" in verdicts[1].reason
    assert all(
        verdict is not None and verdict.seconds > 0 and verdict.verifier == "symbolic" for verdict in verdicts
    )
    assert nothing == []


def test_why_a_step_is_unknown(pool: Pool) -> None:
    texts = ("Let's find the total:\n", "She has many pens.\n", "### The sum 3 + 4 = 8\n", "</p>")
    (verdicts,) = SymbolicVerifier(pool).verify([solved(*texts)])
    assert [verdict and (verdict.label, verdict.reason) for verdict in verdicts][:2] == [
        ("unknown", STATES_NOTHING),
        ("unknown", "nothing that can be checked"),
    ]
    assert verdicts[2] is not None and verdicts[2].label == "incorrect"
    assert verdicts[3] is not None and verdicts[3].reason == STATES_NOTHING


def test_hostile_steps_leave_their_neighbours_alone(pool: Pool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    strings = hostile_strings(str(canary))
    rows = SymbolicVerifier(pool).verify([solved(text + "\n", "2 + 2 = 4") for text in strings[::4]])
    assert not canary.exists()
    assert all(len(row) == 2 and row[1] is not None for row in rows)
    timeouts = [row for row in rows if row[1] is not None and row[1].reason == "timeout"]
    assert not timeouts
