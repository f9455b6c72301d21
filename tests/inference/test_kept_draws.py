"""Draws that are kept in a file: the same results, nothing drawn twice, and a run that was stopped goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from stepconf.engines.base import Completion, Engine, SampleRequest
from stepconf.inference.base import Result
from stepconf.inference.run import answer
from stepconf.inference.strategies import search
from tests.benchmarks.kept_draws import KeptDraws
from tests.inference.scripted import PROMPT, Says, ScriptedEngine, question, setting
from tests.inference.test_whole import SAID, drawing

NAMES = ["cat", "beam", "particle", "deepconf-online", "gate"] * 3


class BySeed(ScriptedEngine):
    """What is drawn depends on the text so far and the seed alone, as an engine promises."""

    def completions(self, request: SampleRequest) -> list[Completion]:
        before = "".join(map(chr, request.prompt_ids)).removeprefix(PROMPT)
        self.asked.append((before, request.n))
        sayings = self.policy(before)
        seeds = [request.seed + i if request.sampling.temperature else 0 for i in range(request.n)]
        return [self._say(sayings[seed % len(sayings)], request) for seed in seeds]


def policy(before: str) -> list[Says]:
    if before.count("\n") >= 2:
        return [Says("The answer is 1\n", 0.9, True), Says("The answer is 2\n", 0.6, True)]
    return [Says("north\n", 0.9), Says("south\n", 0.7), Says("The answer is 3\n", 0.5, True)]


def engine() -> BySeed:
    return BySeed(policy)


def results(asked: Engine, names: list[str] = NAMES) -> dict[str, Result]:
    told = setting(k=3, tau=0.0)
    searches = (search(name, question(str(i), f"Q{i}?"), told) for i, name in enumerate(names))
    return {one.key: replace(one, seconds=0.0) for one in answer(asked, searches)}


def test_the_results_are_those_of_the_engine(tmp_path: Path) -> None:
    plain = results(engine())
    first = KeptDraws(engine(), tmp_path / "draws.jsonl")
    assert results(first) == plain
    # All ask behind one prompt here, so that the greedy draws of `gate` are one.
    assert 0 < first.fresh < sum(one.spent.tokens for one in plain.values())
    idle = engine()
    again = KeptDraws(idle, tmp_path / "draws.jsonl")
    assert results(again) == plain and again.fresh == 0 and not idle.asked


@pytest.mark.parametrize("lines", [1, 2, 9, 30])
def test_a_run_that_was_killed_goes_on(lines: int, tmp_path: Path) -> None:
    """As many whole lines, and half of the next one."""
    file = tmp_path / "draws.jsonl"
    plain = results(KeptDraws(engine(), file))
    text = file.read_text().splitlines(keepends=True)
    file.write_text("".join(text[:lines]) + text[lines][: len(text[lines]) // 2])
    resumed = KeptDraws(engine(), file)
    assert results(resumed) == plain and resumed.fresh > 0
    last = KeptDraws(engine(), file)
    assert results(last) == plain and last.fresh == 0


def test_who_stops_early_draws_nothing_new(tmp_path: Path) -> None:
    kept = KeptDraws(drawing(SAID), tmp_path / "draws.jsonl")

    def ask(name: str) -> Result:
        return next(answer(kept, [search(name, question(), setting(k=6))]))

    voting, drawn = ask("self-consistency"), kept.fresh
    assert drawn == voting.spent.tokens
    for name in ("adaptive", "esc", "cges", "cisc", "best-of-n", "deepconf"):
        found = ask(name)
        assert kept.fresh == drawn and 0 < found.spent.tokens <= drawn
    greedy = ask("greedy")
    assert kept.fresh == drawn + greedy.spent.tokens
    ask("gate")
    assert kept.fresh == drawn + greedy.spent.tokens


def test_draws_of_another_model_are_refused(tmp_path: Path) -> None:
    KeptDraws(engine(), tmp_path / "draws.jsonl")

    class Other(BySeed):
        @property
        def info(self):  # type: ignore[no-untyped-def]
            return replace(super().info, model="other")

    with pytest.raises(SystemExit, match="another --out"):
        KeptDraws(Other(policy), tmp_path / "draws.jsonl")
