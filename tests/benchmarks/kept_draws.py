"""An engine whose draws are kept in a file: a run that was stopped goes on, and strategies share their samples.

A draw is known by its tokens, seed and sampling. So the samples of `self-consistency` are drawn once, and a strategy
that stops early is answered by the first of them.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stepconf.core.ids import content_id
from stepconf.core.records import TokenScores
from stepconf.engines.base import Completion, Engine, SampleRequest

_END = object()
# What must be the same for draws to be of one model.
_MODEL = ("engine", "model", "model_revision", "dtype")


@dataclass
class _Waiting:
    """A request of which some draws are missing."""

    request: SampleRequest
    found: list[Completion | None]


class KeptDraws:
    """Samples by an engine what its file does not have; `fresh` counts the tokens that were.

    Raises:
        SystemExit: the file is of another model.
    """

    def __init__(self, engine: Engine, file: Path) -> None:
        self.info, self.tokenizer = engine.info, engine.tokenizer
        self.score, self.close = engine.score, engine.close
        self.fresh = 0
        self._engine = engine
        self._known: dict[str, Completion] = {}
        info = asdict(engine.info)
        mine = {name: info[name] for name in _MODEL}
        theirs = self._read(file)
        if theirs not in (None, mine):
            raise SystemExit(f"{file} holds draws of {theirs}, not of {mine}. Give another --out.")
        self._file = file.open("a", encoding="utf-8")
        if theirs is None:
            self._write(mine)
        else:
            self._file.write("\n")  # a process that was killed may have left half a line

    def sample(
        self, requests: Iterable[SampleRequest | None]
    ) -> Iterator[tuple[SampleRequest, list[Completion]]]:
        """As `Engine.sample`, with what is known from the file."""
        source = iter(requests)
        whole: deque[tuple[SampleRequest, list[Completion]]] = deque()
        waiting: dict[str, _Waiting] = {}
        is_over = False

        def missing() -> Iterator[SampleRequest | None]:
            """The draws that the file lacks. It ends where nothing is under way and results are to be told first."""
            nonlocal is_over
            while True:
                request = None if whole else next(source, _END)
                if request is _END:
                    is_over = True
                    return
                if isinstance(request, SampleRequest):
                    found = [self._known.get(_key(request, i)) for i in range(request.n)]
                    if None in found:
                        waiting[request.key] = _Waiting(request, found)
                        yield from _parts(request, found)
                    else:
                        whole.append((request, [one for one in found if one is not None]))
                elif waiting:
                    yield None
                else:
                    return

        while not is_over or whole:
            for part, completions in self._engine.sample(missing()):
                key, _, first = part.key.rpartition("#")
                self._keep(part, completions)
                one = waiting[key]
                one.found[int(first) : int(first) + part.n] = completions
                if None not in one.found:
                    del waiting[key]
                    whole.append((one.request, [each for each in one.found if each is not None]))
                while whole:
                    yield whole.popleft()
            while whole:
                yield whole.popleft()

    def _keep(self, part: SampleRequest, completions: list[Completion]) -> None:
        for i, one in enumerate(completions):
            key = _key(part, i)
            self.fresh += one.n_sampled
            self._known[key] = one
            self._write({"key": key} | asdict(one))

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _read(self, file: Path) -> dict[str, Any] | None:
        """Know what the file holds; whose draws they are, None where there is no file."""
        if not file.exists():
            return None
        head = None
        with file.open(encoding="utf-8") as lines:
            for text in lines:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if head is None:
                    head = line
                else:
                    key, scores = line.pop("key"), TokenScores(**line.pop("scores"))
                    self._known[key] = Completion(scores=scores, **line)
        return head


def _parts(request: SampleRequest, found: list[Completion | None]) -> Iterator[SampleRequest]:
    """What is missing of a request: all of it at once, or draw by draw."""
    if not any(found):
        yield replace(request, key=f"{request.key}#0")
        return
    for i, one in enumerate(found):
        if one is None:
            yield replace(request, key=f"{request.key}#{i}", n=1, seed=request.seed + i)


def _key(request: SampleRequest, i: int) -> str:
    how = request.sampling
    # A greedy draw takes no random stream.
    seed = request.seed + i if how.temperature else 0
    texts = [*how.stop, None, *how.until]
    return content_id(request.prompt_ids, seed, f"{how.temperature}/{how.top_p}", how.max_tokens, *texts)
