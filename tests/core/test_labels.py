"""Every policy over every combination of verdicts, against its rule written out a second time."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.labels import POLICIES, VERIFIER_ORDER, label_steps, renewed
from stepconf.core.records import Label, Verdict
from stepconf.errors import StepconfError

SAYS: tuple[Label | None, ...] = ("correct", "incorrect", "unknown", None)  # None: no verdict at all
LABELS = st.sampled_from(("correct", "incorrect", "unknown"))


def verdict(verifier: str, label: Label) -> Verdict:
    return Verdict(verifier=verifier, version="1", label=label)


def rule(policy: str, says: dict[str, Label | None]) -> tuple[str, str]:
    """The policies as sentences: C, R, P, S, F are what critic, rollout, prm, symbolic and final say."""
    if policy == "first-decided":
        for name in ("critic", "rollout", "prm", "symbolic", "final"):
            if says[name] == "correct" or says[name] == "incorrect":
                return says[name], name
        return "unknown", ""
    if policy == "consensus":
        for_it = [n for n in says if says[n] == "correct"]
        against = [n for n in says if says[n] == "incorrect"]
        if for_it and not against:
            return "correct", "+".join(for_it)
        if against and not for_it:
            return "incorrect", "+".join(against)
        return "unknown", ""
    if policy == "majority":
        balance = sum({"correct": 1, "incorrect": -1}.get(says[n], 0) for n in says)
        if balance == 0:
            return "unknown", ""
        winner = "correct" if balance > 0 else "incorrect"
        return winner, "+".join(n for n in says if says[n] == winner)
    if policy == "error-first":
        wrong = [n for n in says if says[n] == "incorrect"]
        return ("incorrect", "+".join(wrong)) if wrong else rule("consensus", says)
    if policy == "critic-first":
        if says["critic"] in ("correct", "incorrect"):
            return says["critic"], "critic"
        return rule("consensus", says)
    if policy == "symbolic-veto":
        if says["symbolic"] == "incorrect":
            return "incorrect", "symbolic"
        return rule("first-decided", {**says, "symbolic": None})
    raise AssertionError(policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_combination_of_verdicts(policy: str) -> None:
    for said in product(SAYS, repeat=len(VERIFIER_ORDER)):
        says = dict(zip(VERIFIER_ORDER, said, strict=True))
        # Written in the reverse order: the order in which verifiers ran must not matter.
        spoken = [verdict(name, label) for name, label in reversed(says.items()) if label is not None]
        # A rollout knows the answer too: `final` is not heard beside it.
        label, source = rule(policy, says if says["rollout"] is None else {**says, "final": None})
        assert label_steps([spoken], policy) == [(label, source, label == "incorrect", False)], says
        # On a step that is not the last, `final` is not heard.
        label, source = rule(policy, {**says, "final": None})
        assert label_steps([spoken, []], policy)[0] == (label, source, label == "incorrect", False), says


def test_the_truth_table_in_words() -> None:
    both = [verdict("critic", "correct"), verdict("symbolic", "incorrect")]
    table = {policy: label_steps([both], policy)[0][:2] for policy in POLICIES}
    assert table == {
        "error-first": ("incorrect", "symbolic"),
        "first-decided": ("correct", "critic"),
        "consensus": ("unknown", ""),
        "majority": ("unknown", ""),
        "critic-first": ("correct", "critic"),
        "symbolic-veto": ("incorrect", "symbolic"),
    }
    assert label_steps([[verdict("symbolic", "correct")]], "symbolic-veto") == [("unknown", "", False, False)]


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(VERIFIER_ORDER), LABELS))),
    st.sampled_from(POLICIES),
    st.booleans(),
)
def test_laws(said: list[list[tuple[str, Label]]], policy: str, late: bool) -> None:
    steps = [[verdict(name, label) for name, label in step] for step in said]
    labels = label_steps(steps, policy, late)
    wrong = [i for i, found in enumerate(labels) if found.label == "incorrect"]
    assert [i for i, found in enumerate(labels) if found.is_first_error] == ([] if late else wrong[:1])
    assert [found.after_error for found in labels] == [
        late or i > min([*wrong, i]) for i in range(len(labels))
    ]
    for step, (label, source, *_) in zip(steps, labels, strict=True):
        assert (label == "unknown") == (source == "")
        # A label is never invented: somebody named in the source gave exactly that verdict.
        assert all(
            any(v.verifier == name and v.label == label for v in step) for name in source.split("+") if name
        )


def test_a_verifier_run_again_speaks_with_its_last_decision() -> None:
    again = [verdict("critic", "correct"), verdict("critic", "incorrect"), verdict("critic", "unknown")]
    assert label_steps([again], "majority") == [("incorrect", "critic", True, False)]


def test_verifiers_of_other_names_come_last_in_order_of_appearance() -> None:
    step = [verdict("human", "incorrect"), verdict("other", "correct"), verdict("final", "correct")]
    assert label_steps([step], "first-decided") == [("correct", "final", False, False)]
    assert label_steps([step], "majority") == [("correct", "final+other", False, False)]
    assert label_steps([step[:2]], "first-decided") == [("incorrect", "human", True, False)]


def test_an_unknown_policy_is_refused_with_the_names() -> None:
    with pytest.raises(StepconfError, match="'concensus'") as caught:
        label_steps([], "concensus")
    assert all(policy in caught.value.hint for policy in POLICIES)


def test_a_solution_without_steps() -> None:
    assert label_steps([], "consensus") == []


def test_what_a_verifier_said_before_makes_way_even_to_nothing() -> None:
    old = [Verdict("units", "1", "incorrect"), Verdict("final", "1", "correct")]
    new = [Verdict("units", "2", "correct")]
    assert renewed(old, new, ["units"]) == renewed(old, new, []) == [old[1], new[0]]
    assert renewed(old, [], ["units"]) == [old[1]]
    assert renewed(old, [], ["symbolic"]) == old
