"""Verifiers side by side: what each covers and costs, how far two of them agree, where they differ most."""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, TypeAlias

from stepconf.core.records import Label, Verdict

MAX_VERIFIERS = 20  # that are set side by side: pairs grow with the square of them
Said: TypeAlias = tuple[tuple[str, Label], ...]  # (verifier, label) of one step's verdicts, in their order


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


class SideBySide(NamedTuple):
    """Verifiers and the pairs of them, by name; `n_others` are those beyond `MAX_VERIFIERS`."""

    verifiers: tuple[VerifierSummary, ...]
    pairs: tuple[PairAgreement, ...]
    n_others: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """The whole report, as `SideBySide`; the worst disagreements first."""

    verifiers: tuple[VerifierSummary, ...]
    pairs: tuple[PairAgreement, ...]
    n_others: int
    disagreements: tuple[Disagreement, ...]


def agreement(rows: Iterable[tuple[str, Sequence[Verdict]]], n_disagreements: int = 20) -> Agreement:
    """Compare the verifiers of a run.

    Args:
        rows: per step, its id and its verdicts. Where a verifier left several, its last deciding one counts
            (as for labels), all their seconds do.
        n_disagreements: how many of the most contradicted steps to list; equal ones in the order of the rows.
    """
    counted: Counter[Said] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    worst: list[Disagreement] = []
    for step_id, verdicts in rows:
        counted[tuple((verdict.verifier, verdict.label) for verdict in verdicts)] += 1
        for verdict in verdicts:
            seconds[verdict.verifier] += verdict.seconds
        said = _latest((verdict.verifier, verdict.label) for verdict in verdicts)
        each = Disagreement(step_id, _who(said, "correct"), _who(said, "incorrect"))
        if each.n_contradictions:
            insort(worst, each, key=lambda one: -one.n_contradictions)
            del worst[n_disagreements:]
    return Agreement(*tabulate(counted, seconds), tuple(worst))


def tabulate(counted: Mapping[Said, int], seconds: Mapping[str, float]) -> SideBySide:
    """The verifiers and the pairs of them, from how many steps have which verdicts.

    Of more than `MAX_VERIFIERS`, those that said something of most steps are compared: anybody may have written
    the names.

    Args:
        counted: the number of steps for each sequence of verdicts, none at all included.
        seconds: by verifier, summed over its verdicts.
    """
    n_steps: Counter[str] = Counter()
    for said, n in counted.items():
        for name in {verifier for verifier, _ in said}:
            n_steps[name] += n
    most = sorted(n_steps, key=lambda name: (-n_steps[name], name))[:MAX_VERIFIERS]
    kept = set(most)
    labels: Counter[Said] = Counter()
    for said, n in counted.items():
        latest = _latest(one for one in said if one[0] in kept)
        labels[tuple(sorted(latest.items()))] += n
    table = [(dict(said), n) for said, n in labels.items()]
    names = sorted(most)
    return SideBySide(
        tuple(_summary(name, table, seconds[name]) for name in names),
        tuple(_pair(first, second, table) for first, second in combinations(names, 2)),
        len(n_steps) - len(names),
    )


def _latest(verdicts: Iterable[tuple[str, Label]]) -> dict[str, Label]:
    said: dict[str, Label] = {}
    for verifier, label in verdicts:
        if label != "unknown" or verifier not in said:
            said[verifier] = label
    return said


def _who(said: dict[str, Label], label: Label) -> tuple[str, ...]:
    return tuple(sorted(name for name, its in said.items() if its == label))


def _summary(name: str, table: Sequence[tuple[dict[str, Label], int]], seconds: float) -> VerifierSummary:
    found: Counter[Label] = Counter()
    for said, n in table:
        if name in said:
            found[said[name]] += n
    return VerifierSummary(
        verifier=name,
        n_steps=sum(n for _, n in table),
        n_verdicts=found.total(),
        n_correct=found["correct"],
        n_incorrect=found["incorrect"],
        n_unknown=found["unknown"],
        seconds=seconds,
    )


def _pair(first: str, second: str, table: Sequence[tuple[dict[str, Label], int]]) -> PairAgreement:
    both: Counter[tuple[Label | None, Label | None]] = Counter()
    for said, n in table:
        both[said.get(first), said.get(second)] += n
    return PairAgreement(
        first=first,
        second=second,
        both_correct=both["correct", "correct"],
        both_incorrect=both["incorrect", "incorrect"],
        only_first_correct=both["correct", "incorrect"],
        only_second_correct=both["incorrect", "correct"],
    )
