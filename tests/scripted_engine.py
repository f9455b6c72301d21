"""A stand-in for a model that does arithmetic, with a known rate of errors, and runs of it with branches.

It goes on from any of its own steps, so branches of a right prefix come out right and those of a wrong one wrong.
Tokens are those of the tiny model, so every command that opens it fits such a run.
"""

import atexit
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from stepconf.core.records import TokenScores
from stepconf.engines.base import Completion, EngineInfo, SampleRequest, check_fits, finish, none_dropped
from stepconf.engines.tokenizer import Tokenizer
from tests.tiny import CONTEXT, VOCABULARY, Ended, stepconf, tiny_model, with_tiny

SUMS = {
    "2 + 3 - 4": 1,
    "5 + 6 + 7": 18,
    "9 - 4 - 2": 3,
    "3 + 8 - 6": 5,
    "7 + 7 + 7": 21,
    "8 - 3 + 1": 6,
    "99 + 1 + 1": 101,
}
PROBLEMS = [{"question": f"What is {sum_}?", "answer": str(result)} for sum_, result in SUMS.items()]
TOO_HARD = 99  # a sum with this number always comes out wrong
_SUM = re.compile(r"Problem: What is ([-+\d ]+)\?\nSolution:\n")
_WORDS = ("", "Now ", "Then ")  # so that samples part
_SURE, _UNSURE = 0.05, 0.9  # nats: entropy of the tokens of a right and of a wrong line


class ArithmeticEngine:
    """Works a sum line by line; each operation comes out wrong by one with probability `errors`.

    An engine as `stepconf.engines.base.Engine`. Completion i of a request depends on its prompt and on its seed + i.
    """

    def __init__(self, errors: float = 0.3, model: Path | None = None) -> None:
        folder = model or tiny_model()
        self._errors = errors
        self.tokenizer = Tokenizer(str(folder))
        self.info = EngineInfo(
            "scripted", "0", str(folder), "", "float32", "cpu", "script", VOCABULARY, CONTEXT
        )

    def sample(
        self, requests: Iterable[SampleRequest | None], dropped: Callable[[], Collection[str]] = none_dropped
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        for request in requests:
            if request is not None and request.key not in dropped():
                yield request, [self._complete(request, i) for i in range(request.n)]

    def score(self, requests: Iterable[Any]) -> Iterator[Any]:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def _complete(self, request: SampleRequest, index: int) -> Completion:
        check_fits(len(request.prompt_ids), request.sampling.max_tokens, self.info.max_model_len)
        before = self.tokenizer.decode(request.prompt_ids)
        *_, problem = _SUM.finditer(before)
        draw = Random(f"{before}|{request.seed + index}")
        ids: list[int] = []
        entropies: list[float] = []
        for line, is_right in _lines(problem[1], before[problem.end() :], self._errors, draw):
            own = self.tokenizer.encode(line)
            ids += own
            entropies += [(_SURE if is_right else _UNSURE) * (0.5 + draw.random()) for _ in own]
        most = request.sampling.max_tokens
        ended = len(ids) < most
        ids, entropies = ids[:most], entropies[:most]
        scores = TokenScores(
            [-h for h in entropies], entropies, [exp(-h / log(VOCABULARY)) for h in entropies]
        )
        return finish(ids, scores, ended, request.sampling, self.tokenizer)


def _lines(sum_: str, done: str, errors: float, draw: Random) -> Iterator[tuple[str, bool]]:
    """The lines that are still to be written after `done`, and whether each is right."""
    first, *rest = re.findall(r"[-+]?\s*\d+", sum_)
    written = [line for line in done.splitlines() if line]
    total = int(re.findall(r"= (-?\d+)", written[-1])[0]) if written else int(first)
    for term in rest[len(written) :]:
        before, total = total, total + int(term.replace(" ", ""))
        is_hard = str(TOO_HARD) in sum_
        is_right = not is_hard and draw.random() >= errors
        total += not is_right  # never less: two errors must not make up for each other
        yield f"{draw.choice(_WORDS)}{before} {term[0]} {term[1:].strip()} = {total}\n", is_right
    if len(written) <= len(rest):
        yield f"The answer is \\boxed{{{total}}}", True


def generate(out: Path, *options: object, errors: float = 0.3, branch: str = "all") -> Ended:
    """`stepconf generate` of `PROBLEMS` by that engine, with four samples of each."""
    from tests.test_pipeline import write_jsonl

    problems = write_jsonl(out.with_name(out.name + ".jsonl"), PROBLEMS)
    keys = ["prompt.instruction=Add.", "branch.n=4", "branch.wave=2", "branch.budget=100"]
    usual = ["--samples", 4, "--max-tokens", 96, "--verify", "final,symbolic", "--branch", branch]
    sets = [part for key in keys for part in ("--set", key)]
    with patch("stepconf.stages.models.open_engine", lambda recipe: ArithmeticEngine(errors)):
        return stepconf(
            "generate",
            "--problems",
            problems,
            "--out",
            out,
            *with_tiny(branches=True),
            *usual,
            *sets,
            *options,
        )


@cache
def branched_run() -> Path:
    """A run whose problems are branched, its branches too; made once for all tests: copy it to change it."""
    scratch = tempfile.TemporaryDirectory(prefix="stepconf-branched-")
    atexit.register(scratch.cleanup)
    out = Path(scratch.name) / "run"
    made = generate(out, "--set", "branch.depth=2", errors=0.45)
    assert made.code == 0, made.err
    return out
