"""Step pairs: two continuations, each one step long, of one exact token prefix q_j = [prompt, steps before].

The other side of a pair is, by the strategy's order: a sibling (a step that another sample of the run took
from the very same tokens), a step sampled at q_j for this purpose, or the critic's reference. Only the text
of a reference is ever tokenised; everything else is tokens as they were sampled.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from stepconf.core.pairs.traces import Draft, Outcome, Place, Side, Trace
from stepconf.core.records import PairKind

# Reasons that more candidates could do away with.
NO_RIVAL = "no competing candidate"
NO_CORRECTION = "no correct step for the incorrect one"

Encode = Callable[[str], bytes]
# A strategy's verdict on one step; the sides are all others that may follow the same tokens.
StepRule = Callable[[Place, Sequence[Side]], Outcome]


def step_outcomes(
    traces: Iterable[Trace], rule: StepRule, sampled: Mapping[bytes, Sequence[Side]]
) -> Iterator[tuple[Place, Outcome]]:
    """Every step of some problems' solutions with its pair, or the reason why it has none.

    All samples of a problem must be among `traces`. `sampled` holds, by prefix, the steps sampled for this.
    """
    places = [place for trace in traces for place in trace.places]
    siblings: dict[tuple[str, bytes], list[Side]] = defaultdict(list)
    # Two problems may be worded alike: what is right for one is not for the other.
    keys = [(place.trace.problem_id, place.prefix_ids) for place in places]
    for key, place in zip(keys, places, strict=True):
        siblings[key].append(place.side)
    for key, place in zip(keys, places, strict=True):
        more = sampled.get(key[1], ())
        yield place, rule(place, [*siblings[key], *more] if more else siblings[key])


def caspo(tau: float, after_error: Literal["stop", "continue"], encode: Encode) -> StepRule:
    """Algorithm 1 of CASPO, arXiv 2605.07353.

    A correct step with confidence <= `tau` is chosen over the likeliest competing candidate that is not
    verified correct (`correct_uncertain`). An incorrect step is rejected for the correct one (`incorrect`):
    the critic's reference, else the likeliest candidate that is verified correct. A confident correct step is
    skipped. Where the paper is silent: candidates equal to the step but for whitespace are dropped, siblings
    compete with sampled ones on equal terms, and with `after_error` "stop" nothing behind a wrong step is
    used, since its prefix is wrong.
    """

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
        rival = _likeliest(step, sides, lambda s: s.label != "correct")
        return _draft("correct_uncertain", place, step, rival) if rival else NO_RIVAL

    return rule


def step_dpo(encode: Encode) -> StepRule:
    """Step-DPO, arXiv 2406.18629: the first wrong step of a solution against a corrected step.

    The paper rejects the first error and chooses the first step of a continuation, sampled by the same policy
    from the correct prefix, that reaches the right final answer; it finds such steps better than a stronger
    model's, which the policy would hardly say. So: the likeliest verified-correct sibling whose solution has
    the right answer; else, and here we deviate, the likeliest candidate that is verified correct; else the
    critic's reference.
    """

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
