from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.trees import Example, Tree, build_tree, pack, plant

# Two tokens only: prefixes are shared often, at every depth.
tokens = st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple)
examples = st.builds(
    Example,
    key=st.just("k"),
    group=st.sampled_from("abc"),
    prompt_ids=tokens,
    sides=st.lists(tokens, min_size=1, max_size=2).map(tuple),
)


def ancestors(tree: Tree, place: int) -> list[int]:
    """Literally what the attention mask lets `place` see."""
    return [key for key in range(len(tree)) if key <= place < tree.ends[key]]


@given(st.lists(examples, min_size=1, max_size=8))
def test_every_side_is_read_after_exactly_its_own_prefix(found: list[Example]) -> None:
    tree = build_tree(found, range(len(found)))
    sides = [(one.prompt_ids, side) for one in found for side in one.sides]
    assert len(sides) == len(tree.side_edges)
    for (prompt, side), edges in zip(sides, tree.side_edges, strict=True):
        assert [tree.edge_tokens[edge] for edge in edges] == list(side)
        for prefix, edge in zip(accumulate(side, lambda a, b: (*a, b), initial=prompt), edges, strict=False):
            seen = ancestors(tree, tree.heads[tree.edge_heads[edge]])
            assert [tree.token_ids[place] for place in seen] == list(prefix)
            assert [tree.depths[place] for place in seen] == list(range(len(prefix)))


@given(st.lists(examples, min_size=1, max_size=8))
def test_a_tree_has_each_prefix_once_and_nothing_that_is_not_needed(found: list[Example]) -> None:
    tree = build_tree(found, range(len(found)))
    inputs = [one.prompt_ids + side[:-1] for one in found for side in one.sides]
    assert len(tree) == len({one[:n] for one in inputs for n in range(1, len(one) + 1)})
    targets = {
        (p + s[:k], s[k])
        for p, s in ((o.prompt_ids, s) for o in found for s in o.sides)
        for k in range(len(s))
    }
    assert len(tree.edge_tokens) == len(targets) and len(tree.heads) == len({prefix for prefix, _ in targets})
    assert tree.heads == sorted(set(tree.heads)) and tree.edge_heads == sorted(tree.edge_heads)


@given(st.lists(examples, min_size=1, max_size=12), st.integers(1, 40))
def test_packing_keeps_every_example_once_within_the_budget(found: list[Example], budget: int) -> None:
    trees = plant(found, range(len(found)), budget)
    batches = pack(trees, budget)
    packed = [tree for batch in batches for tree in batch]
    assert sorted(index for tree in packed for index in tree.examples) == list(range(len(found)))
    for batch in batches:
        assert sum(map(len, batch)) <= budget or len(batch) == 1
    for tree in trees:
        assert len({found[index].group for index in tree.examples}) == 1
        assert len(tree) <= budget or len(tree.examples) == 1


def test_a_long_tree_is_divided_between_examples_that_share_less() -> None:
    trunk = tuple(range(10))
    near = [Example(str(i), "p", trunk, ((20 + i, 1), (30 + i, 1))) for i in range(2)]
    far = [Example(str(i), "p", (99, *trunk), ((20 + i, 1), (30 + i, 1))) for i in range(2, 4)]
    halves = plant([near[0], far[0], near[1], far[1]], range(4), budget=20)
    assert sorted(sorted(tree.examples) for tree in halves) == [[0, 2], [1, 3]]
