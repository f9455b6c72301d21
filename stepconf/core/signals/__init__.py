"""Signals: numbers that stand for the confidence in a span of tokens, a step or a whole solution.

Each is declared once, in `SIGNALS`. What is there is a row of `stepconf calibrate`; with `column`, it is also a column
of `steps`, which `stepconf check` computes again from the tokens. One's own is a `Signal` in any module:
`stepconf calibrate RUN --signal module:name`.

`NOT_OF_TOKENS` declares what takes more than the tokens of one span.
"""

from math import exp
from operator import neg

from stepconf.core.records import TokenScores
from stepconf.core.signals import shape
from stepconf.core.signals.record import Formula, Pooled, Signal

__all__ = [
    "CONFIDENCE",
    "ENTROPY_MEAN",
    "LENGTH",
    "NOT_OF_TOKENS",
    "SIGNALS",
    "Formula",
    "Pooled",
    "Signal",
    "confidence",
]


def confidence(entropy_mean: float) -> float:
    """exp(-mean entropy in nats), in (0, 1]: the normalised confidence of eq. (4) of arXiv 2605.07353."""
    return exp(-entropy_mean)


def _perplexity(logprob_mean: float) -> float:
    # Beyond float range a perplexity says nothing more than "infinite".
    return exp(min(-logprob_mean, 700.0))


LENGTH = Signal("length", "tokens", "number of tokens", False, Pooled("count", "entropies"), low=1)
# Eq. (2) of arXiv 2605.07353, in nats (the paper calls it the negative average, a slip of the sign).
ENTROPY_MEAN = Signal(
    "entropy_mean", "nats", "mean of token_entropies", False, Pooled("mean", "entropies"), low=0, column=True
)
# Not ranked: the mean entropy gives the same order.
CONFIDENCE = Signal(
    "confidence", "", "exp(-entropy_mean)", None, Pooled("mean", "entropies", confidence),
    low=0, high=1, open_low=True, column=True,
)  # fmt: skip

# The columns come in this order.
SIGNALS: tuple[Signal, ...] = (
    LENGTH,
    ENTROPY_MEAN,
    Signal(
        "entropy_max", "nats", "maximum of token_entropies", False, Pooled("max", "entropies"),
        low=0, column=True,
    ),
    Signal("entropy_sum", "nats", "sum of token_entropies", False, Pooled("sum", "entropies"), low=0),
    Signal(
        "logprob_sum", "nats", "sum of token_logprobs", None, Pooled("sum", "logprobs"), high=0, column=True
    ),
    Signal(
        "perplexity", "", "exp(-mean of token_logprobs)", False, Pooled("mean", "logprobs", _perplexity),
        low=1, column=True,
    ),
    Signal(
        "max_prob_mean", "", "mean of token_max_probs", True, Pooled("mean", "max_probs"),
        low=0, high=1, open_low=True, column=True,
    ),
    CONFIDENCE,
    Signal(
        "spikes", "nats^2", "EDIS: bursts and rebounds of entropy, times 1 + its variance", False, shape.spikes,
        low=0, source="arXiv 2602.01288",
    ),
    Signal(
        "tail_median", "nats", "median entropy of the last tokens, 64 or more", False, shape.tail_median,
        low=0, source="arXiv 2606.08850",
    ),
    Signal(
        "worst_window", "nats", f"highest mean entropy over {shape.WINDOW} tokens in a row", False,
        shape.worst_window, low=0, source="arXiv 2508.15260",
    ),
    Signal(
        "entropy_centroid", "", "mean relative position of phases of high entropy", False, shape.centroid,
        low=0, high=1, open_low=True, source="arXiv 2604.26173",
    ),
    Signal(
        "entropy_early", "nats", "mean entropy of the first third", False, shape.early,
        low=0, source="arXiv 2605.07776",
    ),
    Signal(
        "entropy_middle", "nats", "mean entropy of the middle third", False, shape.middle,
        low=0, source="arXiv 2605.07776",
    ),
    Signal(
        "entropy_late", "nats", "mean entropy of the last third", False, shape.late,
        low=0, source="arXiv 2605.07776",
    ),
    Signal(
        "entropy_slope", "nats", "slope of entropy against relative position", False, shape.slope,
        source="arXiv 2605.07776",
    ),
    Signal(
        "committal", "nats", "mean surprise minus entropy: -logprob - entropy", False, shape.committal,
        source="arXiv 2605.07776",
    ),
    Signal(
        "varentropy", "nats^2", "mean of token_varentropies", False, Pooled("mean", "varentropies"),
        low=0, source="arXiv 2503.21961", needs="varentropies",
    ),
    # KL(uniform || p) without its constant -ln V, which a span does not know and no ranking within a model needs.
    Signal(
        "self_certainty", "nats", "minus the mean of token_mean_logprobs", True,
        Pooled("mean", "mean_logprobs", neg), low=0, source="arXiv 2502.18581", needs="mean_logprobs",
    ),
    Signal(
        "margin", "", "mean largest minus second largest probability", True, shape.margin, low=0, high=1,
        needs="second_probs",
    ),
)  # fmt: skip


def _of_no_tokens(scores: TokenScores) -> None:
    """The value of a signal that does not follow from the tokens of one span alone."""


CUMULATIVE = Signal(
    "cumulative_confidence", "", "product of the confidences of the steps up to one (CaT ranks by it)", True,
    _of_no_tokens, low=0, high=1, source="arXiv 2605.07353",
)  # fmt: skip
TOPK = Signal(
    "entropy_topk", "nats", "mean entropy over the likeliest tokens alone (--top-k)", False, _of_no_tokens, low=0
)  # fmt: skip
PICSAR = Signal(
    "picsar", "nats", "mean log-probability of the steps before the last, plus that of the last", True,
    _of_no_tokens, high=0, source="PiCSAR",
)  # fmt: skip
AGREEMENT = Signal(
    "branch_agreement", "", "share of the branches after a step that give the most frequent answer", True,
    _of_no_tokens, low=0, high=1, open_low=True, source="arXiv 2603.19118",
)  # fmt: skip
# `calibrate` knows how each is computed: of the path, of all steps, of a run's branches, of another forward pass.
NOT_OF_TOKENS = (CUMULATIVE, TOPK, PICSAR, AGREEMENT)
