"""Post-hoc calibration against scikit-learn, and the problem-disjoint split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from stepconf.core import calibration as cal
from stepconf.errors import StepconfError

SCORES = st.one_of(st.integers(-3, 3).map(float), st.floats(-50, 50).map(lambda x: round(x, 6)))
ITEMS = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=40)


def columns(items: list[tuple]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(column) for column in zip(*items, strict=True))


@given(ITEMS)
def test_isotonic_equals_scikit_learn(items: list[tuple]) -> None:
    scores, correct = columns(items)
    fit = cal.fit_isotonic(scores, correct)
    reference = IsotonicRegression(out_of_bounds="clip").fit(scores, correct.astype(float))
    asked = np.r_[scores, np.linspace(-60, 60, 101)]
    assert fit.predict(asked) == pytest.approx(reference.predict(asked), abs=1e-9)
    assert fit.predict(scores).mean() == pytest.approx(correct.mean(), abs=1e-9)


def smoothed(correct: np.ndarray) -> np.ndarray:
    n = int(correct.sum())
    return np.where(correct, (n + 1) / (n + 2), 1 / (correct.size - n + 2))


@pytest.mark.parametrize("kind", ["overlapping", "separated", "one class", "ties", "far from zero", "tiny"])
def test_platt_equals_scikit_learn(kind: str) -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=200)
    correct = rng.random(200) < 1 / (1 + np.exp(-2 * scores - 0.5))
    if kind == "separated":
        correct = scores > 0.3
    elif kind == "one class":
        correct = np.ones(200, dtype=bool)
    elif kind == "ties":
        scores = np.round(scores)
    elif kind == "far from zero":
        scores = scores * 0.01 + 100
    elif kind == "tiny":
        scores, correct = np.array([0.2, 0.7, 0.9]), np.array([False, True, False])
    ours = cal.fit_platt(scores, correct)
    # A soft target t is a correct item of weight t and an incorrect one of weight 1 - t.
    target = smoothed(correct)
    mean, std = scores.mean(), scores.std()  # the reference's solver needs the scaling, the optimum does not
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(
        np.tile((scores - mean) / std, 2)[:, None],
        np.repeat([1, 0], scores.size),
        sample_weight=np.r_[target, 1 - target],
    )
    asked = np.r_[scores, mean + std * np.linspace(-5, 5, 21)]
    theirs = reference.predict_proba(((asked - mean) / std)[:, None])[:, 1]
    assert ours.predict(asked) == pytest.approx(theirs, abs=1e-9)


@given(ITEMS)
def test_platt_is_the_optimum(items: list[tuple]) -> None:
    scores, correct = columns(items)
    fit = cal.fit_platt(scores, correct)
    residual = fit.predict(scores) - smoothed(correct)
    scale = max(1.0, np.abs(scores - scores.mean()).max())
    assert residual.sum() == pytest.approx(0, abs=1e-8)
    assert residual @ (scores - scores.mean()) / scale == pytest.approx(0, abs=1e-8)


def test_calibration_helps_on_problems_it_has_not_seen() -> None:
    rng = np.random.default_rng(0)
    problems = [f"p{i}" for i in rng.integers(0, 300, 4000)]
    score = rng.normal(size=4000)
    correct = rng.random(4000) < 1 / (1 + np.exp(1 - score))
    over_confident = 1 / (1 + np.exp(-4 * score - 2))
    fitting = cal.problem_split(problems, 0.5, seed=1)
    assert not set(np.array(problems)[fitting]) & set(np.array(problems)[~fitting])
    before = cal.ece(over_confident[~fitting], correct[~fitting])
    for fit in (cal.fit_isotonic, cal.fit_platt):
        fitted = fit(score[fitting], correct[fitting])
        assert cal.ece(fitted.predict(score[~fitting]), correct[~fitting]) < before / 4


@given(
    st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=30), st.floats(0.01, 0.99), st.integers(0, 9)
)
def test_the_split_keeps_problems_whole(ids: list[str], share: float, seed: int) -> None:
    if len(set(ids)) == 1:
        with pytest.raises(StepconfError, match="1 problems"):
            cal.problem_split(ids, share, seed)
        return
    part = cal.problem_split(ids, share, seed).tolist()
    sides = {
        problem: {side for other, side in zip(ids, part, strict=True) if other == problem} for problem in ids
    }
    assert all(len(side) == 1 for side in sides.values())
    assert set(part) == {True, False}
    assert cal.problem_split(ids[::-1], share, seed).tolist() == part[::-1]
