"""`stepconf report` of what `stepconf train` made."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.report.browser import Reader, launched, needs_browser, serious_violations
from tests.tiny import stepconf


def made(folder: Path, stages: dict[str, list[dict[str, float]]], objectives: list[str]) -> Path:
    for place, steps in stages.items():
        file = folder / place / "metrics.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(step) + "\n" for step in steps))
    summary = {"stages": [{"objective": name} for name in objectives]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def dpo(n: int) -> list[dict[str, float]]:
    return [
        {
            "step": i + 1, "of": n, "loss": 0.7 - i / n / 2, "reward_chosen": i / n, "reward_rejected": -2 * i / n,
            "margin": 3 * i / n, "accuracy": 0.5, "entropy_chosen": 0.4, "entropy_rejected": 0.5 + i / n,
            "tokens_per_second": 9.0,
        }
        for i in range(n)
    ]  # fmt: skip


def sft(n: int) -> list[dict[str, float]]:
    return [{"step": i + 1, "of": n, "loss": 1 / (i + 1), "entropy_chosen": 0.3} for i in range(n)]


def shown(folder: Path, out: Path) -> list[dict[str, Any]]:
    ended = stepconf("report", folder, "--out", out)
    assert ended.code == 0, ended.err
    data = json.loads(out.read_text().split('id="data">')[1].split("</script>")[0])
    parts: list[dict[str, Any]] = data["training"]
    return parts


def test_curves_are_the_metrics_by_stage(tmp_path: Path) -> None:
    folder = made(tmp_path / "t", {"state/stage-1": dpo(5), "state/stage-2": sft(3)}, ["dpo", "sft"])
    first, second = shown(folder, tmp_path / "page.html")
    assert (first["title"], second["title"]) == ("stage 1, dpo", "stage 2, sft")
    expected = [
        {key: value for key, value in one.items() if key not in ("of", "tokens_per_second")} for one in dpo(5)
    ]
    assert first["steps"] == expected and second["steps"][-1]["loss"] == pytest.approx(1 / 3)


def test_entropies_at_another_temperature_say_so(tmp_path: Path) -> None:
    steps = [one | {"temperature": 0.7} for one in dpo(2)]
    (part,) = shown(made(tmp_path / "t", {"state": steps}, ["rloo"]), tmp_path / "page.html")
    assert part["title"] == "rloo, temperature 0.7"


def test_rounds_are_in_order(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        made(tmp_path / f"r/round-{number}/training", {"state": dpo(number)}, ["dpo"])
    parts = shown(tmp_path / "r", tmp_path / "page.html")
    assert [one["title"] for one in parts] == ["round 1, dpo", "round 2, dpo", "round 10, dpo"]


def test_copies_beside_rounds_and_stages_are_left_out(tmp_path: Path) -> None:
    for name in ("round-1", "round-1.bak", "round-", "round-old", "round-²"):
        states = {"state/stage-1": dpo(2), "state/stage-1.bak": dpo(3)}
        made(tmp_path / f"r/{name}/training", states, ["dpo"])
    parts = shown(tmp_path / "r", tmp_path / "page.html")
    assert [(one["title"], len(one["steps"])) for one in parts] == [("round 1, dpo", 2)]


def test_a_long_training_is_thinned_to_its_last_step(tmp_path: Path) -> None:
    (part,) = shown(made(tmp_path / "t", {"state": dpo(5000)}, ["dpo"]), tmp_path / "page.html")
    steps = [one["step"] for one in part["steps"]]
    assert len(steps) <= 1000 and steps[-1] == 5000 and steps == sorted(steps)


def test_what_is_no_metric_is_told(tmp_path: Path) -> None:
    folder = made(tmp_path / "t", {"state": []}, [])
    assert "no optimiser step yet" in stepconf("report", folder).err
    (folder / "state/metrics.jsonl").write_text("[1]\n")
    assert "line 1 is not JSON" in " ".join(stepconf("report", folder).err.split())


@needs_browser
def test_the_page_draws_every_curve(tmp_path: Path) -> None:
    folder = made(tmp_path / "t", {"state/stage-1": dpo(5), "state/stage-2": sft(3)}, ["dpo", "sft"])
    shown(folder, tmp_path / "page.html")
    with launched() as browser:
        reader = Reader(browser, (tmp_path / "page.html").as_uri())
        reader.open("")
        titles = reader.page.locator("figure h3").all_text_contents()
        assert titles == ["Loss", "Rewards", "Margin", "Accuracy", "Entropy", "Loss", "Entropy"]
        assert reader.page.locator("path.curve").count() == 7, "one a plot"
        assert reader.page.locator("path.honest").count() == 2, "rewards and entropies have two"
        assert (
            "-2"
            in reader.page.locator("figure", has_text="Rewards").locator(".axes text").all_text_contents()
        )
        assert not reader.errors and not serious_violations(reader.page)
