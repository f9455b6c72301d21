"""The frames that strategies read, and what they answer: each column declared once.

A frame holds all rows of some problems, in the order of the run, problem by problem. A *branch* is a solution that was
sampled from another one's exact tokens: its first step is a sibling of the step before which it leaves its parent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import polars as pl

# One row per step.
STEPS = {
    "row": (pl.UInt32, "place in the frame"),
    "problem_id": (pl.String, "the problem; two problems may be worded alike"),
    "solution_id": (pl.String, "the solution or branch that the step is of"),
    "step_index": (pl.Int32, "place in that, from 0"),
    "prefix_id": (pl.String, "equal where the exact tokens before are, the prompt's too"),
    "next_prefix_id": (pl.String, "prefix_id of what follows the step; null where nothing is known to"),
    "reads": (pl.String, "the text, all white space made one blank: two steps read alike where it is equal"),
    "n_tokens": (pl.Int64, "tokens of the step; 0 where they have no scores"),
    "mean_logprob": (pl.Float64, "mean log-probability of its tokens, nats; null without scores"),
    "confidence": (pl.Float64, "exp(-mean entropy), (0, 1]; null without scores"),
    "sureness": (
        pl.Float64,
        "what tau is compared with: the fitted confidence if the run has it, else the other",
    ),
    "label": (pl.String, "correct, incorrect or unknown"),
    "after_error": (pl.Boolean, "a step before it on its path is incorrect"),
    "answer_correct": (pl.Boolean, "of its solution's path; null where unknown"),
    "corrected": (pl.String, "an incorrect step as a critic wants it; null where none does"),
    "is_root": (pl.Boolean, "its solution follows the bare prompt"),
}
# One row per solution or branch.
SOLUTIONS = {
    "row": (pl.UInt32, "place in the frame"),
    "problem_id": (pl.String, "the problem"),
    "solution_id": (pl.String, "the solution"),
    "prompt_id": (pl.String, "equal where the exact tokens of the problem's prompt are"),
    "is_root": (pl.Boolean, "it follows the bare prompt"),
    "answer_correct": (pl.Boolean, "of its path; null where unknown"),
    "finish_reason": (pl.String, "how it ended, as in the table"),
    "token_ids": (pl.List(pl.Int32), "its tokens"),
    "token_logprobs": (pl.List(pl.Float32), "their log-probabilities, nats; only `pcpo` reads them"),
}
# One row per pair; places are those of steps, of solutions where `kind` is `trajectory`.
PAIRS = {
    "origin": (pl.UInt32, "the row that gives rise to the pair"),
    "chosen": (pl.UInt32, "the better side; null where it is `corrected` of the origin"),
    "rejected": (pl.UInt32, "the worse side"),
    "kind": (pl.String, "see `core.records.PairKind`"),
}

PREFIX = ["problem_id", "prefix_id"]
CHILD = [*PREFIX, "reads"]
# Python's str.split() also divides at four control characters that Unicode does not call white space.
_WHITE_SPACE = r"[\s\x1c-\x1f]+"


class Frames(NamedTuple):
    """All steps, and all solutions, of some problems: `STEPS` and `SOLUTIONS`. More columns do no harm."""

    steps: pl.DataFrame
    solutions: pl.DataFrame


class Rules(NamedTuple):
    """The settings of strategies; each reads what it needs.

    Args:
        tau: sureness at or below which a correct step is uncertain.
        after_error: whether steps after the first wrong one, whose prefix is wrong, may make pairs.
        margin: least difference of two shares of right completions, in (0, 1].
        seed: of hashes that choose.
    """

    tau: float = 1.0
    after_error: Literal["stop", "continue"] = "stop"
    margin: float = 0.5
    seed: int = 42


class Choice(NamedTuple):
    """A strategy's pairs (`PAIRS`), and how many steps, prefixes or solutions make none, by reason."""

    pairs: pl.DataFrame
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True)
class PairStrategy:
    """A way to choose pairs, by name in `kinds.PAIR_STRATEGIES`. Pure: the same frames and rules give the same pairs.

    Args:
        choose: of the frames of some whole problems and the rules.
        takes_tau: it reads `Rules.tau`, which is taken from the run where the recipe does not say it.
        reads_logprobs: it reads `token_logprobs` of the solutions, a column that costs memory.
    """

    choose: Callable[[Frames, Rules], Choice]
    takes_tau: bool = False
    reads_logprobs: bool = False


def reading(text: pl.Expr) -> pl.Expr:
    """The text as it reads, white space apart: `" ".join(text.split())`."""
    return text.str.replace_all(_WHITE_SPACE, " ").str.strip_chars(" ")


def chosen_pairs(*parts: pl.DataFrame) -> pl.DataFrame:
    """Frames with the columns of `PAIRS` as one, in the order of their origins."""
    columns = [pl.col(name).cast(kind) for name, (kind, _) in PAIRS.items()]
    return pl.concat([part.select(columns) for part in parts]).sort("origin", "chosen", "rejected")


def counts(reasons: pl.Series) -> dict[str, int]:
    """How often each reason occurs; null is none."""
    named = reasons.drop_nulls()
    return dict(named.value_counts(name="n").iter_rows())
