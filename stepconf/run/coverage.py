"""How many steps have a label, and why the others have none."""

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from stepconf.core.branches import AMONG, TOO_HARD
from stepconf.core.statements import STATES_NOTHING

if TYPE_CHECKING:
    import polars as pl

AFTER_ERROR = "after the first error"
_AMONG_SEVERAL = f"{AMONG} several steps"
_NOBODY = "no verifier decides"
_DISAGREE = "verifiers disagree"
_MOST_REASONS = 12
_OTHERS = "other reasons"


class Coverage(NamedTuple):
    """Of some steps: how many are labelled, and the others by reason.

    settled: those that are labelled, or come after a known first error, among the judgeable: the steps that state
    something, in problems that are not too hard for the policy.
    """

    labelled: int
    unlabelled: dict[str, int]
    settled: int
    judgeable: int

    @property
    def share(self) -> float | None:
        """The share of the judgeable that are settled; None where there are none."""
        return self.settled / self.judgeable if self.judgeable else None


def too_hard(steps: "pl.LazyFrame") -> "pl.Series":
    """The ids of the problems of which `rollout` says so, on the first steps of their samples."""
    import polars as pl

    found = steps.filter((pl.col("step_index") == 0) & _some_reason(TOO_HARD)).select("problem_id").unique()
    return found.collect(engine="streaming").to_series()


def coverage(steps: "pl.LazyFrame", hard: "pl.Series") -> Coverage:
    """The coverage of steps; `hard` are the ids of problems that are too hard for the policy."""
    import polars as pl

    counts = (
        steps.select(
            labelled=pl.col("label") != "unknown",
            nothing=_some_reason(STATES_NOTHING),
            hard=pl.col("problem_id").is_in(hard.implode()),
            after=pl.col("after_error").fill_null(False),
            reason=_rollout_reason(),
            decided=pl.col("verdicts").list.eval(pl.element().struct.field("label") != "unknown").list.any(),
        )
        .group_by(pl.all())
        .agg(n=pl.len())
        .collect(engine="streaming")
    )
    labelled = settled = judgeable = 0
    reasons: Counter[str] = Counter()
    for row in counts.iter_rows(named=True):
        n = row["n"]
        if row["labelled"]:
            labelled += n
        else:
            reasons[_reason(row)] += n
        if not row["nothing"] and not row["hard"]:
            judgeable += n
            settled += n if row["labelled"] or row["after"] else 0
    named = dict(sorted(reasons.items(), key=lambda one: (-one[1], one[0]))[:_MOST_REASONS])
    rest = reasons.total() - sum(named.values())
    return Coverage(labelled, named | ({_OTHERS: rest} if rest else {}), settled, judgeable)


def _reason(row: dict[str, Any]) -> str:
    if row["nothing"]:
        return STATES_NOTHING
    if row["hard"]:
        return TOO_HARD
    if row["after"]:
        return AFTER_ERROR
    said = row["reason"] or (_DISAGREE if row["decided"] else _NOBODY)
    return _AMONG_SEVERAL if said.startswith(AMONG) else str(said)


def _some_reason(wanted: str) -> "pl.Expr":
    import polars as pl

    return pl.col("verdicts").list.eval(pl.element().struct.field("reason") == wanted).list.any()


def _rollout_reason() -> "pl.Expr":
    """What `rollout` gives as its reason where it does not decide."""
    import polars as pl

    verdict = pl.element().struct
    undecided = (verdict.field("verifier") == "rollout") & (verdict.field("label") == "unknown")
    return pl.col("verdicts").list.eval(verdict.field("reason").filter(undecided)).list.last()
