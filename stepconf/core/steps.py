"""From a text with scored tokens to rows of `steps`: one function for sampled, scored and plain solutions."""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, fsum

from stepconf.core.ids import content_id, prefix_ids
from stepconf.core.reasoning import Parts, is_reconsidering, part_of
from stepconf.core.records import Solution, Step, TokenScores
from stepconf.core.schema import STEP_SIGNALS
from stepconf.core.segment import token_spans
from stepconf.core.signals import ENTROPY_MEAN
from stepconf.core.topk import TopkScores


def measure(scores: TokenScores) -> dict[str, float | None]:
    """The signals that are columns of `steps`, over a span of tokens; all None over no tokens."""
    return {signal.name: signal.over(scores) for signal in STEP_SIGNALS}


def build_steps(
    solution_id: str,
    problem_id: str,
    text: str,
    char_spans: Sequence[tuple[int, int]],
    token_ids: Sequence[int] = (),
    token_starts: Sequence[int] = (),
    scores: TokenScores | None = None,
    prompt_ids: Sequence[int] = (),
    parts: Parts | None = None,
) -> list[Step]:
    """The steps of a solution whose `char_spans` partition `text`.

    `token_starts[i]` is the character at which token i starts: a token belongs to the step where it starts. Spans that
    `at_tokens` has moved give a word's token to the word's step.
    `prompt_ids` are the exact tokens before the first of `token_ids`, for the steps' `prefix_id`.
    Without tokens (a plain text) the token columns are empty and the signals None; with tokens but without
    scores only the signals and score columns are. `parts`: where the text is thinking.
    """
    steps: list[Step] = []
    log_cumulative = 0.0
    spans = token_spans(char_spans, token_starts)
    ends = (len(prompt_ids) + start for start, _ in spans)
    prefixes = prefix_ids([*prompt_ids, *token_ids], ends) if token_ids else [None] * len(spans)
    for index, ((char_start, char_end), (start, end)) in enumerate(zip(char_spans, spans, strict=True)):
        own = scores[start:end] if scores else TokenScores([], [], [])
        log_cumulative -= ENTROPY_MEAN.over(own) or 0.0
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
                token_logprobs=own.logprobs,
                token_entropies=own.entropies,
                token_max_probs=own.max_probs,
                signals=measure(own),
                cumulative_confidence=exp(log_cumulative) if scores else None,
                prefix_id=prefixes[index],
                token_varentropies=own.varentropies,
                token_mean_logprobs=own.mean_logprobs,
                token_second_probs=own.second_probs,
                part=part_of(text, (char_start, char_end), parts),
                is_reconsidering=is_reconsidering(text[char_start:char_end]),
            )
        )
    return steps


def with_bounds(steps: Sequence[Step], topk: TopkScores) -> list[Step]:
    """The steps with what the likeliest of each token's choices say of its entropy, as means over their tokens."""
    found = []
    for step in steps:
        own = topk[step.token_start : step.token_end]
        if n := len(own.entropies):
            means = (fsum(own.entropies) / n, fsum(own.lows) / n, fsum(own.highs) / n)
            step = replace(step, entropy_topk=means[0], entropy_low=means[1], entropy_high=means[2])
        found.append(step)
    return found


def with_prefix_ids(solution: Solution, steps: list[Step]) -> list[Step]:
    """The steps of a solution with their `prefix_id`, which rows of older versions lack."""
    if not solution.token_ids or all(step.prefix_id for step in steps):
        return steps
    before = len(solution.prompt_token_ids)
    found = prefix_ids(
        [*solution.prompt_token_ids, *solution.token_ids], (before + step.token_start for step in steps)
    )
    return [replace(step, prefix_id=one) for step, one in zip(steps, found, strict=True)]
