"""The dataset card of a published run: pure text out of what the run says of itself, and nothing it lacks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from stepconf.core.noise import noise_of
from stepconf.core.schema import ENTROPY_METADATA, TABLES, VERSION

CONFIGS = ("steps", "solutions", "pairs")  # the first is the default
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_LICENCE_IDS = {"MIT": "mit", "Apache-2.0": "apache-2.0", "CC BY 4.0": "cc-by-4.0"}


@dataclass(frozen=True)
class Source:
    """Where problems came from, and what their licence says; None where stepconf does not know it."""

    name: str
    splits: tuple[str, ...]
    licence: str | None


@dataclass(frozen=True)
class Published:
    """What a card is written from.

    `recipe`, `summary` and `metadata` are those of the run; `rows` counts those of each table and split there is.
    `missing` says what an unfinished run lacks. `licence` is a Hub licence id that the user gave. `figures`: image
    files beside the card, each with what it shows.
    """

    repo_id: str
    recipe: dict[str, Any]
    summary: dict[str, Any]
    metadata: dict[str, str]
    rows: dict[str, dict[str, int]]
    sources: Sequence[Source]
    version: str
    licence: str | None = None
    missing: Sequence[str] = field(default_factory=list)
    figures: Sequence[tuple[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The set's own name."""
        return self.repo_id.rpartition("/")[2]


def card(run: Published) -> str:
    """The text of README.md, YAML first."""
    front = yaml.safe_dump(front_matter(run), sort_keys=False, allow_unicode=True, width=1000)
    parts = [
        _title(run),
        _use(run),
        _made(run),
        _figures(run),
        _fields(run),
        _limits(run),
        _licence(run),
        _CITATION,
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def front_matter(run: Published) -> dict[str, Any]:
    """The card's YAML: licence, tags, size, and where each config's files lie."""
    tags = ["math", "reasoning", "step-level", *(["preference"] if "pairs" in run.rows else []), "stepconf"]
    biggest = max((_total(run, table) for table in run.rows), default=0)
    configs: list[dict[str, Any]] = []
    for table in CONFIGS:
        if table in run.rows:
            files = [{"split": s, "path": f"data/{table}/{s}-*.parquet"} for s in run.rows[table]]
            default = {} if configs else {"default": True}
            configs.append({"config_name": table, "data_files": files, **default})
    return {
        "pretty_name": run.name,
        "license": run.licence or _licence_id(run.sources),
        "task_categories": ["text-generation"],
        "tags": tags,
        "size_categories": [next((size for n, size in _SIZES if biggest < n), "n>10M")],
        "configs": configs,
    }


def _licence_id(sources: Sequence[Source]) -> str:
    """The Hub's id where all sources have one and the same known licence, else `other`."""
    ids = {_LICENCE_IDS.get(source.licence or "", "other") for source in sources}
    return ids.pop() if len(ids) == 1 else "other"


def _title(run: Published) -> str:
    rows = ", ".join(f"{_total(run, table):,} {table}" for table in CONFIGS if table in run.rows)
    scored = bool(run.summary.get("tokens"))
    what = "with the exact full-vocabulary entropy of every token, " if scored else ""
    text = (
        f"# {_plain(run.name)}\n\nMath problems with solutions cut into steps, {what}"
        "verdicts of step verifiers, and labels"
        + (", and preference pairs" if "pairs" in run.rows else "")
        + f": {rows}, of {run.summary['problems']:,} problems. Made with stepconf {run.version}."
    )
    if run.missing:
        text += "\n\n**The run is not finished:** " + "; ".join(_plain(part) for part in run.missing) + "."
    return text


def _total(run: Published, table: str) -> int:
    return sum(run.rows[table].values())


def _use(run: Published) -> str:
    lines = ["## Use", "", "```python", "from datasets import load_dataset", ""]
    first = next((table for table in CONFIGS if table in run.rows), None)
    for table in CONFIGS:
        if table in run.rows:
            config = "" if table == first else f', "{table}"'
            lines.append(f'{table} = load_dataset("{run.repo_id}"{config}, split="train")')
    return "\n".join(
        [*lines, "```", "", f"`stepconf pull {run.repo_id} --out RUN` brings the run back, recipe and all."]
    )


def _made(run: Published) -> str:
    recipe, meta = run.recipe, run.metadata
    sampling, verify = recipe.get("sampling", {}), recipe.get("verify", {})
    problems = "; ".join(
        f"{_code(source.name)}"
        + (f", split {', '.join(map(_code, source.splits))}" if any(source.splits) else "")
        for source in run.sources
    )
    rows: list[tuple[str, str]] = [
        ("problems", problems),
        ("command", _code(f"stepconf {recipe['command']}")),
    ]
    if model := meta.get("model") or recipe.get("model"):
        revision = meta.get("model_revision") or recipe.get("model_revision")
        rows.append(("model", _code(_base(model)) + (f", revision {_code(revision)}" if revision else "")))
    if meta.get("engine"):
        engine = f"{meta['engine']} {meta.get('engine_version', '')}"
        engine += f", {meta.get('dtype', '')} on {meta.get('device', '')}"
        rows.append(("engine", _plain(engine)))
        rows.append(
            ("entropy", _plain(", ".join(ENTROPY_METADATA.values())) + f"; V = {meta.get('vocabulary', '?')}")
        )
    if recipe["command"] == "generate":
        rows.append(
            (
                "sampling",
                f"{sampling['samples']} per problem, temperature {sampling['temperature']}, top-p {sampling['top_p']}, "
                f"at most {sampling['max_tokens']:,} tokens, seed {sampling['seed']}",
            )
        )
    if verifiers := verify.get("verifiers"):
        rows.append(
            ("verifiers", ", ".join(map(_code, verifiers)) + f"; labels by {_code(verify['policy'])}")
        )
    if noise := noise_of(recipe).said:
        rows.append(("label noise", noise))
    if "pairs" in run.rows:
        tau = run.summary.get("tau")
        rows.append(
            ("pairs", f"strategy {_code(run.summary['strategy'])}" + (f", tau {tau:.4g}" if tau else ""))
        )
    rows.append(("versions", f"stepconf {run.version}, schema {VERSION}"))
    return (
        "## How it was made\n\n"
        + _table(("what", "value"), rows)
        + "\n\nThe whole recipe: `stepconf/recipe.yaml`."
    )


def _figures(run: Published) -> str:
    """Only what the summary has: a run without decided steps has no AUROC to state."""
    summary = run.summary
    rows = [
        ("branches", _branches(summary.get("branches") or {})),
        ("step labels", _counts(summary.get("labels", {}))),
        ("answers", _counts(summary.get("answers", {}))),
    ]
    for name, found in summary.get("verifiers", {}).items():
        rows.append(
            (f"steps by {_code(name)}", _counts({k: found[k] for k in ("correct", "incorrect", "unknown")}))
        )
    entropy = summary.get("entropy") or {}
    rows += [
        (f"mean entropy of {label} steps", f"{mean:.3f} nats")
        for label in ("correct", "incorrect")
        if (mean := entropy.get(f"mean_{label}")) is not None
    ]
    auroc = entropy.get("auroc") or {}
    if auroc.get("estimate") is not None:
        text = f"{auroc['estimate']:.3f}"
        if auroc.get("low") is not None and auroc.get("high") is not None:
            text += (
                f" ({auroc['level']:.0%} interval {auroc['low']:.3f} to {auroc['high']:.3f} over problems)"
            )
        rows.append(("AUROC of entropy against the labels", text))
    if "pairs" in run.rows:
        rows.append(("pairs by kind", _counts(summary.get("pairs", {}))))
        rows.append(("pairs by split (by problem)", _counts(run.rows["pairs"])))
    if summary.get("drops"):
        rows.append(("left out", _counts(summary["drops"])))
    rows = [row for row in rows if row[1]]
    images = [f"![{_plain(text)}]({file})\n\n{_plain(text)}." for file, text in run.figures]
    table = [_table(("figure", "value"), rows)] if rows else []
    return "\n\n".join(["## Figures", *table, *images]) if rows or images else ""


def _branches(found: dict[str, Any]) -> str:
    """How many there are; empty where there are none."""
    if not found:
        return ""
    size = f"{found['solutions']:,} of the solutions, with {found['steps']:,} of the steps"
    return f"{size}: completions sampled from a step on. The other figures are of samples alone"


def _fields(run: Published) -> str:
    parts = ["## Fields"]
    for table in CONFIGS:
        if table in run.rows:
            rows = [
                (_code(f.name), _code(f.kind.replace("?", " or null")), _plain(f.meaning))
                for f in TABLES[table]
            ]
            parts.append(f"### {table}\n\n" + _table(("field", "type", "meaning"), rows))
    return "\n\n".join(parts)


def _limits(run: Published) -> str:
    lines = [
        "- The labels are those of automatic verifiers. `unknown` means that none decided; it does not mean wrong.",
        "- The texts are what a model wrote; they were not edited and may be wrong in any way.",
    ]
    if noise := noise_of(run.recipe).said:
        lines.append(
            f"- **Labels are wrong on purpose:** {noise}. `label_source` of these steps ends in `noise`; first errors, "
            "pairs and figures are those of the wrong labels."
        )
    if run.metadata.get("dtype") in ("bfloat16", "float16"):
        lines.append(f"- Entropies come from {run.metadata['dtype']} logits and carry its rounding.")
    if run.summary.get("tokens"):
        lines.append("- Entropy and confidence are those of the model named above; another model has others.")
    if "pairs" in run.rows:
        lines.append(
            "- A side of a pair that does not end its solution (`*_is_terminal` is false) must not be followed by an "
            "end-of-sequence token in training; stock trainers append one."
        )
    return "## Limits\n\n" + "\n".join(lines)


def _licence(run: Published) -> str:
    rows = [(_code(s.name), _plain(s.licence) if s.licence else "not known to stepconf") for s in run.sources]
    text = "## Licence\n\n" + _table(("source of problems", "its licence"), rows)
    if front_matter(run)["license"] == "other":
        text += (
            "\n\n**To be filled in by the publisher:** under what licence this set is given, which the licences of "
            "the sources and of the model must allow (`stepconf push --license ID` states it)."
        )
    return text


_CITATION = """## Citation

The method is CASPO/CaT:

```bibtex
@misc{caspo2026,
  howpublished = {arXiv:2605.07353},
  url = {https://arxiv.org/abs/2605.07353}
}
```"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {_plain(name)}" for name, n in found.items())


def _base(model: str) -> str:
    """A Hub id as it is; of a folder of somebody's machine only the name."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", "~", ".")) else model


def _plain(text: object) -> str:
    """Text that cannot become markup: names and reasons come from files."""
    flat = " ".join(str(text).split())
    return "".join("\\" + c if c in "\\`*_[]<>|#" else c for c in flat)


def _code(text: object) -> str:
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "¦") + "`"
