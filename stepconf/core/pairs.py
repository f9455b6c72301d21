"""CASPO's preference pairs (algorithm 1 of arXiv 2605.07353) from the steps that a run holds.

Candidates for the other side of a pair are the steps that other samples took from the very same token prefix
q_j = [prompt, steps before]: siblings. Nothing is tokenised again, nothing is sampled here.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from stepconf.core.ids import content_id
from stepconf.core.records import Pair, PairKind, Solution, Solved, Step


@dataclass(frozen=True, slots=True)
class Node:
    """A step in its place: after the exact tokens `prefix_ids` (prompt included)."""

    solution: Solution
    step: Step
    prefix_ids: tuple[int, ...]
    after_error: bool

    @property
    def is_terminal(self) -> bool:
        """Whether the solution ends here by itself."""
        return self.step.step_index == self.step.n_steps - 1 and self.solution.finish_reason != "length"

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the step's tokens, nats; -inf for a step without tokens."""
        n = len(self.step.token_ids)
        return (self.step.logprob_sum or 0.0) / n if n else float("-inf")


def caspo(
    solved: Sequence[Solved],
    tau: float,
    after_error: Literal["stop", "continue"],
    prompt_text: Callable[[Solution], str],
    dropped: Counter[str],
) -> Iterator[Pair]:
    """Pairs of some problems' solutions; all samples of a problem must be among `solved`.

    A correct step with confidence <= `tau` is chosen over the likeliest sibling that is not correct
    (`correct_uncertain`); an incorrect step is rejected for the likeliest correct sibling (`incorrect`).
    Steps that make no pair are counted in `dropped` by reason; a pair is made once.
    """
    nodes = list(_nodes(solved))
    siblings: dict[tuple[int, ...], list[Node]] = defaultdict(list)
    for node in nodes:
        siblings[node.prefix_ids].append(node)
    seen: set[str] = set()
    for node in nodes:
        made = _pair(node, siblings[node.prefix_ids], tau, after_error, prompt_text)
        if isinstance(made, str):
            dropped[made] += 1
        elif made.pair_id in seen:
            dropped["same pair again"] += 1
        else:
            seen.add(made.pair_id)
            yield made


def _nodes(solved: Sequence[Solved]) -> Iterator[Node]:
    for one in solved:
        prefix = tuple(one.solution.prompt_token_ids)
        after_error = False
        for step in one.steps:
            yield Node(one.solution, step, prefix, after_error)
            prefix += tuple(step.token_ids)
            after_error = after_error or step.label == "incorrect"


def _pair(
    node: Node,
    siblings: Sequence[Node],
    tau: float,
    after_error: Literal["stop", "continue"],
    prompt_text: Callable[[Solution], str],
) -> Pair | str:
    step = node.step
    if node.after_error and after_error == "stop":
        return "after the first error"
    if step.label == "unknown":
        return "unknown label"
    if step.confidence is None:
        return "no tokens"
    others = [s for s in siblings if _norm(s.step.text) != _norm(step.text) and s.step.token_ids]
    if step.label == "incorrect":
        right = [s for s in others if s.step.label == "correct"]
        if not right:
            return "no correct step for the incorrect one"
        return _make("incorrect", max(right, key=_likeliest), node, node, prompt_text)
    if step.confidence > tau:
        return "correct and confident"
    rivals = [s for s in others if s.step.label != "correct"]
    if not rivals:
        return "no competing candidate"
    return _make("correct_uncertain", node, max(rivals, key=_likeliest), node, prompt_text)


def _likeliest(node: Node) -> tuple[float, str]:
    """Highest mean log-probability; the id settles ties, so that order does not."""
    return node.mean_logprob, node.step.step_id


def _make(
    kind: PairKind, chosen: Node, rejected: Node, origin: Node, prompt_text: Callable[[Solution], str]
) -> Pair:
    solution, step = origin.solution, origin.step
    prefix = solution.text[: step.char_start]
    prompt_ids = list(origin.prefix_ids)
    return Pair(
        pair_id=content_id(prompt_ids, chosen.step.token_ids, rejected.step.token_ids),
        problem_id=solution.problem_id,
        solution_id=solution.solution_id,
        step_index=step.step_index,
        kind=kind,
        messages=[{"role": "user", "content": solution.problem}],
        prefix=prefix,
        prompt=prompt_text(solution) + prefix,
        chosen=chosen.step.text,
        rejected=rejected.step.text,
        prompt_ids=prompt_ids,
        chosen_ids=chosen.step.token_ids,
        rejected_ids=rejected.step.token_ids,
        chosen_is_terminal=chosen.is_terminal,
        rejected_is_terminal=rejected.is_terminal,
        chosen_confidence=chosen.step.confidence,
        rejected_confidence=rejected.step.confidence,
        chosen_source="step" if chosen is origin else "candidate",
        rejected_source="step" if rejected is origin else "candidate",
        round=0,
        policy=solution.model,
    )


def _norm(text: str) -> str:
    return " ".join(text.split())
