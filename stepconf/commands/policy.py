"""From pairs to a better policy, what a policy answers, and whether its confidence is honest.

Each command parses its options into a recipe, imports late, and calls one function.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stepconf.commands.options import EngineName, Limit, Model, RecipeFile, Seed, Sets, names_of, run_argument
from stepconf.errors import StepconfError
from stepconf.run.copies import local_file, local_place, shown


def train(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            parser=local_place,
            help="Folder or URL; the same command again continues it.",
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|PAIRS]", help="A run, or a Parquet file of pairs; or a URL. Without: rounds."
        ),
    ] = None,
    model: Model = None,
    objective: Annotated[str | None, typer.Option(help="dpo (default) or sft.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of sampling, pairs and training.")] = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Optimise a model: step-level DPO, SFT, or whole rounds.

    With RUN: DPO on its pairs, or SFT on its right solutions. Without: rounds of sampling, pairs and training,
    each measured on held-out problems (keys problems and loop of the recipe; see recipes/).
    Several GPUs: torchrun --nproc-per-node 8 -m stepconf train RUN ...
    """
    from stepconf.recipe import load_recipe

    options = {"model": model, "train.objective": objective, "loop.rounds": rounds}
    loaded = load_recipe(recipe, options, sets)
    if source is not None and rounds is not None:
        raise StepconfError(
            "a run and --rounds are both given.", "Rounds make runs of their own: leave RUN out."
        )
    if not loaded.model:
        raise StepconfError("no model is named.", "Add --model NAME: a Hub id, a local folder, or demo.")
    if source is None:
        from stepconf.rounds import train_rounds
        from stepconf.run.folders import mirrored
        from stepconf.ui import LoopProgress, show_rounds

        with mirrored(out), LoopProgress() as progress:
            measured = train_rounds(loaded, out, progress.announce, progress.tick, progress.report)
        show_rounds(measured, shown(out))
        return
    from stepconf.run.folders import located
    from stepconf.train import train as run_train
    from stepconf.ui import TrainProgress, show_training

    run = Path(located(source))
    with TrainProgress() as report:
        summary = run_train(run, loaded, out, report)
    show_training(summary, shown(out))


def infer(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION|FILE", help="A question, or a file of them, or its URL.")
    ],
    model: Model = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="cat (default), greedy, cot, self-consistency, dipt, best-of-n, deepconf or beam."),
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", help="Samples, or candidates and branches of a tree.")
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="Cumulative confidence below which a branch ends.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Most steps of a branch.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest solution in tokens.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON lines, and nothing else.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", parser=local_file, help="FILE.jsonl or FILE.parquet, or a URL."
        ),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the samples and candidates.")] = None,
    seed: Seed = None,
    engine: EngineName = None,
    limit: Limit = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Answer questions by tree search (CaT) or another strategy."""
    from stepconf.recipe import load_recipe

    tree = {"strategy": strategy, "k": k, "tau": tau, "max_steps": max_steps}
    sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    options: dict[str, Any] = {f"infer.{name}": value for name, value in tree.items()}
    options |= {f"sampling.{name}": value for name, value in sampling.items()}
    own = {"model": model, "engine.name": engine, "problems.limit": limit}
    loaded = load_recipe(recipe, options | own, sets)
    from stepconf.evaluation.infer import infer as run_infer
    from stepconf.evaluation.infer_view import TreeView, show
    from stepconf.run.folders import sent

    with sent(out), TreeView() as view:
        answered = run_infer(loaded, question, out, view.grow, view.done)
    if json_:
        for row in answered.rows:
            typer.echo(json.dumps(row))
    else:
        show(answered.results, answered.clock)


def evaluate(
    benchmark: Annotated[
        str | None, typer.Option(help="Comma-separated: math500, gsm8k@FILE, FILE, reasoning-gym:TASK, ...")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            parser=local_place,
            help="Folder or URL; the same command again continues it.",
        ),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Two folders of evaluate, paired by problem; nothing is answered."),
    ] = None,
    strategy: Annotated[str, typer.Option(help="Comma-separated; see infer.")] = "greedy",
    model: Model = None,
    limit: Limit = None,
    k: Annotated[
        int | None, typer.Option("--k", help="Samples, or candidates and branches of a tree.")
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="Cumulative confidence below which a branch ends.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest solution in tokens.")] = None,
    seed: Seed = None,
    engine: EngineName = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")
    ] = False,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Answer benchmarks: accuracy, cost, strategies in pairs.

    With --compare A B: two models on the same problems, from what evaluate has written for each.
    """
    if compare is not None:
        _compare(*compare, out, json_)
        return
    if benchmark is None or out is None:
        missing = "--benchmark" if benchmark is None else "--out"
        raise StepconfError(
            f"{missing} is missing.", "Type: stepconf evaluate --benchmark gsm8k --out DIR ..."
        )
    from stepconf.recipe import load_recipe

    options = {
        "model": model,
        "problems.limit": limit,
        "infer.k": k,
        "infer.tau": tau,
        "sampling.max_tokens": max_tokens,
        "sampling.seed": seed,
        "engine.name": engine,
    }
    loaded = load_recipe(recipe, options, sets)
    from stepconf.evaluation.evaluate import evaluate as run_evaluate
    from stepconf.evaluation.evaluate_view import render
    from stepconf.run.folders import mirrored
    from stepconf.ui import StageProgress, output, say

    with mirrored(out), StageProgress() as tick:
        report = run_evaluate(loaded, names_of(benchmark) or [], names_of(strategy) or [], out, tick)
    if json_:
        typer.echo(json.dumps(report, indent=1))
        return
    for table in render(report):
        output.print(table)
    place = shown(out)
    files = f"{place}/report.json, {place}/answers/, {place}/accuracy-tokens.svg and .png"
    say(f"Files: {files}")


def _compare(first: str, second: str, out: Path | None, json_: bool) -> None:
    from stepconf.evaluation.compare import compare
    from stepconf.evaluation.evaluate_view import render_comparison
    from stepconf.run.folders import fetch_folder, mirrored
    from stepconf.ui import output, say

    with mirrored(out):
        folders = [fetch_folder(local_place(folder)) for folder in (first, second)]
        found = compare(folders[0], folders[1], out)
    if json_:
        typer.echo(json.dumps(found, indent=1))
        return
    output.print(render_comparison(found))
    if out is not None:
        say(f"File: {shown(out)}/comparison.json")


def calibrate(
    run: Annotated[Path, run_argument("A run folder or URL, with scored and labelled steps.")],
    before: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            parser=local_place,
            help="A run of the model before training: the change, with intervals.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            parser=local_place,
            help="Folder of calibration.json and figures: RUN/calibration.",
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of the problems.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples and of the post-hoc split.")] = 0,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Beside exact entropy, that of the K likeliest tokens; runs the model."),
    ] = None,
    signal: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE:NAME", help="A signal of your own beside the others. Repeatable."),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")
    ] = False,
) -> None:
    """Is a run's confidence honest? ECE, Brier, AUROC, signals.

    Steps and answers, every signal side by side, post-hoc calibration, figures.
    """
    from stepconf.run.folders import fetch_run, mirrored
    from stepconf.run.tables import check_is_run

    for folder in (run, before):
        if folder is not None:
            check_is_run(fetch_run(folder))
    from stepconf import kinds
    from stepconf.calibration.calibrate import calibrate as run_calibrate
    from stepconf.calibration.view import render
    from stepconf.ui import StageProgress, output, say

    own = [kinds.signal(name) for name in signal or ()]
    folder = out or run / "calibration"
    with mirrored(folder), StageProgress() as tick:
        report = run_calibrate(run, before, folder, resamples, seed, tick, top_k, own)
    if json_:
        typer.echo(json.dumps(report, indent=1))
        return
    for part in render(report):
        output.print(part)
    place = shown(folder)
    say(f"Files: {place}/calibration.json, {place}/*.svg, *.png")


def serve(
    model: Model = None,
    strategy: Annotated[str | None, typer.Option(help="Where a request names none; see infer.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at (default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (default 8000); 0 takes a free one.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Answer other machines without a key (serve.api_key_env).")
    ] = False,
    k: Annotated[
        int | None, typer.Option("--k", help="Samples, or candidates and branches of a tree.")
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="Cumulative confidence below which a branch ends.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest solution in tokens.")] = None,
    engine: EngineName = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Answer OpenAI clients, with every step's confidence.

    A request chooses with extra_body={"strategy": "cat", "k": 10, "tau": 0.01}; what it leaves open is as
    given here. Limits are the keys serve.* of the recipe.
    """
    from stepconf.recipe import load_recipe

    options = {
        "model": model,
        "infer.strategy": strategy,
        "infer.k": k,
        "infer.tau": tau,
        "sampling.max_tokens": max_tokens,
        "engine.name": engine,
        "serve.host": host,
        "serve.port": port,
        "serve.insecure": insecure or None,
    }
    loaded = load_recipe(recipe, options, sets)
    from stepconf.serving.serve import serve as run_serve
    from stepconf.ui import say

    run_serve(loaded, lambda url, name: say(f"Serving {name} at {url}"))
