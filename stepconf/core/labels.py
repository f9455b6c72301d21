"""From the verdicts on a step to its label: pure, so that a run is relabelled without verifying again.

A verifier decides a step when its verdict is `correct` or `incorrect`. `final` judges the solution's answer,
so it is heard on the last step only, and not where `rollout` speaks of that step, which knows the answer too. Where
one verifier left several verdicts on a step (it was run again), its last deciding one counts. A step that nobody
decides is `unknown`, never `incorrect`.

A reasoning model may take back what it has thought. An incorrect step of the thinking is no error of the solution
where the thinking reconsiders later, in a step after it or within it: it is `unknown`, with `TAKEN_BACK` as its
source, and the verdicts stay beside it. Which of the steps before it a turn of thought takes back is not known. A
branch goes by the labels of the steps that it leaves from, even where only one of the two paths takes them back.

- `error-first`: `incorrect` where any sees an error, else `correct` where any decides. A right completion after a
  step (`rollout`) is weak evidence against an error that `symbolic` or a critic has seen. The default.
- `first-decided`: the first in `VERIFIER_ORDER` that decides.
- `consensus`: what all that decide agree on, else unknown.
- `majority`: what more of them say; a tie is unknown.
- `critic-first`: the critic, where it decides; else the consensus of the others.
- `symbolic-veto`: `incorrect` where symbolic says so; else the first of the others that decides.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from stepconf.core.reasoning import takes_itself_back
from stepconf.core.records import Label, Step, Verdict
from stepconf.errors import StepconfError

# Who is asked first: those that judge the reasoning before those that see only arithmetic or the answer.
VERIFIER_ORDER = ("critic", "rollout", "prm", "symbolic", "final")


TAKEN_BACK = "taken back later"


class StepLabel(NamedTuple):
    """A label, and the verifiers that decided it (`critic+prm`; empty when unknown, or `TAKEN_BACK`).

    `is_first_error`: it is the first step labelled incorrect. `after_error`: a step before it is.
    """

    label: Label
    source: str
    is_first_error: bool
    after_error: bool


def label_steps(
    verdicts: Sequence[Sequence[Verdict]],
    policy: str = "error-first",
    error_seen: bool = False,
    is_taken_back: Sequence[bool] = (),
) -> list[StepLabel]:
    """Label the steps of one solution.

    Args:
        verdicts: per step, in order, every verdict on it.
        policy: one of `POLICIES`.
        error_seen: the steps are those of a branch that leaves after an error.
        is_taken_back: per step, as `taken_back` gives it; empty: none is.

    Returns:
        One label per step.

    Raises:
        StepconfError: the policy is unknown.
    """
    labels: list[StepLabel] = []
    decide = _rule(policy)
    for index, spoken in enumerate(verdicts):
        label, source = decide(_decisions(spoken, index == len(verdicts) - 1, error_seen))
        if label == "incorrect" and is_taken_back and is_taken_back[index]:
            label, source = "unknown", TAKEN_BACK
        labels.append(StepLabel(label, source, label == "incorrect" and not error_seen, error_seen))
        error_seen = error_seen or label == "incorrect"
    return labels


def renewed(old: Sequence[Verdict], new: Sequence[Verdict], ran: Iterable[str]) -> list[Verdict]:
    """The verdicts on a step with new ones; older ones of the verifiers that `ran` make way, even to none."""
    again = {*ran, *(verdict.verifier for verdict in new)}
    return [verdict for verdict in old if verdict.verifier not in again] + list(new)


def answer_by(verdicts: Sequence[Verdict]) -> bool | None:
    """Whether the answer is right, from the verdicts on the last step; None where `final` does not decide."""
    said = [one.label for one in verdicts if one.verifier == "final" and one.label != "unknown"]
    return said[-1] == "correct" if said else None


def taken_back(steps: Sequence[Step]) -> list[bool]:
    """Which steps of a solution its thinking reconsiders, after them or within them; never the last one."""
    found: list[bool] = []
    later = False
    for step in reversed(steps):
        reconsiders = step.part == "reasoning" and step.is_reconsidering
        own = reconsiders and takes_itself_back(step.text)
        found.append(bool(found) and step.part == "reasoning" and (later or own))
        later = later or reconsiders
    return found[::-1]


def label_step(
    verdicts: Sequence[Verdict], policy: str, is_last: bool, error_seen: bool
) -> tuple[Label, str]:
    """The label of one step and the verifiers that decided it; raises as `label_steps`.

    Args:
        verdicts: every verdict on it.
        policy: one of `POLICIES`.
        is_last: no step of its solution comes after it.
        error_seen: a step before it is labelled incorrect.
    """
    return _rule(policy)(_decisions(verdicts, is_last, error_seen))


Decisions = Mapping[str, Label]  # verifier -> correct | incorrect, in VERIFIER_ORDER, others after it
_UNDECIDED: tuple[Label, str] = ("unknown", "")


def _decisions(verdicts: Sequence[Verdict], is_last: bool, error_seen: bool) -> Decisions:
    """A wrong answer says that some step is wrong: once one is found, it says nothing of the last step."""
    unheard = {"final"} if not is_last or any(v.verifier == "rollout" for v in verdicts) else set()
    decided = {
        verdict.verifier: verdict.label
        for verdict in verdicts
        if verdict.label in ("correct", "incorrect")
        and verdict.verifier not in unheard
        and not (verdict.verifier == "final" and error_seen and verdict.label == "incorrect")
    }
    return {name: decided[name] for name in (*VERIFIER_ORDER, *decided) if name in decided}


def _error_first(decided: Decisions) -> tuple[Label, str]:
    wrong = [name for name, label in decided.items() if label == "incorrect"]
    if wrong:
        return "incorrect", "+".join(wrong)
    return ("correct", "+".join(decided)) if decided else _UNDECIDED


def _first_decided(decided: Decisions) -> tuple[Label, str]:
    return next(((label, name) for name, label in decided.items()), _UNDECIDED)


def _consensus(decided: Decisions) -> tuple[Label, str]:
    labels = set(decided.values())
    return (labels.pop(), "+".join(decided)) if len(labels) == 1 else _UNDECIDED


def _majority(decided: Decisions) -> tuple[Label, str]:
    right = [name for name, label in decided.items() if label == "correct"]
    wrong = [name for name, label in decided.items() if label == "incorrect"]
    if len(right) == len(wrong):
        return _UNDECIDED
    return ("correct", "+".join(right)) if len(right) > len(wrong) else ("incorrect", "+".join(wrong))


def _critic_first(decided: Decisions) -> tuple[Label, str]:
    return (decided["critic"], "critic") if "critic" in decided else _consensus(decided)


def _symbolic_veto(decided: Decisions) -> tuple[Label, str]:
    if decided.get("symbolic") == "incorrect":
        return "incorrect", "symbolic"
    # Sound arithmetic does not make a step sound: a symbolic `correct` is no evidence here.
    return _first_decided({name: label for name, label in decided.items() if name != "symbolic"})


_RULES: dict[str, Callable[[Decisions], tuple[Label, str]]] = {
    "error-first": _error_first,
    "first-decided": _first_decided,
    "consensus": _consensus,
    "majority": _majority,
    "critic-first": _critic_first,
    "symbolic-veto": _symbolic_veto,
}
POLICIES = tuple(_RULES)


def _rule(policy: str) -> Callable[[Decisions], tuple[Label, str]]:
    if policy not in _RULES:
        raise StepconfError(f"Unknown label policy {policy!r}.", f"Choose one of: {', '.join(POLICIES)}.")
    return _RULES[policy]
