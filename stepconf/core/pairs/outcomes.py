"""Step pairs by outcomes: the better side is the step after which completions reach the right answer more often.

A *child* of a prefix is a step after its tokens; children that read alike are one. Its share is that of right ones
among its graded completions: all rows with the step after these tokens, and all branches that leave right after it,
each by its own answer. Branches that leave later are no fair sample of the child, and do not count.
"""

import polars as pl

from stepconf.core.pairs import reasons
from stepconf.core.pairs.frames import (
    CHILD,
    PREFIX,
    Choice,
    Frames,
    PairStrategy,
    Rules,
    chosen_pairs,
    counts,
)

_ROUNDING = 1e-9  # of shares: 2/3 - 1/6 is to reach a margin of 0.5
_BEST = ["share", "graded", "mean_logprob", "solution_id"]


def rstar(frames: Frames, rules: Rules) -> Choice:
    """The pairs that rStar-Math (arXiv 2501.04519) trains its process preference model on, without its tree search.

    At each prefix with several children, the one with the highest share of right completions is chosen over that
    with the lowest, if the shares differ by at least `margin` (`outcome`). The paper takes its values from Monte
    Carlo tree search; here they are shares of whatever completions the run holds. Of equal shares that of more
    completions counts, then the likelier step. Counted are prefixes (a problem and exact tokens at which the run has a
    step): each is a pair or has a reason.
    """
    prefixes = frames.steps.select(PREFIX).unique()
    found = children(frames.steps)
    graded = found.filter(pl.col("graded") > 0)
    best = graded.sort(_BEST, descending=True).unique(PREFIX, keep="first")
    worst = graded.sort(_BEST, descending=[False, True, True, True]).unique(PREFIX, keep="first")
    ends = best.join(worst.select(*PREFIX, worst="row", worst_share="share"), on=PREFIX)
    apart = pl.col("share") - pl.col("worst_share") >= rules.margin - _ROUNDING
    compared = (
        prefixes.join(found.group_by(PREFIX).agg(children=pl.len()), on=PREFIX, how="left")
        .join(graded.group_by(PREFIX).agg(known=pl.len()), on=PREFIX, how="left")
        .join(ends, on=PREFIX, how="left")
        .with_columns(
            reason=pl.when(pl.col("children").is_null())
            .then(pl.lit(reasons.NO_TOKENS))
            .when(pl.col("children") < 2)
            .then(pl.lit(reasons.ONE_CHILD))
            .when(pl.col("known").fill_null(0) < 2)
            .then(pl.lit(reasons.UNGRADED))
            .when(~apart)
            .then(pl.lit(reasons.CLOSE))
        )
    )
    pairs = compared.filter(pl.col("reason").is_null()).with_columns(
        origin="row", chosen="row", rejected="worst", kind=pl.lit("outcome")
    )
    return Choice(chosen_pairs(pairs), counts(compared["reason"]))


def cgpo(frames: Frames, rules: Rules) -> Choice:
    """Confidence-guided preference optimisation, arXiv 2510.11104: a pair where a solution is least sure.

    A child is right where more than half of its graded completions are, wrong where fewer are. Of the steps of a
    solution from the bare prompt that have a sibling of the other outcome, the one of least confidence makes the pair:
    the step itself, and against it, if it is right, the sibling of the lowest share, else that of the highest
    (`outcome`). The paper samples paths at that point alone; here the run's branches say where there are any.
    Counted are solutions from the bare prompt: each is a pair or has a reason.
    """
    steps = frames.steps
    found = children(steps).with_columns(is_right=pl.when(pl.col("share") != 0.5).then(pl.col("share") > 0.5))
    of_prefix = found.filter(pl.col("is_right").is_not_null())
    best = of_prefix.filter("is_right").sort(_BEST, descending=True)
    worst = of_prefix.filter(~pl.col("is_right")).sort(_BEST, descending=[False, True, True, True])
    others = pl.concat(
        side.unique(PREFIX, keep="first").select(*PREFIX, other="row", other_is_right="is_right")
        for side in (best, worst)
    )
    roots = steps.filter(pl.col("is_root"))
    scored = roots.filter((pl.col("n_tokens") > 0) & pl.col("confidence").is_not_null())
    split = (
        scored.join(of_prefix.select(*CHILD, "is_right"), on=CHILD)
        .join(others, on=PREFIX)
        .filter(pl.col("is_right") != pl.col("other_is_right"))
        .sort("confidence", "row")
        .unique("solution_id", keep="first")
    )
    own, other = pl.col("row"), pl.col("other")
    pairs = split.with_columns(
        origin="row",
        chosen=pl.when("is_right").then(own).otherwise(other),
        rejected=pl.when("is_right").then(other).otherwise(own),
        kind=pl.lit("outcome"),
    )
    n_roots, n_scored = (rows["solution_id"].n_unique() for rows in (roots, scored))
    dropped = {reasons.NO_TOKENS: n_roots - n_scored, reasons.SAME_OUTCOME: n_scored - pairs.height}
    return Choice(chosen_pairs(pairs), dropped)


def children(steps: pl.DataFrame) -> pl.DataFrame:
    """The children of all prefixes, by `CHILD`: the likeliest row of each, `graded` and `share`.

    `graded`: completions whose answer is known to be right or wrong. `share`: of right ones among them, in [0, 1];
    null where there are none.
    """
    scored = steps.filter(pl.col("n_tokens") > 0)
    rows = scored.sort("mean_logprob", "solution_id", descending=True).unique(
        CHILD, keep="first", maintain_order=True
    )
    through = scored.select(*CHILD, "answer_correct")
    branches = steps.filter((pl.col("step_index") == 0) & ~pl.col("is_root"))
    leaving = (
        scored.select(*CHILD, "next_prefix_id")
        .unique()
        .join(
            branches.select("problem_id", "answer_correct", next_prefix_id="prefix_id"),
            on=["problem_id", "next_prefix_id"],
        )
        .select(through.columns)
    )
    shares = (
        pl.concat([through, leaving])
        .group_by(CHILD)
        .agg(graded=pl.col("answer_correct").count(), share=pl.col("answer_correct").mean())
    )
    return rows.select(*CHILD, "row", "mean_logprob", "solution_id").join(shares, on=CHILD)


RSTAR = PairStrategy(rstar)
CGPO = PairStrategy(cgpo)
