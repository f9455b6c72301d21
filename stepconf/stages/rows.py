"""From a completion, a branch, or a given solution, to a `Solved`: its rows, not yet verified."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

from stepconf.core.answers import extract_answer
from stepconf.core.ids import content_id
from stepconf.core.protected import Span
from stepconf.core.reasoning import Parts, Thinking, divide
from stepconf.core.records import CUT, FinishReason, Problem, Solution, Solved, TokenScores, bare_solution
from stepconf.core.segment import at_tokens, segment_parts, spans_of_parts
from stepconf.core.signals import CONFIDENCE, ENTROPY_MEAN
from stepconf.core.steps import build_steps, with_bounds
from stepconf.engines.base import Completion, EngineInfo, SampleRequest
from stepconf.engines.tokenizer import Tokenizer, starts_of
from stepconf.problems.load import ImportedSolution
from stepconf.recipe import Recipe

PART_SEPARATOR = "\n\n"


def sampled(
    problem: Problem,
    request: SampleRequest,
    index: int,
    completion: Completion,
    engine: EngineInfo,
    recipe: Recipe,
    thinking: Thinking,
) -> Solved | str:
    """A sampled solution with its steps, or the reason why there is none."""
    text = "".join(completion.pieces)
    if not text.strip():
        return "empty solution"
    cut = completion.finish_reason != "stop"
    parts = divide(text, thinking)
    solution = _solution(problem, recipe, text, index)
    solution = replace(
        solution,
        solution_id=content_id(problem.problem_id, recipe.model, completion.token_ids or text, index),
        engine=engine.engine,
        prompt_token_ids=request.prompt_ids,
        token_ids=completion.token_ids,
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
        seed=request.seed + index,
        finish_reason=_ending(cut, parts) or "stop",
        predicted_answer=extract_answer(text, problem.answer_type, not cut, thinking),
    )
    return _completed(solution, segment_parts(text, parts, recipe.segment.options), completion, parts)


def branched(
    parent: Solved,
    before: str,
    node: int,
    request: SampleRequest,
    index: int,
    completion: Completion,
    engine: EngineInfo,
    recipe: Recipe,
    thinking: Thinking,
) -> Solved:
    """A branch of `parent` before its step `node`, with its own steps; without any where it adds no text.

    The layout of the whole decides where steps end, so the text before the branch is segmented with it.

    Args:
        parent: the solution that it leaves.
        before: the text of the whole path up to the branch.
        node: the parent's step before which it leaves.
        request: what was asked for; its seed is the completion's own.
        index: which completion of the node it is, from 0.
        completion: what the model wrote.
        engine: that ran the model.
        recipe: how to segment; its model is the one that wrote it.
        thinking: how the thinking of the whole path is divided from its answer.
    """
    own = "".join(completion.pieces)
    whole, cut = before + own, completion.finish_reason != "stop"
    parts = divide(whole, thinking)
    solution = replace(
        parent.solution,
        solution_id=content_id(parent.solution.solution_id, node, recipe.model, completion.token_ids, index),
        parent_solution_id=parent.solution.solution_id,
        branch_step=node,
        model=recipe.model,
        model_revision=recipe.model_revision or "",
        engine=engine.engine,
        prompt_token_ids=request.prompt_ids,
        text=own,
        token_ids=completion.token_ids,
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
        seed=request.seed,
        sample_index=index,
        finish_reason=_ending(cut, parts) or "stop",
        predicted_answer=extract_answer(whole, parent.solution.answer_type, not cut, thinking),
        answer_correct=None,
        fitted_confidence=None,
    )
    if not own.strip():
        return Solved(solution, [])
    at = len(before)
    spans = _spans_after(at, whole, segment_parts(whole, parts, recipe.segment.options))
    return _completed(solution, spans, completion, parts and parts.after(at))


def _spans_after(at: int, whole: str, spans: Sequence[Span]) -> list[Span]:
    """The spans of what a branch adds to a text at `at`, in its own characters.

    Blanks in front would belong to the step before it, which is not the branch's: its first step has them.
    """
    own = [(max(start, at) - at, end - at) for start, end in spans if end > at]
    if len(own) > 1 and not whole[at : at + own[0][1]].strip():
        own[:2] = [(0, own[1][1])]
    return own


def imported(
    item: ImportedSolution,
    recipe: Recipe,
    tokenizer: Tokenizer | None = None,
    prompt_ids: list[int] | None = None,
    scores: TokenScores | None = None,
    engine: EngineInfo | None = None,
) -> Solved | str:
    """A given solution with its steps, tokenised if a tokenizer is given, scored if scores are.

    Whatever the prompt opens, only marks in the text itself divide it: others may have written it.
    """
    thinking = Thinking(recipe.reasoning)
    if item.steps is None:
        text = item.text or ""
        parts = divide(text, thinking)
        spans = segment_parts(text, parts, recipe.segment.options)
    elif any(not part.strip() for part in item.steps):
        return "blank step"
    else:
        text, spans = spans_of_parts(item.steps, PART_SEPARATOR)
        parts = divide(text, thinking)
    if not text.strip():
        return "empty solution"
    solution = _solution(item.problem, recipe, text, item.sample_index)
    ids, starts = tokenizer.encode_with_starts(text) if tokenizer else ([], [])
    cut = item.problem.extra.get("finish_reason") in CUT  # as the file says
    solution = replace(
        solution,
        finish_reason=_ending(cut, parts) or "imported",
        solution_id=content_id(solution.problem_id, solution.external_id, text, solution.sample_index),
        model=recipe.model if engine else "",
        engine=engine.engine if engine else "",
        prompt_token_ids=prompt_ids or [],
        token_ids=ids,
        predicted_answer=extract_answer(text, item.problem.answer_type, not cut, thinking),
    )
    return _with_steps(solution, spans, starts, scores, parts)


def _completed(
    solution: Solution, spans: list[tuple[int, int]], completion: Completion, parts: Parts | None
) -> Solved:
    """A sampled solution with its steps, and with what its engine gives of each token."""
    starts = starts_of(completion.pieces) if completion.token_ids else []
    solved = _with_steps(solution, spans, starts, completion.scores or None, parts)
    return replace(solved, steps=with_bounds(solved.steps, completion.topk)) if completion.topk else solved


def _ending(cut: bool, parts: Parts | None) -> FinishReason | None:
    """Where the token limit cut a solution; None where it did not."""
    if not cut:
        return None
    return "length_in_reasoning" if parts and not parts.closed else "length"


def _solution(problem: Problem, recipe: Recipe, text: str, index: int) -> Solution:
    return replace(
        bare_solution(problem.problem_id, problem.text, problem.gold_answer, text),
        external_id=problem.external_id,
        source=problem.source,
        split=problem.split,
        model=recipe.model,
        model_revision=recipe.model_revision or "",
        sample_index=index,
        answer_type=problem.answer_type,
        extra=problem.extra,
    )


def _with_steps(
    solution: Solution,
    spans: list[tuple[int, int]],
    starts: list[int],
    scores: TokenScores | None,
    parts: Parts | None,
) -> Solved:
    steps = build_steps(
        solution.solution_id,
        solution.problem_id,
        solution.text,
        at_tokens(solution.text, spans, starts),
        solution.token_ids,
        starts,
        scores,
        solution.prompt_token_ids,
        parts,
    )
    finished = replace(
        solution,
        n_steps=len(steps),
        n_tokens=len(solution.token_ids),
        entropy_mean=ENTROPY_MEAN.over(scores) if scores else None,
        confidence=CONFIDENCE.over(scores) if scores else None,
        reasoning_start=parts.start if parts else None,
        reasoning_end=parts.end if parts else None,
    )
    return Solved(finished, steps)


def stream_seed(seed: int, what: str) -> int:
    """The random stream of a problem or a node, by its id: the same in every run, order and batch."""
    digest = blake2b(f"{seed}:{what}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")
