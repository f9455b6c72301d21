"""`stepconf pairs RUN --export NAME --out DIR`: the pairs as a training library reads them.

DIR/train.parquet or train.jsonl, DIR/validation.*, what else the library wants, and a README.md that says how
to load them and what to beware of.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from stepconf.core import exports as forms
from stepconf.core.exports import STEP_WARNING, Messages, Row
from stepconf.core.pairs.select import SPLITS, Split, split_of
from stepconf.core.pairs.traces import Trace
from stepconf.core.prompts import chat_messages
from stepconf.core.records import Pair
from stepconf.errors import StepconfError
from stepconf.pairs.traces import read_traces
from stepconf.run.new_folder import check_new, new_folder
from stepconf.run.shards import write_atomically, write_rows
from stepconf.run.tables import pairs_manifest, read_pairs, read_recipe

Library = Literal["trl", "trl-stepwise", "openrlhf", "llamafactory", "axolotl"]
Form = Literal["step", "trajectory"]


def check_folder(out: Path) -> None:
    """Raise StepconfError where an export may not be written."""
    check_new(out, _OURS)


def export_pairs(
    run: Path, library: Library, out: Path, form: Form, conversational: bool, validation: float
) -> tuple[dict[str, int], Counter[str], str]:
    """Write the export; returns rows by split, what was left out by reason, and a warning (or nothing).

    Raises:
        StepconfError: the folder is not empty, or nothing is left to export.
    """
    check_folder(out)
    prompts = read_recipe(run).get("prompt", {})
    dropped: Counter[str] = Counter()
    terminal = True
    rows: dict[Split, list[Row]] = {}
    if library == "trl-stepwise":
        rows = _stepwise(run, validation, dropped)
    else:
        traces = _by_problem(run) if form == "trajectory" else {}
        for split in SPLITS:
            pairs: Iterable[Pair] = (pair for shard in read_pairs(run, split) for pair in shard)
            if form == "trajectory":
                pairs = forms.trajectories(pairs, traces, dropped)
            kept = list(pairs)
            terminal = terminal and all(p.chosen_is_terminal and p.rejected_is_terminal for p in kept)
            rows[split] = [_row(pair, library, conversational, prompts) for pair in kept]
    counts: dict[str, int] = {split: len(own) for split, own in rows.items() if own}
    if not counts:
        reasons = dropped or Counter((pairs_manifest(run) or {}).get("drops", {}))
        raise StepconfError(f"{run} gives nothing to export: {_reasons(reasons)}.", _HINT)
    warning = "" if terminal else STEP_WARNING
    readme = _readme(run, library, form, conversational, counts, dropped, warning)
    with new_folder(out, _OURS):
        for split, own in rows.items():
            if own:
                write_rows(out / f"{split}.{'parquet' if library.startswith('trl') else 'jsonl'}", own)
        _write_beside(out, library, conversational, list(counts))
        write_atomically(out / "README.md", readme.encode())
    return counts, dropped, warning


_OURS = (
    *(f"{split}.{kind}" for split in SPLITS for kind in ("parquet", "jsonl")),
    *("dataset_info.json", "axolotl.yaml", "README.md"),
)
_HINT = "Other pairs: --strategy, --tau; more of them: more samples, --set pairs.candidates=8, a critic."


def _row(pair: Pair, library: Library, conversational: bool, prompts: dict[str, Any]) -> Row:
    if not conversational:
        return forms.alpaca(pair) if library == "llamafactory" else forms.plain(pair)
    messages = _conversation(pair, prompts)
    if library in ("llamafactory", "axolotl"):
        return forms.as_messages(pair, messages)
    return forms.conversational(pair, messages)


def _conversation(pair: Pair, prompts: dict[str, Any]) -> Messages:
    """The problem as the run's recipe puts it to a chat model: system, shots, instruction."""
    shots = [(shot["problem"], shot["solution"]) for shot in prompts.get("shots", [])]
    problem = pair.messages[-1]["content"]
    return chat_messages(problem, prompts.get("instruction", ""), prompts.get("system", ""), shots)


def _stepwise(run: Path, validation: float, dropped: Counter[str]) -> dict[Split, list[Row]]:
    rows: dict[Split, list[Row]] = {split: [] for split in SPLITS}
    for _, traces in read_traces(run):
        for trace in traces:
            rows[split_of(trace.problem_id, validation)] += forms.stepwise([trace], dropped)
    return rows


def _by_problem(run: Path) -> dict[str, list[Trace]]:
    found: dict[str, list[Trace]] = {}
    for _, traces in read_traces(run):
        for trace in traces:
            found.setdefault(trace.problem_id, []).append(trace)
    return found


def _write_beside(out: Path, library: Library, conversational: bool, splits: list[str]) -> None:
    """The library's own description of the files."""
    if library == "llamafactory":
        info = {f"stepconf_{split}": _llamafactory(f"{split}.jsonl", conversational) for split in splits}
        write_atomically(out / "dataset_info.json", json.dumps(info, indent=2).encode())
    if library == "axolotl":
        stanza = {"rl": "dpo", "datasets": [_axolotl(str(out / "train.jsonl"), conversational)]}
        if "validation" in splits:
            stanza["test_datasets"] = [_axolotl(str(out / "validation.jsonl"), conversational)]
        write_atomically(out / "axolotl.yaml", yaml.safe_dump(stanza, sort_keys=False).encode())


def _llamafactory(file: str, conversational: bool) -> dict[str, Any]:
    sides = {"chosen": "chosen", "rejected": "rejected"}
    if not conversational:
        return {
            "file_name": file,
            "ranking": True,
            "columns": {"prompt": "instruction", "query": "input", **sides},
        }
    roles = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    return {
        "file_name": file,
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "messages", **sides},
        "tags": {**roles, "system_tag": "system"},
    }


def _axolotl(file: str, conversational: bool) -> dict[str, Any]:
    stanza: dict[str, Any] = {"path": file, "ds_type": "json", "split": "train"}
    if conversational:
        return stanza | {
            "type": "chat_template.default",
            "field_messages": "messages",
            "field_chosen": "chosen",
            "field_rejected": "rejected",
        }
    fields = {f"field_{name}": name for name in ("prompt", "chosen", "rejected")}
    formats = {f"{name}_format": f"{{{name}}}" for name in ("prompt", "chosen", "rejected")}
    return stanza | {"type": fields | formats}


def _readme(
    run: Path,
    library: Library,
    form: Form,
    conversational: bool,
    counts: dict[str, int],
    dropped: Counter[str],
    warning: str,
) -> str:
    sizes = ", ".join(f"{n:,} {split}" for split, n in counts.items())
    lines = [f"# {run.name} for {library}", "", f"Made by stepconf: {sizes} rows."]
    if library != "trl-stepwise":
        style = "conversational" if conversational else "plain text"
        lines += [f"Form: {form}, {style}. Splits are by problem."]
    if warning:
        lines += ["", f"**Warning.** {warning}"]
    if dropped:
        lines += ["", f"Left out: {_reasons(dropped)}."]
    return "\n".join([*lines, "", "```", *_usage(library, conversational, list(counts)), "```", ""])


def _usage(library: Library, conversational: bool, splits: list[str]) -> Iterator[str]:
    """What to type, in the folder that holds the export."""
    if library.startswith("trl"):
        files = ", ".join(f'"{split}": "{split}.parquet"' for split in splits)
        yield f'data = datasets.load_dataset("parquet", data_files={{{files}}})'
        if library == "trl":
            yield 'trl.DPOTrainer(model, train_dataset=data["train"], ...)'
        else:
            yield "# TRL's PRMTrainer read this form up to version 1.13; other PRM trainers still do"
    elif library == "openrlhf":
        chat = " --apply_chat_template" if conversational else ""
        yield "openrlhf.cli.train_dpo --dataset train.jsonl"
        yield f"    --prompt_key prompt --chosen_key chosen --rejected_key rejected{chat}"
    elif library == "llamafactory":
        yield "stage: dpo"
        yield "dataset_dir: ."
        yield "dataset: stepconf_train"
        if not conversational:
            yield "template: empty  # the prompts are rendered already"
    else:
        yield "# the stanza for the config is in axolotl.yaml"


def _reasons(dropped: Counter[str]) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in dropped.most_common()) or "it has no pairs"
