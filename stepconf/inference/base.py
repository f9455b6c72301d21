"""What strategies take and give back.

A strategy is a generator for one question: it yields requests (`Ask`), is sent their completions in the same
order, and returns a `Result`. So it reads top to bottom, and `run.answer` can interleave any number of them in
one stream: none waits for another.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from stepconf.core.reasoning import BY_MARKS, Part, Parts, Thinking, divide, part_of
from stepconf.core.records import TokenScores
from stepconf.core.segment import SegmentOptions, at_tokens, token_spans
from stepconf.core.signals import CONFIDENCE, ENTROPY_MEAN
from stepconf.core.votes import Equal
from stepconf.engines.base import Completion, Sampling
from stepconf.engines.reasoning import Reasoning
from stepconf.engines.tokenizer import starts_of
from stepconf.recipe import InferRecipe, PromptRecipe, SamplingRecipe


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `prompts`: exact token ids in front of a solution; all but `dipt` take only the first."""

    key: str
    text: str
    prompts: tuple[list[int], ...]
    answer_type: str = "math"


def step_confidence(scores: TokenScores, index: int) -> float | None:
    """exp(-mean entropy) of a step's tokens, wherever it stands; None without tokens."""
    return CONFIDENCE.over(scores)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all questions.

    `stop`: strings that end a solution. `context`: of the model, in tokens. `equal`: whether two answers of a
    type are the same, as `equal(answer_type)(a, b)`. `watch`: gets every level of a tree as it is pruned.
    `settled`: gets each step of a tree once every branch that can still win has it; they are the first
    steps of the answer, if there will be one. `confidence`: of a step, from its tokens and its index in the solution,
    in [0, 1]; None where it has no value. `answer_confidence`: the same of a whole solution. `given_up`: gets each
    branch that a tree gives up. `reasoning`: the marks of the model's thinking; None: by any marks, and no budget can
    end it.
    """

    infer: InferRecipe
    sampling: SamplingRecipe
    segment: SegmentOptions
    stop: tuple[str, ...]
    context: int
    equal: Callable[[str], Equal]
    watch: Callable[["Growth"], None] = lambda growth: None
    settled: Callable[["StepScore"], None] | None = None
    confidence: Callable[[TokenScores, int], float | None] = step_confidence
    answer_confidence: Callable[[TokenScores], float | None] = CONFIDENCE.over
    given_up: Callable[["GivenUp"], None] = lambda branch: None
    reasoning: Reasoning | None = None

    def thinking(self, prompt_ids: list[int]) -> Thinking:
        """How the thinking of a solution after this prompt is divided from its answer."""
        return self.reasoning.thinking(prompt_ids) if self.reasoning else BY_MARKS

    def closing(self, text: str, thinking: Thinking) -> Completion | None:
        """What ends the thinking of a text that has used up its budget; None where it does not think any more."""
        parts = divide(text, thinking)
        if self.reasoning is None or parts is None or parts.closed:
            return None
        return self.reasoning.closing(parts.family)


@dataclass(frozen=True, slots=True)
class Growth:
    """How a tree stands after a level. `best`: the highest C among branches that are alive or completed."""

    key: str
    depth: int
    alive: int
    completed: int
    pruned: int
    best: float | None
    tokens: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A branch that a tree gives up though it could go on.

    Args:
        key: of the question.
        reason: a counter of `Spent`.
        depth: how many steps it has.
        cumulative_confidence: its C, in [0, 1].
        token_ids: of its solution so far, after the prompt.
    """

    key: str
    reason: Literal["below_tau", "outranked", "too_long", "overtaken"]
    depth: int
    cumulative_confidence: float
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class Ask:
    """`n` continuations of `prefix_ids`; number i has the random stream `seed + i`."""

    prefix_ids: list[int]
    n: int
    seed: int
    sampling: Sampling


Search = Generator[list[Ask], list[list[Completion]], "Result"]


def _as_recipe_says(prompt: PromptRecipe, answer_type: str) -> list[PromptRecipe]:
    return [prompt]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to answer a question, by name in `kinds.STRATEGIES`.

    Args:
        search: of one question.
        draws: how many solutions: at most a number; `k` for `infer.k`, independent of each other, so that pass@k and
            maj@k mean something; `at most k` of them, fewer where a rule stops; or `tree` for steps within
            `infer.token_budget`.
        prompts: how a problem is put to the model, of the recipe's prompt and the answer type; the question's
            `prompts` are these, in order.
        by_confidence: whether confidences decide the answer, so that it needs an engine that gives scores.
    """

    search: Callable[[Question, Setting], Search]
    draws: int | Literal["k", "at most k", "tree"]
    prompts: Callable[[PromptRecipe, str], list[PromptRecipe]] = _as_recipe_says
    by_confidence: bool = False


@dataclass(frozen=True, slots=True)
class StepScore:
    """A step of a solution. Entropy in nats; `confidence` is that of `Setting`, by default exp(-entropy), None where it
    has no value; `cumulative_confidence` is the product of those up to this step, None where there is none."""

    text: str
    token_ids: list[int]
    entropy_mean: float | None
    confidence: float | None
    cumulative_confidence: float | None
    part: Part = "answer"


@dataclass(frozen=True, slots=True)
class Sample:
    """A whole solution among which was chosen. `confidence`: that of its answer, or C of a tree's branch."""

    answer: str | None
    confidence: float | None
    n_tokens: int


@dataclass(slots=True)
class Spent:
    """What a question has cost and what became of its branches.

    `tokens`: all that were drawn, those of pruned branches, of discarded ends and of end-of-sequence too.
    `peak_branches`: most continuations under way at once. The counters below are branches: `merged`,
    `below_tau`, `outranked`, `too_long` as in `core.prune.Level`, `overtaken` could no longer win,
    `resampled` were particles that others took the place of, `aborted` fell below the warm-up's threshold,
    `context_full` and `out_of_tokens` found no room to go on, `no_answer` ended without one.
    """

    tokens: int = 0
    requests: int = 0
    peak_branches: int = 0
    depth: int = 0
    merged: int = 0
    below_tau: int = 0
    outranked: int = 0
    too_long: int = 0
    overtaken: int = 0
    resampled: int = 0
    aborted: int = 0
    context_full: int = 0
    out_of_tokens: int = 0
    no_answer: int = 0

    @property
    def pruned(self) -> int:
        """Branches that were given up though they could have gone on."""
        return (
            self.below_tau + self.outranked + self.too_long + self.overtaken + self.resampled + self.aborted
        )

    def reasons(self) -> str:
        """Why branches ended without an answer, for a person."""
        named = (
            (self.below_tau, "below tau"),
            (self.aborted, "below the warm-up's threshold"),
            (self.too_long, "at the step limit"),
            (self.context_full, "with the context full"),
            (self.out_of_tokens, "out of tokens"),
            (self.no_answer, "ended without an answer"),
        )
        return ", ".join(f"{count} {what}" for count, what in named if count)


@dataclass(frozen=True, slots=True)
class Result:
    """A question's answer. `answer` is None where `failure` says why; `confidence` is C of the steps shown, with
    `infer.count_duplicates` times their shares.

    `samples`: what was chosen from. `seconds`: wall clock from the first request to the answer, other
    questions under way at the same time included.
    """

    key: str
    question: str
    answer: str | None
    failure: str
    text: str
    prompt_ids: list[int]
    token_ids: list[int]
    steps: list[StepScore]
    confidence: float | None
    samples: list[Sample]
    spent: Spent = field(default_factory=Spent)
    seconds: float = 0.0
    strategy: str = ""


def failed(question: Question, failure: str, spent: Spent, samples: Sequence[Sample] = ()) -> Result:
    """The result of a question without an answer."""
    prompt = question.prompts[0]
    return Result(question.key, question.text, None, failure, "", prompt, [], [], None, list(samples), spent)


def step_scores(
    text: str,
    spans: Sequence[tuple[int, int]],
    token_ids: list[int],
    pieces: list[str],
    scores: TokenScores,
    confidence: Callable[[TokenScores, int], float | None] = step_confidence,
    parts: Parts | None = None,
) -> list[StepScore]:
    """The steps of a whole solution, measured as `score` measures them, with a confidence as `Setting` has it.

    `parts`: where it is thinking.
    """
    found: list[StepScore] = []
    cumulative: float | None = None
    starts = starts_of(pieces)
    spans = at_tokens(text, spans, starts)
    of_tokens = token_spans(spans, starts)
    for index, (span, (start, end)) in enumerate(zip(spans, of_tokens, strict=True)):
        own = scores[start:end].drawn()
        stated = confidence(own, index)
        cumulative = times(cumulative, stated)
        entropy, part = ENTROPY_MEAN.over(own), part_of(text, span, parts)
        found.append(StepScore(text[slice(*span)], token_ids[start:end], entropy, stated, cumulative, part))
    return found


def times(product: float | None, factor: float | None) -> float | None:
    """The product of what has a value."""
    if product is None or factor is None:
        return factor if product is None else product
    return product * factor


def stream_seed(seed: int, question: str) -> int:
    """A question's own random stream: the same in every run, order and batch."""
    return int.from_bytes(blake2b(f"{seed}:{question}".encode(), digest_size=6).digest(), "big")
