"""The page in a real browser: as a file from disk, and as `view` serves it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.edited_run import edit, good_run
from tests.invariants import rows_of, samples_of
from tests.report.browser import Reader, launched, needs_browser, serious_violations, tokens_shown
from tests.report.made_run import HOSTILE, PROBLEMS, made_run
from tests.report.test_view import ask, serving
from tests.scripted_engine import branched_run
from tests.tiny import stepconf

pytestmark = needs_browser
BANDS = [0.05, 0.25, 0.75, 1.5, 2.5]
SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


def report_of(run: Path, out: Path) -> str:
    ended = stepconf("report", run, "--out", out)
    assert ended.code == 0, ended.err
    return out.as_uri()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run of the tiny model."""
    return report_of(good_run(), tmp_path_factory.mktemp("good") / "page.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("hostile")
    return report_of(made_run(folder / "run"), folder / "page.html")


@pytest.fixture
def reader(browser: Any, good: str) -> Iterator[Reader]:
    reader = Reader(browser, good, viewport=SIZES["wide"])
    yield reader
    reader.close()
    assert reader.errors == []


def test_it_opens_from_disk_with_figures_and_plots(reader: Reader) -> None:
    page = reader.open()
    summary = json.loads((good_run() / "summary.json").read_text())
    assert f"{summary['entropy']['auroc']['estimate']:.3f}" in page.inner_text(".cards")
    assert page.locator(".plot svg[role=img]").count() == 3
    pairs = page.locator("table", has=page.locator("caption", has_text="Pairs by kind"))
    for kind, n in summary["pairs"].items():
        assert f"{kind}\t{n}" in pairs.inner_text()
    assert page.title().endswith("stepconf")


def test_tints_and_values_are_those_of_the_parquet_files(reader: Reader) -> None:
    steps = samples_of(good_run(), "steps")
    n = 0
    for solution in {step["solution_id"]: step for step in steps}.values():
        page = reader.open(f"#/explorer?p={solution['problem_id']}&s={solution['solution_id']}")
        page.wait_for_selector(f".samples a[aria-current][data-id='{solution['solution_id']}']")
        own = [step for step in steps if step["solution_id"] == solution["solution_id"]]
        shown = tokens_shown(page)
        stored = [(s["step_index"], i) for s in own for i in range(len(s["token_ids"]))]
        assert len(shown) == len(stored)
        for token, (index, i) in zip(shown, stored, strict=True):
            step = own[index]
            assert token["step"] == index
            entropy = np.float32(step["token_entropies"][i])
            assert np.float32(token["entropy"].removesuffix(" nats")) == entropy
            assert np.float32(token["logprob"].removesuffix(" nats")) == np.float32(step["token_logprobs"][i])
            assert np.float32(token["max_prob"]) == np.float32(step["token_max_probs"][i])
            assert token["band"] == np.searchsorted(BANDS, entropy, side="right")
        for step in own:
            assert page.text_content(f"#step-{step['step_index']} .text") == step["text"]
        n += len(shown)
    assert n > 200


def test_search_and_filters_list_what_the_server_lists(reader: Reader) -> None:
    page = reader.open("#/explorer")
    with serving(good_run()) as server:
        expected = ask(server, "api/problems")
        assert page.locator(".problems li").count() == expected["total"]

        def check(**query: str) -> None:
            matching = ask(server, "api/problems", **query)
            page.wait_for_function(
                "(n) => document.querySelector('.status').textContent.startsWith(n)",
                arg=str(matching["matching"]),
            )
            ids = page.eval_on_selector_all(".problems a", "(all) => all.map((one) => one.dataset.id)")
            assert ids == [row["id"] for row in matching["problems"]]

        page.select_option(".field.label select", "incorrect")
        check(label="incorrect")
        page.fill("input[placeholder='0']", "2.5")
        check(label="incorrect", low="2.5")
        page.select_option(".field.pairs select", "incorrect")
        check(label="incorrect", low="2.5", kind="incorrect")
        page.get_by_text("verifiers disagree").check()
        check(label="incorrect", low="2.5", kind="incorrect", conflict="1")
        page.get_by_role("button", name="Clear").click()
        check()
        text = rows_of(good_run(), "steps")[3]["text"].strip()[:4]
        page.fill("input[type=search]", text)
        check(q=text)
        page.fill("input[type=search]", "no step says this")
        check(q="no step says this")


def test_branches_open_below_the_step_where_they_leave(browser: Any, tmp_path: Path) -> None:
    run = Path(shutil.copytree(branched_run(), tmp_path / "run"))
    branch = next(
        one for one in rows_of(run, "solutions") if one["parent_solution_id"] and one["branch_step"]
    )
    own = [step for step in rows_of(run, "steps") if step["solution_id"] == branch["solution_id"]]

    def spoil(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["solution_id"] == branch["solution_id"]:
                row["predicted_answer"] = HOSTILE

    edit(run, "solutions", spoil)
    siblings = [
        one
        for one in rows_of(run, "solutions")
        if one["parent_solution_id"] == branch["parent_solution_id"]
        and one["branch_step"] == branch["branch_step"]
    ]
    right = sum(one["answer_correct"] for one in siblings)
    report = report_of(run, tmp_path / "page.html")
    with serving(run) as server:
        for home in (report, server.address):
            reader = Reader(browser, home, viewport=SIZES["wide"])
            page = reader.open(f"#/explorer?p={branch['problem_id']}&s={branch['parent_solution_id']}")
            page.wait_for_selector(f".samples a[aria-current][data-id='{branch['parent_solution_id']}']")
            part = page.locator(f"#step-{branch['branch_step']} > .branches")
            assert f"({right} of {len(siblings)} right)" in part.locator("> summary").inner_text()
            assert page.locator(".branch .step").count() == 0, "closed at first"
            part.locator("> summary").click()
            one = part.locator("> .branch", has_text=HOSTILE)
            one.locator("> summary").click()
            one.locator(".step .t[data-i]").first.hover()
            value = page.locator("#tip [data-value=entropy]").inner_text().removesuffix(" nats")
            assert np.float32(value) == np.float32(own[0]["token_entropies"][0])
            assert one.locator("> div > .step").count() == len(own)
            assert page.evaluate("window.hacked") is None
            assert serious_violations(page) == []
            page.fill("input[type=search]", branch["solution_id"])
            page.wait_for_function("() => document.querySelector('.status').textContent.startsWith('1 of')")
            page.wait_for_selector(".branch[open] .step .badge.hit")
            reader.close()
            assert reader.errors == []


def test_links_and_keys(reader: Reader) -> None:
    steps = samples_of(good_run(), "steps")
    step = next(one for one in steps if one["step_index"] == 1)
    page = reader.open(f"#/explorer?p={step['problem_id']}&s={step['solution_id']}&step=1")
    page.wait_for_selector("#step-1:focus")
    assert page.text_content("#step-1 .text") == step["text"]
    page.keyboard.press("p")
    page.wait_for_selector("#step-0:focus")
    assert "step=0" in page.url
    page.go_back()
    page.wait_for_selector("#step-1:focus")
    page.keyboard.press("m")
    page.wait_for_function("() => !document.querySelector('.tokens')")
    assert "mode=maths" in page.url
    page.keyboard.press("m")
    page.wait_for_selector(".tokens")
    ids = page.eval_on_selector_all(".problems a", "(all) => all.map((one) => one.dataset.id)")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("j")
    assert page.input_value("input[type=search]") == "j", "a key is text where text is typed"
    page.get_by_role("button", name="Clear").click()
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    at = ids.index(step["problem_id"])
    page.keyboard.press("j" if at + 1 < len(ids) else "k")
    neighbour = ids[at + 1] if at + 1 < len(ids) else ids[at - 1]
    page.wait_for_selector(f".problems a[aria-current][data-id='{neighbour}']")
    page.keyboard.press("]")
    page.wait_for_selector(".samples a[aria-current]:nth-of-type(2)")
    page.locator(".tokens").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip [data-value=entropy]").inner_text().endswith("nats")
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()


def test_text_of_models_stays_text(browser: Any, hostile: str) -> None:
    reader = Reader(browser, hostile, viewport=SIZES["wide"])
    page = reader.open("#/explorer")
    ids = page.eval_on_selector_all(".problems a", "(all) => all.map((one) => one.dataset.id)")
    for mode in ("tokens", "maths"):
        for one in ids:
            page = reader.open(f"#/explorer?p={one}&mode={mode}")
            page.wait_for_selector(f".problems a[aria-current][data-id='{one}']")
            page.wait_for_selector(".step")
    page = reader.open(f"#/explorer?p={ids[2]}&mode=maths")
    assert HOSTILE in page.inner_text(".detail .problem")
    assert page.locator(".reason", has_text=HOSTILE).count() == 3
    assert page.locator(".detail .katex").count() >= 3, "maths are set"
    assert "$5 and $10" in page.inner_text(".detail .problem"), "money is no formula"
    page = reader.open(f"#/explorer?p={ids[4]}&mode=maths")
    assert page.locator(".detail .problem .raw").all_inner_texts() == ["$\\frac{1$", "\\(\\notacommand{2}\\)"]
    assert PROBLEMS[2].split(" and ")[0] in page.inner_text(".detail .problem")
    assert len(page.text_content("#step-1 .text") or "") == 100_000
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.images.length") == 0
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "nothing is wider than the window"
    reader.close()
    assert reader.errors == []


@pytest.mark.parametrize(
    ("size", "scheme"), [pytest.param("narrow", "light", marks=pytest.mark.slow), ("wide", "dark")]
)
def test_no_serious_violation_of_accessibility(
    browser: Any, good: str, hostile: str, size: str, scheme: str
) -> None:
    step = next(one for one in samples_of(good_run(), "steps") if one["step_index"] == 1)
    places = [
        (good, "#/overview"),
        (good, "#/explorer"),
        (good, f"#/explorer?p={step['problem_id']}&s={step['solution_id']}&label={step['label']}"),
        (hostile, "#/explorer?q=broken&mode=maths"),
    ]
    for home, fragment in places:
        reader = Reader(browser, home, viewport=SIZES[size], color_scheme=scheme)
        page = reader.open(fragment)
        assert serious_violations(page) == []
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], f"{fragment} is wider than the window"
        reader.close()
        assert reader.errors == []


def test_the_served_page_is_the_same(browser: Any, tmp_path: Path) -> None:
    with serving(good_run()) as server:
        reader = Reader(browser, server.address, viewport=SIZES["wide"])
        page = reader.open()
        assert page.locator(".plot").count() == 3
        step = samples_of(good_run(), "steps")[-1]
        page = reader.open(
            f"#/explorer?p={step['problem_id']}&s={step['solution_id']}&step={step['step_index']}"
        )
        page.wait_for_selector(f"#step-{step['step_index']}:focus")
        shown = [token for token in tokens_shown(page) if token["step"] == step["step_index"]]
        assert [np.float32(token["entropy"].removesuffix(" nats")) for token in shown] == [
            np.float32(value) for value in step["token_entropies"]
        ]
        page.fill("input[type=search]", "no step says this")
        page.wait_for_function("() => document.querySelector('.status').textContent.startsWith('0 of 6')")
        reader.close()
        assert reader.errors == []


def test_a_problem_that_a_sample_lacks(reader: Reader) -> None:
    page = reader.open("#/explorer?p=none")
    page.wait_for_selector("text=There is no problem none here")
