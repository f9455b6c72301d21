"""From problems or given solutions to labelled steps and pairs.

Each command takes a checked recipe, imports late, and calls one function.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stepconf.commands.command import command, typed_options
from stepconf.commands.options import Json, LogJson, Opened, Out, Repair, Run, SolutionFile, place_option
from stepconf.errors import StepconfError

if TYPE_CHECKING:
    from stepconf.recipe import Recipe

LABELS = ("branch.where", "verify.verifiers")
PROBLEM_COLUMNS = ("problems.problem_column", "problems.answer_column", "problems.id_column")
SOLUTION_COLUMNS = (*PROBLEM_COLUMNS, "problems.solution_column")


@command(
    *("problems.source", "model", "problems.limit", "sampling.samples", "sampling.temperature"),
    *(
        "sampling.max_tokens",
        "sampling.seed",
        "engine.name",
        "reasoning",
        *LABELS,
        *PROBLEM_COLUMNS,
        "ray.address",
    ),
    example="stepconf generate --problems gsm8k --model Qwen/Qwen2.5-1.5B-Instruct --samples 8 --out runs/gsm8k",
)
def generate(out: Out, recipe: "Recipe", repair: Repair = False, log_json: LogJson = None) -> None:
    """Sample solutions, cut them into steps, score, branch and verify."""
    _run_stage("generate", recipe, out, repair, log_json)


@command(
    *("model", "engine.name", "reasoning", *LABELS, "problems.limit", *SOLUTION_COLUMNS),
    defaults={"verify.verifiers": []},
    example="stepconf segment solutions.jsonl --solution-column response --out runs/steps",
)
def segment(
    file: SolutionFile, out: Out, recipe: "Recipe", repair: Repair = False, log_json: LogJson = None
) -> None:
    """Cut given solutions into steps."""
    _run_stage("segment", recipe, out, repair, log_json, file)


@command(
    *("model", "engine.name", "reasoning", *LABELS, "problems.limit", *SOLUTION_COLUMNS, "ray.address"),
    example="stepconf score solutions.jsonl --model Qwen/Qwen2.5-1.5B-Instruct --out runs/scored",
)
def score(
    file: SolutionFile, out: Out, recipe: "Recipe", repair: Repair = False, log_json: LogJson = None
) -> None:
    """Exact token entropies of given solutions under a model."""
    _run_stage("score", recipe, out, repair, log_json, file)


@command(
    *(
        "verify.verifiers",
        "verify.policy",
        "branch.where",
        "model",
        "engine.name",
        "reasoning",
        "problems.limit",
    ),
    *(*SOLUTION_COLUMNS, "ray.address"),
    example=(
        "stepconf verify solutions.jsonl --verify final,symbolic --out runs/verified --report",
        "stepconf verify runs/gsm8k --verify critic --set verify.critic.model=Qwen/Qwen3-8B --out runs/critic",
    ),
)
def verify(
    file: Annotated[str, typer.Argument(metavar="FILE|RUN", help="File of solutions, or a run; or a URL.")],
    out: Out,
    recipe: "Recipe",
    repair: Repair = False,
    log_json: LogJson = None,
    report: Annotated[
        bool, typer.Option("--report", help="Coverage, cost, agreement, and the steps in dispute.")
    ] = False,
) -> None:
    """Verify given solutions, or a run; it keeps its scores."""
    _run_stage("verify", recipe, out, repair, log_json, file)
    if report:
        from stepconf.labels.agreement import agreement_of, render
        from stepconf.ui.console import output

        for table in render(*agreement_of(out)):
            output.print(table)


@command(
    example=(
        "stepconf relabel runs/gsm8k --policy consensus",
        "stepconf relabel runs/gsm8k --noise 0.2 --seed 1",
    )
)
def relabel(
    run: Run,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="error-first, first-decided, consensus, majority, critic-first or symbolic-veto.",
        ),
    ] = None,
    noise: Annotated[
        float,
        typer.Option(metavar="RATE", help="Share of the labels to flip, to see what errors of labels do."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Which labels --noise flips.")] = 0,
) -> None:
    """Label a run's steps again from its verdicts; no verifier runs.

    Pairs made before are removed. Without --noise, labels that were flipped are as before.
    """
    from stepconf.core.noise import Noise
    from stepconf.labels.relabel import relabel as run_relabel
    from stepconf.ui.progress import StageProgress
    from stepconf.ui.summary import show_summary

    with StageProgress() as tick:
        summary = run_relabel(run, policy, tick, Noise(noise, seed))
    show_summary(summary, run)


@command(
    *("verify.verifiers", "branch.where", "model", "engine.name", "problems.limit"),
    defaults={"verify.verifiers": ["symbolic"]},
    example=(
        "stepconf audit --on processbench gsm8k.json",
        "stepconf audit --on processbench gsm8k.json --answers gsm8k --verify rollout --model Qwen/Qwen3-8B",
        "stepconf audit --on processbench gsm8k.json --verify critic --model Qwen/Qwen3-8B",
    ),
)
def audit(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            parser=str,
            help="JSON lines of ProcessBench or PRM800K, plain or gzipped; or a URL.",
        ),
        Opened("input"),
    ],
    on: Annotated[
        Literal["processbench", "prm800k"],
        typer.Option("--on", metavar="processbench|prm800k", help="Whose file it is."),
    ],
    recipe: "Recipe",
    answers: Annotated[
        str | None,
        typer.Option(metavar="SET|FILE|HUB_ID", help="Problems with gold answers, for final and rollout."),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure verifiers against people's step labels.

    ProcessBench's own metric, precision and recall of flagged steps with intervals, cost per verifier.
    """
    if not recipe.verify.verifiers:
        raise StepconfError("no verifier is named.", "Add --verify symbolic, say.")
    from stepconf.labels.audit import audit_file, render, warnings
    from stepconf.ui.console import output, say
    from stepconf.ui.progress import StageProgress

    with StageProgress(shown=not json_) as tick:
        report = audit_file(on, file, recipe, answers, tick)
    if json_:
        typer.echo(json.dumps(report.to_dict(), indent=1))
    else:
        output.print(render(report))
        for sentence in warnings(report):
            say(f"Warning: {sentence}", style="yellow")


@command(
    *("pairs.strategy", "pairs.tau"),
    example=(
        "stepconf pairs runs/gsm8k --strategy rstar --set pairs.margin=0.3",
        "stepconf pairs runs/gsm8k --export trl --out exports/trl",
    ),
)
def pairs(
    ctx: typer.Context,
    run: Run,
    recipe: "Recipe",
    export: Annotated[
        Literal["trl", "trl-stepwise", "step-kto", "openrlhf", "llamafactory", "axolotl"] | None,
        typer.Option(
            metavar="LIBRARY",
            help="Also write them for trl, openrlhf, llamafactory, axolotl; labelled steps: trl-stepwise, step-kto.",
        ),
    ] = None,
    out: Annotated[Path | None, place_option("New folder of the export, or URL."), Opened("folder")] = None,
    form: Annotated[
        Literal["step", "trajectory"],
        typer.Option(
            metavar="step|trajectory",
            help="Export steps, or steps continued to the end, which stock trainers need.",
        ),
    ] = "step",
    conversational: Annotated[
        bool, typer.Option("--conversational", help="Export messages, not rendered text.")
    ] = False,
) -> None:
    """Make preference pairs out of a run with scored steps, or export them.

    Both sides follow the same tokens: a run with branches (generate --branch) has far more of them. Older pairs are
    replaced. Margin, caps, balance and splits: --set pairs.KEY.

    With --export and no key of the recipe, the pairs that the run has are exported.
    """
    if (export is None) != (out is None):
        given, other = ("--out", "--export trl, say") if out else ("--export", "--out FOLDER")
        raise StepconfError(f"{given} is given alone.", f"Add {other}.")
    _check_export_options(typed_options(ctx), export)
    from stepconf.pairs.exports import STEPS, check_folder, export_pairs
    from stepconf.pairs.make import has_pairs, make_pairs
    from stepconf.ui.progress import StageProgress
    from stepconf.ui.summary import show_export, show_summary

    if out is not None:
        check_folder(out)
    options = recipe.pairs if recipe.model_fields_set else None
    if export is None or (export not in STEPS and not has_pairs(run, options)):
        with StageProgress() as tick:
            summary = make_pairs(run, recipe.pairs, tick, recipe.engine.trust_remote_code, recipe.model)
        show_summary(summary, run)
    if export is not None and out is not None:
        exported = export_pairs(run, export, out, form, conversational, recipe.pairs.validation, recipe.model)
        show_export(out, *exported)


def _check_export_options(typed: list[str], export: str | None) -> None:
    """Raise StepconfError where an option would be ignored."""
    from stepconf.pairs.exports import STEPS

    of_exports, of_pairs = {"--form", "--conversational"}, {"--strategy", "--tau"}
    if export is None and (ignored := [one for one in typed if one in of_exports]):
        raise StepconfError(
            f"{ignored[0]} is given without --export.",
            f"Add --export trl --out FOLDER, say, or leave out {' '.join(ignored)}.",
        )
    if export in STEPS and (ignored := [one for one in typed if one in of_exports | of_pairs]):
        raise StepconfError(
            f"{ignored[0]} does nothing with --export {export}, which is made of labelled steps, not of pairs.",
            f"Leave out {' '.join(ignored)}, or export the pairs: --export trl, say.",
        )


def _run_stage(
    stage: str,
    recipe: "Recipe",
    out: Path,
    repair: bool,
    log_json: Path | None,
    file: str | None = None,
) -> None:
    """Run a stage of the pipeline; `file` is what solutions are read from."""
    if file is not None:
        problems = recipe.problems.model_copy(update={"source": file})
        recipe = recipe.model_copy(update={"problems": problems})
    if not recipe.problems.source:
        raise StepconfError("no problems are named.", "Add --problems gsm8k, or a file, or a Hub id.")
    from stepconf import pipeline
    from stepconf.run.events import json_lines
    from stepconf.ui.progress import StageProgress
    from stepconf.ui.summary import show_summary

    with json_lines(log_json), StageProgress(shown=str(log_json) != "-") as tick:
        summary = getattr(pipeline, stage)(recipe, out, tick, repair=repair)
    show_summary(summary, out)
