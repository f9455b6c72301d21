"""Pairs of whole solutions: one with the right final answer over one with a wrong one, after one prompt.

Solutions that are no side of any pair are counted by reason.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from math import exp

from stepconf.core.ids import content_id
from stepconf.core.pairs.traces import Draft, Trace, ids_of

_UNKNOWN = "answer of unknown correctness"
_NO_OTHER = "all decided answers of the problem are alike"


def dpo_vp(traces: Iterable[Trace], seed: int, dropped: Counter[str]) -> Iterator[Draft]:
    """DPO on verifiable pairs, arXiv 2503.12854: pairs by the final answer alone.

    The paper samples several answers to a problem, has a verifier grade them, and pairs right with wrong
    ones. Here each solution is used once, so that no problem counts by the square of its samples: the right
    ones and the wrong ones, each in an order that hashes with `seed` decide, are paired one with one.
    """
    for right, wrong in _decided(traces, dropped):
        pairs = list(zip(_shuffled(right, seed), _shuffled(wrong, seed), strict=False))
        left = len(right) + len(wrong) - 2 * len(pairs)
        if left:
            dropped["no solution left to pair with" if pairs else _NO_OTHER] += left
        yield from (_draft(chosen, rejected) for chosen, rejected in pairs)


def pcpo(traces: Iterable[Trace], dropped: Counter[str]) -> Iterator[Draft]:
    """Probability-consistent preference optimisation, arXiv 2505.23540: its choice of pairs.

    For each wrong solution, the right one whose `consistency` with it is highest. Two deviations: the paper
    first narrows the right ones down to the nearest few by edit distance, to spare itself scoring them; here
    every token's log-probability is in the run already, so all compete. And only the choice is made here: the
    loss that weights each pair by its consistency, and the likelihood term beside it, are the paper's
    trainer's. Right solutions that nobody picks are counted.
    """
    for right, wrong in _decided(traces, dropped):
        if not right or not wrong:
            dropped[_NO_OTHER] += len(right) + len(wrong)
            continue
        picked = set()
        for rejected in wrong:
            chosen = max(right, key=lambda one: (consistency(one, rejected), one.solution_id))
            picked.add(chosen.solution_id)
            yield _draft(chosen, rejected)
        dropped["never the most consistent"] += len(right) - len(picked)


def consistency(chosen: Trace, rejected: Trace) -> float:
    """How alike the policy's token probabilities are on what two solutions share, in [0, 1].

    Matching blocks of tokens are aligned; a shared token whose probability is p in one and q in the other
    counts exp(-|ln p - ln q|) = min(p, q) / max(p, q); their sum is divided by the length of the rejected
    solution (the pair-weighted score of arXiv 2505.23540, at scale 1).
    """
    first, second = array("f", chosen.logprobs), array("f", rejected.logprobs)
    matcher = SequenceMatcher(None, ids_of(chosen.ids), ids_of(rejected.ids), autojunk=False)
    total = sum(
        exp(-abs(first[block.a + i] - second[block.b + i]))
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    )
    return total / len(second) if second else 0.0


def _decided(traces: Iterable[Trace], dropped: Counter[str]) -> Iterator[tuple[list[Trace], list[Trace]]]:
    """Right and wrong solutions, by problem and prompt; equal ones once."""
    groups: dict[tuple[str, bytes], tuple[list[Trace], list[Trace]]] = defaultdict(lambda: ([], []))
    seen: set[tuple[str, bytes, bytes]] = set()
    for trace in sorted(traces, key=lambda one: one.solution_id):
        if not trace.ids:
            dropped["no tokens"] += 1
        elif trace.answer_correct is None:
            dropped[_UNKNOWN] += 1
        elif (trace.problem_id, trace.prompt_ids, trace.ids) in seen:
            dropped["same solution again"] += 1
        else:
            seen.add((trace.problem_id, trace.prompt_ids, trace.ids))
            groups[trace.problem_id, trace.prompt_ids][0 if trace.answer_correct else 1].append(trace)
    yield from groups.values()


def _shuffled(traces: list[Trace], seed: int) -> list[Trace]:
    return sorted(traces, key=lambda one: content_id(seed, one.solution_id))


def _draft(chosen: Trace, rejected: Trace) -> Draft:
    return Draft("trajectory", chosen, 0, 0, chosen.prompt_ids, chosen.as_side(), rejected.as_side())
