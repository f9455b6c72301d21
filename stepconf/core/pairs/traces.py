"""What strategies read of a run, light enough for a million steps, and the pairs they make.

Token ids are bytes here, four to a token (int32, little-endian): they are sliced, compared and hashed as they
lie in the file, and become lists of integers only in the pairs that are made.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Literal, NamedTuple

from stepconf.core.ids import CONTENT_ID_BYTES
from stepconf.core.records import Label, Pair, PairKind

ID_BYTES = 4
_TWO_LENGTHS = Struct("<qq")


class Side(NamedTuple):
    """What may follow a prefix: a step of the run, one sampled for this, the critic's, or a whole solution.

    `mean_logprob`: mean log-probability of its tokens, nats; -inf where that is not known. `is_terminal`: the
    solution ends after it by itself. `tie` settles equal probabilities, so that no order does. `reaches`:
    whether the solution it comes from has the right final answer; None where that is not known.
    """

    text: str
    ids: bytes
    label: Label
    confidence: float | None
    mean_logprob: float
    is_terminal: bool
    source: Literal["step", "candidate", "critic", "solution"]
    tie: str
    reaches: bool | None = None


@dataclass(slots=True)
class Trace:
    """A solution. `logprobs` are its tokens' (float32 bytes), where they were asked for; `extra` is JSON."""

    solution_id: str
    problem_id: str
    problem: str
    prompt_ids: bytes
    text: str
    ids: bytes
    finished: bool
    answer_correct: bool | None
    confidence: float | None
    model: str
    gold_answer: str | None
    extra: str
    places: list["Place"]
    logprobs: bytes = b""

    def as_side(self) -> Side:
        """The whole solution, as a side after the bare prompt."""
        right = self.answer_correct
        label: Label = "unknown" if right is None else "correct" if right else "incorrect"
        return Side(
            text=self.text,
            ids=self.ids,
            label=label,
            confidence=self.confidence,
            mean_logprob=float("-inf"),
            is_terminal=self.finished,
            source="solution",
            tie=self.solution_id,
            reaches=right,
        )


class Place(NamedTuple):
    """A step where it stands: after `token_start` tokens and `char_start` characters of its solution.

    `references`: the step put right, as critics wrote it. `after_error`: some step before it is incorrect.
    """

    trace: Trace
    step_index: int
    char_start: int
    token_start: int
    after_error: bool
    is_first_error: bool
    side: Side
    references: tuple[str, ...] = ()

    @property
    def prefix_ids(self) -> bytes:
        """The exact tokens before the step, the prompt's included: q_j of arXiv 2605.07353."""
        return self.trace.prompt_ids + self.trace.ids[: ID_BYTES * self.token_start]


class Draft(NamedTuple):
    """A pair before it is written out: at `place` of `trace` (0 for a whole solution), chosen over rejected."""

    kind: PairKind
    trace: Trace
    step_index: int
    char_start: int
    prefix_ids: bytes
    chosen: Side
    rejected: Side


Outcome = Draft | str  # a pair, or the reason why there is none


def ids_of(data: bytes) -> list[int]:
    """Token ids as integers."""
    return array("i", data).tolist()


def to_bytes(ids: list[int]) -> bytes:
    """Token ids as bytes."""
    return array("i", ids).tobytes()


def pair_id(prompt_ids: bytes, chosen_ids: bytes, rejected_ids: bytes) -> str:
    """The id of a pair, in hexadecimal digits."""
    return pair_digest(prompt_ids, chosen_ids, rejected_ids).hex()


def pair_digest(prompt_ids: bytes, chosen_ids: bytes, rejected_ids: bytes) -> bytes:
    """The id of a pair: the BLAKE2b hash of its tokens, each as 4 bytes, behind the lengths of the first two parts.

    As unambiguous as `content_id`, at a third of its time, which millions of pairs notice.
    """
    lengths = _TWO_LENGTHS.pack(len(prompt_ids), len(chosen_ids))
    whole = b"".join((lengths, prompt_ids, chosen_ids, rejected_ids))
    return blake2b(whole, digest_size=CONTENT_ID_BYTES).digest()


def to_pair(draft: Draft, prompt_text: Callable[[Trace], str], round_: int) -> Pair:
    """The row of `pairs`. `prompt_text` gives the text of a solution's prompt."""
    trace, chosen, rejected = draft.trace, draft.chosen, draft.rejected
    prompt_ids, chosen_ids, rejected_ids = map(ids_of, (draft.prefix_ids, chosen.ids, rejected.ids))
    prefix = trace.text[: draft.char_start]
    return Pair(
        pair_id=pair_id(draft.prefix_ids, chosen.ids, rejected.ids),
        problem_id=trace.problem_id,
        solution_id=trace.solution_id,
        step_index=draft.step_index,
        kind=draft.kind,
        messages=[{"role": "user", "content": trace.problem}],
        prefix=prefix,
        prompt=prompt_text(trace) + prefix,
        chosen=chosen.text,
        rejected=rejected.text,
        prompt_ids=prompt_ids,
        chosen_ids=chosen_ids,
        rejected_ids=rejected_ids,
        chosen_is_terminal=chosen.is_terminal,
        rejected_is_terminal=rejected.is_terminal,
        chosen_confidence=chosen.confidence,
        rejected_confidence=rejected.confidence,
        chosen_source=chosen.source,
        rejected_source=rejected.source,
        round=round_,
        policy=trace.model,
    )
