"""The rules of the strategies, row by row: what the Polars strategies of `stepconf.core.pairs` are compared with.

Token ids are bytes here, four to a token.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import exp
from typing import Literal, NamedTuple

from stepconf.core.ids import content_id, pair_id
from stepconf.core.records import Label, Pair, PairKind

ID_BYTES = 4
NO_RIVAL = "no competing candidate"
NO_CORRECTION = "no correct step for the incorrect one"
Encode = Callable[[str], bytes]


class Side(NamedTuple):
    """What may follow a prefix: a step of the run, the critic's, or a whole solution.

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
# A strategy's verdict on one step; the sides are all others that may follow the same tokens.
StepRule = Callable[[Place, Sequence[Side]], Outcome]


def ids_of(data: bytes) -> list[int]:
    """Token ids as integers."""
    return array("i", data).tolist()


def to_bytes(ids: list[int]) -> bytes:
    """Token ids as bytes."""
    return array("i", ids).tobytes()


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


def step_outcomes(traces: Iterable[Trace], rule: StepRule) -> Iterator[tuple[Place, Outcome]]:
    """Every step of some problems' solutions with its pair, or the reason why it has none."""
    places = [place for trace in traces for place in trace.places]
    siblings: dict[tuple[str, bytes], list[Side]] = defaultdict(list)
    # Two problems may be worded alike: what is right for one is not for the other.
    keys = [(place.trace.problem_id, place.prefix_ids) for place in places]
    for key, place in zip(keys, places, strict=True):
        siblings[key].append(place.side)
    for key, place in zip(keys, places, strict=True):
        yield place, rule(place, siblings[key])


def caspo(tau: float, after_error: Literal["stop", "continue"], encode: Encode) -> StepRule:
    """Algorithm 1 of CASPO, arXiv 2605.07353."""

    def rule(place: Place, sides: Sequence[Side]) -> Outcome:
        step = place.side
        if place.after_error and after_error == "stop":
            return "after the first error"
        if step.label == "unknown":
            return "unknown label"
        if step.confidence is None:
            return "no tokens"
        if step.label == "incorrect":
            corrected = _reference(place, encode) or _likeliest(step, sides, lambda s: s.label == "correct")
            return _draft("incorrect", place, corrected, step) if corrected else NO_CORRECTION
        if step.confidence > tau:
            return "correct and confident"
        right = [s for s in sides if s.label == "correct"]
        rival = _likeliest(
            step,
            sides,
            lambda s: s.label != "correct" and not any(reads_alike(s.text, other.text) for other in right),
        )
        return _draft("correct_uncertain", place, step, rival) if rival else NO_RIVAL

    return rule


def step_dpo(encode: Encode) -> StepRule:
    """Step-DPO, arXiv 2406.18629."""

    def rule(place: Place, sides: Sequence[Side]) -> Outcome:
        step = place.side
        if not place.is_first_error:
            return "not a first error"
        if step.confidence is None:
            return "no tokens"
        corrected = (
            _likeliest(step, sides, lambda s: s.label == "correct" and s.reaches is True)
            or _likeliest(step, sides, lambda s: s.label == "correct")
            or _reference(place, encode)
        )
        return _draft("incorrect", place, corrected, step) if corrected else NO_CORRECTION

    return rule


def _likeliest(step: Side, sides: Sequence[Side], fits: Callable[[Side], bool]) -> Side | None:
    """The side of highest mean log-probability that fits and does not read as `step` does."""
    best: Side | None = None
    for side in sides:
        if not side.ids or not fits(side):
            continue
        if best and (side.mean_logprob, side.tie) <= (best.mean_logprob, best.tie):
            continue
        if not reads_alike(side.text, step.text):
            best = side
    return best if best is None or best.source != "step" else best._replace(source="candidate")


def _reference(place: Place, encode: Encode) -> Side | None:
    """The step as the critic wants it. Whether the solution would end there is not known: it is not terminal."""
    text = put_right(place.side.text, place.references)
    return (
        None
        if text is None
        else Side(text, encode(text), "correct", None, float("-inf"), False, "critic", text)
    )


def put_right(text: str, references: Iterable[str]) -> str | None:
    """The first critic's reference that differs from the step, with the step's own whitespace around it."""
    body = text.strip()
    before, after = text[: text.find(body)], text[text.find(body) + len(body) :]
    for reference in references:
        if reference.strip() and not reads_alike(reference, text):
            return before + reference.strip() + after
    return None


def _draft(kind: PairKind, place: Place, chosen: Side, rejected: Side) -> Draft:
    return Draft(kind, place.trace, place.step_index, place.char_start, place.prefix_ids, chosen, rejected)


def reads_alike(first: str, second: str) -> bool:
    """Whether two texts are equal but for whitespace."""
    return first == second or first.split() == second.split()


def dpo_vp(traces: Iterable[Trace], seed: int, dropped: Counter[str]) -> Iterator[Draft]:
    """DPO on verifiable pairs, arXiv 2503.12854: pairs by the final answer alone."""
    for right, wrong in _decided(traces, dropped):
        pairs = list(zip(_shuffled(right, seed), _shuffled(wrong, seed), strict=False))
        left = len(right) + len(wrong) - 2 * len(pairs)
        if left:
            dropped[
                "no solution left to pair with" if pairs else "all decided answers of the problem are alike"
            ] += left
        yield from (_whole(chosen, rejected) for chosen, rejected in pairs)


def pcpo(traces: Iterable[Trace], dropped: Counter[str]) -> Iterator[Draft]:
    """Probability-consistent preference optimisation, arXiv 2505.23540: its choice of pairs."""
    for right, wrong in _decided(traces, dropped):
        if not right or not wrong:
            dropped["all decided answers of the problem are alike"] += len(right) + len(wrong)
            continue
        picked = set()
        for rejected in wrong:
            chosen = max(right, key=lambda one: (consistency(one, rejected), one.solution_id))
            picked.add(chosen.solution_id)
            yield _whole(chosen, rejected)
        dropped["never the most consistent"] += len(right) - len(picked)


def consistency(chosen: Trace, rejected: Trace) -> float:
    """How alike the policy's token probabilities are on what two solutions share, in [0, 1].

    Matching blocks of tokens are aligned; a shared token whose probability is p in one and q in the other
    counts exp(-|ln p - ln q|) = min(p, q) / max(p, q); their sum is divided by the length of the rejected
    solution (the pair-weighted score of arXiv 2505.23540, at scale 1).
    """
    first, second = array("f", chosen.logprobs), array("f", rejected.logprobs)
    matcher = SequenceMatcher(None, ids_of(chosen.ids), ids_of(rejected.ids), autojunk=False)
    total = sum(
        exp(-abs(first[block.a + i] - second[block.b + i]))
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    )
    return total / len(second) if second else 0.0


def _decided(traces: Iterable[Trace], dropped: Counter[str]) -> Iterator[tuple[list[Trace], list[Trace]]]:
    """Right and wrong solutions, by problem and prompt; equal ones once."""
    groups: dict[tuple[str, bytes], tuple[list[Trace], list[Trace]]] = defaultdict(lambda: ([], []))
    seen: set[tuple[str, bytes, bytes]] = set()
    for trace in sorted(traces, key=lambda one: one.solution_id):
        if not trace.ids:
            dropped["no tokens"] += 1
        elif trace.answer_correct is None:
            dropped["answer of unknown correctness"] += 1
        elif (trace.problem_id, trace.prompt_ids, trace.ids) in seen:
            dropped["same solution again"] += 1
        else:
            seen.add((trace.problem_id, trace.prompt_ids, trace.ids))
            groups[trace.problem_id, trace.prompt_ids][0 if trace.answer_correct else 1].append(trace)
    yield from groups.values()


def _shuffled(traces: list[Trace], seed: int) -> list[Trace]:
    return sorted(traces, key=lambda one: content_id(seed, one.solution_id))


def _whole(chosen: Trace, rejected: Trace) -> Draft:
    return Draft("trajectory", chosen, 0, 0, chosen.prompt_ids, chosen.as_side(), rejected.as_side())


def unique(drafts: Iterable[Draft], dropped: Counter[str]) -> Iterator[Draft]:
    """Each pair of token sequences once; all that may be equal must be among `drafts`."""
    seen: set[tuple[bytes, bytes, bytes]] = set()
    for draft in drafts:
        tokens = draft.prefix_ids, draft.chosen.ids, draft.rejected.ids
        if tokens in seen:
            dropped["same pair again"] += 1
        else:
            seen.add(tokens)
            yield draft
