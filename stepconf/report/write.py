"""`stepconf report RUN`: a run as one HTML file that opens from disk; large ones by a sample, which it states."""

from pathlib import Path
from typing import Any, NamedTuple

from stepconf.report.explorer import Explorer
from stepconf.report.html import embedded, page
from stepconf.report.sample import Sample, draw
from stepconf.report.source import Source, missing_notes, open_source
from stepconf.report.token_texts import TokenTexts, token_notes
from stepconf.run.events import Tick
from stepconf.run.shards import write_atomically
from stepconf.run.summary import read_summary

LIMIT = 9_500_000  # bytes of the file
_PROBLEM = 1_000_000  # bytes of one problem, beyond which only its first solutions are shown


class Written(NamedTuple):
    """The file, and what it shows of what there is."""

    file: Path
    n_bytes: int
    notes: list[str]


def write_report(where: str, out: Path, partial: bool, tick: Tick) -> Written:
    """Write the page.

    Args:
        where: a run folder, or what else `open_source` takes.
        out: the HTML file.
        partial: the run need not be finished.
        tick: progress, in problems.

    Raises:
        StepconfError: it is no run, an unfinished one without `partial`, or a shard cannot be read.
    """
    source = open_source(where, partial)
    explorer = Explorer(source)
    texts = explorer.token_texts()
    data = first_part(explorer, source)
    sample = _sample(explorer, texts, LIMIT - len(page(data)), tick)
    shown = list(sample.taken.values())
    data["notes"] += sampling_notes(explorer, sample) + token_notes(texts)
    data |= {"problems": [entry["row"] for entry in shown], "details": [entry["details"] for entry in shown]}
    text = page(data).encode()
    write_atomically(out, text)
    return Written(out, len(text), data["notes"])


def first_part(explorer: Explorer, source: Source) -> dict[str, Any]:
    """The figures over all steps, the name, and what an unfinished run lacks."""
    from stepconf.report.overview import overview  # draws figures: not needed for the first page

    summary = source.summary
    if summary is None and source.run is not None:
        summary = read_summary(source.run)
    figures = overview(explorer.index, source.recipe, summary, explorer.tables.metadata("steps"))
    return {"name": source.name, "notes": missing_notes(source), "overview": figures}


def sampling_notes(explorer: Explorer, sample: Sample) -> list[str]:
    """What the file shows of what there is, where that is not all."""
    n, whole = len(sample.taken), len(explorer.index.problem_ids)
    cut = sum(
        len(entry["details"]["solutions"]) < entry["row"]["solutions"] for entry in sample.taken.values()
    )
    notes = []
    if n < whole:
        notes.append(
            f"The explorer holds {n:,} of {whole:,} problems, drawn at random with seed 0 so that the file stays "
            "below 10 MB; the figures and plots are over all of them. stepconf view shows every problem."
        )
    if sample.too_large:
        notes.append(f"{sample.too_large:,} problems were drawn and are too large for this file.")
    if cut:
        notes.append(f"Of {cut:,} problems only the first solutions are shown.")
    return notes


def _sample(explorer: Explorer, texts: TokenTexts, budget: int, tick: Tick) -> Sample:
    def entry(problem: int) -> tuple[Any, int] | None:
        tick("report", 1)  # of how many is known when the file is full
        return _entry(explorer, texts, problem, budget)

    return draw(len(explorer.index.problem_ids), budget, entry)


def _entry(explorer: Explorer, texts: TokenTexts, problem: int, budget: int) -> tuple[Any, int] | None:
    """A problem with the steps of as many of its solutions as fit, and its size in the file."""
    details = explorer.problem(problem)
    held = explorer.steps(explorer.shown(problem), texts)
    solutions: list[dict[str, Any]] = []
    size = 0
    for solution, steps in zip(details["solutions"], held, strict=True):
        added = len(embedded(steps)) + 1000
        if solutions and size + added > _PROBLEM:
            break
        solutions.append({**solution, "steps": steps})
        size += added
    details["solutions"] = solutions
    row = explorer.list_row(problem)
    size = len(embedded(row)) + len(embedded(details)) + 2
    return None if size > budget else ({"row": row, "details": details}, size)
