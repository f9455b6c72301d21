"""Pairs of whole solutions: one with the right final answer over one with a wrong one, after one prompt.

Branches are no independent solutions: they share their parent's beginning. Only those that leave it at the bare prompt
are used. Counted are solutions: each is a side of some pair or has a reason.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from math import exp

import polars as pl

from stepconf.core.pairs import reasons
from stepconf.core.pairs.frames import Choice, Frames, PairStrategy, Rules, chosen_pairs, counts
from stepconf.core.pairs.select import hashed

_PROMPT = ["problem_id", "prompt_id"]


def dpo_vp(frames: Frames, rules: Rules) -> Choice:
    """DPO on verifiable pairs, arXiv 2503.12854: pairs by the final answer alone.

    The paper samples several answers to a problem, has a verifier grade them, and pairs right with wrong
    ones. Here each solution is used once, so that no problem counts by the square of its samples: the right
    ones and the wrong ones, each in an order that hashes with `seed` decide, are paired one with one.
    """
    decided, dropped = _decided(frames.solutions)
    in_order = decided.sort(hashed("solution_id", rules.seed)).with_columns(
        place=pl.int_range(pl.len()).over(*_PROMPT, "answer_correct")
    )
    right, wrong = (in_order.filter(pl.col("answer_correct") == answer) for answer in (True, False))
    met = right.join(wrong, on=[*_PROMPT, "place"], suffix="_wrong")
    alone = decided.join(met, on=_PROMPT, how="anti").height
    dropped[reasons.SAME_ANSWER] = alone
    dropped[reasons.NONE_LEFT] = decided.height - alone - 2 * met.height
    return Choice(_pairs(met), dropped)


def pcpo(frames: Frames, rules: Rules) -> Choice:
    """Probability-consistent preference optimisation, arXiv 2505.23540: its choice of pairs.

    For each wrong solution, the right one whose `consistency` with it is highest. Two deviations: the paper
    first narrows the right ones down to the nearest few by edit distance, to spare itself scoring them; here
    every token's log-probability is in the run already, so all compete. And only the choice is made here: the
    loss that weights each pair by its consistency, and the likelihood term beside it, are the paper's
    trainer's. Right solutions that nobody picks are counted.
    """
    judged, dropped = _decided(frames.solutions)
    decided = judged.filter(pl.col("token_logprobs").list.len() == pl.col("token_ids").list.len())
    dropped[reasons.NO_LOGPROBS] = judged.height - decided.height
    right, wrong = (decided.filter(pl.col("answer_correct") == answer) for answer in (True, False))
    tokens = {row: own for row, *own in decided.select("row", "token_ids", "token_logprobs").iter_rows()}
    met = right.select(*_PROMPT, "row", "solution_id").join(
        wrong.select(*_PROMPT, row_wrong="row"), on=_PROMPT
    )
    sides = met.select("row", "row_wrong").iter_rows()
    scores = [consistency(*tokens[chosen], *tokens[rejected]) for chosen, rejected in sides]
    picked = (
        met.with_columns(score=pl.Series(scores, dtype=pl.Float64))
        .sort("score", "solution_id", descending=True)
        .unique("row_wrong", keep="first")
    )
    alone = decided.join(met, on=_PROMPT, how="anti").height
    dropped[reasons.SAME_ANSWER] = alone
    dropped[reasons.LESS_CONSISTENT] = decided.height - alone - picked.height - picked["row"].n_unique()
    return Choice(_pairs(picked), dropped)


def consistency(
    chosen_ids: Sequence[int],
    chosen_logprobs: Sequence[float],
    rejected_ids: Sequence[int],
    rejected_logprobs: Sequence[float],
) -> float:
    """How alike the policy's token probabilities are on what two solutions share, in [0, 1].

    Matching blocks of tokens are aligned; a shared token whose probability is p in one and q in the other
    counts exp(-|ln p - ln q|) = min(p, q) / max(p, q); their sum is divided by the length of the rejected
    solution (the pair-weighted score of arXiv 2505.23540, at scale 1).
    """
    matcher = SequenceMatcher(None, chosen_ids, rejected_ids, autojunk=False)
    total = sum(
        exp(-abs(chosen_logprobs[block.a + i] - rejected_logprobs[block.b + i]))
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    )
    return total / len(rejected_logprobs) if rejected_logprobs else 0.0


def _decided(solutions: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Whole solutions that are known to be right or wrong, equal ones once; the others by reason."""
    judged = solutions.sort("solution_id").with_columns(
        reason=pl.when(~pl.col("is_root"))
        .then(pl.lit(reasons.BRANCH))
        .when(pl.col("token_ids").list.len() == 0)
        .then(pl.lit(reasons.NO_TOKENS))
        .when(pl.col("answer_correct").is_null() & (pl.col("finish_reason") == "length_in_reasoning"))
        .then(pl.lit(reasons.CUT_IN_REASONING))
        .when(pl.col("answer_correct").is_null())
        .then(pl.lit(reasons.UNKNOWN_ANSWER))
    )
    decided = judged.filter(pl.col("reason").is_null())
    once = decided.unique([*_PROMPT, "token_ids"], keep="first", maintain_order=True)
    return once, counts(judged["reason"]) | {reasons.SAME_SOLUTION: decided.height - once.height}


def _pairs(met: pl.DataFrame) -> pl.DataFrame:
    return chosen_pairs(
        met.with_columns(origin="row", chosen="row", rejected="row_wrong", kind=pl.lit("trajectory"))
    )


DPO_VP = PairStrategy(dpo_vp)
PCPO = PairStrategy(pcpo, reads_logprobs=True)
