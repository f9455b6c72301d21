"""Rows of pairs and solutions in the forms that training libraries read: pure.

Sources of the forms: TRL's "Dataset formats and types"; OpenRLHF's `--prompt_key`, `--chosen_key`,
`--rejected_key` and `--apply_chat_template`; LLaMA-Factory's `data/README.md`; Axolotl's `docs/rlhf.qmd`.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from stepconf.core.records import Pair

Row = dict[str, Any]
Messages = list[dict[str, str]]

STEP_WARNING = (
    "These pairs are single steps that do not end their solution. Stock trainers put an end-of-sequence token "
    "after each side (TRL appends one, OpenRLHF overwrites the last token with one), which teaches the model "
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


def stepwise(problem: str, steps: Iterable[tuple[str, str]], dropped: Counter[str]) -> Iterator[Row]:
    """TRL's stepwise supervision: a problem, its steps (without surrounding whitespace), whether each is right.

    A solution, of which `steps` are texts and labels, is used up to and with its first wrong step, or up to the first
    step of unknown label: after an error labels say little, and an unknown step has none.
    """
    completions, labels = [], []
    for text, label in steps:
        if label == "unknown":
            dropped["cut before a step of unknown label"] += 1
            break
        completions.append(text.strip())
        labels.append(label == "correct")
        if not labels[-1]:
            break
    if labels:
        yield {"prompt": problem, "completions": completions, "labels": labels}
    else:
        dropped["no labelled step"] += 1


def judged(prompt: str, steps: Iterable[tuple[str, str, bool]], dropped: Counter[str]) -> Iterator[Row]:
    """TRL's unpaired preference rows, as its KTOTrainer reads them: each labelled step after the text before it.

    Args:
        prompt: everything before the first step.
        steps: texts, labels, and whether an error came before, so that the prefix is wrong: such a step is none.
        dropped: reasons.
    """
    before = prompt
    for text, label, after_error in steps:
        if after_error:
            dropped["after an error"] += 1
        elif label != "unknown":
            yield {"prompt": before, "completion": text, "label": label == "correct"}
        before += text


class Path(NamedTuple):
    """A solution from its problem's prompt on, or a branch with what it goes on from.

    `tokens`: exact ids from the start of the prompt to the end, as int32. `text`: what follows the prompt.
    `finished`: it ended by itself.
    """

    solution_id: str
    tokens: bytes
    text: str
    finished: bool
    answer_correct: bool | None


def trajectories(
    pairs: Iterable[Pair], paths: Mapping[str, Sequence[Path]], dropped: Counter[str]
) -> Iterator[Pair]:
    """Step pairs whose sides are continued to the end of a solution: safe where a trainer ends both sides.

    A side is continued by a solution of the run that goes through its exact tokens and ended by itself: one
    with the right final answer for chosen, one with a wrong one for rejected. Others are counted by reason; pairs
    of whole solutions pass if both sides end.

    Args:
        pairs: of any kind.
        paths: solutions and branches, by problem id.
        dropped: reasons.
    """
    for pair in pairs:
        if pair.kind == "trajectory":
            if pair.chosen_is_terminal and pair.rejected_is_terminal:
                yield pair
            else:
                dropped["a side was cut off"] += 1
            continue
        own = paths.get(pair.problem_id, ())
        chosen = _continued(pair, pair.chosen_ids, own, True)
        rejected = _continued(pair, pair.rejected_ids, own, False)
        if isinstance(chosen, str) or isinstance(rejected, str):
            dropped[f"chosen {chosen}" if isinstance(chosen, str) else f"rejected {rejected}"] += 1
            continue
        yield replace(
            pair,
            chosen=chosen.text[len(pair.prefix) :],
            rejected=rejected.text[len(pair.prefix) :],
            chosen_is_terminal=True,
            rejected_is_terminal=True,
        )


def _continued(pair: Pair, ids: list[int], paths: Sequence[Path], right: bool) -> Path | str:
    """How a side goes on to an end, or why it does not; ids are left as they are, since exports are of texts."""
    through = array("i", pair.prompt_ids + ids).tobytes()
    passing = [one for one in paths if one.tokens.startswith(through)]
    if not passing:
        return "is continued by no solution"
    ended = [one for one in passing if one.finished]
    if not ended:
        return "is continued only by solutions that were cut off"
    fitting = [one for one in ended if one.answer_correct is right]
    if not fitting:
        return f"never reaches {'the right' if right else 'a wrong'} answer"
    return min(fitting, key=lambda one: one.solution_id)


def boundary(encode: Callable[[str], list[int]], pair: Pair, conversational: bool) -> tuple[bool, bool]:
    """Whether a stock tokenizer gives other ids than ours for a row's prompt and sides.

    Args:
        encode: ids of a text, without special tokens added: the template's stand in the prompt already.
        pair: a row of `pairs`.
        conversational: the steps before are the start of both sides, not the end of the prompt.

    Returns:
        Where prompt and side are encoded one by one; and where both are encoded together and the prompt's number of
        ids is cut off, as TRL does.
    """
    before = pair.prefix if conversational else ""
    prompt = pair.prompt[: len(pair.prompt) - len(before)]
    ids = encode(prompt)
    apart = together = False
    for side, own in ((pair.chosen, pair.chosen_ids), (pair.rejected, pair.rejected_ids)):
        ours = pair.prompt_ids + own
        apart = apart or ids + encode(before + side) != ours
        together = together or ids + encode(prompt + before + side)[len(ids) :] != ours
    return apart, together


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
