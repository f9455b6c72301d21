"""Strategies over many paths that grow step by step, each from its own draws: `particle` and `deepconf-online`."""

from collections.abc import Generator, Sequence
from math import exp, inf

from stepconf.core.particles import step_weights, systematic
from stepconf.core.stopping import least_of_kept
from stepconf.core.votes import Equal, Tally, vote
from stepconf.engines.base import Completion
from stepconf.inference.base import Ask, Question, Result, Search, Setting, Strategy, stream_seed
from stepconf.inference.tree import Tree, Twig

Paths = Generator[list[Ask], list[list[Completion]], list[Twig]]


def particle(question: Question, setting: Setting) -> Search:
    """Particle filter over steps (after arXiv 2606.08850): K particles, resampled by the confidence of each step.

    A particle that has come to its answer leaves with its weight as its vote, and the others are resampled to as many
    as they are: their weights are equal again. `tau` prunes nothing.
    """
    infer = setting.infer
    tree = Tree(question, setting)
    wanted: list[tuple[Twig, int]] = [(tree.root, infer.k)]
    done: list[Twig] = []
    votes: list[float] = []
    while wanted and tree.affordable():
        grown = yield from tree.continued(wanted)
        weights = step_weights(
            [branch.log_confidences[-1] if branch.log_confidences else 0.0 for branch in grown]
        )
        going_on: list[tuple[Twig, float]] = []
        for branch, weight in zip(grown, weights, strict=True):
            if branch.is_final:
                done.append(branch)
                votes.append(weight * len(grown))
            elif len(branch.log_confidences) >= infer.max_steps:
                tree.spent.too_long += 1
            else:
                going_on.append((branch, weight))
        wanted = _resampled(going_on, _offset(question, setting, tree.spent.depth)) if going_on else []
        tree.spent.resampled += len(going_on) - len(wanted)
        tree.show([branch for branch, _ in wanted], done)
    tree.spent.out_of_tokens += sum(n for _, n in wanted)
    return _voted(tree, done, votes, setting.equal(question.answer_type), infer.length_normalised)


def deepconf_online(question: Question, setting: Setting) -> Search:
    """DeepConf online (arXiv 2508.15260): a sample is aborted at the first step below the warm-up's threshold.

    The groups whose lowest confidence counts are steps here, not windows of tokens: after each step the engine is
    asked for no more of that sample. `warm_up` samples are drawn whole; the threshold is what the share
    `deepconf_keep` of them reaches with their least confident step. The others follow one by one, until an answer has
    the share `threshold` of the votes, which weigh as much as the sample's least confident step.
    """
    infer = setting.infer
    tree, equal = Tree(question, setting), setting.equal(question.answer_type)
    n_drawn = min(infer.warm_up, infer.k)
    done = yield from _to_their_ends(tree, n_drawn, -inf, infer.max_steps)
    least = least_of_kept([_lowest(branch) for branch in done], infer.deepconf_keep) if done else -inf
    done = [branch for branch in done if _lowest(branch) >= least]
    while n_drawn < infer.k and tree.affordable() and _share(done, equal) < infer.threshold:
        done += yield from _to_their_ends(tree, 1, least, infer.max_steps)
        n_drawn += 1
    tree.show([], done)
    return _voted(tree, done, [_vote_of(branch) for branch in done], equal, infer.length_normalised)


def _to_their_ends(tree: Tree, n: int, least: float, max_steps: int) -> Paths:
    """Those of `n` new samples that come to an answer, with no step whose log confidence is below `least`."""
    wanted, done = [(tree.root, n)], list[Twig]()
    while wanted and tree.affordable():
        grown = yield from tree.continued(wanted)
        sure = [branch for branch in grown if _lowest(branch) >= least]
        tree.spent.aborted += len(grown) - len(sure)
        done += [branch for branch in sure if branch.is_final]
        going_on = [branch for branch in sure if not branch.is_final]
        short = [branch for branch in going_on if len(branch.log_confidences) < max_steps]
        tree.spent.too_long += len(going_on) - len(short)
        wanted = [(branch, 1) for branch in short]
    tree.spent.out_of_tokens += sum(n for _, n in wanted)
    return done


def _resampled(weighted: Sequence[tuple[Twig, float]], offset: float) -> list[tuple[Twig, int]]:
    counts = systematic([weight for _, weight in weighted], len(weighted), offset)
    return [(branch, n) for (branch, _), n in zip(weighted, counts, strict=True) if n]


def _offset(question: Question, setting: Setting, depth: int) -> float:
    """In [0, 1), the question's own for each level."""
    return stream_seed(setting.sampling.seed, f"{question.text}/{depth}") / 2**48


def _lowest(branch: Twig) -> float:
    """The log confidence of its least confident step; 0 without steps."""
    return min(branch.log_confidences, default=0.0)


def _vote_of(branch: Twig) -> float:
    return exp(_lowest(branch))


def _share(done: Sequence[Twig], equal: Equal) -> float:
    """The leading answer's share of the votes; 0 without votes."""
    tallies = _tallies(done, [_vote_of(branch) for branch in done], equal)
    total = sum(tally.weight for tally in tallies)
    return tallies[0].weight / total if total else 0.0


def _tallies(done: Sequence[Twig], votes: Sequence[float], equal: Equal) -> list[Tally]:
    return vote([branch.data.answer for branch in done], votes, equal)


def _voted(
    tree: Tree, done: Sequence[Twig], votes: Sequence[float], equal: Equal, length_normalised: bool
) -> Result:
    """The answer with the most votes, shown by the most confident path to it."""
    tallies = _tallies(done, votes, equal)
    if not tallies:
        return tree.result([])
    best = max(tallies[0].members, key=lambda i: (done[i].log_cumulative(length_normalised), -i))
    return tree.result(done, done[best])


PARTICLE = Strategy(particle, "tree", by_confidence=True)
DEEPCONF_ONLINE = Strategy(deepconf_online, "tree", by_confidence=True)
