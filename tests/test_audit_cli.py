"""`stepconf audit` and `stepconf verify --report`, from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from stepconf.labels.agreement import agreement_of, render
from tests.invariants import rows_of
from tests.shared_data import is_sample, shared_path
from tests.test_pipeline import GIVEN, write_jsonl
from tests.test_relabel import GIVEN as LABELLED
from tests.tiny import Ended, stepconf
from tests.verifiers.chat_server import ChatServer, Handler, chat_server

PRM800K = [
    {"instruction": "2 + 3?", "responses": [], "next_response": "2 + 3 = 5.", "rating": 1},
    {"instruction": "2 + 3?", "responses": ["2 + 3 = 5."], "next_response": "5 + 1 = 7.", "rating": -1},
    {"instruction": "2 + 3?", "responses": ["Well."], "next_response": "Then think.", "rating": 0},
]


def test_processbench_as_json(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "toy.jsonl", GIVEN)
    ended = stepconf("audit", "--on", "processbench", file, "--verify", "symbolic,final", "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["n_solutions"] == 3 and [r["verifier"] for r in report["results"]] == ["symbolic", "final"]
    symbolic, final = report["results"]
    interval = symbolic["processbench"].pop("f1_interval")
    assert (interval["estimate"], interval["low"], interval["high"]) == (1.0, 1.0, 1.0)
    assert symbolic["processbench"] == {
        "error_accuracy": 1.0, "correct_accuracy": 1.0, "f1": 1.0, "n_error": 1, "n_correct": 2,
    }  # fmt: skip
    assert symbolic["flags"]["hit"] == 1 and symbolic["seconds_per_solution"] > 0
    assert final["coverage"] == 0 and final["processbench"]["f1"] == 0  # these files have no gold answers


def test_processbench_as_a_table(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "toy.jsonl", GIVEN)
    ended = stepconf("audit", "--on", "processbench", file, columns=160)
    assert ended.code == 0, ended.err
    for part in ("processbench: 3 solutions of toy.jsonl", "symbolic", "F1", "precision", "s/solution"):
        assert part in ended.out


def test_prm800k(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "toy.jsonl", PRM800K)
    ended = stepconf("audit", "--on", "prm800k", file, "--json")
    assert ended.code == 0, ended.err
    (result,) = json.loads(ended.out)["results"]
    assert result["processbench"] is None and result["flags"]["hit"] == 1
    assert result["flags"]["precision"]["estimate"] == result["flags"]["recall"]["estimate"] == 1.0


def test_a_solution_of_prm800k_goes_on_after_the_rated_step(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "toy.jsonl", PRM800K)
    answers = write_jsonl(tmp_path / "answers.jsonl", [{"problem": "2 + 3?", "answer": "5"}])
    ended = stepconf("audit", "--on", "prm800k", file, "--verify", "final", "--answers", answers, "--json")
    assert ended.code == 0, ended.err
    (result,) = json.loads(ended.out)["results"]
    assert result["flags"]["hit"] == result["coverage"] == 0, "none has come to an answer"


def by_critic(file: Path, server: ChatServer, *options: str) -> Ended:
    sets = ["--set", f"verify.critic.base_url={server.url}", "--set", "verify.critic.model=judge"]
    arguments = ["--on", "processbench", file, "--verify", "critic", *sets, *options]
    ended = stepconf("audit", *arguments, columns=160)
    assert ended.code == 0, ended.err
    return ended


def test_a_reply_that_cannot_be_read_matches_no_label(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "toy.jsonl", GIVEN)
    with chat_server(lambda h, body: h.say("Nothing is wrong, I think.")) as server:
        ended = by_critic(file, server, "--json")
    (result,) = json.loads(ended.out)["results"]
    assert result["processbench"]["correct_accuracy"] == 0 and result["coverage"] == 0


def test_a_critic_is_audited_like_any_other(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "toy.jsonl", GIVEN)

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        handler.say("Nothing is wrong. \\boxed{-1}", usage={"prompt_tokens": 100, "completion_tokens": 7})

    with chat_server(behave) as server:
        ended = by_critic(file, server, "--json")
    (result,) = json.loads(ended.out)["results"]
    assert result["coverage"] == 1.0 and result["processbench"]["correct_accuracy"] == 1.0
    assert result["processbench"]["error_accuracy"] == 0.0
    assert result["outcomes"]["wrong_passed"] == result["outcomes"]["n_wrong"] == 1
    assert result["critic"] == {
        "readable": 1.0, "asked_again": 0.0, "tokens_read": 100.0, "tokens_written": 7.0,
    }  # fmt: skip


def test_what_a_critic_costs_and_that_it_tells_nothing_are_in_the_table(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "toy.jsonl", GIVEN)
    with chat_server(lambda h, body: h.say("Nothing is wrong, I think.")) as server:
        ended = by_critic(file, server)
    (readable,) = (line for line in ended.out.splitlines() if "readable replies" in line)
    (again,) = (line for line in ended.out.splitlines() if "asked again" in line)
    assert " 0.0 " in readable and " 100.0 " in again
    for part in ("tokens read/solution", "tokens written/solution", "balanced accuracy"):
        assert part in ended.out
    assert "critic tells nothing here: it finds an error in 0 of 1 wrong solutions and in 0 of 2" in " ".join(
        (ended.out + ended.err).split()
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--on", "processbench", "absent.jsonl"], "absent.jsonl"),
        (["--on", "processbench", "{prm800k}"], "not a row of ProcessBench"),
        (["--on", "prm800k", "{processbench}"], "not a row of PRM800K"),
        (["--on", "processbench", "{processbench}", "--verify", "symbolics"], "symbolics"),
        (["--on", "processbench", "{processbench}", "--verify", ""], "no verifier is named"),
        (["--on", "processbench", "{processbench}", "--verify", "prm"], "no process reward model"),
        (["--on", "processbench", "{processbench}", "--verify", "rollout"], "need gold answers"),
    ],
)
def test_what_cannot_be_audited(tmp_path: Path, arguments: list[str], part: str) -> None:
    files = {
        "{processbench}": str(write_jsonl(tmp_path / "p.jsonl", GIVEN)),
        "{prm800k}": str(write_jsonl(tmp_path / "q.jsonl", PRM800K)),
    }
    ended = stepconf("audit", *[files.get(a, a) for a in arguments])
    assert ended.code == 1 and part in ended.err and "Traceback" not in ended.err


GSM8K, MATH = "processbench/gsm8k_dev.jsonl.gz", "processbench/math_dev.jsonl.gz"


@pytest.mark.parametrize(
    ("file", "recall", "recall_of_sample"),
    [
        (GSM8K, 0.12, 0.08),
        pytest.param(MATH, 0.10, 0.22, marks=[] if is_sample(MATH) else [pytest.mark.slow]),
    ],
)
def test_processbench_as_published(file: str, recall: float, recall_of_sample: float) -> None:
    """On the samples, `tests/golden_verdicts` keeps every single verdict."""
    path = shared_path(file)
    ended = stepconf("audit", "--on", "processbench", path, "--json")
    assert ended.code == 0, ended.err
    (result,) = json.loads(ended.out)["results"]
    found = {k: result["flags"][k]["estimate"] for k in ("precision", "recall", "false_alarm_rate")}
    least = recall_of_sample if is_sample(file) else recall
    assert found["precision"] >= 0.9 and found["recall"] >= least, found
    assert found["false_alarm_rate"] <= 0.01, found


def critic_by_answers(tmp_path: Path, says: Any) -> tuple[dict[str, Any], str]:
    """What the summary and the table at the end say of a critic, on solutions with gold answers."""
    file = write_jsonl(tmp_path / "given.jsonl", LABELLED)
    with chat_server(lambda h, body: h.say(says(body["messages"][0]["content"]))) as server:
        ended = stepconf(
            "verify", file, "--verify", "final,critic", "--out", tmp_path / "run",
            "--set", f"verify.critic.base_url={server.url}", "--set", "verify.critic.model=judge", columns=160,
        )  # fmt: skip
    assert ended.code == 0, ended.err
    return json.loads((tmp_path / "run" / "summary.json").read_text())["critic"], ended.out + ended.err


def test_a_run_says_how_its_critic_did_where_the_answer_is_known(tmp_path: Path) -> None:
    found, said = critic_by_answers(tmp_path, lambda text: "\\boxed{0}" if "7 - 3" in text else "\\boxed{-1}")
    assert (found["n_wrong"], found["n_right"], found["unread"]) == (2, 2, 0)
    assert (found["wrong_passed"], found["right_flagged"]) == (1, 0)
    assert found["balanced_accuracy"]["estimate"] == 0.75
    assert "an error in 1 of 2 with a wrong answer and in 0 of 2 with a right one" in " ".join(said.split())


def test_a_critic_that_says_the_same_of_all_is_warned_of(tmp_path: Path) -> None:
    found, said = critic_by_answers(tmp_path, lambda text: "?" if "7 - 3" in text else "\\boxed{-1}")
    assert found["tells_nothing"] and found["unread"] == 1 and found["balanced_accuracy"]["estimate"] == 0.5
    assert "the critic's verdicts may be chance" in said and "1 not read" in said


def test_the_report_of_a_run(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "given.jsonl", LABELLED)
    out = tmp_path / "run"
    ended = stepconf("verify", file, "--verify", "final,symbolic", "--out", out, "--report", columns=160)
    assert ended.code == 0, ended.err
    for part in (
        "Verifiers",
        "Agreement on the steps that both decide",
        "final, symbolic",
        "kappa",
        "Steps to look at",
    ):
        assert part in ended.out
    found, shown = agreement_of(out)
    steps = rows_of(out, "steps")
    for one in found.verifiers:
        said = [v["label"] for step in steps for v in step["verdicts"] if v["verifier"] == one.verifier]
        assert (one.n_correct, one.n_incorrect) == (said.count("correct"), said.count("incorrect"))
        assert one.n_steps == len(steps)
    (worst,) = found.disagreements  # the answer is wrong, the sums before it are right
    assert (worst.says_correct, worst.says_incorrect) == (("symbolic",), ("final",))
    assert "\\boxed{5}" in shown[worst.step_id]["text"] and "\\boxed{5}" in ended.out
    assert len(render(found, shown)) == 3


def test_the_summary_says_the_same_as_the_report(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "given.jsonl", LABELLED)
    out = tmp_path / "run"
    ended = stepconf("verify", file, "--verify", "final,symbolic", "--out", out, columns=160)
    assert ended.code == 0, ended.err
    summary, (found, _) = json.loads((out / "summary.json").read_text()), agreement_of(out)
    for one in found.verifiers:
        shown = summary["verifiers"][one.verifier]
        assert (shown["coverage"], shown["incorrect_rate"]) == (one.coverage, one.incorrect_rate)
        assert (shown["correct"], shown["incorrect"]) == (one.n_correct, one.n_incorrect)
        assert shown["unknown"] == one.n_unknown
        assert shown["seconds"] == pytest.approx(one.seconds, abs=1e-3)
    (pair,), (said,) = found.pairs, summary["agreement"]
    assert (said["first"], said["second"], said["steps"]) == ("final", "symbolic", pair.n_both)
    assert (said["agreement"], said["kappa"]) == (pair.agreement, pair.kappa)
    assert "final and symbolic" in ended.out
