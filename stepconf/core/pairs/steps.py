"""Step pairs by labels: two steps after one exact token prefix q_j = [prompt, steps before].

The other side of a step is a sibling, which another row of the run has after the very same tokens, or the critic's
reference. Only the text of a reference is ever tokenised; everything else is tokens as they were sampled.
"""

from collections.abc import Iterable

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


def caspo(frames: Frames, rules: Rules) -> Choice:
    """Algorithm 1 of CASPO, arXiv 2605.07353.

    A correct step with confidence <= `tau` (`sureness` in the frames) is chosen over the likeliest sibling that is not
    verified correct (`correct_uncertain`). An incorrect step is rejected for the correct one (`incorrect`): the
    critic's reference, else the likeliest sibling that is verified correct. A confident correct step is skipped.
    Where the paper is silent: siblings that are equal but for white space are one step, so that none that reads as a
    correct one is rejected for it; and with `after_error` "stop" nothing after a wrong step is used, since its prefix
    is wrong.
    Counted are steps: each is a pair or has a reason.
    """
    steps = frames.steps
    label, confidence = pl.col("label"), pl.col("sureness")
    judged = steps.with_columns(
        reason=pl.when(pl.col("after_error") & (rules.after_error == "stop"))
        .then(pl.lit(reasons.AFTER_ERROR))
        .when(label == "unknown")
        .then(pl.lit(reasons.UNKNOWN_LABEL))
        .when(confidence.is_null())
        .then(pl.lit(reasons.NO_TOKENS))
        .when((label == "correct") & (confidence > rules.tau))
        .then(pl.lit(reasons.CONFIDENT))
    )
    usable = judged.filter(pl.col("reason").is_null())
    correct = steps.filter(label == "correct")
    uncertain = usable.filter(label == "correct")
    rivals = steps.filter(label != "correct").join(correct, on=CHILD, how="anti")
    over_rival = likeliest(uncertain, rivals).with_columns(
        origin="row", chosen="row", rejected="other", kind=pl.lit("correct_uncertain")
    )
    wrong = usable.filter(label == "incorrect")
    by_critic = wrong.filter(pl.col("corrected").is_not_null()).with_columns(other=None)
    by_sibling = likeliest(wrong.filter(pl.col("corrected").is_null()), correct)
    dropped = counts(judged["reason"])
    dropped[reasons.NO_RIVAL] = uncertain.height - over_rival.height
    dropped[reasons.NO_CORRECTION] = wrong.height - by_critic.height - by_sibling.height
    return Choice(chosen_pairs(over_rival, put_right(by_critic), put_right(by_sibling)), dropped)


def step_dpo(frames: Frames, rules: Rules) -> Choice:
    """Step-DPO, arXiv 2406.18629: the first wrong step of a solution against a corrected step.

    The paper rejects the first error and chooses the first step of a continuation, sampled by the same policy
    from the correct prefix, that reaches the right final answer; it finds such steps better than a stronger
    model's, which the policy would hardly say. So: the likeliest verified-correct sibling whose solution has
    the right answer; else, and here we deviate, the likeliest sibling that is verified correct; else the
    critic's reference. Counted are steps: each is a pair or has a reason.
    """
    steps = frames.steps
    errors = steps.filter((pl.col("label") == "incorrect") & ~pl.col("after_error"))
    wrong = errors.filter(pl.col("confidence").is_not_null())
    correct = steps.filter(pl.col("label") == "correct")
    reaching = likeliest(wrong, correct.filter("answer_correct"))
    rest = wrong.join(reaching, on="row", how="anti")
    by_sibling = likeliest(rest, correct)
    rest = rest.join(by_sibling, on="row", how="anti")
    by_critic = rest.filter(pl.col("corrected").is_not_null()).with_columns(other=None)
    dropped = {
        reasons.NO_FIRST_ERROR: steps.height - errors.height,
        reasons.NO_TOKENS: errors.height - wrong.height,
        reasons.NO_CORRECTION: rest.height - by_critic.height,
    }
    return Choice(chosen_pairs(*map(put_right, (reaching, by_sibling, by_critic))), dropped)


def likeliest(wanted: pl.DataFrame, sides: pl.DataFrame) -> pl.DataFrame:
    """Each wanted step with `other`, the row of the likeliest side after the same tokens that reads differently.

    Likeliest is of highest mean log-probability; ids settle ties. Wanted steps without such a side are left out.
    Two sides a prefix that read differently are enough: no step reads as both.
    """
    two_best = (
        sides.filter(pl.col("n_tokens") > 0)
        .join(wanted, on=PREFIX, how="semi")
        .sort("mean_logprob", "solution_id", "row", descending=[True, True, False])
        .unique(CHILD, keep="first", maintain_order=True)
        .group_by(PREFIX, maintain_order=True)
        .head(2)
        .select(*PREFIX, other="row", other_reads="reads")
    )
    return (
        wanted.join(two_best, on=PREFIX, maintain_order="left_right")
        .filter(pl.col("reads") != pl.col("other_reads"))
        .unique("row", keep="first", maintain_order=True)
    )


def put_right(wrong: pl.DataFrame) -> pl.DataFrame:
    """Pairs of wrong steps, each rejected for its `other`, which is null for the critic's reference."""
    return wrong.with_columns(origin="row", chosen="other", rejected="row", kind=pl.lit("incorrect"))


def corrected(text: str, references: Iterable[str]) -> str | None:
    """The first critic's reference that reads unlike the step, with the step's own white space around it."""
    body = text.strip()
    before, after = text[: text.find(body)], text[text.find(body) + len(body) :]
    for reference in references:
        if reference.strip() and reference.split() != text.split():
            return before + reference.strip() + after
    return None


CASPO = PairStrategy(caspo, takes_tau=True)
STEP_DPO = PairStrategy(step_dpo)
