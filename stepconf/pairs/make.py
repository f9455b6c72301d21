"""`stepconf pairs`: preference pairs out of a run.

Problem by problem: a strategy of `core.pairs` makes pairs of its solutions; they are capped, and split into
train and validation by problem. All shards become part of the run together, at the end: a run has all of its
pairs or none. Killed before that, the older pairs stand.
"""

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stepconf.core.pairs.select import by_split, unique
from stepconf.core.pairs.steps import (
    NO_CORRECTION,
    NO_RIVAL,
    Encode,
    StepRule,
    caspo,
    step_dpo,
    step_outcomes,
)
from stepconf.core.pairs.traces import Draft, Place, Trace, ids_of, to_bytes, to_pair
from stepconf.core.pairs.trajectories import dpo_vp, pcpo
from stepconf.demo_model import resolve_model
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError
from stepconf.pairs.by_columns import make_by_columns
from stepconf.pairs.tally import Tally
from stepconf.pairs.traces import whole_problems
from stepconf.recipe import PairsRecipe, Recipe, recipe_of
from stepconf.run.events import Tick
from stepconf.run.parts import PAIRS
from stepconf.run.shards import Run
from stepconf.run.summary import confidence_quantile, write_summary
from stepconf.run.tables import pairs_manifest, read_manifests, read_metadata, read_recipe

if TYPE_CHECKING:
    from stepconf.pairs.candidates import Part


def make_pairs(
    path: Path, options: PairsRecipe, tick: Tick, trust_remote_code: bool = False
) -> dict[str, Any]:
    """Make the run's pairs anew and return its summary with them.

    `trust_remote_code`: run Python code that the run's model brings.

    Raises:
        StepconfError: the folder is not a run, or has no scored steps; candidates are asked for and the
            model cannot be loaded, or has another tokenizer.
    """
    started = time.perf_counter()
    recipe, metadata = read_recipe(path), read_metadata(path)
    if "tokenizer" not in metadata:
        raise StepconfError(
            f"{path} has no scored tokens, and pairs are made of exact tokens.",
            f"Type: stepconf score {path}/solutions --model MODEL --out ANOTHER, or stepconf generate",
        )
    tau = cache(partial(_tau, path, options))
    policy = _policy(recipe, metadata, trust_remote_code)
    model = resolve_model(policy.model)
    tokenizer = Tokenizer(model, policy.model_revision, metadata["tokenizer"], trust_remote_code)
    if tokenizer.digest != metadata["tokenizer"]:
        raise StepconfError(
            f"{policy.model!r} has another tokenizer than the run's tokens, so it cannot read them.",
            "Put the model back as it was when the run was made.",
        )
    with Run(path, recipe) as run:
        run.metadata = metadata
        total = sum(m["solutions"] for m in run.manifests())
        tick("pairs", -total)
        tally = Tally(options)
        if options.strategy in ("caspo", "step-dpo") and not options.candidates:
            make_by_columns(run, options, tau, tokenizer, tally, tick)
        else:
            rule = _rule(options, tau(), lambda text: to_bytes(tokenizer.encode(text)))
            _make_by_rows(run, options, _ForRows(rule, policy, tokenizer), tally, tick)
        run.drop_staged(tally.balance())
        facts = {"tau": tau(), "options": options.model_dump(), "solutions": total, **tally.facts()}
        run.commit_pairs(facts | {"seconds": {"pairs": round(time.perf_counter() - started, 3)}})
        return write_summary(run, same_steps=True)


class _ForRows(NamedTuple):
    """What pairs are made with, row by row.

    `rule`: the strategy, where it pairs steps; `policy`: the recipe of the model.
    """

    rule: StepRule | None
    policy: Recipe
    tokenizer: Tokenizer


def _make_by_rows(run: Run, options: PairsRecipe, means: _ForRows, tally: Tally, tick: Tick) -> None:
    """Any strategy, with candidates or without; the rows of step pairs are those of `make_by_columns`."""
    from stepconf.pairs.candidates import Part  # with engines and verifiers, of which columns need nothing

    prompt_text = _prompt_text(means.tokenizer)

    def add(part: Part) -> None:
        drafts = unique(_drafts(part, means.rule, options, tally.drops), tally.drops)
        made = (to_pair(draft, prompt_text, options.round) for draft in drafts)
        for split, own in by_split(tally.kept(made), options.validation).items():
            tally.add_rows(split, own)
            run.stage_pairs(f"{split}-{part.name}", own)
        tick("pairs", len(part.traces))
        for trace in part.traces:
            trace.places.clear()  # which refer to the trace: so ends the cycle

    parts: Iterator[Part] = (Part(*one) for one in whole_problems(run.path, options.strategy == "pcpo"))
    if options.candidates and means.rule is not None:
        _add_with_candidates(parts, means.rule, means.policy, options, tally.candidates, add)
    else:
        for part in _uncollected(parts):
            add(part)


def has_pairs(path: Path, options: PairsRecipe | None) -> bool:
    """Whether the run holds pairs made of all of it, with these options (None: with any)."""
    found = pairs_manifest(path)
    if found is None or (options is not None and found["options"] != options.model_dump()):
        return False
    return bool(
        found["solutions"] == sum(m["solutions"] for m in read_manifests(path) if m["chunk"] != PAIRS)
    )


def _tau(path: Path, options: PairsRecipe) -> float | None:
    if options.strategy != "caspo":
        return None
    return options.tau if options.tau is not None else confidence_quantile(path, options.tau_quantile)


def _policy(run: dict[str, Any], metadata: dict[str, str], trust_remote_code: bool) -> Recipe:
    """The recipe of the run's own model; a run that `verify` made out of another names none itself."""
    recipe = recipe_of(run, trust_remote_code)
    if recipe.model:
        return recipe
    engine = recipe.engine.model_copy(update={"name": metadata["engine"]})
    model = {"model": metadata["model"], "model_revision": metadata["model_revision"] or None}
    return recipe.model_copy(update={**model, "engine": engine})


def _rule(options: PairsRecipe, tau: float | None, encode: Encode) -> StepRule | None:
    """The strategy, where it pairs steps."""
    if tau is not None:
        return caspo(tau, options.after_error, encode)
    return step_dpo(encode) if options.strategy == "step-dpo" else None


def _uncollected(parts: "Iterator[Part]") -> "Iterator[Part]":
    """The parts, with the collector of cycles at rest: it would walk a million steps again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield from parts
    finally:
        if was_on:
            gc.enable()


def _drafts(
    part: "Part", rule: StepRule | None, options: PairsRecipe, dropped: Counter[str]
) -> Iterator[Draft]:
    if rule is not None:
        for _, outcome in step_outcomes(part.traces, rule, part.sampled):
            if isinstance(outcome, str):
                dropped[outcome] += 1
            else:
                yield outcome
    elif options.strategy == "pcpo":
        yield from pcpo(part.traces, dropped)
    else:
        yield from dpo_vp(part.traces, options.seed, dropped)


def _add_with_candidates(
    parts: "Iterator[Part]",
    rule: StepRule,
    policy: Recipe,
    options: PairsRecipe,
    counts: Counter[str],
    add: Callable[["Part"], None],
) -> None:
    """The parts with candidates sampled where a step is without a pair for want of them.

    While the engine samples for a part, those before are judged and added.
    """
    from stepconf.pairs.candidates import judge_candidates, open_judges, sampled
    from stepconf.stages.models import open_engine
    from stepconf.stages.stream import overlapped

    def missing(part: "Part") -> list[Place]:
        outcomes = step_outcomes(part.traces, rule, {})
        return [place for place, outcome in outcomes if outcome in (NO_RIVAL, NO_CORRECTION)]

    with closing(open_engine(policy)) as engine, open_judges(policy) as verifiers:
        overlapped(
            sampled(parts, missing, engine, policy, options, counts),
            lambda one: judge_candidates(one, policy, verifiers, counts),
            lambda one: add(one.part),
            beside=1,
        )


def _prompt_text(tokenizer: Tokenizer) -> Any:
    @lru_cache(maxsize=4096)
    def decode(ids: bytes) -> str:
        return tokenizer.decode(ids_of(ids))

    def text(trace: Trace) -> str:
        return decode(trace.prompt_ids)

    return text
