import itertools

from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from stepconf.core.trees import Example
from stepconf.training.schedule import learning_rate, steps_of

EXAMPLES = [Example(f"{p}/{i}", p, (i % 3,), ((1,), (2,))) for p in "abcdefg" for i in range(3)]


@given(st.integers(1, 30), st.integers(1, 3), st.integers(0, 99))
def test_each_epoch_has_each_example_once_and_problems_whole(batch: int, epochs: int, seed: int) -> None:
    steps = steps_of(EXAMPLES, batch, epochs, seed)
    flat = [index for step in steps for index in step]
    for epoch in range(epochs):
        part = flat[epoch * len(EXAMPLES) : (epoch + 1) * len(EXAMPLES)]
        assert sorted(part) == list(range(len(EXAMPLES)))
        groups = [EXAMPLES[index].group for index in part]
        assert sum(a != b for a, b in itertools.pairwise(groups)) == 6
    assert steps == steps_of(EXAMPLES, batch, epochs, seed)
    assert all(len(step) <= batch for step in steps)


def test_epochs_and_seeds_differ_in_order() -> None:
    first, second = steps_of(EXAMPLES, len(EXAMPLES), 2, 0)
    assert first != second and steps_of(EXAMPLES, len(EXAMPLES), 1, 1)[0] != first


@given(st.integers(1, 30), st.integers(1, 60))
def test_a_number_of_steps_takes_as_many_epochs_as_it_needs(batch: int, n: int) -> None:
    steps = steps_of(EXAMPLES, batch, 1, 0, max_steps=n)
    assert len(steps) == n and steps == steps_of(EXAMPLES, batch, 100, 0)[:n]


def test_learning_rates() -> None:
    assert [learning_rate(s, 10, 1.0, 0.2, "constant") for s in range(3)] == [0.5, 1, 1]
    linear = [learning_rate(s, 10, 2.0, 0.2, "linear") for s in range(10)]
    assert linear == approx([1, 2, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25])
    cosine = [learning_rate(s, 10, 1.0, 0.0, "cosine") for s in range(10)]
    assert cosine[0] == 1 and cosine[5] == approx(0.5) and cosine == sorted(cosine, reverse=True)


@given(st.integers(1, 50), st.floats(0, 1), st.sampled_from(["constant", "linear", "cosine"]))
def test_rates_are_positive_and_at_most_the_peak(steps: int, warmup: float, kind: str) -> None:
    rates = [learning_rate(s, steps, 3e-4, warmup, kind) for s in range(steps)]  # type: ignore[arg-type]
    assert all(0 < rate <= 3e-4 for rate in rates)
