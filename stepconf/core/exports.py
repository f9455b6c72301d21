"""Rows of pairs and solutions in the forms that training libraries read: pure.

Sources of the forms: TRL's "Dataset formats and types"; OpenRLHF's `--prompt_key`, `--chosen_key`,
`--rejected_key` and `--apply_chat_template`; LLaMA-Factory's `data/README.md`; Axolotl's `docs/rlhf.qmd`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from stepconf.core.pairs.traces import Trace, to_bytes
from stepconf.core.records import Pair

Row = dict[str, Any]
Messages = list[dict[str, str]]

STEP_WARNING = (
    "These pairs are single steps that do not end their solution. Stock trainers put an end-of-sequence token "
    "behind each side (TRL appends one, OpenRLHF overwrites the last token with one), which teaches the model "
    "to stop after one step. Use `stepconf train`, or export with --form trajectory."
)


def plain(pair: Pair) -> Row:
    """TRL's standard preference row, which OpenRLHF and Axolotl read too: three texts."""
    return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}


def conversational(pair: Pair, prompt: Messages) -> Row:
    """TRL's conversational preference row: the steps before are the start of both answers."""
    return {
        "prompt": prompt,
        "chosen": [_answer(pair.prefix + pair.chosen)],
        "rejected": [_answer(pair.prefix + pair.rejected)],
    }


def as_messages(pair: Pair, prompt: Messages) -> Row:
    """A conversation with two last messages, as Axolotl's `chat_template.default` and LLaMA-Factory's
    `sharegpt` read it.
    """
    chosen, rejected = _answer(pair.prefix + pair.chosen), _answer(pair.prefix + pair.rejected)
    return {"messages": prompt, "chosen": chosen, "rejected": rejected}


def alpaca(pair: Pair) -> Row:
    """LLaMA-Factory's alpaca row of a ranking set; the instruction is the whole prompt, as it was rendered."""
    return {"instruction": pair.prompt, "input": "", "chosen": pair.chosen, "rejected": pair.rejected}


def stepwise(traces: Iterable[Trace], dropped: Counter[str]) -> Iterator[Row]:
    """TRL's stepwise supervision: a problem, its steps (without surrounding whitespace), whether each is right.

    A solution is used up to and with its first wrong step, or up to the first step of unknown label: behind
    an error labels say little, and an unknown step has none.
    """
    for trace in traces:
        completions, labels = [], []
        for place in trace.places:
            if place.side.label == "unknown":
                dropped["cut before a step of unknown label"] += 1
                break
            completions.append(place.side.text.strip())
            labels.append(place.side.label == "correct")
            if not labels[-1]:
                break
        if labels:
            yield {"prompt": trace.problem, "completions": completions, "labels": labels}
        else:
            dropped["no labelled step"] += 1


class _Rest(NamedTuple):
    """How a side goes on to the end of some solution."""

    text: str
    trace: Trace


def trajectories(
    pairs: Iterable[Pair], solutions: Mapping[str, Sequence[Trace]], dropped: Counter[str]
) -> Iterator[Pair]:
    """Step pairs whose sides are continued to the end of a solution: safe where a trainer ends both sides.

    A side is continued by a solution of the run that goes through its exact tokens and ended by itself: one
    with the right final answer for chosen, one without it for rejected. Others are counted by reason; pairs
    of whole solutions pass if both sides end.

    Args:
        pairs: of any kind.
        solutions: by problem id.
        dropped: reasons.
    """
    for pair in pairs:
        if pair.kind == "trajectory":
            if pair.chosen_is_terminal and pair.rejected_is_terminal:
                yield pair
            else:
                dropped["a side was cut off"] += 1
            continue
        own = solutions.get(pair.problem_id, ())
        chosen = _continued(pair, pair.chosen_ids, own, True)
        rejected = _continued(pair, pair.rejected_ids, own, False)
        if isinstance(chosen, str) or isinstance(rejected, str):
            dropped[f"chosen {chosen}" if isinstance(chosen, str) else f"rejected {rejected}"] += 1
            continue
        yield replace(
            pair,
            chosen=chosen.text,
            rejected=rejected.text,
            chosen_is_terminal=True,
            rejected_is_terminal=True,
            chosen_confidence=chosen.trace.confidence,
            rejected_confidence=rejected.trace.confidence,
        )


def _continued(pair: Pair, ids: list[int], solutions: Sequence[Trace], right: bool) -> _Rest | str:
    """The side with its rest; the ids are left as they are, since exports are of texts."""
    through = to_bytes(pair.prompt_ids + ids)
    passing = [one for one in solutions if (one.prompt_ids + one.ids).startswith(through)]
    if not passing:
        return "is continued by no solution"
    ended = [one for one in passing if one.finished]
    if not ended:
        return "is continued only by solutions that were cut off"
    fitting = [one for one in ended if (one.answer_correct is True) == right]
    if not fitting:
        return "never reaches the right answer" if right else "reaches only the right answer"
    trace = min(fitting, key=lambda one: one.solution_id)
    return _Rest(trace.text[len(pair.prefix) :], trace)


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
