"""From problems or given solutions to labelled steps and pairs.

Each command parses its options into a recipe, imports late, and calls one function.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stepconf.commands.options import (
    AnswerColumn,
    Branch,
    EngineName,
    IdColumn,
    Limit,
    LogJson,
    Model,
    Out,
    Policy,
    ProblemColumn,
    Ray,
    RecipeFile,
    Repair,
    Seed,
    Sets,
    SolutionColumn,
    SolutionFile,
    Verifiers,
    column_keys,
    names_of,
    places_of,
    run_argument,
)
from stepconf.errors import StepconfError
from stepconf.run.copies import local_place, shown


def generate(
    out: Out,
    problems: Annotated[
        str | None,
        typer.Option(help="gsm8k, math, ... | FILE | Hub id | reasoning-gym:TASK[?key=value]"),
    ] = None,
    model: Model = None,
    limit: Limit = None,
    samples: Annotated[int | None, typer.Option(help="Solutions per problem.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest solution in tokens.")] = None,
    seed: Seed = None,
    engine: EngineName = None,
    branch: Branch = None,
    verify: Verifiers = None,
    problem_column: ProblemColumn = None,
    answer_column: AnswerColumn = None,
    id_column: IdColumn = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
    ray: Ray = None,
    repair: Repair = False,
    log_json: LogJson = None,
) -> None:
    """Sample solutions, cut them into steps, score, branch and verify."""
    options = {
        "problems.source": problems,
        "model": model,
        "problems.limit": limit,
        "sampling.samples": samples,
        "sampling.temperature": temperature,
        "sampling.max_tokens": max_tokens,
        "sampling.seed": seed,
        "engine.name": engine,
        "branch.where": places_of(branch),
        "verify.verifiers": names_of(verify),
        "problems.problem_column": problem_column,
        "problems.answer_column": answer_column,
        "problems.id_column": id_column,
        "ray.address": ray,
    }
    _run_stage("generate", out, recipe, options, sets, repair, log_json)


def segment(
    file: SolutionFile,
    out: Out,
    verify: Verifiers = "",
    model: Model = None,
    engine: EngineName = None,
    branch: Branch = None,
    limit: Limit = None,
    problem_column: ProblemColumn = None,
    answer_column: AnswerColumn = None,
    solution_column: SolutionColumn = None,
    id_column: IdColumn = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
    repair: Repair = False,
    log_json: LogJson = None,
) -> None:
    """Cut given solutions into steps."""
    columns = column_keys(file, limit, problem_column, answer_column, solution_column, id_column)
    own = {
        "model": model,
        "engine.name": engine,
        "branch.where": places_of(branch),
        "verify.verifiers": names_of(verify),
    }
    _run_stage("segment", out, recipe, columns | own, sets, repair, log_json)


def score(
    file: SolutionFile,
    out: Out,
    model: Model = None,
    engine: EngineName = None,
    branch: Branch = None,
    verify: Verifiers = None,
    limit: Limit = None,
    problem_column: ProblemColumn = None,
    answer_column: AnswerColumn = None,
    solution_column: SolutionColumn = None,
    id_column: IdColumn = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
    ray: Ray = None,
    repair: Repair = False,
    log_json: LogJson = None,
) -> None:
    """Exact token entropies of given solutions under a model."""
    columns = column_keys(file, limit, problem_column, answer_column, solution_column, id_column)
    own = {
        "model": model,
        "engine.name": engine,
        "branch.where": places_of(branch),
        "verify.verifiers": names_of(verify),
        "ray.address": ray,
    }
    _run_stage("score", out, recipe, columns | own, sets, repair, log_json)


def verify(
    file: Annotated[str, typer.Argument(metavar="FILE|RUN", help="File of solutions, or a run; or a URL.")],
    out: Out,
    verify: Verifiers = None,
    limit: Limit = None,
    problem_column: ProblemColumn = None,
    answer_column: AnswerColumn = None,
    solution_column: SolutionColumn = None,
    id_column: IdColumn = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
    model: Model = None,
    engine: EngineName = None,
    branch: Branch = None,
    policy: Policy = None,
    ray: Ray = None,
    repair: Repair = False,
    log_json: LogJson = None,
    report: Annotated[
        bool, typer.Option("--report", help="Coverage, cost, agreement, and the steps in dispute.")
    ] = False,
) -> None:
    """Verify given solutions, or a run; it keeps its scores."""
    columns = column_keys(file, limit, problem_column, answer_column, solution_column, id_column)
    own = {
        "model": model,
        "engine.name": engine,
        "branch.where": places_of(branch),
        "verify.verifiers": names_of(verify),
        "verify.policy": policy,
        "ray.address": ray,
    }
    _run_stage("verify", out, recipe, columns | own, sets, repair, log_json)
    if report:
        from stepconf.labels.agreement import agreement_of, render
        from stepconf.ui import output

        for table in render(*agreement_of(out)):
            output.print(table)


def relabel(
    run: Annotated[Path, run_argument("A run folder or URL.")],
    policy: Annotated[
        str,
        typer.Option(help="error-first, first-decided, consensus, majority, critic-first or symbolic-veto."),
    ],
) -> None:
    """Label a run's steps anew; no verifier runs.

    Pairs made before are removed.
    """
    from stepconf.labels.relabel import relabel as run_relabel
    from stepconf.run.folders import fetch_run
    from stepconf.ui import StageProgress, show_summary

    fetch_run(run)
    with StageProgress() as tick:
        summary = run_relabel(run, policy, tick)
    show_summary(summary, shown(run))


def audit(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="JSON lines of ProcessBench or PRM800K, plain or gzipped; or a URL."
        ),
    ],
    on: Annotated[Literal["processbench", "prm800k"], typer.Option("--on", help="Whose file it is.")],
    verify: Annotated[str, typer.Option("--verify", help="Comma-separated verifiers.")] = "symbolic",
    answers: Annotated[
        str | None,
        typer.Option(metavar="SET|FILE", help="Problems with gold answers, for final and rollout."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
    limit: Limit = None,
    model: Model = None,
    engine: EngineName = None,
    branch: Branch = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Measure verifiers against people's step labels.

    ProcessBench's own metric, precision and recall of flagged steps with intervals, cost per verifier.
    """
    from stepconf.recipe import load_recipe

    options = {"verify.verifiers": names_of(verify), "branch.where": places_of(branch)}
    loaded = load_recipe(recipe, options | {"model": model, "engine.name": engine}, sets)
    if not loaded.verify.verifiers:
        raise StepconfError("no verifier is named.", "Add --verify symbolic, say.")
    from stepconf.labels.audit import audit_file, render
    from stepconf.run.folders import located
    from stepconf.ui import StageProgress, output

    with StageProgress(shown=not json_) as tick:
        report = audit_file(on, Path(located(file)), loaded, answers and located(answers), limit, tick)
    if json_:
        typer.echo(json.dumps(report.to_dict(), indent=1))
    else:
        output.print(render(report))


def pairs(
    run: Annotated[Path, run_argument("A run folder or URL, with scored steps.")],
    strategy: Annotated[
        str | None,
        typer.Option(
            help="caspo (default), step-dpo: by labels of steps; rstar, cgpo: by their outcomes; "
            "dpo-vp, pcpo: whole solutions."
        ),
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="caspo: confidence at or below which a correct step is uncertain.")
    ] = None,
    export: Annotated[
        Literal["trl", "trl-stepwise", "openrlhf", "llamafactory", "axolotl"] | None,
        typer.Option(help="Also write the pairs as this library reads them (trl-stepwise: labelled steps)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", parser=local_place, help="New folder of the export, or URL."),
    ] = None,
    form: Annotated[
        Literal["step", "trajectory"],
        typer.Option(help="Export steps, or steps continued to the end, which stock trainers need."),
    ] = "step",
    conversational: Annotated[
        bool, typer.Option("--conversational", help="Export messages, not rendered text.")
    ] = False,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Make preference pairs out of a run, or export them.

    Both sides follow the same tokens: a run with branches (generate --branch) has far more of them. Older pairs are
    replaced. Margin, caps, balance and splits: --set pairs.KEY.

    With --export and no other option, the pairs that the run has are exported.
    """
    from stepconf.recipe import load_recipe

    loaded = load_recipe(recipe, {"pairs.strategy": strategy, "pairs.tau": tau}, sets)
    if (export is None) != (out is None):
        given, other = ("--out", "--export trl, say") if out else ("--export", "--out FOLDER")
        raise StepconfError(f"{given} is given alone.", f"Add {other}.")
    from stepconf.pairs.exports import check_folder, export_pairs
    from stepconf.pairs.make import has_pairs, make_pairs
    from stepconf.run.folders import fetch_folder, fetch_run, mirrored
    from stepconf.ui import StageProgress, show_export, show_summary

    fetch_run(run)
    if out is not None:
        fetch_folder(out)
        check_folder(out)
    options = loaded.pairs if strategy or tau or recipe or sets else None
    if export is None or (export != "trl-stepwise" and not has_pairs(run, options)):
        with StageProgress() as tick:
            summary = make_pairs(run, loaded.pairs, tick, loaded.engine.trust_remote_code)
        show_summary(summary, shown(run))
    if export is not None and out is not None:
        with mirrored(out):
            exported = export_pairs(run, export, out, form, conversational, loaded.pairs.validation)
        show_export(shown(out), *exported)


def _run_stage(
    stage: str,
    out: Path,
    recipe: Path | None,
    options: dict[str, Any],
    sets: list[str] | None,
    repair: bool,
    log_json: Path | None,
) -> None:
    """Parse first, import after: a wrong option must not wait for torch."""
    from stepconf.recipe import load_recipe

    loaded = load_recipe(recipe, options, sets)
    if not loaded.problems.source:
        raise StepconfError("no problems are named.", "Add --problems gsm8k, or a file, or a Hub id.")
    from stepconf import pipeline
    from stepconf.run.events import json_lines
    from stepconf.run.folders import fetch_run
    from stepconf.ui import StageProgress, show_summary

    fetch_run(out, absent=True)
    with json_lines(log_json), StageProgress(shown=str(log_json) != "-") as tick:
        summary = getattr(pipeline, stage)(loaded, out, tick, repair=repair)
    show_summary(summary, shown(out))
