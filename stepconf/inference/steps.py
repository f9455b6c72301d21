"""The next step of a solution: sampled up to the end of a line, and on, until `core.segment` sees a step end.

A step is what `segment` cuts off. Whether a line end is the end of a step depends on what follows (an
announcement goes with what it announces, a block is not cut), so a plain line is imagined after it: if the
cut would fall there, the step is whole; if not, the model goes on. Sampled tokens are kept as they are; those
after the cut are dropped, and count as spent.

What differs from `segment` over the whole text, which can look ahead: a blank line or a closing tag leads the
step after it, and a displayed block is a step of its own, apart from the line before it and from small letters
after it. Inside the thinking of a reasoning model steps are those of `segment.mode`, too.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from stepconf.core.answers import extract_answer
from stepconf.core.reasoning import Thinking, divide
from stepconf.core.records import TokenScores
from stepconf.core.segment import SegmentOptions, at_tokens, segment
from stepconf.engines.base import Completion, Sampling
from stepconf.engines.tokenizer import starts_of
from stepconf.inference.base import Ask, Setting, Spent

_NEXT_LINE = "Next comes a line of plain text."
_LINE_ENDS = ("\n",)
_SENTENCE_ENDS = ("\n", ". ", "! ", "? ", "。", "！", "？")

Ending = Literal["step", "solution", "context_full", "out_of_tokens"]


@dataclass(frozen=True, slots=True)
class Path:
    """A solution so far: exact tokens, and the text they make."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A step that may come next. `ending` says whether the solution goes on after it, and if not, why.

    Only with ending "solution" may it have no tokens: the solution had come to its end before it.
    """

    token_ids: list[int]
    text: str
    scores: TokenScores
    ending: Ending


@dataclass(slots=True)
class _Draft:
    """A step that is being sampled."""

    path: Path
    seed: int
    token_ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    scores: TokenScores = field(default_factory=lambda: TokenScores([], [], []))
    limit: Ending = "out_of_tokens"  # what it is when its request reaches its length
    done: Candidate | None = None

    def take(self, completion: Completion) -> None:
        self.token_ids = self.token_ids + completion.token_ids
        self.pieces = self.pieces + completion.pieces
        self.scores = self.scores + completion.scores

    def end(self, keep: int, ending: Ending) -> None:
        self.done = Candidate(self.token_ids[:keep], "".join(self.pieces[:keep]), self.scores[:keep], ending)


class Stepper:
    """Samples steps for one question.

    Args:
        prompt_ids: in front of the solution.
        setting: of the run.
        spent: where tokens and requests are counted.
        seed: of the question; every continuation draws from a stream of its own, derived from it.
    """

    def __init__(self, prompt_ids: list[int], setting: Setting, spent: Spent, seed: int) -> None:
        self._prompt_ids, self._setting, self._spent, self._seed = prompt_ids, setting, spent, seed
        options = setting.segment
        # A tree cannot see the layout of what is not yet written, from which `auto` would choose.
        self._options = replace(options, mode="lines") if options.mode == "auto" else options
        self._until = _SENTENCE_ENDS if self._options.mode == "sentences" else _LINE_ENDS
        self.thinking = setting.thinking(prompt_ids)

    def steps(
        self, wanted: Sequence[tuple[Path, int]], greedy: bool = False
    ) -> Generator[list[Ask], list[list[Completion]], list[list[Candidate]]]:
        """For each (path, n), n candidates of its next step, in the order of their seeds; `greedy` draws none."""
        drafts = [[_Draft(path, self._next_seed()) for _ in range(n)] for path, n in wanted]
        waiting = [row for row in drafts if row]
        while waiting:
            asks, asked = [], []
            for row in waiting:
                # All drafts of a row hold the same tokens: a row is either a node or a draft that goes on.
                ask = self._ask(row, greedy)
                if ask:
                    asks.append(ask)
                    asked.append(row)
            if not asks:
                break
            self._spent.requests += len(asks)
            self._spent.peak_branches = max(self._spent.peak_branches, sum(ask.n for ask in asks))
            for row, completions in zip(asked, (yield asks), strict=True):
                for draft, completion in zip(row, completions, strict=True):
                    self._spent.tokens += completion.n_sampled
                    draft.take(completion)
                    _settle(draft, completion, self._setting.stop, self._options)
            waiting = [[draft] for row in asked for draft in row if draft.done is None]
        return [[draft.done for draft in row if draft.done is not None] for row in drafts]

    def _ask(self, row: list[_Draft], greedy: bool) -> Ask | None:
        """The request for a row; None where it has no room, and its drafts are ended."""
        draft = row[0]
        prefix = self._prompt_ids + draft.path.token_ids + draft.token_ids
        sampling = self._setting.sampling
        left = sampling.max_tokens - len(draft.path.token_ids) - len(draft.token_ids)
        room = self._setting.context - len(prefix)
        limit: Ending = "context_full" if room < left else "out_of_tokens"
        budget = self.budget_left(
            draft.path.text + "".join(draft.pieces), len(prefix) - len(self._prompt_ids)
        )
        if budget is not None and budget < min(left, room):
            left, limit = budget, "step"
        for one in row:
            one.limit = limit
            if min(left, room) < 1:
                one.end(len(one.token_ids), one.limit)
        if min(left, room) < 1:
            return None
        temperature = 0.0 if greedy else sampling.temperature
        how = Sampling(temperature, min(left, room), sampling.top_p, self._setting.stop, self._until)
        return Ask(prefix, len(row), draft.seed if not draft.token_ids else self._next_seed(), how)

    def budget_left(self, text: str, n_tokens: int) -> int | None:
        """How many tokens the thinking of a solution so far may still have; None where it has no budget or is over."""
        budget = self._setting.infer.reasoning_max_tokens
        if budget is None or self._setting.reasoning is None:
            return None
        return max(budget - n_tokens, 0) if thinks(text, self.thinking) else None

    def _next_seed(self) -> int:
        self._seed += 1
        return self._seed


def _settle(draft: _Draft, completion: Completion, stop: tuple[str, ...], options: SegmentOptions) -> None:
    """End the draft where its step ends; leave it open where the model must go on."""
    starts, text = starts_of(draft.pieces), "".join(draft.pieces)
    stopped = _stop_at(draft.path.text, text, stop)
    if stopped is not None:
        text = text[:stopped]
    ended = completion.finish_reason == "stop" or stopped is not None
    if not text.strip():
        if ended:
            draft.end(0, "solution")
        elif completion.finish_reason == "length":
            draft.end(len(draft.token_ids), draft.limit)
        return
    if completion.finish_reason == "until" and stopped is None and _in_block(text):
        return
    # At the end of a solution, or of its tokens, no line follows.
    next_line = _NEXT_LINE if completion.finish_reason == "until" and stopped is None else ""
    spans = at_tokens(text, segment(text + next_line, options), starts)
    within = len(text) if stopped is None else stopped
    keep = sum(start < min(spans[0][1], within) for start in starts)
    if len(spans) > 1 and spans[0][1] <= len(text):
        draft.end(keep, "step")
    elif ended:
        draft.end(keep, "solution")
    elif completion.finish_reason == "length":
        draft.end(keep, draft.limit)


def thinks(text: str, thinking: Thinking) -> bool:
    """Whether a solution so far is still thinking."""
    parts = divide(text, thinking)
    return (parts is not None and not parts.closed) or (not text.strip() and thinking.opened)


def _in_block(text: str) -> bool:
    """Whether a displayed formula or a block of code has begun and not ended: `segment` will not cut it."""
    pairs = (("\\[", "\\]"), ("\\begin{", "\\end{"))
    return any(text.count(a) > text.count(b) for a, b in pairs) or any(
        text.count(fence) % 2 for fence in ("$$", "```")
    )


def _stop_at(before: str, text: str, stop: tuple[str, ...]) -> int | None:
    """Where in `text` the solution ends because of a stop string, which may begin before it; None without."""
    found = []
    for s in stop:
        head = before[max(0, len(before) - len(s) + 1) :]
        at = (head + text).find(s)
        if at >= 0:
            found.append(max(0, at - len(head)))
    return min(found, default=None)


def marks_answer(step: str, answer_type: str, ending: Ending) -> bool:
    """Whether a step says that it gives the final answer, though the solution has not come to its end."""
    return answer_type != "code" and (
        extract_answer(step, answer_type, guess=False, more_follows=ending == "step") is not None
    )


def answer_after(text: str, answer_type: str, ending: Ending, thinking: Thinking) -> str | None:
    """The answer of a solution so far, whose last step ended so; nothing is guessed of one that was cut."""
    guess, more_follows = ending in ("solution", "step"), ending == "step"
    return extract_answer(text, answer_type, guess, thinking, more_follows)
