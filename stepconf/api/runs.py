"""`import stepconf` on runs: made, paired, learnt from, and read as lazy Polars frames.

With `problems` a file, `model` a Hub id or a local folder, and `out` a folder:

>>> import stepconf
>>> small = {"engine.name": "transformers", "sampling.max_tokens": 8, "branch.where": []}
>>> run = stepconf.generate(problems, model, out / "run", small)
>>> run.steps.filter(label="unknown").collect().height == run.steps.collect().height
True

With `labelled` a run in which a first step is right and a sibling is wrong:

>>> run = stepconf.make_pairs(labelled, {"pairs.tau": 1.0})
>>> run.pairs.filter(split="train").select("prompt", "chosen", "rejected").collect().height > 0
True
>>> summary = stepconf.train(run, model, out / "policy", {"train.max_length": 256})
>>> summary["examples"] > 0, (out / "policy" / "model" / "config.json").exists()
(True, True)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from stepconf.recipe import Recipe

__all__ = ["Run", "generate", "load_run", "make_pairs", "train"]

Options = Mapping[str, Any]  # recipe keys, as `--set` takes them: {"sampling.samples": 8}


@dataclass(frozen=True, slots=True)
class Run:
    """A run's tables as lazy Polars frames. See `schemas/` for their columns."""

    folder: Path

    @property
    def model(self) -> str:
        """The model as the run's recipe names it; "" where it names none."""
        from stepconf.run.tables import read_recipe

        return str(read_recipe(self.folder).get("model", ""))

    @property
    def solutions(self) -> "pl.LazyFrame":
        """One row a solution, branches included (`parent_solution_id`)."""
        return self._table("solutions")

    @property
    def steps(self) -> "pl.LazyFrame":
        """One row a step, with its entropies, verdicts and label."""
        return self._table("steps")

    @property
    def pairs(self) -> "pl.LazyFrame":
        """One row a preference pair, of both splits (`split`)."""
        from stepconf.run.scan import scan_pairs

        return scan_pairs(self.folder)

    def _table(self, name: str) -> "pl.LazyFrame":
        from stepconf.run.scan import scan

        return scan(self.folder, name)


def generate(
    problems: str,
    model: str,
    out: str | Path,
    options: Options | None = None,
    recipe: str | Path | None = None,
) -> Run:
    """Sample, segment, score, branch and verify solutions; as `stepconf generate`. The same call again continues it.

    Args:
        problems: a named set (gsm8k, math, ...), a file, a Hub id, or reasoning-gym:TASK.
        model: Hub id, local folder, or demo.
        out: the run folder.
        options: recipe keys, e.g. {"sampling.samples": 8, "problems.limit": 100}.
        recipe: a YAML file, e.g. of recipes/.

    Raises:
        StepconfError: as the command.
    """
    from stepconf import pipeline

    loaded = _recipe({"problems.source": problems, "model": model}, options, recipe)
    pipeline.generate(loaded, Path(out), _silent)
    return load_run(out)


def make_pairs(
    run: "Run | str | Path", options: Options | None = None, recipe: str | Path | None = None
) -> Run:
    """Make a run's preference pairs again; as `stepconf pairs`. They are `pairs` of the run that is returned.

    Args:
        run: a run, or its folder.
        options: recipe keys, e.g. {"pairs.strategy": "step-dpo"}.
        recipe: a YAML file.

    Raises:
        StepconfError: the run has no scored steps, or its model another tokenizer by now.
    """
    from stepconf.pairs.make import make_pairs as made

    folder = run.folder if isinstance(run, Run) else Path(run)
    loaded = _recipe({}, options, recipe)
    made(folder, loaded.pairs, _silent, model=loaded.model)
    return load_run(folder)


def train(
    run: "Run | str | Path",
    model: str,
    out: str | Path,
    options: Options | None = None,
    recipe: str | Path | None = None,
) -> dict[str, Any]:
    """Optimise a model on a run; as `stepconf train RUN`. The model is in OUT/model.

    Args:
        run: a run with pairs, its folder, or a Parquet file of pairs.
        model: Hub id, local folder, or demo.
        out: a folder.
        options: recipe keys, e.g. {"train.learning_rate": 1e-6}.
        recipe: a YAML file.

    Returns:
        What was trained on, what was left out and why, the last metrics.

    Raises:
        StepconfError: no usable example, or pairs of another tokenizer.
    """
    from stepconf.trainer import train as trained

    folder = run.folder if isinstance(run, Run) else Path(run)
    return trained(folder, _recipe({"model": model}, options, recipe), Path(out), lambda metrics: None)


def load_run(folder: str | Path) -> Run:
    """A run that `generate`, `score`, `segment` or `verify` wrote.

    Raises:
        StepconfError: the folder is no run.
    """
    from stepconf.run.tables import check_is_run

    check_is_run(Path(folder))
    return Run(Path(folder))


def _recipe(own: Options, options: Options | None, recipe: str | Path | None) -> "Recipe":
    from stepconf.recipe import load_recipe

    return load_recipe(None if recipe is None else Path(recipe), {**own, **(options or {})})


def _silent(stage: str, n: int) -> None:
    """No progress is shown."""
