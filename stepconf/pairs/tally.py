"""What is known of all pairs of a run while they are made: their ids, ten bytes to a pair, and kinds."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np

from stepconf.core.ids import CONTENT_ID_BYTES
from stepconf.core.pairs.select import SPLITS, Split, capped, surplus
from stepconf.core.records import Pair, PairKind
from stepconf.recipe import PairsRecipe

KINDS: tuple[PairKind, ...] = get_args(PairKind)
AGAIN = "same pair again"


class Tally:
    """What was made and what was not, by kind, split and reason."""

    def __init__(self, options: PairsRecipe) -> None:
        self._options = options
        self._ids: dict[Split, list[Any]] = {split: [] for split in SPLITS}
        self._kinds: dict[Split, list[Any]] = {split: [] for split in SPLITS}
        self._given: set[str] = set()
        self.drops: Counter[str] = Counter()
        self.candidates: Counter[str] = Counter()

    def kept(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        """Those of some problems that no other problem, worded alike, has given, and that are within the cap."""
        return capped(self._new(pairs), self._options.max_per_problem, self._options.seed, self.drops)

    def _new(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            if pair.pair_id in self._given:
                self.drops[AGAIN] += 1
            else:
                yield pair

    def add_rows(self, split: Split, pairs: Sequence[Pair]) -> None:
        """More pairs, which are `kept`."""
        own = [pair.pair_id for pair in pairs]
        self._given.update(own)
        kinds = np.array([KINDS.index(pair.kind) for pair in pairs], np.uint8)
        self.add(split, np.frombuffer(bytes.fromhex("".join(own)), np.uint8), kinds)

    def add(self, split: Split, ids: Any, kinds: Any) -> None:
        """More pairs: their ids as bytes, and which of `KINDS` each is."""
        self._ids[split].append(ids.reshape(-1, CONTENT_ID_BYTES))
        self._kinds[split].append(kinds)

    def balance(self) -> set[str]:
        """The pairs to drop so that the kinds are balanced, if they are to be; counted as dropped."""
        dropped: set[str] = set()
        for split in SPLITS if self._options.balance else ():
            if not self._ids[split]:
                continue
            ids, kinds = np.concatenate(self._ids[split]), np.concatenate(self._kinds[split])
            told = [one.hex() for one in as_bytes(ids)]
            named = dict(zip(told, (KINDS[kind] for kind in kinds.tolist()), strict=True))
            own = surplus(named, self._options.seed)
            stays = np.array([one not in own for one in told], bool)
            self._ids[split], self._kinds[split] = [ids[stays]], [kinds[stays]]
            dropped |= own
        self.drops["surplus of its kind"] += len(dropped)
        return dropped

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the pairs."""
        kinds: Counter[str] = Counter()
        for own in (kinds for split in SPLITS for kinds in self._kinds[split]):
            kinds.update({KINDS[kind]: n for kind, n in enumerate(np.bincount(own).tolist()) if n})
        splits = {split: sum(map(len, self._ids[split])) for split in SPLITS}
        return {
            "kinds": dict(sorted(kinds.items())),
            "splits": {split: n for split, n in splits.items() if n},
            "drops": {reason: n for reason, n in self.drops.most_common() if n},
            "candidates": dict(self.candidates.most_common()),
        }


def as_bytes(ids: Any) -> list[bytes]:
    """Ids (p, 10) one by one."""
    data = ids.tobytes()
    return [data[start : start + CONTENT_ID_BYTES] for start in range(0, len(data), CONTENT_ID_BYTES)]
