"""The commands: each parses its options into a recipe, imports late, and calls one function."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stepconf import __version__
from stepconf.errors import StepconfError

app = typer.Typer(
    help="Step-wise confidence datasets for math reasoning: exact entropies, verified steps, pairs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich's help takes as long to import as all else together
    context_settings={"max_content_width": 110},
)

Out = Annotated[Path, typer.Option("--out", help="Run folder; the same command again continues it.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="YAML file, e.g. of recipes/.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any recipe key. Repeatable.")
]
Model = Annotated[str | None, typer.Option(help="Hub id, local folder, or demo (built in).")]
EngineName = Annotated[str | None, typer.Option("--engine", help="vllm (default) or transformers.")]
Limit = Annotated[int | None, typer.Option(help="Only the first N usable rows.")]
Verifiers = Annotated[
    str | None,
    typer.Option("--verify", help="Comma-separated of final,symbolic,critic,rollout,prm. Empty for none."),
]
Policy = Annotated[str | None, typer.Option(help="How verdicts become labels; see relabel.")]
ProblemColumn = Annotated[str | None, typer.Option(help="Column with the problem text.")]
AnswerColumn = Annotated[str | None, typer.Option(help="Column with the gold answer.")]
SolutionColumn = Annotated[str | None, typer.Option(help="Column with the solution text.")]
IdColumn = Annotated[str | None, typer.Option(help="Column kept as external_id.")]
Seed = Annotated[int | None, typer.Option(help="Seed of sampling and of generated problems.")]
SolutionFile = Annotated[
    str, typer.Argument(metavar="FILE", help="JSONL(.gz), Parquet or Hub set of solutions.")
]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
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
    verify: Verifiers = None,
    problem_column: ProblemColumn = None,
    answer_column: AnswerColumn = None,
    id_column: IdColumn = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Sample solutions, cut them into steps, score and verify."""
    options = {
        "problems.source": problems,
        "model": model,
        "problems.limit": limit,
        "sampling.samples": samples,
        "sampling.temperature": temperature,
        "sampling.max_tokens": max_tokens,
        "sampling.seed": seed,
        "engine.name": engine,
        "verify.verifiers": _names(verify),
        "problems.problem_column": problem_column,
        "problems.answer_column": answer_column,
        "problems.id_column": id_column,
    }
    _run_stage("generate", out, recipe, options, sets)


@app.command()
def segment(
    file: SolutionFile,
    out: Out,
    verify: Verifiers = "",
    limit: Limit = None,
    problem_column: ProblemColumn = None,
    answer_column: AnswerColumn = None,
    solution_column: SolutionColumn = None,
    id_column: IdColumn = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Cut given solutions into steps."""
    columns = _columns(file, limit, problem_column, answer_column, solution_column, id_column)
    _run_stage("segment", out, recipe, columns | {"verify.verifiers": _names(verify)}, sets)


@app.command()
def score(
    file: SolutionFile,
    out: Out,
    model: Model = None,
    engine: EngineName = None,
    verify: Verifiers = None,
    limit: Limit = None,
    problem_column: ProblemColumn = None,
    answer_column: AnswerColumn = None,
    solution_column: SolutionColumn = None,
    id_column: IdColumn = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Exact token entropies of given solutions under a model."""
    columns = _columns(file, limit, problem_column, answer_column, solution_column, id_column)
    own = {"model": model, "engine.name": engine, "verify.verifiers": _names(verify)}
    _run_stage("score", out, recipe, columns | own, sets)


@app.command()
def verify(
    file: Annotated[str, typer.Argument(metavar="FILE|RUN", help="File of solutions, or a run folder.")],
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
    policy: Policy = None,
    report: Annotated[
        bool, typer.Option("--report", help="Coverage, cost, agreement, and the steps in dispute.")
    ] = False,
) -> None:
    """Verify given solutions, or a run; it keeps its scores."""
    columns = _columns(file, limit, problem_column, answer_column, solution_column, id_column)
    own = {"model": model, "engine.name": engine, "verify.verifiers": _names(verify), "verify.policy": policy}
    _run_stage("verify", out, recipe, columns | own, sets)
    if report:
        from stepconf.agreement_report import agreement_of, render
        from stepconf.ui import output

        for table in render(*agreement_of(out)):
            output.print(table)


@app.command()
def relabel(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    policy: Annotated[
        str,
        typer.Option(help="first-decided, consensus, majority, critic-first or symbolic-veto."),
    ],
) -> None:
    """Label a run's steps anew; no verifier runs.

    Pairs made before are removed.
    """
    from stepconf.relabel import relabel as run_relabel
    from stepconf.ui import StageProgress, show_summary

    with StageProgress() as tick:
        summary = run_relabel(run, policy, tick)
    show_summary(summary, run)


@app.command()
def audit(
    file: Annotated[Path, typer.Argument(help="JSON lines of ProcessBench or PRM800K, plain or gzipped.")],
    on: Annotated[Literal["processbench", "prm800k"], typer.Option("--on", help="Whose file it is.")],
    verify: Annotated[str, typer.Option("--verify", help="Comma-separated verifiers.")] = "symbolic",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
    model: Model = None,
    engine: EngineName = None,
    recipe: RecipeFile = None,
    sets: Sets = None,
) -> None:
    """Measure verifiers against people's step labels.

    ProcessBench's own metric, precision and recall of flagged steps with intervals, cost per verifier.
    """
    from stepconf.recipe import load_recipe

    options = {"verify.verifiers": _names(verify), "model": model, "engine.name": engine}
    loaded = load_recipe(recipe, options, sets)
    if not loaded.verify.verifiers:
        raise StepconfError("no verifier is named.", "Add --verify symbolic, say.")
    from stepconf.audit import audit as run_audit
    from stepconf.audit import render
    from stepconf.judge import open_verifiers
    from stepconf.ui import output

    with open_verifiers(loaded) as verifiers:
        report = run_audit(on, file, verifiers)
    if json_:
        typer.echo(json.dumps(report.to_dict(), indent=1))
    else:
        output.print(render(report))


@app.command()
def pairs(
    run: Annotated[Path, typer.Argument(help="A run folder with scored steps.")],
    strategy: Annotated[
        str | None,
        typer.Option(help="caspo (default) or step-dpo: steps; dpo-vp or pcpo: whole solutions."),
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="caspo: confidence at or below which a correct step is uncertain.")
    ] = None,
    export: Annotated[
        Literal["trl", "trl-stepwise", "openrlhf", "llamafactory", "axolotl"] | None,
        typer.Option(help="Also write the pairs as this library reads them (trl-stepwise: labelled steps)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="New folder of the export.")] = None,
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

    Older pairs are replaced. Candidates, caps and splits: --set pairs.KEY.

    With --export and no other option, the pairs that the run has are exported.
    """
    from stepconf.recipe import load_recipe

    loaded = load_recipe(recipe, {"pairs.strategy": strategy, "pairs.tau": tau}, sets)
    if (export is None) != (out is None):
        given, other = ("--out", "--export trl, say") if out else ("--export", "--out FOLDER")
        raise StepconfError(f"{given} is given alone.", f"Add {other}.")
    from stepconf.exports import check_folder, export_pairs
    from stepconf.preference import has_pairs, make_pairs
    from stepconf.ui import StageProgress, show_export, show_summary

    if out is not None:
        check_folder(out)
    options = loaded.pairs if strategy or tau or recipe or sets else None
    if export is None or (export != "trl-stepwise" and not has_pairs(run, options)):
        with StageProgress() as tick:
            summary = make_pairs(run, loaded.pairs, tick)
        show_summary(summary, run)
    if export is not None and out is not None:
        show_export(out, *export_pairs(run, export, out, form, conversational, loaded.pairs.validation))


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", help="Folder; the same command again continues it.")],
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|PAIRS]", help="A run, or a Parquet file of pairs. Without: rounds."),
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
        from stepconf.ui import LoopProgress, show_rounds

        with LoopProgress() as progress:
            measured = train_rounds(loaded, out, progress.announce, progress.tick, progress.report)
        show_rounds(measured, out)
        return
    from stepconf.train import train as run_train
    from stepconf.ui import TrainProgress, show_training

    with TrainProgress() as report:
        summary = run_train(source, loaded, out, report)
    show_training(summary, out)


@app.command()
def check(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    against: Annotated[
        list[str] | None,
        typer.Option(help="Evaluation set (name, file, Hub id) that must not be in it. Repeatable."),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="The run need not be finished.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """Is a run whole, consistent and fit to publish?

    Exit code 1 on errors, not on warnings.
    """
    from stepconf.shards import check_is_run

    check_is_run(run)
    from stepconf.check import check as run_check
    from stepconf.check import load_against, render
    from stepconf.ui import StageProgress, output

    sets = load_against(against or [])
    with StageProgress() as tick:
        report = run_check(run, sets, partial, tick)
    if json_:
        typer.echo(json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
    else:
        for line in render(report, run):
            output.print(line, highlight=False)
    if not report.ok:
        raise typer.Exit(1)


RepoId = Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME of a data set on the Hub.")]


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    repo_id: RepoId,
    private: Annotated[bool, typer.Option("--private", help="Make the data set private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write what would be pushed to --out, show it, send nothing.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of --dry-run (default: RUN-hub).")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch; made if absent.")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="Hub licence id, e.g. mit.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Publish an unfinished run.")] = False,
) -> None:
    """Publish a run on the Hub, with a card, in one commit."""
    from stepconf.shards import check_is_run

    check_is_run(run)
    if out is not None and not dry_run:
        raise StepconfError("--out is the folder of --dry-run.", "Add --dry-run, or leave --out.")
    from stepconf import publish
    from stepconf.ui import StageProgress, output

    if dry_run:
        folder = out or run.with_name(run.resolve().name + "-hub")
        with StageProgress() as tick:
            files = publish.prepare(run, repo_id, folder, licence, partial, tick)
        for line in publish.render(folder, files):
            output.print(line, highlight=False)
    else:
        with StageProgress() as tick:
            files, address = publish.push(run, repo_id, licence, partial, private, revision, tick)
        output.print(f"Pushed {len(files)} files: {address}", highlight=False, soft_wrap=True)


@app.command()
def pull(
    repo_id: RepoId,
    out: Out,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Bring a published run back as a run folder."""
    from stepconf import publish
    from stepconf.ui import StageProgress, output

    with StageProgress() as tick:
        publish.pull(repo_id, out, revision, tick)
    output.print(f"Run {out}. Next: stepconf check {out}", highlight=False, soft_wrap=True)


@app.command()
def infer(
    question: Annotated[str, typer.Argument(metavar="QUESTION|FILE", help="A question, or a file of them.")],
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
    out: Annotated[Path | None, typer.Option("--out", help="FILE.jsonl or FILE.parquet.")] = None,
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
    from stepconf.infer import infer as run_infer
    from stepconf.infer_view import TreeView, show

    with TreeView() as view:
        answered = run_infer(loaded, question, out, view.grow, view.done)
    if json_:
        for row in answered.rows:
            typer.echo(json.dumps(row))
    else:
        show(answered.results, answered.clock)


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option("--out", help="Folder; the same command again continues it.")],
    benchmark: Annotated[
        str, typer.Option(help="Comma-separated: math500, gsm8k@FILE, FILE, reasoning-gym:TASK, ...")
    ],
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
    """Answer benchmarks: accuracy, cost, strategies in pairs."""
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
    from stepconf.evaluate import evaluate as run_evaluate
    from stepconf.evaluate_view import render
    from stepconf.ui import StageProgress, output

    with StageProgress() as tick:
        report = run_evaluate(loaded, _names(benchmark) or [], _names(strategy) or [], out, tick)
    if json_:
        typer.echo(json.dumps(report, indent=1))
        return
    for table in render(report):
        output.print(table)
    output.print(f"Files: {out}/report.json, {out}/answers/", highlight=False, soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("demo-run"),
    sets: Sets = None,
) -> None:
    """The main job, small, on the built-in model (minutes)."""
    from stepconf.demo import run_demo

    run_demo(out, sets or [])


@app.command()
def doctor(
    model: Annotated[str, typer.Option(help="Model to check with.")] = "demo",
    engine: Annotated[str, typer.Option("--engine", help="vllm or transformers.")] = "vllm",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Check this machine: versions, exactness, overhead."""
    from stepconf.doctor import examine

    if not examine(model, engine, dtype):
        raise typer.Exit(1)


@app.command()
def schema(
    check: Annotated[
        bool, typer.Option("--check", help="Compare with schemas/*.json, write nothing.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where the JSON Schemas lie.")] = Path("schemas"),
) -> None:
    """Write the tables' JSON Schemas, or check them."""
    from stepconf.schema_files import check_schemas, write_schemas

    if check:
        check_schemas(folder)
        typer.echo(f"{folder}: current")
    else:
        typer.echo("\n".join(f"wrote {file}" for file in write_schemas(folder)))


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _columns(
    file: str,
    limit: int | None,
    problem: str | None,
    answer: str | None,
    solution: str | None,
    id_: str | None,
) -> dict[str, Any]:
    return {
        "problems.source": file,
        "problems.limit": limit,
        "problems.problem_column": problem,
        "problems.answer_column": answer,
        "problems.solution_column": solution,
        "problems.id_column": id_,
    }


def _run_stage(
    stage: str, out: Path, recipe: Path | None, options: dict[str, Any], sets: list[str] | None
) -> None:
    """Parse first, import after: a wrong option must not wait for torch."""
    from stepconf.recipe import load_recipe

    loaded = load_recipe(recipe, options, sets)
    if not loaded.problems.source:
        raise StepconfError("no problems are named.", "Add --problems gsm8k, or a file, or a Hub id.")
    from stepconf import pipeline
    from stepconf.ui import StageProgress, show_summary

    with StageProgress() as tick:
        summary = getattr(pipeline, stage)(loaded, out, tick)
    show_summary(summary, out)


def main() -> None:
    """Run a command; the one place where errors are printed and exit codes chosen."""
    debug = os.environ.get("STEPCONF_DEBUG") == "1"
    try:
        app()
    except StepconfError as error:
        if debug:
            raise
        _fail(error.problem, error.hint)
    except OSError as error:
        if debug or error.errno is None:
            raise
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{os.strerror(error.errno)}{where}.", _OS_HINTS.get(error.errno, ""))
    except SystemExit as ended:
        if ended.code != _INTERRUPTED:
            raise
        # Typer has turned KeyboardInterrupt into this code, silently.
        hint = "Type the same command again to continue."
        _fail("interrupted; what was committed is kept.", hint, _INTERRUPTED)


_INTERRUPTED = 130
_OS_HINTS = {
    errno.ENOSPC: "What was committed is kept. Make room, then type the same command again.",
    errno.EDQUOT: "What was committed is kept. Make room, then type the same command again.",
    errno.EFBIG: "What was committed is kept. Raise the file-size limit, then type the same command again.",
    errno.EACCES: "Give a folder that you may write to.",
    errno.ENOTDIR: "Part of this path is a file: give another folder.",
    errno.EROFS: "Give a folder on a file system that can be written.",
}


def _fail(problem: str, hint: str, code: int = 1) -> None:
    typer.secho(f"stepconf: {problem}", fg="red", err=True)
    if hint:
        typer.echo(hint, err=True)
    sys.exit(code)
