"""From a text with scored tokens to rows of `steps`: one function for sampled, scored and plain solutions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, fsum

from stepconf.core.ids import content_id, prefix_ids
from stepconf.core.records import Solution, Step, TokenScores
from stepconf.core.segment import token_spans


@dataclass(frozen=True, slots=True)
class Measures:
    """The aggregates of one span of tokens; all None over no tokens."""

    entropy_mean: float | None = None
    entropy_max: float | None = None
    logprob_sum: float | None = None
    perplexity: float | None = None
    max_prob_mean: float | None = None
    confidence: float | None = None


def measure(logprobs: Sequence[float], entropies: Sequence[float], max_probs: Sequence[float]) -> Measures:
    """Aggregates of a span of tokens.

    Eq. (2) of arXiv 2605.07353 is the mean entropy, in nats (the paper calls it the negative average, a slip
    of the sign). Confidence is its monotone map to (0, 1]: exp(-mean entropy).
    """
    if not entropies:
        return Measures()
    n = len(entropies)
    entropy_mean = fsum(entropies) / n
    logprob_sum = fsum(logprobs)
    return Measures(
        entropy_mean=entropy_mean,
        entropy_max=max(entropies),
        logprob_sum=logprob_sum,
        # Beyond float range a perplexity says nothing more than "infinite".
        perplexity=exp(min(-logprob_sum / n, 700.0)),
        max_prob_mean=fsum(max_probs) / n,
        confidence=confidence(entropy_mean),
    )


def confidence(entropy_mean: float) -> float:
    """exp(-mean entropy in nats), in (0, 1]: the normalised confidence of eq. (4)."""
    return exp(-entropy_mean)


def build_steps(
    solution_id: str,
    problem_id: str,
    text: str,
    char_spans: Sequence[tuple[int, int]],
    token_ids: Sequence[int] = (),
    token_starts: Sequence[int] = (),
    scores: TokenScores | None = None,
    prompt_ids: Sequence[int] = (),
) -> list[Step]:
    """The steps of a solution whose `char_spans` partition `text`.

    `token_starts[i]` is the character at which token i starts: a token belongs to the step where it starts.
    `prompt_ids` are the exact tokens before the first of `token_ids`, for the steps' `prefix_id`.
    Without tokens (a plain text) the token columns are empty and the aggregates None; with tokens but without
    scores only the aggregates and score columns are.
    """
    steps: list[Step] = []
    log_cumulative = 0.0
    spans = token_spans(char_spans, token_starts)
    ends = (len(prompt_ids) + start for start, _ in spans)
    prefixes = prefix_ids([*prompt_ids, *token_ids], ends) if token_ids else [None] * len(spans)
    for index, ((char_start, char_end), (start, end)) in enumerate(zip(char_spans, spans, strict=True)):
        columns = (scores.logprobs, scores.entropies, scores.max_probs) if scores else ([], [], [])
        logprobs, entropies, max_probs = (list(column[start:end]) for column in columns)
        measures = measure(logprobs, entropies, max_probs)
        log_cumulative -= measures.entropy_mean or 0.0
        steps.append(
            Step(
                step_id=content_id(solution_id, index, char_start, char_end),
                solution_id=solution_id,
                problem_id=problem_id,
                step_index=index,
                n_steps=len(char_spans),
                text=text[char_start:char_end],
                char_start=char_start,
                char_end=char_end,
                token_start=start,
                token_end=end,
                # Every list of a step has one length: tokens without scores stay in `solutions.token_ids`.
                token_ids=list(token_ids[start:end]) if scores else [],
                token_logprobs=logprobs,
                token_entropies=entropies,
                token_max_probs=max_probs,
                entropy_mean=measures.entropy_mean,
                entropy_max=measures.entropy_max,
                logprob_sum=measures.logprob_sum,
                perplexity=measures.perplexity,
                max_prob_mean=measures.max_prob_mean,
                confidence=measures.confidence,
                cumulative_confidence=exp(log_cumulative) if scores else None,
                prefix_id=prefixes[index],
            )
        )
    return steps


def with_prefix_ids(solution: Solution, steps: list[Step]) -> list[Step]:
    """The steps of a solution with their `prefix_id`, which rows of older versions lack."""
    if not solution.token_ids or all(step.prefix_id for step in steps):
        return steps
    before = len(solution.prompt_token_ids)
    found = prefix_ids(
        [*solution.prompt_token_ids, *solution.token_ids], (before + step.token_start for step in steps)
    )
    return [replace(step, prefix_id=one) for step, one in zip(steps, found, strict=True)]
