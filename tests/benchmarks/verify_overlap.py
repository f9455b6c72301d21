"""Verification beside generation: what of it the engine waits for, at a given rate of the engine.

10,000 GSM8K and MATH-500 solutions (5,000 of the mix of `verify_throughput`, twice; 2 % hostile answers) come out of
a stand-in for an engine on a GPU: it takes its time and no CPU, and stands still while nobody takes its results. All
behind it is real: cutting into steps, `final,symbolic`, writing. Stopped, the same command with the same FOLDER goes
on. What it waits for beside verification is what it waits for with 0 workers, which verify nothing.

    python -m tests.benchmarks.verify_overlap FOLDER [solutions per second of the engine] [solutions] [workers]
"""

import json
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from stepconf.cli import SWITCH_S
from stepconf.core.records import TokenScores
from stepconf.engines.base import Completion, EngineInfo, SampleRequest, ScoreRequest, none_dropped
from stepconf.engines.guard import Guard
from stepconf.engines.tokenizer import Tokenizer
from stepconf.pipeline import generate
from stepconf.recipe import load_recipe
from tests.benchmarks.verify_throughput import mix
from tests.tiny import VOCABULARY, tiny_model

_DISTINCT = 5_000  # there are 6,400
_NUMBER = re.compile(r"Problem (\d+)")


class Paced:
    """See `engines.base.Engine`: number i's solution for "Problem i", so many a second."""

    def __init__(self, texts: list[str], per_second: float) -> None:
        self.tokenizer = Tokenizer(str(tiny_model()))
        device, context = f"{per_second:g}/s", 1 << 20
        self.info = EngineInfo("paced", "1", "tiny", "", "float32", device, "Paced", VOCABULARY, context)
        self._texts, self._pause = texts, 1 / per_second

    def sample(
        self, requests: Iterable[SampleRequest | None], dropped: Callable[[], Collection[str]] = none_dropped
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        for request in requests:
            if request is not None:
                due = time.perf_counter() + self._pause
                found = _NUMBER.findall(self.tokenizer.decode(request.prompt_ids))
                completion = self._completion(self._texts[int(found[-1])])
                time.sleep(max(0.0, due - time.perf_counter()))
                yield request, [completion]

    def _completion(self, text: str) -> Completion:
        ids = self.tokenizer.encode(text)
        scores = TokenScores([-0.5] * len(ids), [0.7] * len(ids), [0.8] * len(ids))
        return Completion(ids, self.tokenizer.pieces(ids), scores, "stop", len(ids))

    def score(self, requests: Iterable[ScoreRequest | None]) -> Iterator[tuple[ScoreRequest, TokenScores]]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def main(folder: Path, per_second: float = 20, size: int = 10_000, workers: int = 1) -> None:
    """Print the engine's seconds, those of verification, and how many the engine waited."""
    items = mix(min(size, _DISTINCT), random.Random(0))
    items = (items * (size // len(items) + 1))[:size]
    model = shutil.copytree(tiny_model(), folder / "model", dirs_exist_ok=True)
    rows = [{"problem": f"Problem {i}", "answer": gold} for i, (gold, *_) in enumerate(items)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {
        "problems.source": str(folder / "problems.jsonl"),
        "model": str(model),
        "prompt.style": "plain",
        "sampling.samples": 1,
        "verify.verifiers": ["final", "symbolic"] if workers else [],
        "verify.workers": workers or 1,
    }
    last_sample = 0.0
    sys.setswitchinterval(SWITCH_S)  # as the command does

    def tick(stage: str, n: int) -> None:
        nonlocal last_sample
        if stage == "sample" and n > 0:
            last_sample = time.perf_counter()

    engine = Paced([text for _, text, _ in items], per_second)
    summary = generate(load_recipe(None, values), folder / "run", tick, lambda: Guard(lambda: engine, print))
    tail = time.perf_counter() - last_sample
    engine_s, idle_s, verify_s = (summary["seconds"][stage] for stage in ("sample", "idle", "verify"))
    print(f"{summary['solutions']} solutions, engine at {per_second:g}/s, {workers} worker(s)")
    least = size / per_second
    print(
        f"engine {engine_s:.1f} s, {least:.1f} at its rate; it waited {idle_s:.1f} s; verification {verify_s:.1f} s"
    )
    print(f"behind the last sample {tail:.1f} s, the summary's figures of the run included")
    print(f"engine idle share {summary['engine_idle_share']}")
    if workers:
        print(f"ratio verify_overlap: {1 - min(idle_s / verify_s, 1):.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:3]), *map(int, sys.argv[3:5]))
