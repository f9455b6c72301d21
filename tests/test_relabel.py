"""Another policy for a run that is there: labels change, nothing else does, and a kill does no harm."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.labels import POLICIES, label_steps
from stepconf.core.noise import Noise, is_turned, noised
from stepconf.core.schema import step_of
from stepconf.labels.relabel import relabel
from stepconf.run.tables import read_manifests
from tests.invariants import check_invariants, rows_of
from tests.test_pipeline import write_jsonl
from tests.tiny import stepconf, with_tiny

GIVEN = [
    # Symbolic finds the false sum, and the answer is wrong; then one whose answer is right all the same.
    {
        "problem": "2 + 3 + 4?",
        "answer": "9",
        "steps": ["2 + 3 = 5.", "5 + 4 = 8.", "The answer is \\boxed{8}"],
    },
    {
        "problem": "2 + 3 + 5?",
        "answer": "10",
        "steps": ["2 + 3 = 6.", "5 + 5 = 10.", "So 5 + 5 = 10. \\boxed{10}"],
    },
    {"problem": "7 - 3?", "answer": "4", "steps": ["Take 3 away.", "7 - 3 = 4, so \\boxed{5}"]},
    {"problem": "7 - 2?", "answer": "5", "steps": ["Take 2 away.", "So \\boxed{5}"]},
]


def command(given: Path, out: Path) -> list[Any]:
    return [
        "verify",
        given,
        "--verify",
        "final,symbolic",
        "--out",
        out,
        "--set",
        "chunk=2",
        "--set",
        "verify.workers=1",
    ]


@pytest.fixture(scope="module")
def given_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("given") / "given.jsonl", GIVEN)


@pytest.fixture(scope="module")
def made(given_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "run"
    ended = stepconf(*command(given_file, out))
    assert ended.code == 0, ended.err
    return out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


LABELS = ("label", "label_source", "is_first_error", "after_error")


def labels(run: Path) -> dict[str, list[tuple[Any, ...]]]:
    """By solution, its steps' labels."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows_of(run, "steps"):
        found.setdefault(row["solution_id"], []).append(tuple(row[name] for name in LABELS))
    return found


def rest(run: Path) -> list[dict[str, Any]]:
    """Everything but the labels."""
    steps = [{k: v for k, v in row.items() if k not in LABELS} for row in rows_of(run, "steps")]
    return [*steps, *rows_of(run, "solutions")]


def expected(run: Path, policy: str) -> dict[str, list[tuple[Any, ...]]]:
    by_solution: dict[str, list[Any]] = {}
    for row in rows_of(run, "steps"):
        by_solution.setdefault(row["solution_id"], []).append(step_of(row).verdicts)
    return {key: [tuple(label) for label in label_steps(said, policy)] for key, said in by_solution.items()}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_gives_its_labels_and_changes_nothing_else(run: Path, policy: str) -> None:
    before = rest(run)
    ended = stepconf("relabel", run, "--policy", policy)
    assert ended.code == 0, ended.err
    assert labels(run) == expected(run, policy)
    assert rest(run) == before
    check_invariants(run)
    assert {manifest["policy"] for manifest in read_manifests(run)} == {policy}
    assert json.loads((run / "summary.json").read_text())["steps"] == 10


def test_policies_differ_and_the_way_back_is_exact(run: Path) -> None:
    first = labels(run)
    stepconf("relabel", run, "--policy", "consensus")
    second = labels(run)
    assert first != second
    summary = json.loads((run / "summary.json").read_text())
    said = [label for solution in second.values() for label, *_ in solution]
    assert summary["labels"] == {label: said.count(label) for label in sorted(set(said))}
    stepconf("relabel", run, "--policy", "error-first")
    assert labels(run) == first


def test_a_run_goes_on_only_under_its_own_policy(run: Path, given_file: Path) -> None:
    stepconf("relabel", run, "--policy", "consensus")
    assert yaml.safe_load((run / "recipe.yaml").read_text())["verify"]["policy"] == "consensus"
    refused = stepconf(*command(given_file, run))
    assert refused.code == 1 and "verify.policy (there 'consensus', now 'error-first')" in refused.err
    chunk = read_manifests(run)[-1]["chunk"]
    (run / "manifests" / f"{chunk}.json").unlink()  # as if it had been killed before its last chunk
    on = stepconf(*command(given_file, run), "--policy", "consensus")
    assert on.code == 0, on.err
    assert labels(run) == expected(run, "consensus")


class Killed(BaseException):
    """Nothing catches it, and nothing that writes cleans up behind it: on disk it is a kill."""


def relabel_until(run: Path, n: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Relabel, dying at the n-th rename; returns how many renames there were."""
    calls, rename = 0, os.replace

    def counted(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == n:
            raise Killed
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted)
        with contextlib.suppress(Killed):
            relabel(run, "consensus", lambda stage, count: None)
    return calls


def test_killed_at_every_rename(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, before = labels(run), rest(run)
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    renames = relabel_until(whole, 0, monkeypatch)
    shards = [file.relative_to(run) for file in run.glob("s*/*.parquet")]
    changed = sum((run / name).read_bytes() != (whole / name).read_bytes() for name in shards)
    assert changed > 0 and renames == 1 + changed + 2 + 1, (
        "the recipe, these shards, two manifests, the summary"
    )
    new = labels(whole)
    assert old != new
    for n in range(1, renames + 1):
        out = Path(shutil.copytree(run, tmp_path / f"run{n}"))
        assert relabel_until(out, n, monkeypatch) == n
        assert len(list(out.rglob("*.tmp"))) == 1
        assert rest(out) == before
        check_invariants(out)
        assert all(found in (old[key], new[key]) for key, found in labels(out).items())
        relabel(out, "consensus", lambda stage, count: None)
        assert labels(out) == new and rest(out) == before
        assert not list(out.rglob("*.tmp"))
        for manifest in read_manifests(out):
            assert all(
                (out / name).stat().st_size == file["bytes"] for name, file in manifest["files"].items()
            )


def test_pairs_of_the_old_labels_go(tmp_path: Path) -> None:
    problems = write_jsonl(
        tmp_path / "problems.jsonl", [{"problem": f"{i} + 1?", "answer": "3"} for i in range(2)]
    )
    out = tmp_path / "run"
    options = ["--samples", 2, "--max-tokens", 24, "--verify", "", *with_tiny()]
    assert stepconf("generate", "--problems", problems, "--out", out, *options).code == 0
    assert stepconf("pairs", out, "--tau", 0.5).code == 0
    assert (out / "manifests/pairs.json").exists()
    before = [row["token_entropies"] for row in rows_of(out, "steps")]
    ended = stepconf("relabel", out, "--policy", "majority")
    assert ended.code == 0, ended.err
    assert not (out / "manifests/pairs.json").exists()
    assert [row["token_entropies"] for row in rows_of(out, "steps")] == before
    assert stepconf("pairs", out, "--tau", 0.5).code == 0  # the tokenizer's digest is still there


def test_noise_turns_over_a_share_of_the_labels_and_goes_again(run: Path) -> None:
    before, other = labels(run), rest(run)
    ended = stepconf("relabel", run, "--noise", 0.4, "--seed", 3)
    assert ended.code == 0, ended.err
    ids = {(row["solution_id"], row["step_index"]): row["step_id"] for row in rows_of(run, "steps")}
    after = labels(run)
    turned = 0
    for solution, steps in before.items():
        first = next((i for i, (label, *_) in enumerate(after[solution]) if label == "incorrect"), None)
        for i, ((label, source, *_), (new, new_source, is_first, is_after)) in enumerate(
            zip(steps, after[solution], strict=True)
        ):
            is_known = label != "unknown"
            flips = is_known and is_turned(ids[solution, i], Noise(0.4, 3))
            assert (new != label) == flips and new_source == (f"{source}+noise" if flips else source)
            assert (is_first, is_after) == (i == first, first is not None and i > first)
            turned += flips
    assert turned > 0 and rest(run) == other
    check_invariants(run)
    checked = stepconf("check", run)
    assert checked.code == 0, checked.out
    assert yaml.safe_load((run / "recipe.yaml").read_text())["verify"]["noise"] == 0.4
    again = {file: file.read_bytes() for file in run.glob("s*/*.parquet")}
    stepconf("relabel", run, "--noise", 0.4, "--seed", 3)
    assert {file: file.read_bytes() for file in run.glob("s*/*.parquet")} == again
    stepconf("relabel", run)
    assert labels(run) == before


def test_whoever_reads_the_labels_is_told_of_noise(run: Path, tmp_path: Path) -> None:
    said = "flipped at rate 0.4, seed 3"
    out = iter("ab")

    def told() -> list[bool]:
        card, page = tmp_path / next(out), tmp_path / "page.html"
        assert stepconf("push", run, "me/set", "--dry-run", "--out", card).code == 0
        assert stepconf("report", run, "--out", page).code == 0
        return [
            said in text for text in (*(card / "README.md").read_text().split("## Limits"), page.read_text())
        ]

    table = stepconf("relabel", run, "--noise", 0.4, "--seed", 3, columns=200)
    assert said in table.out and all(told()), "the card says it twice"
    assert "label that relabel --noise flipped" in stepconf("check", run, columns=200).out
    assert said not in stepconf("relabel", run, columns=200).out and not any(told())
    assert "noise" not in stepconf("check", run, columns=200).out


def test_noise_is_for_runs_that_are_there(run: Path, given_file: Path, tmp_path: Path) -> None:
    refused = stepconf(*command(given_file, tmp_path / "new"), "--set", "verify.noise=0.2")
    assert refused.code == 1 and "relabel RUN --noise" in refused.err
    wrong = stepconf("relabel", run, "--noise", 1.5)
    assert wrong.code == 1 and "1.5" in wrong.err
    stepconf("relabel", run, "--noise", 0.2)
    on = stepconf(*command(given_file, run))
    assert on.code == 1 and "verify.noise (there 0.2, now 0.0)" in on.err


@given(st.lists(st.text(), unique=True, max_size=30), st.integers(0, 9), st.floats(0, 1), st.floats(0, 1))
def test_more_noise_turns_over_what_less_does(ids: list[str], seed: int, a: float, b: float) -> None:
    less, more = ({one for one in ids if is_turned(one, Noise(rate, seed))} for rate in sorted((a, b)))
    assert less <= more
    assert not any(is_turned(one, Noise(0.0, seed)) for one in ids)
    assert all(is_turned(one, Noise(1.0, seed)) for one in ids)
    assert {noised("correct", "s", one, Noise(1.0)) for one in ids} <= {("incorrect", "s+noise")}
    assert noised("unknown", "", "x", Noise(1.0)) == ("unknown", "")


def test_the_rate_of_noise_is_the_one_that_was_asked_for() -> None:
    turned = sum(is_turned(str(i), Noise(0.2, 1)) for i in range(10_000))
    assert abs(turned - 2000) < 4 * (10_000 * 0.2 * 0.8) ** 0.5


def test_what_cannot_be_relabelled(run: Path, tmp_path: Path) -> None:
    wrong = stepconf("relabel", run, "--policy", "best")
    assert wrong.code == 1 and "'best'" in wrong.err and "consensus" in wrong.err
    absent = stepconf("relabel", tmp_path / "nothing", "--policy", "consensus")
    assert absent.code == 1 and "not a run folder" in absent.err
    assert labels(run) == expected(run, "error-first")
