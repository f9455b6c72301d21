"""The final verifier: its rules, labelled answers, labelled solutions, and the hostile corpus."""

import resource
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepconf.core.answers import extract_answer, gold_answer
from stepconf.core.maths.decide import Decision
from stepconf.core.records import FinishReason, Solution, Solved, Step
from stepconf.verifiers.final import GUESSED, FinalVerifier, compare
from stepconf.workers.pool import Outcome, Pool
from tests.shared_data import is_sample, shared_rows
from tests.verifiers.hostile import hostile_strings
from tests.workers import jobs

DEADLINE_S = 2.0
OVERRUN_S = 0.5  # what an item may cost beyond its deadline
# Only algebra decides these: what a poisoned neighbour must not change.
BYSTANDERS = [
    ("\\int_0^1 x dx", "\\frac{1}{2}", "math", True),
    ("\\sum_{k=1}^{4} k", "10", "math", True),
    ("\\sum_{k=1}^{4} k", "11", "math", False),
]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(workers=2, deadline_s=DEADLINE_S) as shared:
        yield shared


def same_of(outcome: Outcome[Decision]) -> bool | None:
    return outcome.value.same if outcome.value else None


def solved(
    text: str,
    gold: str | None,
    finish: FinishReason = "stop",
    answer_type: str = "math",
    predicted: str | None = None,
    n_steps: int = 2,
) -> Solved:
    unset: dict[str, Any] = dict.fromkeys(
        ["external_id", "temperature", "top_p", "seed", "answer_correct", "entropy_mean", "confidence"]
    )
    blank: dict[str, Any] = dict.fromkeys(
        ["model", "model_revision", "engine", "source", "split", "problem"], ""
    )
    solution = Solution(
        solution_id="s", problem_id="p", gold_answer=gold, prompt_token_ids=[], text=text, token_ids=[],
        sample_index=0, finish_reason=finish, predicted_answer=predicted, n_steps=n_steps, n_tokens=0,
        answer_type=answer_type, **unset, **blank,
    )  # fmt: skip
    steps = [
        Step(
            step_id=str(i), solution_id="s", problem_id="p", step_index=i, n_steps=n_steps, text=text,
            char_start=0, char_end=0, token_start=0, token_end=0, token_ids=[], token_logprobs=[],
            token_entropies=[], token_max_probs=[], signals={}, cumulative_confidence=None,
        )
        for i in range(n_steps)
    ]  # fmt: skip
    return Solved(solution, steps)


@pytest.mark.parametrize(
    ("one", "label", "reason"),
    [
        (solved("so it is \\boxed{18}", "#### 18"), "correct", ""),
        (solved("so it is \\boxed{19}", "A: 18"), "incorrect", ""),
        (solved("so it is \\boxed{19}", None), "unknown", "no gold answer"),
        (solved("so it is \\boxed{19}", "  "), "unknown", "no gold answer"),
        (solved("I give up", "18"), "incorrect", "no answer"),
        (solved("I take 18 and", "18", finish="length"), "unknown", "cut off before an answer"),
        (solved("The answer is 18. Now, 3", "18", finish="length"), "correct", ""),
        (solved("The answer is 1", "18", finish="length"), "unknown", "cut off before an answer"),
        (solved("so it is \\boxed{1", "18", finish="length"), "unknown", "cut off before an answer"),
        (solved("so it is \\boxed{18}", "18", finish="length"), "correct", ""),
        (solved("nothing to see", "18", predicted="18.0"), "correct", ""),
        (solved("Answer: (C)", "C", answer_type="choice"), "correct", ""),
        (solved("\\boxed{9^{9^{9^{9}}}+x}", "18"), "unknown", "power or factorial too large"),
        (solved("\\boxed{\\prod_{k=1}^{10^9} k}", "18"), "unknown", "timeout"),
    ],
)
def test_rules(pool: Pool, one: Solved, label: str, reason: str) -> None:
    (verdicts,) = FinalVerifier(pool).verify([one])
    assert verdicts[:-1] == [None]
    assert verdicts[-1] is not None
    assert verdicts[-1].label == label and reason in verdicts[-1].reason
    assert (verdicts[-1].verifier, verdicts[-1].score) == (
        "final",
        {"correct": 1.0, "incorrect": 0.0}.get(label),
    )


def test_a_solution_without_steps_has_no_verdicts(pool: Pool) -> None:
    assert FinalVerifier(pool).verify([solved("\\boxed{1}", "1", n_steps=0)]) == [[]]


def test_version_names_the_checker(pool: Pool) -> None:
    assert "math-verify-" in FinalVerifier(pool).version


def test_compare_keeps_order_and_cache_agrees(pool: Pool) -> None:
    pairs = [(gold, predicted, kind) for gold, predicted, kind, _ in BYSTANDERS] * 20
    expected = [same for *_, same in BYSTANDERS] * 20
    assert [same_of(outcome) for outcome in compare(pool, pairs)] == expected
    assert [same_of(outcome) for outcome in compare(pool, pairs)] == expected


@pytest.mark.parametrize(
    ("gold", "predicted", "same", "by"),
    [
        ("x^2<4", "-2<x<2", True, "SymPy"),
        ("\\sqrt{2+\\sqrt{3}}", "\\sqrt{2-\\sqrt{3}}+\\sqrt{2}", True, "balls"),
        ("|x+y|", "x+y", None, ""),
        ("\\ln(e^{x^{50}+y})", "x^{50}+y", True, "SymPy"),
        ("\\sqrt{x^2}", "x", None, ""),
        ("x^{40}-3x^{7}+1>0", "x>0", None, ""),
        ("\\sqrt{(a+b+c+d)^{150}}", "(a+b+c+d)^{75}", None, ""),
    ],
)
def test_sympy_decides_in_workers_that_can_be_killed(
    pool: Pool, gold: str, predicted: str, same: bool | None, by: str
) -> None:
    outcome, bystander = compare(pool, [(gold, predicted, "math"), BYSTANDERS[0][:3]])
    assert same_of(outcome) is same and same_of(bystander) is True
    assert outcome.seconds <= DEADLINE_S + OVERRUN_S and outcome.failure in ("", "timeout")
    if same is not None:
        assert outcome.value is not None and outcome.value.by == by


def contradicts_arithmetic(row: dict[str, Any]) -> bool:
    """Labelled equal, although 1 - 1/e and 1 + 1/e are 0.63 and 1.37: the one label of the set that is false."""
    return row["pred"] == "$1 + \\frac{1}{\\mathrm{e}}$" and row["gold"] == "$1 - \\frac{1}{\\mathrm{e}}$"


def test_as_many_right_as_math_verify(pool: Pool) -> None:
    from math_verify import parse, verify

    rows = shared_rows("answer_equivalence_dev.jsonl.gz")
    labels = [bool(row.get("expected", row.get("result"))) for row in rows]
    truth = [label and not contradicts_arithmetic(row) for label, row in zip(labels, rows, strict=True)]
    theirs = [verify(parse(row["gold"]), parse(row["pred"])) for row in rows]
    pairs = [(gold_answer(row["gold"]), extract_answer(row["pred"]) or "", "math") for row in rows]
    ours = [bool(same_of(outcome)) for outcome in compare(pool, pairs)]
    for name, wanted in (("as labelled", labels), ("with 1 - 1/e and 1 + 1/e apart", truth)):
        right = [sum(a == b for a, b in zip(wanted, verdicts, strict=True)) for verdicts in (ours, theirs)]
        print(f"of {len(rows)} rows, {name}: ours {right[0]}, math-verify {right[1]}")
    assert right[0] >= right[1]


def labelled_solutions() -> Iterator[tuple[str, str, str, bool, str]]:
    """(set, gold, solution, whether it is labelled correct, the answer its labeller extracted)."""
    for row in shared_rows("solutions/gsm8k_openai_models.jsonl.gz"):
        for one in (value for value in row.values() if isinstance(value, dict)):
            yield "openai models", row["ground_truth"], one["solution"], one["is_correct"], ""
    bon32 = "solutions/gsm8k_bon32.jsonl.gz"  # too large for a sample
    for row in [] if is_sample(bon32) else shared_rows(bon32):
        for one in row["candidates"]:
            yield (
                "bon32",
                row["ground_truth_in_source"],
                one["text"],
                one["is_correct"],
                one["extracted_answer"],
            )


def test_labelled_solutions(pool: Pool) -> None:
    """Prints each kind of disagreement, and who is right: the number that the solution ends with decides."""
    rows = list(labelled_solutions())
    verdicts = FinalVerifier(pool).verify([solved(text, gold, n_steps=1) for _, gold, text, _, _ in rows])
    table: Counter[tuple[str, ...]] = Counter()
    for (name, gold, text, correct, theirs), (verdict,) in zip(rows, verdicts, strict=True):
        assert verdict is not None
        if verdict.label == "unknown":  # a guess that differs: never of a right solution
            assert verdict.reason == GUESSED and not correct, text[-200:]
            continue
        if (verdict.label == "correct") != correct:
            said = extract_answer(text) or ""
            number = Fraction(said.strip("\\$").replace(",", ""))
            who = "ours" if (number == Fraction(gold)) == (verdict.label == "correct") else "label"
            table[name, gold, said, theirs, str(correct), verdict.label, who] += 1
    print("set | gold | solution says | labeller read | labelled correct | ours | right | count")
    for row, count in table.items():
        print(*row, count, sep=" | ")
    disagreements = Counter(row[0] for row in table.elements())
    assert not disagreements["openai models"]
    assert all(row[-1] == "ours" for row in table), "a disagreement in which the label is right"


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_hostile_corpus(every: int, pool: Pool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    strings = hostile_strings(str(canary))[::every]
    assert len(strings) * every >= 300
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    poisoned = [
        (gold, predicted, kind)
        for i, hostile in enumerate(strings)
        for gold, predicted, kind in (("4", hostile, "math"), BYSTANDERS[i % len(BYSTANDERS)][:3])
    ]
    outcomes = compare(pool, poisoned)
    for i, (poison, bystander) in enumerate(zip(outcomes[::2], outcomes[1::2], strict=True)):
        assert poison.seconds <= DEADLINE_S + OVERRUN_S, strings[i][:100]
        assert not poison.failure.startswith(("crash", "error")), (poison.failure, strings[i][:100])
        assert same_of(bystander) is BYSTANDERS[i % len(BYSTANDERS)][3]
    as_solutions = FinalVerifier(pool).verify([solved(text, "4", n_steps=1) for text in strings])
    assert all(verdict and verdict.verifier == "final" for (verdict,) in as_solutions)
    kinds = cycle(("choice", "yesno", "string", "code"))
    short = [(text, kind) for text, kind in zip(strings, kinds, strict=False) if len(text) < 50_000]
    compare(pool, [(text, extract_answer(text, kind) or "", kind) for text, kind in short])
    assert not canary.exists() and not Path("canary").exists()
    assert {pid for pid, _ in (o.value for o in pool.map(jobs.who, range(200)) if o.value)} <= children(pool)
    assert len(children(pool)) <= pool.workers
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000, f"{grown} KiB more in the parent"


def children(pool: Pool) -> set[int]:
    """The processes whose parent is the pool's server."""
    pair = pool.map(jobs.who, [0])[0].value
    assert pair is not None
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return {pid for pid in pids if parent_of(pid) == pair[1]}


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


PIECES = st.sampled_from(
    ["\\frac", "\\sqrt", "\\boxed", "\\text", "\\left(", "\\right)", "\\begin{pmatrix}", "\\end{pmatrix}",
     "^", "_", "{", "}", "(", ")", "[", "]", "$", "x", "y", "1", "9", "0.5", "!", "=", "<", "+", "-", "*",
     "/", ",", " ", "\n", "\\pm", "\\in", "\\int", "\\sum", "\\sin", "\\log", "\\%", "#### ", "answer is ",
     "\x00", "\u202e", "e", "i"]
)  # fmt: skip
FUZZ = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=20).map("".join))


@settings(max_examples=10, deadline=None)
@given(texts=st.lists(FUZZ, min_size=100, max_size=100))
def test_fuzzed_strings(pool: Pool, texts: list[str]) -> None:
    check_fuzzed(pool, texts)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(FUZZ, min_size=100, max_size=100))
def test_ten_thousand_fuzzed_strings(pool: Pool, texts: list[str]) -> None:
    check_fuzzed(pool, texts)


def check_fuzzed(pool: Pool, texts: list[str]) -> None:
    outcomes = compare(pool, [("\\frac{1}{2}", text, "math") for text in texts] + [BYSTANDERS[0][:3]])
    assert same_of(outcomes[-1]) is True
    assert all(outcome.seconds <= DEADLINE_S + OVERRUN_S for outcome in outcomes)
    assert not [outcome for outcome in outcomes if outcome.failure.startswith(("crash", "error"))]
