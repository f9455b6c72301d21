"""The rows that flow through the pipeline. `core/schema.py` declares the same fields for Parquet."""

from dataclasses import dataclass, field
from itertools import compress
from math import isnan
from typing import Any, Literal

from stepconf.core.reasoning import Part

Label = Literal["correct", "incorrect", "unknown"]
FinishReason = Literal["stop", "length", "length_in_reasoning", "imported"]
CUT: tuple[FinishReason, ...] = ("length", "length_in_reasoning")  # at the token limit
# outcome: the chosen side reaches right answers more often.
PairKind = Literal["correct_uncertain", "incorrect", "trajectory", "outcome"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem to be solved. `answer_type` says how answers to it are extracted and compared."""

    problem_id: str
    text: str
    gold_answer: str | None
    answer_type: str
    source: str
    split: str
    external_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Per token, of the model's raw next-token distribution p (temperature 1): lists of one length.

    `logprobs`: natural log of the token's probability (<= 0). `entropies`: Shannon entropy H over the full
    vocabulary in nats, in [0, ln V]. `max_probs`: the largest probability, in (0, 1].

    None where an engine or an older run does not give them: `varentropies`: sum p (ln p + H)^2 in nats^2, >= 0.
    `mean_logprobs`: mean over the vocabulary of ln p in nats, <= -ln V; tokens of probability 0 (masked) are left out.
    `second_probs`: the second largest probability, in [0, 1/2].

    Tokens that the model did not draw have NaN in each list; `drawn` leaves them out.
    """

    logprobs: list[float]
    entropies: list[float]
    max_probs: list[float]
    varentropies: list[float] | None = None
    mean_logprobs: list[float] | None = None
    second_probs: list[float] | None = None

    def __len__(self) -> int:
        return len(self.logprobs)

    def __getitem__(self, span: slice) -> "TokenScores":
        """The scores of a span of the tokens."""
        return _scores_of([None if one is None else list(one[span]) for one in self.columns()])

    def __add__(self, other: "TokenScores") -> "TokenScores":
        """These tokens, then those of `other`; a list is there where both have it, or where the other has no token."""
        if not len(self) or not len(other):
            return self if len(self) else other
        pairs = zip(self.columns(), other.columns(), strict=True)
        return _scores_of([None if a is None or b is None else a + b for a, b in pairs])

    def drawn(self) -> "TokenScores":
        """The scores of the tokens that the model drew."""
        kept = [not isnan(logprob) for logprob in self.logprobs]
        if all(kept):
            return self
        return _scores_of([None if one is None else list(compress(one, kept)) for one in self.columns()])

    def columns(self) -> tuple[list[float] | None, ...]:
        """All six lists in order."""
        return (
            *(self.logprobs, self.entropies, self.max_probs),
            *(self.varentropies, self.mean_logprobs, self.second_probs),
        )


def _scores_of(columns: list[list[float] | None]) -> TokenScores:
    """The six lists as scores; the first three are always there."""
    logprobs, entropies, max_probs, *others = columns
    return TokenScores(logprobs or [], entropies or [], max_probs or [], *others)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one verifier says of one step. `score` is its own measure in [0, 1], if it has one.

    `reference`: the step as it should read (g_j of arXiv 2605.07353), where the verifier calls it incorrect.
    `raw`: the replies of a model that it was read from, where they are kept.
    """

    verifier: str
    version: str
    label: Label
    score: float | None = None
    reason: str = ""
    seconds: float = 0.0
    reference: str | None = None
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One row of `steps`. Spans are half-open: characters of the solution's text, positions in its tokens.

    `signals`: by name, those of `core/signals/` that are columns; None where the step has no scored tokens.
    """

    step_id: str
    solution_id: str
    problem_id: str
    step_index: int
    n_steps: int
    text: str
    char_start: int
    char_end: int
    token_start: int
    token_end: int
    token_ids: list[int]
    token_logprobs: list[float]
    token_entropies: list[float]
    token_max_probs: list[float]
    signals: dict[str, float | None]
    cumulative_confidence: float | None
    verdicts: list[Verdict] = field(default_factory=list)
    label: Label = "unknown"
    label_source: str = ""
    is_first_error: bool = False
    after_error: bool = False
    prefix_id: str | None = None
    token_varentropies: list[float] | None = None
    token_mean_logprobs: list[float] | None = None
    token_second_probs: list[float] | None = None
    fitted_confidence: float | None = None
    part: Part = "answer"
    is_reconsidering: bool = False
    entropy_topk: float | None = None
    entropy_low: float | None = None
    entropy_high: float | None = None

    @property
    def scores(self) -> TokenScores:
        """The scores of its tokens; none where it was not scored."""
        return TokenScores(
            *(self.token_logprobs, self.token_entropies, self.token_max_probs),
            *(self.token_varentropies, self.token_mean_logprobs, self.token_second_probs),
        )

    @property
    def entropy_mean(self) -> float | None:
        """Mean token entropy in nats."""
        return self.signals["entropy_mean"]

    @property
    def confidence(self) -> float | None:
        """exp(-entropy_mean), in (0, 1]."""
        return self.signals["confidence"]


@dataclass(frozen=True, slots=True)
class Solution:
    """One row of `solutions`: a sampled or imported solution, or a branch of one.

    A branch is a completion sampled from the exact tokens of its parent before step `branch_step`: those tokens
    are part of its prompt, and its text, tokens and steps are its own, from where it leaves the parent.
    """

    solution_id: str
    problem_id: str
    external_id: str | None
    source: str
    split: str
    problem: str
    gold_answer: str | None
    answer_type: str
    model: str
    model_revision: str
    engine: str
    prompt_token_ids: list[int]
    text: str
    token_ids: list[int]
    temperature: float | None
    top_p: float | None
    seed: int | None
    sample_index: int
    finish_reason: FinishReason
    predicted_answer: str | None
    answer_correct: bool | None
    n_steps: int
    n_tokens: int
    entropy_mean: float | None
    confidence: float | None
    extra: dict[str, Any] = field(default_factory=dict)
    parent_solution_id: str | None = None
    branch_step: int | None = None
    fitted_confidence: float | None = None
    reasoning_start: int | None = None
    reasoning_end: int | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it ended at the token limit."""
        return self.finish_reason in CUT


def bare_solution(problem_id: str, problem: str, gold_answer: str | None, text: str) -> Solution:
    """A solution of which no more is known: not sampled here, without tokens and scores."""
    return Solution(
        solution_id="",
        problem_id=problem_id,
        external_id=None,
        source="",
        split="",
        problem=problem,
        gold_answer=gold_answer,
        answer_type="math",
        model="",
        model_revision="",
        engine="",
        prompt_token_ids=[],
        text=text,
        token_ids=[],
        temperature=None,
        top_p=None,
        seed=None,
        sample_index=0,
        finish_reason="imported",
        predicted_answer=None,
        answer_correct=None,
        n_steps=0,
        n_tokens=0,
        entropy_mean=None,
        confidence=None,
    )


@dataclass(frozen=True, slots=True)
class Solved:
    """A solution with its steps in order: what verifiers see and what a shard holds."""

    solution: Solution
    steps: list[Step]


@dataclass(frozen=True, slots=True)
class Pair:
    """One row of `pairs`: two continuations of one exact token prefix, the better one first."""

    pair_id: str
    problem_id: str
    solution_id: str
    step_index: int
    kind: PairKind
    messages: list[dict[str, str]]
    prefix: str
    prompt: str
    chosen: str
    rejected: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_is_terminal: bool
    rejected_is_terminal: bool
    chosen_confidence: float | None
    rejected_confidence: float | None
    chosen_source: str
    rejected_source: str
    round: int
    policy: str
