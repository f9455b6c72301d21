"""Which of the pairs are kept, and for what: by hashes of ids, so that no order decides."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, TypeVar

from stepconf.core.ids import CONTENT_ID_BYTES, content_id
from stepconf.core.pairs.traces import Draft

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


class Identified(Protocol):
    """A pair, or what stands for one."""

    @property
    def pair_id(self) -> str:
        """Its id."""

    @property
    def problem_id(self) -> str:
        """The problem it belongs to."""


P = TypeVar("P", bound=Identified)


def unique(drafts: Iterable[Draft], dropped: Counter[str]) -> Iterator[Draft]:
    """Each pair of token sequences once; all that may be equal must be among `drafts`."""
    seen: set[tuple[bytes, bytes, bytes]] = set()
    for draft in drafts:
        tokens = draft.prefix_ids, draft.chosen.ids, draft.rejected.ids
        if tokens in seen:
            dropped["same pair again"] += 1
        else:
            seen.add(tokens)
            yield draft


def capped(pairs: Iterable[P], limit: int | None, seed: int, dropped: Counter[str]) -> Iterator[P]:
    """At most `limit` pairs of each problem, chosen by hashes with `seed`; in the order given."""
    if limit is None:
        yield from pairs
        return
    by_problem: dict[str, list[P]] = defaultdict(list)
    for pair in pairs:
        by_problem[pair.problem_id].append(pair)
    for own in by_problem.values():
        kept = set(_first([pair.pair_id for pair in own], limit, seed))
        dropped["beyond the cap of its problem"] += len(own) - len(kept)
        yield from (pair for pair in own if pair.pair_id in kept)


def surplus(kinds: dict[str, str], seed: int) -> set[str]:
    """The ids of pairs to drop so that `correct_uncertain` and `incorrect` are equally many.

    Args:
        kinds: the kind of each pair, by id; other kinds are left alone.
        seed: of the hashes that choose.
    """
    ids: dict[str, list[str]] = {"correct_uncertain": [], "incorrect": []}
    for pair_id, kind in kinds.items():
        if kind in ids:
            ids[kind].append(pair_id)
    size = min(map(len, ids.values()))
    return {pair_id for own in ids.values() for pair_id in set(own) - set(_first(own, size, seed))}


def split_of(problem_id: str, validation: float) -> Split:
    """`validation` for that share of all problems: the same in every run, whatever else is in it."""
    return "validation" if problem_id < least_of_train(validation) else "train"


def least_of_train(validation: float) -> str:
    """The problem id, a hash in hexadecimal, below which that share (in [0, 1)) of all problems is."""
    return f"{int(validation * 2 ** (8 * CONTENT_ID_BYTES)):0{2 * CONTENT_ID_BYTES}x}"


def by_split(pairs: Iterable[P], validation: float) -> dict[Split, list[P]]:
    """The pairs of each split that there are any of; see `split_of`."""
    found: dict[Split, list[P]] = {}
    for pair in pairs:
        found.setdefault(split_of(pair.problem_id, validation), []).append(pair)
    return found


def _first(ids: list[str], n: int, seed: int) -> list[str]:
    return sorted(ids, key=lambda pair_id: content_id(seed, pair_id))[:n]
