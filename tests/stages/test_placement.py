"""Policy and critic of other names: one after the other in memory, or beside each other, as the recipe says."""

import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stepconf.core.records import TokenScores
from stepconf.engines.base import Completion, EngineInfo, finish
from stepconf.engines.tokenizer import Tokenizer
from stepconf.recipe import Recipe
from stepconf.stages import chunks
from tests.invariants import rows_of
from tests.scripted_engine import PROBLEMS, ArithmeticEngine
from tests.test_pipeline import write_jsonl
from tests.tiny import VOCABULARY, Ended, stepconf, tiny_model, with_tiny
from tests.verifiers.solutions import solved

CRITIC = "lab/critic"


class Says:
    """A critic's engine: every reply is the same."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.tokenizer = Tokenizer(str(tiny_model()))
        self.info = EngineInfo("scripted", "0", CRITIC, "", "float32", "cpu", "script", VOCABULARY, 1 << 20)

    def sample(self, requests: Any, dropped: Any = None) -> Iterator[tuple[Any, list[Completion]]]:
        for request in requests:
            ids = self.tokenizer.encode(self._text)
            scores = TokenScores([0.0] * len(ids), [0.0] * len(ids), [1.0] * len(ids))
            yield request, [finish(ids, scores, True, request.sampling, self.tokenizer)]


class Log:
    """Opens engines, and keeps the order in which they are opened and closed."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def open(self, recipe: Recipe) -> Any:
        is_critic = recipe.model == CRITIC
        name = "critic" if is_critic else "policy"
        engine: Any = Says("Fine. \\boxed{-1}") if is_critic else ArithmeticEngine()
        self.events.append(f"open {name}")
        engine.close = lambda: self.events.append(f"close {name}")
        return engine


def generate(tmp_path: Path, name: str, *options: object) -> tuple[Ended, list[str]]:
    problems, log = write_jsonl(tmp_path / "problems.jsonl", PROBLEMS[:4]), Log()
    keys = [f"verify.critic.model={CRITIC}", "prompt.instruction=Add.", "verify.critic.reference=false"]
    with (
        patch("stepconf.stages.models.open_engine", log.open),
        patch("stepconf.stages.verify.open_engine", log.open),
    ):
        ended = stepconf(
            "generate", "--problems", problems, "--out", tmp_path / name, *with_tiny(), "--samples", 2,
            "--max-tokens", 96, "--verify", "final,critic",
            *(part for key in keys for part in ("--set", key)), *options,
        )  # fmt: skip
    return ended, log.events


def judged(run: Path) -> list[tuple[str, str, list[tuple[str, str]]]]:
    return [
        (row["step_id"], row["label"], [(v["verifier"], v["label"]) for v in row["verdicts"]])
        for row in sorted(rows_of(run, "steps"), key=lambda row: str(row["step_id"]))
    ]


def test_the_critic_opens_after_the_policy_is_closed_unless_it_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, events = generate(tmp_path, "after")
    assert after.code == 0, after.err
    assert events == ["open policy", "close policy", "open critic", "close critic"]

    beside, events = generate(tmp_path, "beside", "--set", "verify.critic.placement=beside")
    assert beside.code == 0, beside.err
    assert events[:2] == ["open policy", "open critic"]

    monkeypatch.setattr(chunks, "WAVE_CHARS", 1)  # a chunk fills the memory
    waves, events = generate(tmp_path, "waves")
    assert waves.code == 0, waves.err
    # How many waves there are depends on how far the stream was read before the first chunk was made.
    turn = ["open policy", "close policy", "open critic", "close critic"]
    assert events == turn * (len(events) // 4), "never two at a time"

    found = judged(tmp_path / "after")
    assert {said for _, _, verdicts in found for said in verdicts} >= {("critic", "correct")}
    assert found == judged(tmp_path / "beside") == judged(tmp_path / "waves")


def test_a_wave_ends_once_what_was_made_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    row = solved("2 + 3?", ["2 + 3 = 5."])
    monkeypatch.setattr(chunks, "WAVE_CHARS", 2 * len(row.solution.text))
    waiting = deque(chunks.Chunk(str(i), "", []) for i in range(5))
    made: list[chunks.Chunk[str]] = []
    for chunk in chunks.one_wave(waiting, made):
        made.append(replace(chunk, solved=[row]))  # noqa: PERF401  one_wave looks at it meanwhile
    assert [chunk.name for chunk in made] == ["0", "1"] and len(waiting) == 3


def test_what_was_sampled_before_an_interrupt_is_judged_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = generate(tmp_path, "whole")
    complete = ArithmeticEngine._complete
    n = 0

    def interrupted(engine: ArithmeticEngine, *arguments: Any) -> Completion:
        nonlocal n
        n += 1
        if n > 6:
            raise KeyboardInterrupt
        return complete(engine, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ArithmeticEngine, "_complete", interrupted)
        ended, events = generate(tmp_path, "run")
    assert ended.code != 0 and events[-2:] == ["open critic", "close critic"]
    assert 0 < len(judged(tmp_path / "run")) < len(judged(tmp_path / "whole"))
    again, _ = generate(tmp_path, "run")
    assert again.code == whole.code == 0 and judged(tmp_path / "run") == judged(tmp_path / "whole")


def test_a_critic_is_not_waited_for_where_no_other_model_is_loaded(tmp_path: Path) -> None:
    generate(tmp_path, "run")
    log = Log()
    with patch("stepconf.stages.verify.open_engine", log.open):
        ended = stepconf(
            "verify", tmp_path / "run", "--verify", "critic", "--out", tmp_path / "again", "--engine", "transformers",
            "--set", f"verify.critic.model={CRITIC}",
        )  # fmt: skip
    assert ended.code == 0, ended.err
    assert log.events == ["open critic", "close critic"]


# Memory

_MEASURED = """
import json, sys
from dataclasses import replace
from pathlib import Path
from tests.tiny import stepconf
ended = stepconf(*json.loads(sys.argv[1]))
assert ended.code == 0, ended.err
line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
print(json.dumps(int(line.split()[1]) // 1024))
"""
WEIGHTS_MB = 400


def large_model(folder: Path, seed: int) -> Path:
    """The tiny model with weights of about `WEIGHTS_MB` in float32."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    AutoTokenizer.from_pretrained(tiny_model(chat=True)).save_pretrained(folder)
    # Per layer 4 h^2 of attention and 3 h * 4 h of the rest, in 4 bytes.
    hidden, layers = 1024, WEIGHTS_MB * (1 << 20) // (4 * 16 * 1024**2)
    config = LlamaConfig.from_pretrained(
        tiny_model(chat=True),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=hidden // 8,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def peak_mb(out: Path, policy: Path, critic: Path, placement: str) -> int:
    """The largest resident memory of a process that generates with the policy and judges with the critic."""
    problems = write_jsonl(out.with_suffix(".jsonl"), PROBLEMS[:2])
    prompt = out.with_suffix(".txt")
    prompt.write_text("$key $problem $steps", encoding="utf-8")
    arguments = [
        "generate", "--problems", problems, "--out", out, "--engine", "transformers", "--model", policy,
        "--samples", 1, "--max-tokens", 8, "--verify", "critic", "--branch", "none",
        "--set", f"verify.critic.model={critic}", "--set", f"verify.critic.placement={placement}",
        "--set", "verify.critic.max_tokens=8", "--set", f"verify.critic.prompt={prompt}",
        "--set", "verify.critic.reference=false",
    ]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", _MEASURED, json.dumps(list(map(str, arguments)))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert {v["verifier"] for row in rows_of(out, "steps") for v in row["verdicts"]} == {"critic"}
    return int(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_models_of_which_one_fits_into_memory_run_one_after_the_other(tmp_path: Path) -> None:
    policy, critic = (large_model(tmp_path / name, i) for i, name in enumerate(("policy", "critic")))
    alone = peak_mb(tmp_path / "alone", policy, tiny_model(chat=True), "after")
    # What one model needs, and half of the other's weights: both do not fit.
    cap = alone + WEIGHTS_MB // 2
    after = peak_mb(tmp_path / "after", policy, critic, "after")
    beside = peak_mb(tmp_path / "beside", policy, critic, "beside")
    print(f"peak of one model {alone} MB; cap {cap} MB; after {after} MB, beside {beside} MB")
    assert after < cap < beside
