"""`stepconf train`: examples of a run in (`examples.py`), an optimised model out.

OUT/model/                an ordinary checkpoint, to be used wherever a model is accepted
OUT/state/metrics.jsonl   one line an optimiser step
OUT/summary.json          what it was trained on, what was left out and why, the last metrics; by stage
OUT/state/                also the checkpoint to continue from, the reference log-probabilities
OUT/state/stage-N/        these three of each stage, where there are several

Where OUT lies at a URL, every checkpoint goes there when it is whole.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

from stepconf.core.documents import read_object
from stepconf.core.trees import Example
from stepconf.demo_model import resolve_model
from stepconf.engines.tokenizer import Tokenizer
from stepconf.errors import StepconfError
from stepconf.examples import ModelName, Reading, check_source, usable_examples
from stepconf.recipe import Recipe
from stepconf.run.new_folder import check_continued, visible
from stepconf.run.shards import write_atomically
from stepconf.run.tables import read_metadata
from stepconf.stores.opening import writer
from stepconf.stores.places import with_urls

Report = Callable[[dict[str, Any]], None]
_OF_STATE = re.compile(r"metrics\.jsonl|reference\.safetensors|(checkpoint|stage)-\d+")


def train(
    source: Path,
    recipe: Recipe,
    out: Path,
    report: Report,
    exclude: Set[str] = frozenset(),
    run_name: str | None = None,
) -> dict[str, Any]:
    """Optimise the recipe's model on a run; returns the summary that is written to OUT.

    Args:
        source: a run, or a file of pairs.
        recipe, out: its model and `train`; the folder.
        report: called with the metrics of every step.
        exclude: ids of problems that must not be learnt from, those that the model is measured on.
        run_name: what a tracker (`train.log_to`) calls it; None for OUT's own name.

    Raises:
        StepconfError: no usable example, a run of another tokenizer, an OUT that holds something else, and others.
    """
    if not recipe.model:
        raise StepconfError("no model is named.", "Add --model NAME: a Hub id, a local folder, or demo.")
    model, trust = resolve_model(recipe.model), recipe.engine.trust_remote_code
    check_source(source, recipe.train)
    may_write = partial(check_continued, out, "training", _is_training, [source, Path(model)])
    may_write()
    tokenizer = Tokenizer(model, recipe.model_revision, trust_remote_code=trust)
    _check_tokenizer(source, tokenizer)
    from stepconf.training.loop import optimise_stages
    from stepconf.training.models import context_of, identity_of_model, open_policy, save_policy
    from stepconf.training.ranks import join
    from stepconf.training.trackers import tracker

    ranks = join()
    policy = open_policy(model, recipe.model_revision, recipe.train, ranks, trust)
    context = context_of(policy)
    readings = _readings(source, recipe, tokenizer.eos_id)
    found = [usable_examples(one, min(one.recipe.max_length, context), exclude) for one in readings]
    examples = [own for own, _ in found]
    with writer(out, ranks.first, ranks.wait) as push:
        may_write()  # now the copy of a URL is as the URL
        # Before a tracker writes: with it the folder is known as a training's, should this be killed.
        (out / "state").mkdir(parents=True, exist_ok=True)
        with tracker(recipe.train.log_to if ranks.first else "none", out, run_name or out.name) as track:

            def tell(metrics: dict[str, Any]) -> None:
                if ranks.first:
                    report(metrics)
                    track(metrics)

            begun = identity_of_model(f"{recipe.model}@{recipe.model_revision or ''}", Path(model))
            metrics = optimise_stages(policy, examples, recipe.train, out / "state", begun, ranks, tell, push)
        save_policy(
            policy, model, recipe.model_revision, out / "model", recipe.train.save_dtype, ranks, trust
        )
        summary = _summary(recipe, out, found, metrics)
        if ranks.first:
            write_atomically(out / "summary.json", json.dumps(summary, indent=1).encode())
    return summary


def _readings(source: Path, recipe: Recipe, eos_id: int) -> list[Reading]:
    """What each stage reads; only the first begins with a policy that has a name."""
    first, *later = recipe.train.in_order()
    named = Reading(source, first, eos_id, ModelName(recipe.model, recipe.model_revision))
    return [named, *(Reading(source, stage, eos_id) for stage in later)]


def _is_training(folder: Path) -> bool:
    """Whether a training was begun in a folder: it has what one keeps to continue, or its summary, and is no run."""
    if (folder / "recipe.yaml").exists():
        return False
    state, summary = folder / "state", folder / "summary.json"
    if state.is_dir() and all(_OF_STATE.fullmatch(path.name) for path in visible(state)):
        return True
    try:
        return summary.is_file() and {"from", "last_step"} <= read_object(summary.read_bytes()).keys()
    except ValueError:
        return False


def _summary(
    recipe: Recipe,
    out: Path,
    found: Sequence[tuple[list[Example], "Counter[str]"]],
    metrics: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """What summary.json says; `found` and `metrics` by stage: examples, those left out, the last step."""
    of_stages = [
        {"objective": stage.objective, "examples": len(own), "dropped": dict(dropped), "last_step": last}
        for stage, (own, dropped), last in zip(recipe.train.in_order(), found, metrics, strict=True)
    ]
    return {
        "model": with_urls(str(out / "model")),
        "from": recipe.model,
        "examples": sum(len(own) for own, _ in found),
        "dropped": dict(sum((dropped for _, dropped in found), Counter())),
        "last_step": metrics[-1],
        "stages": of_stages,
        "recipe": recipe.train.model_dump(),
    }


def _check_tokenizer(source: Path, tokenizer: Tokenizer) -> None:
    made_with = read_metadata(source).get("tokenizer", "")
    if made_with and made_with != tokenizer.digest:
        raise StepconfError(
            f"{source} was made with another tokenizer ({made_with}, this model's is {tokenizer.digest}): its token "
            "ids mean something else to this model.",
            "Give the --model that made the run, or one that was trained from it; or make the run again with this one.",
        )
