"""What a step's tokens say of its confidence: the signals compared side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stepconf.errors import StepconfError


@dataclass(frozen=True, slots=True)
class StepSignals:
    """Signals of one step over its tokens. Entropies in nats, exact over the vocabulary unless `topk`.

    `entropy_topk` is the mean of -sum p ln p over the k most likely tokens alone, as others compute it: never
    more than the exact entropy, see `topk_entropy_bounds`. `logprob_topk_mean` is the mean log-probability of
    those tokens (deepconf's token confidence is its negative). Both are None without top-k log-probabilities.
    """

    length: int
    max_prob_mean: float
    perplexity: float
    entropy_mean: float
    entropy_max: float
    entropy_sum: float
    logprob_mean: float
    entropy_topk: float | None = None
    logprob_topk_mean: float | None = None


# +1: a higher value speaks for correctness; -1: against it. `auroc(SIGN[name] * values, correct)`.
SIGNAL_SIGNS = {
    "length": -1,
    "max_prob_mean": 1,
    "perplexity": -1,
    "entropy_mean": -1,
    "entropy_max": -1,
    "entropy_sum": -1,
    "logprob_mean": 1,
    "entropy_topk": -1,
    "logprob_topk_mean": -1,
}


def step_signals(
    logprobs: Sequence[float],
    entropies: Sequence[float],
    max_probs: Sequence[float],
    topk_logprobs: Sequence[Sequence[float]] | None = None,
) -> StepSignals:
    """The signals of one step, from its token lists (one length, at least one token).

    Args:
        logprobs: natural log-probability of each token.
        entropies: exact entropy at each token, nats.
        max_probs: largest probability at each token.
        topk_logprobs: per token, the log-probabilities of the k most likely tokens.

    Raises:
        StepconfError: the lists differ in length or are empty.
    """
    lengths = [len(logprobs), len(entropies), len(max_probs)]
    lengths += [len(topk_logprobs)] if topk_logprobs is not None else []
    n = lengths[0]
    if n == 0 or set(lengths) != {n}:
        raise StepconfError(f"A step's token lists must have one length, at least 1; they have {lengths}.")
    logprob_mean = math.fsum(logprobs) / n
    entropy_sum = math.fsum(entropies)
    entropy_topk, logprob_topk_mean = (
        _topk_means(topk_logprobs) if topk_logprobs is not None else (None, None)
    )
    return StepSignals(
        length=n,
        max_prob_mean=math.fsum(max_probs) / n,
        perplexity=math.exp(min(-logprob_mean, 700.0)),  # finite, as the column of `steps` is
        entropy_mean=entropy_sum / n,
        entropy_max=max(entropies),
        entropy_sum=entropy_sum,
        logprob_mean=logprob_mean,
        entropy_topk=entropy_topk,
        logprob_topk_mean=logprob_topk_mean,
    )


def topk_entropy_bounds(topk_logprobs: Sequence[float], vocabulary_size: int) -> tuple[float, float]:
    """Lower and upper bound, in nats, of the entropy of a distribution of which only the top k are known.

    The lower one is the truncated sum that goes by the name of top-k entropy. The upper one spreads the
    missing mass evenly over the rest of the vocabulary.
    """
    truncated = _truncated_entropy(topk_logprobs)
    missing = max(0.0, 1 - math.fsum(math.exp(logprob) for logprob in topk_logprobs))
    others = vocabulary_size - len(topk_logprobs)
    unseen = missing * math.log(others / missing) if missing > 0 and others > 0 else 0.0
    return truncated, truncated + unseen


def _topk_means(topk_logprobs: Sequence[Sequence[float]]) -> tuple[float, float]:
    if not all(topk_logprobs):
        raise StepconfError("A token has no top-k log-probabilities.", "Ask the engine for k >= 1 of them.")
    n = len(topk_logprobs)
    entropy = math.fsum(map(_truncated_entropy, topk_logprobs)) / n
    return entropy, math.fsum(math.fsum(token) / len(token) for token in topk_logprobs) / n


def _truncated_entropy(logprobs: Sequence[float]) -> float:
    return -math.fsum(math.exp(logprob) * logprob for logprob in logprobs if logprob > -math.inf)
