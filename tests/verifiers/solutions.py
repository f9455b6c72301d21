"""Solutions made by hand for the tests of verifiers."""

from itertools import accumulate, pairwise

from stepconf.core.ids import content_id
from stepconf.core.records import FinishReason, Solution, Solved
from stepconf.core.steps import build_steps


def solved(
    problem: str,
    texts: list[str],
    gold: str | None = None,
    *,
    prompt_ids: list[int] | None = None,
    token_ids: list[int] | None = None,
    token_starts: list[int] | None = None,
    finish_reason: FinishReason = "imported",
) -> Solved:
    """A solution with these steps; the texts are joined as they are."""
    text = "".join(texts)
    ids, ends = token_ids or [], list(accumulate(map(len, texts)))
    solution_id = content_id(problem, text)
    spans = list(pairwise([0, *ends]))
    steps = build_steps(solution_id, "p", text, spans, ids, token_starts or [])
    solution = Solution(
        solution_id=solution_id, problem_id="p", external_id=None, source="test", split="", problem=problem,
        gold_answer=gold, answer_type="math", model="", model_revision="", engine="", prompt_token_ids=prompt_ids or [],
        text=text, token_ids=ids, temperature=None, top_p=None, seed=None, sample_index=0,
        finish_reason=finish_reason,
        predicted_answer=None, answer_correct=None, n_steps=len(steps), n_tokens=len(ids), entropy_mean=None,
        confidence=None,
    )  # fmt: skip
    return Solved(solution, steps)
