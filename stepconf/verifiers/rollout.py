"""The `rollout` verifier: can the policy still reach the answer from here? (Math-Shepherd, arXiv 2312.08935)

From each step's exact token prefix the policy completes the solution up to n times; the answers are graded by
`final`'s comparison. The share that is right estimates how solvable the problem is after the step. All steps
of a chunk go through one stream of requests, so the batch stays full and prefixes come from the cache.

It judges the prefix up to and with the step, as seen by this policy: a wrong step that the policy repairs
counts as right, a right one behind which the policy always fails as wrong.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal

from stepconf.core.answers import extract_answer, gold_answer
from stepconf.core.interval import exact_interval
from stepconf.core.records import Label, Solution, Solved, Step, Verdict
from stepconf.engines.base import Completion, Engine, SampleRequest, Sampling
from stepconf.verifiers.final import FinalVerifier, compare
from stepconf.verifiers.pool import Pool


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """How many completions, and how their share becomes a label.

    `n`: completions a step at most; `wave`: how many at a time, after which it may be decided. `labels`:
    `hard` calls a step correct once any completion is, and incorrect when none of all n is; `soft` compares
    the share with `threshold` and decides when the interval does (else unknown). `confidence`: of that
    interval, whenever one stops. `max_tokens`: of a completion. `stop`: strings that end one.
    """

    n: int = 8
    wave: int = 4
    labels: Literal["hard", "soft"] = "hard"
    threshold: float = 0.5
    confidence: float = 0.95
    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(slots=True)
class _Node:
    """The place behind one step, and what has come of it so far."""

    solution: Solution
    step: Step
    prefix_ids: list[int]
    seed: int
    asked: int = 0
    right: int = 0
    wrong: int = 0
    cut: int = 0
    ungraded: int = 0
    seconds: float = 0.0


class RolloutVerifier:
    """Judges every step. Its score is the share of right ones among the graded completions.

    The last step of a finished solution needs no completion: its answer is graded. A completion that is cut
    off before an answer says nothing and is left out of the share. `unknown`: fewer than half of n are graded
    and none is right; the prefix fills the context; there is no gold answer.

    Args:
        engine: the policy; not to be used by another thread meanwhile.
        pool: where answers are compared.
        prompt_ids: token ids in front of a solution that came without tokens (an imported one).
        model: the policy's name, part of the version.
    """

    name = "rollout"

    def __init__(
        self,
        engine: Engine,
        pool: Pool,
        options: RolloutOptions,
        prompt_ids: Callable[[str], list[int]],
        model: str,
    ) -> None:
        self._engine, self._pool, self._options, self._prompt_ids = engine, pool, options, prompt_ids
        self._looks = -(-options.n // options.wave)
        self.version = f"1+{model}+{options.labels}{options.n}"

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """One list per solution, one verdict per step."""
        ends = FinalVerifier(self._pool).verify(solved)
        rows: list[list[Verdict | None]] = []
        nodes: list[tuple[int, _Node]] = []
        for i, one in enumerate(solved):
            if not (one.solution.gold_answer or "").strip():
                rows.append([self._unknown("no gold answer") for _ in one.steps])
                continue
            row: list[Verdict | None] = [None] * len(one.steps)
            steps = one.steps
            if steps and one.solution.finish_reason != "length":
                row[-1], steps = self._at_the_end(ends[i][-1]), steps[:-1]
            for step, ids in zip(steps, self._prefixes(one), strict=False):
                if len(ids) >= self._engine.info.max_model_len:
                    row[step.step_index] = self._unknown("prefix fills the context")
                else:
                    nodes.append((i, _Node(one.solution, step, ids, self._seed(step))))
            rows.append(row)
        self._complete([node for _, node in nodes])
        for i, node in nodes:
            rows[i][node.step.step_index] = self._verdict(node)
        return rows

    def _prefixes(self, one: Solved) -> list[list[int]]:
        """Per step, the token ids of everything up to its end."""
        solution = one.solution
        if solution.prompt_token_ids and solution.token_ids:
            return [solution.prompt_token_ids + solution.token_ids[: step.token_end] for step in one.steps]
        ids, starts = self._engine.tokenizer.encode_with_starts(solution.text)
        prompt = self._prompt_ids(solution.problem)
        counts = [sum(start < step.char_end for start in starts) for step in one.steps]
        return [prompt + ids[:count] for count in counts]

    def _complete(self, nodes: Sequence[_Node]) -> None:
        """Ask for completions, wave by wave, until every node is decided or has its n."""
        waiting = deque(enumerate(nodes))
        in_flight = 0

        def requests() -> Iterator[SampleRequest | None]:
            nonlocal in_flight
            while waiting or in_flight:
                if not waiting:
                    yield None
                    continue
                in_flight += 1
                yield self._wave(*waiting.popleft())

        started = time.perf_counter()
        for request, completions in self._engine.sample(requests()):
            in_flight -= 1
            index = int(request.key)
            node = nodes[index]
            self._grade(node, completions)
            if node.asked < self._options.n and self._label(node) == "unknown":
                waiting.append((index, node))
            now = time.perf_counter()
            # Requests overlap in the batch; the time since the last result is what this one added.
            node.seconds += now - started
            started = now

    def _wave(self, index: int, node: _Node) -> SampleRequest:
        options, room = self._options, self._engine.info.max_model_len - len(node.prefix_ids)
        count = min(options.wave, options.n - node.asked)
        how = Sampling(options.temperature, min(options.max_tokens, room), options.top_p, options.stop)
        request = SampleRequest(str(index), node.prefix_ids, count, node.seed + node.asked, how)
        node.asked += count
        return request

    def _grade(self, node: _Node, completions: Sequence[Completion]) -> None:
        solution, kind = node.solution, node.solution.answer_type
        pairs = []
        for completion in completions:
            whole = solution.text[: node.step.char_end] + "".join(completion.pieces)
            ended = completion.finish_reason == "stop"
            answer = extract_answer(whole, kind, guess=ended)
            if answer is not None:
                pairs.append((gold_answer(solution.gold_answer or "", kind), answer, kind))
            elif ended:
                node.wrong += 1  # it came to an end without any answer
            else:
                node.cut += 1
        for outcome in compare(self._pool, pairs):
            node.right += outcome.value is True
            node.wrong += outcome.value is False
            node.ungraded += outcome.value is None

    def _interval(self, node: _Node) -> tuple[float, float]:
        return exact_interval(
            node.right, node.right + node.wrong, (1 - self._options.confidence) / self._looks
        )

    def _label(self, node: _Node) -> Label:
        """What can be said by now; `unknown` asks for another wave while there is one."""
        options, graded = self._options, node.right + node.wrong
        if options.labels == "hard":
            if node.right:
                return "correct"
            return "incorrect" if node.asked >= options.n and 2 * graded >= options.n else "unknown"
        low, high = self._interval(node)
        return (
            "correct" if low > options.threshold else "incorrect" if high < options.threshold else "unknown"
        )

    def _verdict(self, node: _Node) -> Verdict:
        graded = node.right + node.wrong
        low, high = self._interval(node)
        reason = (
            f"{node.right} of {graded} right, {self._options.confidence:.0%} interval {low:.2f} to {high:.2f}"
        )
        reason += f"; {node.cut} cut off" if node.cut else ""
        reason += f"; {node.ungraded} not comparable" if node.ungraded else ""
        score = node.right / graded if graded else None
        return Verdict(self.name, self.version, self._label(node), score, reason, node.seconds)

    def _at_the_end(self, final: Verdict | None) -> Verdict | None:
        """The verdict of `final` on a finished solution, as ours on its last step."""
        reason = final and (final.reason or "its own answer")
        return final and replace(final, verifier=self.name, version=self.version, reason=reason or "")

    def _unknown(self, reason: str, seconds: float = 0.0) -> Verdict:
        return Verdict(self.name, self.version, "unknown", None, reason, seconds)

    def _seed(self, step: Step) -> int:
        """A step's own random stream, the same in every run and batch; completion i draws from seed + i."""
        digest = blake2b(f"{self._options.seed}:{step.step_id}".encode(), digest_size=6).digest()
        return int.from_bytes(digest, "big")
