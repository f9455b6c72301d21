"""Agreement against scikit-learn's kappa and a report counted by hand."""

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score

from stepconf.core.agreement import MAX_VERIFIERS, PairAgreement, agreement
from stepconf.core.labels import label_steps
from stepconf.core.records import Label, Verdict

LABELS = st.sampled_from(("correct", "incorrect", "unknown", None))


def verdict(verifier: str, label: Label, seconds: float = 0.5) -> Verdict:
    return Verdict(verifier=verifier, version="1", label=label, seconds=seconds)


def rows(said: list[dict[str, Label | None]]) -> list[tuple[str, list[Verdict]]]:
    return [
        (f"s{i}", [verdict(name, label) for name, label in step.items() if label])
        for i, step in enumerate(said)
    ]


@given(st.lists(st.tuples(LABELS, LABELS), max_size=40))
def test_pairs_equal_scikit_learn(said: list[tuple[Label | None, Label | None]]) -> None:
    report = agreement(rows([{"critic": first, "prm": second} for first, second in said]))
    both = [pair for pair in said if set(pair) <= {"correct", "incorrect"}]
    if not report.pairs:
        assert not both
        return
    (pair,) = report.pairs
    assert pair.n_both == len(both)
    if not both:
        assert pair.agreement is None
        assert pair.kappa is None
        return
    first, second = zip(*both, strict=True)
    assert pair.agreement == pytest.approx(accuracy_score(first, second), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where kappa is undefined
        kappa = cohen_kappa_score(first, second, labels=["correct", "incorrect"])
    assert (pair.kappa is None) == math.isnan(kappa)
    if pair.kappa is not None:
        assert pair.kappa == pytest.approx(kappa, abs=1e-12)


def test_a_report_counted_by_hand() -> None:
    report = agreement(
        rows(
            [
                {"critic": "correct", "symbolic": "correct", "prm": "incorrect"},
                {"critic": "incorrect", "symbolic": "unknown", "prm": None},
                {"critic": "incorrect", "symbolic": "correct", "prm": "correct", "rollout": "incorrect"},
                {"critic": "unknown"},
            ]
        ),
        n_disagreements=1,
    )
    critic, prm, rollout, symbolic = report.verifiers
    assert (critic.n_steps, critic.n_verdicts, critic.n_unknown, critic.seconds) == (4, 4, 1, 2.0)
    assert (critic.coverage, critic.incorrect_rate) == (0.75, 2 / 3)
    assert (prm.coverage, symbolic.n_verdicts, symbolic.coverage) == (0.5, 3, 0.5)
    assert (rollout.n_incorrect, rollout.incorrect_rate, symbolic.incorrect_rate) == (1, 1.0, 0.0)
    assert report.pairs[0] == PairAgreement("critic", "prm", 0, 0, 1, 1)
    assert (report.pairs[0].agreement, report.pairs[0].kappa) == (0.0, -1.0)
    (worst,) = report.disagreements
    assert (worst.step_id, worst.n_contradictions) == ("s2", 4)
    assert (worst.says_correct, worst.says_incorrect) == (("prm", "symbolic"), ("critic", "rollout"))


def test_a_verifier_run_again_counts_as_it_does_for_labels() -> None:
    again = [verdict("critic", "correct"), verdict("critic", "incorrect"), verdict("critic", "unknown")]
    (critic,) = agreement([("s", again)]).verifiers
    assert (critic.n_verdicts, critic.n_incorrect, critic.seconds) == (1, 1, 1.5)
    assert label_steps([again], "consensus")[0][0] == "incorrect"


def test_nothing_to_compare() -> None:
    assert agreement([]) == agreement([("s", [])])
    assert agreement([]).verifiers == ()


def test_of_many_verifiers_those_that_say_most_are_compared() -> None:
    """Anybody may have written the names: pairs grow with the square of them."""
    steps: list[dict[str, Label | None]] = [
        {f"v{i:04d}": "correct" if (i + step) % 2 else "incorrect" for i in range(step, 3000)}
        for step in range(50)
    ]
    few = [step | {"final": "correct"} for step in steps]
    report = agreement(rows(few), 5)
    assert len(report.verifiers) == MAX_VERIFIERS and report.n_others == 3001 - MAX_VERIFIERS
    assert len(report.pairs) == MAX_VERIFIERS * (MAX_VERIFIERS - 1) // 2
    assert "final" in {one.verifier for one in report.verifiers}
    alone = agreement(rows([{one.verifier: step[one.verifier] for one in report.verifiers if one.verifier in step}
                            for step in few]))  # fmt: skip
    assert (report.verifiers, report.pairs) == (alone.verifiers, alone.pairs) and alone.n_others == 0
    assert [one.step_id for one in report.disagreements] == ["s0", "s1", "s2", "s3", "s4"]
