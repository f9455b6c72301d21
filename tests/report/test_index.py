"""What the page reads and filters by, against the rows themselves."""

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stepconf.errors import StepconfError
from stepconf.report.explorer import Explorer
from stepconf.report.filters import Filter, parse_filter
from stepconf.report.html import embedded, page
from stepconf.report.index import KINDS, LABELS
from stepconf.report.overview import overview
from stepconf.report.rows import cut, shortest
from stepconf.report.sample import draw
from stepconf.report.source import open_source
from stepconf.report.token_texts import TokenTexts
from tests.edited_run import edit, good_run
from tests.invariants import rows_of, samples_of
from tests.report.made_run import HOSTILE, made_run
from tests.scripted_engine import branched_run
from tests.tiny import stepconf

NO_TEXTS = TokenTexts("", None, "")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("made") / "run")


def meets(step: dict[str, Any], solution: dict[str, Any], kinds: set[str], wanted: Filter) -> bool:
    """The filter in other words: over plain rows."""
    labels = {verdict["label"] for verdict in step["verdicts"]}
    entropy = step["entropy_mean"]
    text = wanted.text.lower()
    return all(
        (
            not wanted.label or step["label"] == wanted.label,
            not wanted.conflict or {"correct", "incorrect"} <= labels,
            wanted.low is None or (entropy is not None and entropy >= wanted.low),
            wanted.high is None or (entropy is not None and entropy <= wanted.high),
            not wanted.kind or wanted.kind in kinds,
            not text
            or text in step["text"].lower()
            or text in solution["problem"].lower()
            or step["problem_id"].startswith(text)
            or step["solution_id"].startswith(text),
        )
    )


@pytest.mark.parametrize("which", ["made", "good"])
def test_filters_list_the_problems_whose_rows_meet_them(run: Path, which: str) -> None:
    run = run if which == "made" else good_run()
    solutions, steps, pairs = (rows_of(run, table) for table in ("solutions", "steps", "pairs"))
    by_id = {one["solution_id"]: one for one in solutions}
    kinds: dict[Any, set[str]] = {}
    for pair in pairs:
        kinds.setdefault((pair["solution_id"], pair["step_index"]), set()).add(pair["kind"])
    order = list(dict.fromkeys(one["problem_id"] for one in solutions))
    explorer = Explorer(open_source(str(run), False))
    texts = ["", "WHAT IS", solutions[0]["problem_id"][:6], "\u05d4" if which == "made" else "the"]
    bounds = [(None, None), (0.5, 1.0), (0.3, None)]

    def met(step: dict[str, Any], wanted: Filter) -> bool:
        of_step = kinds.get((step["solution_id"], step["step_index"]), set())
        return meets(step, by_id[step["solution_id"]], of_step, wanted)

    for label, conflict, (low, high), kind, text in itertools.product(
        ["", *LABELS], [False, True], bounds, ["", *KINDS], texts
    ):
        wanted = Filter(text, label, conflict, low, high, kind)
        held = {s["problem_id"] for s in steps if met(s, wanted)}
        expected = [one for one in order if one in held or wanted == Filter()]
        found = explorer.list_problems(wanted, 0)
        assert [row["id"] for row in found["problems"]] == expected, wanted
        assert found["matching"] == len(expected) and found["total"] == len(order)


def test_a_problem_in_the_list_says_what_its_rows_say(run: Path) -> None:
    solutions, pairs = samples_of(run, "solutions"), rows_of(run, "pairs")
    for row in Explorer(open_source(str(run), False)).list_problems(Filter(), 0)["problems"]:
        own = [step for step in samples_of(run, "steps") if step["problem_id"] == row["id"]]
        entropies = [step["entropy_mean"] for step in own if step["entropy_mean"] is not None]
        assert row["labels"] == {label: sum(s["label"] == label for s in own) for label in LABELS}
        assert row["entropy"] == ([min(entropies), max(entropies)] if entropies else None)
        assert row["solutions"] == sum(one["problem_id"] == row["id"] for one in solutions)
        assert set(row["kinds"]) == {pair["kind"] for pair in pairs if pair["problem_id"] == row["id"]}
        assert row["conflicts"] == sum(
            {"correct", "incorrect"} <= {verdict["label"] for verdict in step["verdicts"]} for step in own
        )


def with_nested(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The steps and those of the branches below them."""
    for step in steps:
        yield step
        for branch in step.get("branches", []) + step.get("branches_after", []):
            yield from with_nested(branch["steps"])


def test_branches_stand_below_the_step_where_they_leave() -> None:
    run = branched_run()
    explorer = Explorer(open_source(str(run), False))
    by_id = {one["solution_id"]: one for one in rows_of(run, "solutions")}
    seen: list[str] = []

    def look(solution_id: str, steps: list[dict[str, Any]]) -> None:
        assert len(steps) == by_id[solution_id]["n_steps"]
        for step in steps:
            for place, add in (("branches", 0), ("branches_after", 1)):
                for branch in step.get(place, []):
                    row = by_id[branch["solution_id"]]
                    assert row["parent_solution_id"] == solution_id
                    assert row["branch_step"] == step["step_index"] + add
                    word = {True: "right", False: "wrong"}.get(row["answer_correct"])
                    assert branch["outcome"] == (
                        word or ("cut" if row["finish_reason"] == "length" else "unknown")
                    )
                    seen.append(branch["solution_id"])
                    look(branch["solution_id"], branch["steps"])

    for problem in range(len(explorer.index.problem_ids)):
        details, row = explorer.problem(problem), explorer.list_row(problem)
        samples = [
            one for one in by_id.values() if one["problem_id"] == row["id"] and not one["parent_solution_id"]
        ]
        assert [one["solution_id"] for one in details["solutions"]] == [one["solution_id"] for one in samples]
        assert row["solutions"] == len(samples)
        assert row["right"] == sum(one["answer_correct"] is True for one in samples)
        held = explorer.steps(explorer.index.samples_of[problem], NO_TEXTS)
        for one, steps in zip(samples, held, strict=True):
            look(one["solution_id"], steps)
    assert sorted(seen) == sorted(one for one, row in by_id.items() if row["parent_solution_id"])


def test_a_problem_of_branches_alone_is_shown_by_one(tmp_path: Path) -> None:
    run, page = Path(shutil.copytree(branched_run(), tmp_path / "run")), tmp_path / "page.html"
    samples = {one["solution_id"] for one in rows_of(run, "solutions") if one["parent_solution_id"] is None}
    for table in ("solutions", "steps"):

        def keep(rows: list[dict[str, Any]]) -> None:
            rows[:] = [row for row in rows if row["solution_id"] not in samples]

        edit(run, table, keep)
    steps = {step["step_id"]: step["text"] for step in rows_of(run, "steps")}
    ended = stepconf("report", run, "--partial", "--out", page)
    assert ended.code == 0, ended.err
    details = json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])["details"]
    assert details and all(len(one["solutions"]) == 1 for one in details)
    for one in details:
        shown = one["solutions"][0]["steps"]
        assert shown and all("".join(step["pieces"]) == steps[step["step_id"]] for step in shown)


def test_steps_come_with_their_tokens_verdicts_and_pairs() -> None:
    run = good_run()
    explorer = Explorer(open_source(str(run), False))
    texts = explorer.token_texts()
    assert texts.why_not is None
    steps, pairs = rows_of(run, "steps"), rows_of(run, "pairs")
    samples = np.flatnonzero(~explorer.index.is_branch)
    shown = {step["step_id"]: step for own in explorer.steps(samples, texts) for step in with_nested(own)}
    assert len(shown) == len(steps)
    assert {p["pair_id"] for one in shown.values() for p in one["pairs"]} == {p["pair_id"] for p in pairs}
    for step in steps:
        one = shown[step["step_id"]]
        assert "".join(one["pieces"]) == step["text"] and len(one["pieces"]) == len(step["token_ids"]) + 1
        assert one["ids"] == step["token_ids"] and one["entropy_mean"] == step["entropy_mean"]
        for name in ("entropies", "logprobs", "max_probs"):
            stored = np.asarray(step[f"token_{name}"], np.float32)
            assert np.array_equal(np.asarray(one[name], np.float32), stored)
        assert [(v["verifier"], v["reason"]) for v in one["verdicts"]] == [
            (v["verifier"], v["reason"]) for v in step["verdicts"]
        ]


def test_without_the_tokenizer_or_with_another_one_the_text_is_whole(run: Path) -> None:
    explorer = Explorer(open_source(str(run), False))
    assert NO_TEXTS.why_not and explorer.token_texts().why_not
    for own in explorer.steps(np.arange(len(explorer.index.owner)), NO_TEXTS):
        assert all(len(step["pieces"]) == 1 for step in own)
    other = TokenTexts(str(json.loads("null") or ""), None, "another")
    assert other.starts("text", [1, 2]) is None


@given(st.text(), st.lists(st.integers(-2, 12)))
def test_parts_join_to_the_text(text: str, starts: list[int]) -> None:
    parts = cut(text, sorted(starts))
    assert "".join(parts) == text and len(parts) == len(starts) + 1


@given(st.lists(st.floats(width=32)))
def test_shortest_decimals_are_the_same_single_precision_values(values: list[float]) -> None:
    for value, text in zip(values, shortest(values), strict=True):
        assert text is None if not np.isfinite(value) else np.float32(repr(text)) == np.float32(value)


@given(st.integers(0, 40), st.integers(0, 400))
def test_a_sample_fits_and_is_whole_where_it_can_be(n: int, budget: int) -> None:
    sample = draw(n, budget, lambda problem: (problem, 10) if problem != 3 else None)
    assert sample.n_bytes == 10 * len(sample.taken) <= budget and list(sample.taken) == sorted(sample.taken)
    assert len(sample.taken) in (budget // 10, n - sample.too_large)
    assert sample.taken == draw(n, budget, lambda problem: (problem, 10) if problem != 3 else None).taken


def test_figures_are_those_of_the_summary() -> None:
    run = good_run()
    source = open_source(str(run), False)
    assert source.summary is not None
    explorer = Explorer(source)
    found = overview(explorer.index, source.recipe, source.summary, explorer.tables.metadata("steps"))
    auroc = next(one for one in found["headline"] if one["name"].startswith("AUROC"))
    for bound in ("estimate", "low", "high"):
        assert auroc[bound] == pytest.approx(source.summary["entropy"]["auroc"][bound])
    for key in ("problems", "solutions", "steps", "tokens"):
        apart = source.summary["branches"].get(key, 0)
        assert found["counts"][key] == source.summary[key] - apart
    assert {k: n for k, n in found["labels"].items() if n} == source.summary["labels"]
    n_decided = sum(found["labels"][label] for label in ("correct", "incorrect"))
    assert sum(b["count"] for b in found["reliability"]["bins"]) <= n_decided
    assert sum(found["histogram"]["correct"]) == found["labels"]["correct"]
    assert found["risk"]["points"][-1] == [1.0, pytest.approx(found["risk"]["base"])]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "set"
    assert stepconf("push", good_run(), "me/set", "--dry-run", "--out", out).code == 0
    return out


def overview_of(where: Path, out: Path) -> Any:
    ended = stepconf("report", where, "--out", out)
    assert ended.code == 0, ended.err
    return json.loads(out.read_text().split('id="data">')[1].split("</script>")[0])["overview"]


@pytest.mark.parametrize(
    "change",
    [
        {"problems": "x"},
        {"sampling": [1], "verify": {"verifiers": [1]}},
        {"verify": "x"},
        {"verify": {"verifiers": 3, "noise": [1]}},
        {"model": [1], "model_revision": [1], "command": 3},
    ],
)
def test_a_published_recipe_of_any_form_is_shown(
    change: dict[str, Any], published: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(published, tmp_path / "set"))
    file = copy / "stepconf" / "recipe.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    assert overview_of(copy, tmp_path / "page.html")["made"]
    file.write_bytes(b"model: \xff")
    refused = stepconf("report", copy, "--out", tmp_path / "page.html")
    assert refused.code == 1 and "is not YAML as a run has it" in refused.err


@pytest.mark.parametrize(
    "change",
    [
        {"agreement": None},
        {"agreement": [1]},
        {"coverage": float("nan")},
        {"tokens_per_label": float("inf")},
        {"branches": {"tokens": [1]}},
        {"branches": {"solutions": 3}},
        {"branches": 3},
        {"verifiers": {"final": 1}},
        {"unlabelled": [1], "drops": 3},
        {"strategy": []},
    ],
)
def test_a_summary_that_does_not_fit_counts_as_none(
    change: dict[str, Any], published: Path, tmp_path: Path
) -> None:
    """The figures of a run are then counted again; those of a published set are left out."""
    copy, run = tmp_path / "set", tmp_path / "run"
    shutil.copytree(published, copy)
    shutil.copytree(good_run(), run)
    for file in (copy / "stepconf" / "summary.json", run / "summary.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    found = overview_of(copy, tmp_path / "copy.html")
    assert not found["verifiers"] and found["pairs"] is None and found["headline"]
    assert overview_of(run, tmp_path / "run.html") == overview_of(good_run(), tmp_path / "good.html")
    for text in (b"\xff", b"{}", b"[1]"):
        (copy / "stepconf" / "summary.json").write_bytes(text)
        assert not overview_of(copy, tmp_path / "copy.html")["verifiers"]


def test_data_in_the_page_cannot_end_their_element() -> None:
    data = {"name": HOSTILE, "notes": ["\ud800 \u2028"], "overview": {}, "problems": [], "details": []}
    assert "<" not in embedded(data) and json.loads(embedded(data)) == data
    html = page(data)
    assert html.count("</script>") == 3 and "<img src=x" not in html
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[0]
    assert "unsafe" not in policy and "connect-src 'none'" in policy


def test_a_run_without_steps_labels_or_pairs(tmp_path: Path) -> None:
    file = tmp_path / "given.jsonl"
    file.write_text(json.dumps({"problem": "1 + 1?", "solution": "It is\n2."}) + "\n")
    assert stepconf("segment", file, "--out", tmp_path / "run").code == 0
    ended = stepconf("report", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "no model is named" in ended.out and (tmp_path / "run" / "report.html").stat().st_size < 1e6
    assert stepconf("check", tmp_path / "run").code == 0


@pytest.mark.parametrize(("out", "said"), [("no/x.html", "there is no folder"), (".", "is a folder")])
def test_where_no_page_can_be_is_said_before_the_work(run: Path, tmp_path: Path, out: str, said: str) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    (damaged / "steps/part-00000.parquet").write_bytes(b"PAR1")  # reading it would be said instead
    ended = stepconf("report", damaged, "--out", tmp_path / out)
    assert ended.code == 1 and said in ended.err and len(ended.err.splitlines()) == 2


def test_a_filter_that_the_page_cannot_send_is_refused() -> None:
    for query in ({"label": "right"}, {"kind": "x"}, {"low": "one"}):
        with pytest.raises(StepconfError):
            parse_filter(query)


def test_unfinished_and_damaged_runs(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", finished=False)
    refused = stepconf("report", run)
    assert refused.code == 1 and "not finished" in refused.err and "--partial" in refused.err
    out = tmp_path / "page.html"
    assert stepconf("report", run, "--partial", "--out", out).code == 0
    assert "This run is not finished" in out.read_text()
    edit(run, "steps", lambda rows: rows.clear(), "00001")
    assert stepconf("report", run, "--partial", "--out", out).code == 0
    (run / "steps/part-00000.parquet").write_bytes(b"PAR1")
    damaged = stepconf("report", run, "--partial", "--out", out)
    assert damaged.code == 1 and "part-00000" in damaged.err
    assert "neither a run folder" in stepconf("report", tmp_path / "none").err


def test_a_large_run_is_sampled_and_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stepconf.report import write

    monkeypatch.setattr(write, "LIMIT", 740_000)
    ended = stepconf("report", run, "--out", tmp_path / "page.html")
    assert ended.code == 0, ended.err
    assert re.search(r"holds [1-4] of 5 problems, drawn at random", ended.out.replace("\n", " "))
    assert (tmp_path / "page.html").stat().st_size <= 740_000
