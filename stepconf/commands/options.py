"""Options that several commands share, declared once, and how they become recipe keys."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stepconf.run.copies import local_place

Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="RUN",
        parser=local_place,
        help="Run folder or URL (s3://...); the same command again continues it.",
    ),
]
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
Branch = Annotated[
    str | None,
    typer.Option(
        "--branch",
        metavar="WHERE",
        help="Sample completions from steps, for labels and pairs: none, all, or first-error,uncertain.",
    ),
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
Repair = Annotated[bool, typer.Option("--repair", help="Make chunks with damaged or missing shards anew.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="On a Ray cluster: auto, local or ray://HOST:PORT."),
]
LogJson = Annotated[
    Path | None, typer.Option("--log-json", help="Append a JSON line per event; - is stderr, without bars.")
]
RepoId = Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME of a data set on the Hub.")]


def run_argument(text: str) -> Any:
    """The argument RUN: a run folder, or a URL, for which its local copy stands. The command fetches."""
    return typer.Argument(metavar="RUN", parser=local_place, help=text)


def names_of(text: str | None) -> list[str] | None:
    """The names in a comma-separated list; None where the option was not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def places_of(text: str | None) -> list[str] | None:
    """The recipe's `branch.where` for what `--branch` says."""
    names = names_of(text)
    return [] if names == ["none"] else names


def column_keys(
    file: str,
    limit: int | None,
    problem: str | None,
    answer: str | None,
    solution: str | None,
    id_: str | None,
) -> dict[str, Any]:
    """Recipe keys of the options that say where solutions are read from."""
    return {
        "problems.source": file,
        "problems.limit": limit,
        "problems.problem_column": problem,
        "problems.answer_column": answer,
        "problems.solution_column": solution,
        "problems.id_column": id_,
    }
