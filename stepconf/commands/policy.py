"""From pairs to a better policy, what a policy answers, and whether its confidence is honest.

Each command takes a checked recipe, imports late, and calls one function.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepconf.commands.command import command, typed_options
from stepconf.commands.options import Json, Opened, Run, names_of, place_option
from stepconf.errors import StepconfError

if TYPE_CHECKING:
    from stepconf.recipe import Recipe

CONTINUED = "Folder or URL; the same command again continues it."


@command(
    *("model", "train.objective", "loop.rounds"),
    example=(
        "stepconf train runs/gsm8k --model Qwen/Qwen2.5-1.5B-Instruct --out runs/gsm8k-dpo",
        "stepconf train --recipe recipes/smollm2-135m/rounds.yaml --out runs/rounds",
    ),
)
def train(
    ctx: typer.Context,
    out: Annotated[Path, place_option(CONTINUED)],
    recipe: "Recipe",
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN|PAIRS",
            parser=str,
            help="A run, or a Parquet file of pairs; or a URL. Without: rounds.",
        ),
        Opened("input"),
    ] = None,
) -> None:
    """Optimise a model: DPO, SFT, RLOO and others, or rounds.

    More steps and answers right: dpo on pairs of steps; train.nll_weight=0 is the paper's. Without pairs: step-kto, or
    pure, by the worst step of each sample. From outcomes alone: rloo, or grpo (less over-confident with
    train.divide_by_std=false). Entropy may rank steps worse after training: calibrate anew.

    A ranking by entropy: sft on the run's right solutions as a last stage, which may cost answers, with
    --set "train.stages=[{objective: dpo}, {objective: sft, learning_rate: 5.0e-6}]".

    Without RUN: rounds of sampling, pairs and training, each measured on held-out problems (keys problems and loop
    of the recipe; see recipes/). Several GPUs: torchrun --nproc-per-node 8 -m stepconf train RUN ...
    """
    if source is not None and ctx.params["rounds"] is not None:  # a recipe's file may say it
        raise StepconfError(
            "a run and --rounds are both given.", "Rounds make runs of their own: leave RUN out."
        )
    if not recipe.model:
        raise StepconfError("no model is named.", "Add --model NAME: a Hub id, a local folder, or demo.")
    if source is None:
        from stepconf.rounds import train_rounds
        from stepconf.stores.opening import writer
        from stepconf.ui.progress import LoopProgress
        from stepconf.ui.training import show_rounds

        with writer(out), LoopProgress() as progress:
            measured = train_rounds(recipe, out, progress.announce, progress.tick, progress.report)
        show_rounds(measured, out)
        return
    from stepconf.trainer import train as run_train
    from stepconf.ui.progress import TrainProgress
    from stepconf.ui.training import show_training

    with TrainProgress() as report:
        summary = run_train(source, recipe, out, report)
    show_training(summary, out)


@command(
    *("model", "infer.strategy", "infer.k", "infer.tau", "infer.max_steps", "sampling.max_tokens"),
    *("sampling.temperature", "sampling.seed", "engine.name", "reasoning", "problems.limit"),
    example=(
        'stepconf infer "What is 17 * 23?" --model Qwen/Qwen2.5-1.5B-Instruct --k 8',
        "stepconf infer questions.jsonl --model runs/gsm8k-dpo/model --strategy self-consistency --out answers.jsonl",
    ),
)
def infer(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION|FILE", help="A question, or a file of them, or its URL.")
    ],
    recipe: "Recipe",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON lines, and nothing else.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", parser=str, help="FILE.jsonl or FILE.parquet, or a URL."),
        Opened("file"),
    ] = None,
) -> None:
    """Answer questions by tree search (CaT) or another strategy.

    \b
    one solution:              greedy, cot
    a vote:                    self-consistency, dipt
    a vote by confidence:      cisc, deepconf, best-of-n
    a vote for fewer tokens:   adaptive, adaptive-k, esc, cges
    greedy, a vote if unsure:  gate
    unsure samples aborted:    deepconf-online
    step by step:              cat, particle, beam
    """
    from stepconf.evaluation.infer import infer as run_infer
    from stepconf.evaluation.infer_view import TreeView, show

    with TreeView() as view:
        answered = run_infer(recipe, question, out, view.grow, view.done)
    if json_:
        for row in answered.rows:
            typer.echo(json.dumps(row))
    else:
        show(answered.results, answered.clock)


@command(
    *(
        "model",
        "problems.limit",
        "infer.k",
        "infer.tau",
        "sampling.max_tokens",
        "sampling.seed",
        "engine.name",
    ),
    example=(
        "stepconf evaluate --benchmark gsm8k,math500 --strategy greedy,cat --model Qwen/Qwen3-8B --out runs/before",
        "stepconf evaluate --compare runs/before runs/after",
    ),
)
def evaluate(
    *,
    ctx: typer.Context,
    benchmark: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Comma-separated: math500, gsm8k@FILE, FILE, reasoning-gym:TASK, ..."
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="STRATEGIES", help="Comma-separated; see infer (default: the recipe's, else greedy)."
        ),
    ] = None,
    out: Annotated[Path | None, place_option(CONTINUED), Opened("folder")] = None,
    recipe: "Recipe",
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Two folders of evaluate, paired by problem; nothing is answered."),
        Opened("input"),
    ] = None,
    json_: Json = False,
) -> None:
    """Answer benchmarks: accuracy, cost, strategies in pairs.

    With --compare A B: two models on the same problems, from what evaluate has written for each.
    """
    if compare is not None:
        _check_compared(typed_options(ctx))
        first, second = map(Path, compare)
        _compare(first, second, out, json_)
        return
    if benchmark is None or out is None:
        missing = "--benchmark" if benchmark is None else "--out"
        raise StepconfError(
            f"{missing} is missing.", "Type: stepconf evaluate --benchmark gsm8k --out DIR ..."
        )
    if strategy is None:
        strategy = recipe.infer.strategy if "strategy" in recipe.infer.model_fields_set else "greedy"
    from stepconf.evaluation.evaluate import evaluate as run_evaluate
    from stepconf.evaluation.evaluate_view import render
    from stepconf.ui.console import output, say
    from stepconf.ui.progress import StageProgress

    with StageProgress() as tick:
        report = run_evaluate(recipe, names_of(benchmark), names_of(strategy), out, tick)
    if json_:
        typer.echo(json.dumps(report, indent=1))
        return
    for table in render(report):
        output.print(table)
    place = out
    files = f"{place}/report.json, {place}/answers/, {place}/accuracy-tokens.svg and .png"
    say(f"Files: {files}")


def _check_compared(typed: list[str]) -> None:
    """Raise StepconfError where an option beside --compare would be ignored."""
    if ignored := [one for one in typed if one not in ("--compare", "--out", "--json")]:
        raise StepconfError(
            f"{ignored[0]} does nothing with --compare, which answers nothing.",
            f"Leave out {' '.join(ignored)}.",
        )


def _compare(first: Path, second: Path, out: Path | None, json_: bool) -> None:
    from stepconf.evaluation.compare import compare
    from stepconf.evaluation.evaluate_view import render_comparison
    from stepconf.ui.console import output, say

    found = compare(first, second, out)
    if json_:
        typer.echo(json.dumps(found, indent=1))
        return
    output.print(render_comparison(found))
    if out is not None:
        say(f"File: {out}/comparison.json")


@command(example="stepconf calibrate runs/after --before runs/gsm8k --out runs/calibration")
def calibrate(
    run: Run,
    before: Annotated[
        Path | None,
        place_option("A run of the model before training: the change, with intervals.", "--before", "RUN"),
        Opened("run"),
    ] = None,
    out: Annotated[Path | None, place_option("For the figures (default: RUN/calibration).")] = None,
    resamples: Annotated[int, typer.Option(metavar="N", min=1, help="Bootstrap resamples.")] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of resamples and the post-hoc split.")] = 0,
    top_k: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Also the entropy of the K likeliest; runs the model."),
    ] = None,
    signal: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE:NAME", help="A signal of your own beside the others. Repeatable."),
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=str, help="Fit P(right) of steps and answers; write it there."),
        Opened("file"),
    ] = None,
    fit_signals: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Comma-separated: what to fit on (default: all with values)."),
    ] = None,
    branches: Annotated[bool, typer.Option("--branches", help="The steps of branches too.")] = False,
    json_: Json = False,
) -> None:
    """Is a run's confidence honest? ECE, Brier, AUROC, signals.

    Steps and answers, every signal side by side, post-hoc calibration, figures. The run's steps must be scored and
    labelled. With --fit FILE: a fitted confidence, which --set confidence=FILE uses elsewhere.
    """
    if fit is None and fit_signals is not None:
        raise StepconfError("--fit-signals is given without --fit.", "Add --fit confidence.json")
    from stepconf.run.tables import check_is_run
    from stepconf.stores.opening import writer

    for one in (run, before):
        if one is not None:
            check_is_run(one)
    from stepconf.calibration.calibrate import Fit
    from stepconf.calibration.calibrate import calibrate as run_calibrate
    from stepconf.kinds import SIGNALS
    from stepconf.ui.progress import StageProgress

    own = [SIGNALS.load(name) for name in signal or ()]
    folder = out or run / "calibration"
    fitting = Fit(fit, names_of(fit_signals) if fit_signals else None) if fit else None
    with writer(folder), StageProgress() as tick:
        report = run_calibrate(run, before, folder, resamples, seed, tick, top_k, own, fitting, branches)
    if json_:
        typer.echo(json.dumps(report, indent=1))
    else:
        _show_calibration(report, folder, fit)


def _show_calibration(report: dict[str, Any], folder: Path, fit: Path | None) -> None:
    from stepconf.calibration.view import render
    from stepconf.ui.console import output, say

    for part in render(report):
        output.print(part)
    say(f"Files: {folder}/calibration.json, {folder}/*.svg, *.png")
    if fit is not None:
        say(f"Fitted confidence: {fit}. Use it: --set confidence={fit}")


@command(
    *("model", "infer.strategy", "infer.k", "infer.tau", "sampling.max_tokens", "engine.name"),
    *("serve.host", "serve.port", "serve.insecure"),
    example="stepconf serve --model runs/gsm8k-dpo/model --strategy cat --port 8001",
)
def serve(recipe: "Recipe") -> None:
    """Answer OpenAI clients, with every step's confidence.

    A request chooses with extra_body={"strategy": "cat", "k": 10, "tau": 0.01}; what it leaves open is as
    given here. Limits are the keys serve.* of the recipe.
    """
    from stepconf.serving.serve import serve as run_serve
    from stepconf.ui.console import say

    run_serve(recipe, lambda url, name: say(f"Serving {name} at {url}"))
