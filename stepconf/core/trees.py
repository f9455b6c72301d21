"""Sequences that share prefixes as one token tree: each shared token is computed once.

A training example is a prompt with one side (SFT) or two (a preference pair). The sides of many examples are
merged into a prefix tree, laid out depth first. Then a token's ancestors are exactly the tokens `k` at or before
it whose subtree has not ended: query q sees key k iff k <= q < ends[k]. One integer a token is the whole
attention mask, for any nesting of branches, and for several trees one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Example:
    """What one unit of the loss is made of: `sides` continue `prompt_ids` (at least one token each).

    Two sides are a preference pair, chosen first; one side is a sequence to imitate. An end-of-sequence token,
    where one is due, is part of the side. `group` is what shares prefixes: the problem.

    credits: of each token of each side, the advantage of a sampled solution or the sign of a judged step; empty for
        preference pairs and sequences to imitate.
    logprobs: of each token of each side under the policy that sampled it, nats; NaN where none was recorded. Empty:
        the policy to begin with has sampled it.
    temperature: of the distributions that the loss is of; those of the sampling, for sampled solutions.
    """

    key: str
    group: str
    prompt_ids: tuple[int, ...]
    sides: tuple[tuple[int, ...], ...]
    credits: tuple[tuple[float, ...], ...] = ()
    logprobs: tuple[tuple[float, ...], ...] = ()
    temperature: float = 1.0

    @property
    def length(self) -> int:
        """Tokens from the start of the prompt to the end of the longest side."""
        return len(self.prompt_ids) + max(map(len, self.sides))

    @property
    def n_targets(self) -> int:
        """Tokens whose log-probability the loss reads."""
        return sum(map(len, self.sides))


@dataclass(slots=True)
class Tree:
    """Examples merged, in depth-first order. n tokens, h heads, e edges, s sides.

    token_ids, depths, ends [n]: the input, each token's position in its own sequence, and where its subtree ends.
    The last token of a side is a target only, so it is no input.
    heads [h]: ascending places in the input whose next-token distribution is read.
    edge_heads, edge_tokens [e]: a target is the token `edge_tokens[i]` after place `heads[edge_heads[i]]`;
    ascending in `edge_heads`. Targets that sides share are there once.
    side_edges [s]: the edges of each side, example by example, whose log-probabilities add up to the side's.
    """

    examples: list[int]
    token_ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    edge_heads: list[int] = field(default_factory=list)
    edge_tokens: list[int] = field(default_factory=list)
    side_edges: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.token_ids)


def build_tree(examples: Sequence[Example], indices: Sequence[int]) -> Tree:
    """The tree of `examples[i] for i in indices`."""
    tree = Tree(list(indices))
    sides = [(examples[i].prompt_ids, side) for i in indices for side in examples[i].sides]
    inputs = [prompt + side[:-1] for prompt, side in sides]
    targets: dict[tuple[int, int], list[tuple[int, int]]] = {}
    path: tuple[int, ...] = ()
    at: list[int] = []  # where each token of the current path stands in the input
    # In lexicographic order a sequence starts with what it shares with the one before it: that is depth first.
    for side in sorted(range(len(sides)), key=inputs.__getitem__):
        shared = _common(path, inputs[side])
        for place in at[shared:]:
            tree.ends[place] = len(tree)
        del at[shared:]
        path = inputs[side]
        for depth in range(shared, len(path)):
            at.append(len(tree))
            tree.token_ids.append(path[depth])
            tree.depths.append(depth)
            tree.ends.append(-1)
        prompt, tokens = sides[side]
        for k, token in enumerate(tokens):
            targets.setdefault((at[len(prompt) - 1 + k], token), []).append((side, k))
    for place in at:
        tree.ends[place] = len(tree)
    _number(tree, targets, [len(tokens) for _, tokens in sides])
    return tree


def _number(tree: Tree, targets: dict[tuple[int, int], list[tuple[int, int]]], lengths: list[int]) -> None:
    """Number heads and edges in the order of their places."""
    tree.side_edges = [[0] * length for length in lengths]
    for edge, ((place, token), uses) in enumerate(sorted(targets.items())):
        if not tree.heads or tree.heads[-1] != place:
            tree.heads.append(place)
        tree.edge_heads.append(len(tree.heads) - 1)
        tree.edge_tokens.append(token)
        for side, k in uses:
            tree.side_edges[side][k] = edge


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the common prefix."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    return next(i for i in range(length) if a[i] != b[i])


def plant(examples: Sequence[Example], indices: Sequence[int], budget: int) -> list[Tree]:
    """Trees of the examples, one a group; a tree of more than `budget` tokens is halved, down to one example."""
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(examples[index].group, []).append(index)
    trees = []
    waiting = [sorted(group, key=lambda i: (examples[i].prompt_ids, i)) for group in groups.values()]
    while waiting:
        group = waiting.pop()
        tree = build_tree(examples, group)
        if len(tree) <= budget or len(group) == 1:
            trees.append(tree)
        else:
            waiting += [group[: len(group) // 2], group[len(group) // 2 :]]
    return trees


def pack(trees: Sequence[Tree], budget: int) -> list[list[Tree]]:
    """Micro-batches of trees, of at most `budget` tokens each (a longer tree is alone): first fit, longest first."""
    batches: list[list[Tree]] = []
    filled: list[int] = []
    for tree in sorted(trees, key=len, reverse=True):
        place = next((i for i, used in enumerate(filled) if used + len(tree) <= budget), len(batches))
        if place == len(batches):
            batches.append([])
            filled.append(0)
        batches[place].append(tree)
        filled[place] += len(tree)
    return batches
