"""Verifiers side by side: what each covers and costs, how far two of them agree, where they differ most."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from stepconf.core.records import Label, Verdict


@dataclass(frozen=True, slots=True)
class VerifierSummary:
    """One verifier over the steps of a run.

    `n_steps` are all steps, `n_verdicts` those it said anything about; `n_correct + n_incorrect + n_unknown =
    n_verdicts`. `seconds` is the sum over its verdicts.
    """

    verifier: str
    n_steps: int
    n_verdicts: int
    n_correct: int
    n_incorrect: int
    n_unknown: int
    seconds: float

    @property
    def coverage(self) -> float:
        """Share of all steps that it decides, in [0, 1]."""
        return (self.n_correct + self.n_incorrect) / self.n_steps

    @property
    def incorrect_rate(self) -> float | None:
        """Share of incorrect among the steps it decides; None if it decides none."""
        decided = self.n_correct + self.n_incorrect
        return self.n_incorrect / decided if decided else None


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Two verifiers on the steps that both decide, as a two-by-two table."""

    first: str
    second: str
    both_correct: int
    both_incorrect: int
    only_first_correct: int
    only_second_correct: int

    @property
    def n_both(self) -> int:
        """Steps that both decide."""
        return self.both_correct + self.both_incorrect + self.only_first_correct + self.only_second_correct

    @property
    def agreement(self) -> float | None:
        """Share of these steps on which they say the same; None if there are none."""
        return (self.both_correct + self.both_incorrect) / self.n_both if self.n_both else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, in [-1, 1].

        None where chance alone agrees fully (each says one thing throughout, the same) or no step is shared.
        """
        n = self.n_both
        first = self.both_correct + self.only_first_correct
        second = self.both_correct + self.only_second_correct
        by_chance = first * second + (n - first) * (n - second)  # times n^2
        if by_chance == n * n:
            return None
        return (n * (self.both_correct + self.both_incorrect) - by_chance) / (n * n - by_chance)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A step on which verifiers contradict each other, and who says what."""

    step_id: str
    says_correct: tuple[str, ...]
    says_incorrect: tuple[str, ...]

    @property
    def n_contradictions(self) -> int:
        """Pairs of verifiers that contradict each other here."""
        return len(self.says_correct) * len(self.says_incorrect)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The whole report; verifiers by name, the worst disagreements first."""

    verifiers: tuple[VerifierSummary, ...]
    pairs: tuple[PairAgreement, ...]
    disagreements: tuple[Disagreement, ...]


def agreement(rows: Iterable[tuple[str, Sequence[Verdict]]], n_disagreements: int = 20) -> Agreement:
    """Compare the verifiers of a run.

    Args:
        rows: per step, its id and its verdicts. Where a verifier left several, its last deciding one counts
            (as for labels), all their seconds do.
        n_disagreements: how many of the most contradicted steps to list; equal ones in the order of the rows.
    """
    steps = [(step_id, _latest(verdicts), verdicts) for step_id, verdicts in rows]
    names = sorted({name for _, said, _ in steps for name in said})
    seconds = dict.fromkeys(names, 0.0)
    for _, _, verdicts in steps:
        for verdict in verdicts:
            seconds[verdict.verifier] += verdict.seconds
    contradicted = [
        Disagreement(step_id, _who(said, "correct"), _who(said, "incorrect")) for step_id, said, _ in steps
    ]
    worst = sorted(
        (each for each in contradicted if each.n_contradictions), key=lambda d: -d.n_contradictions
    )
    labels = [said for _, said, _ in steps]
    return Agreement(
        verifiers=tuple(_summary(name, labels, seconds[name]) for name in names),
        pairs=tuple(_pair(first, second, labels) for first, second in combinations(names, 2)),
        disagreements=tuple(worst[:n_disagreements]),
    )


def _latest(verdicts: Sequence[Verdict]) -> dict[str, Label]:
    said: dict[str, Label] = {}
    for verdict in verdicts:
        if verdict.label != "unknown" or verdict.verifier not in said:
            said[verdict.verifier] = verdict.label
    return said


def _who(said: dict[str, Label], label: Label) -> tuple[str, ...]:
    return tuple(sorted(name for name, its in said.items() if its == label))


def _summary(name: str, labels: list[dict[str, Label]], seconds: float) -> VerifierSummary:
    said = [its[name] for its in labels if name in its]
    return VerifierSummary(
        verifier=name,
        n_steps=len(labels),
        n_verdicts=len(said),
        n_correct=said.count("correct"),
        n_incorrect=said.count("incorrect"),
        n_unknown=said.count("unknown"),
        seconds=seconds,
    )


def _pair(first: str, second: str, labels: list[dict[str, Label]]) -> PairAgreement:
    both = [(its.get(first), its.get(second)) for its in labels]
    return PairAgreement(
        first=first,
        second=second,
        both_correct=both.count(("correct", "correct")),
        both_incorrect=both.count(("incorrect", "incorrect")),
        only_first_correct=both.count(("correct", "incorrect")),
        only_second_correct=both.count(("incorrect", "correct")),
    )
