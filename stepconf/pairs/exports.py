"""`stepconf pairs RUN --export NAME --out DIR`: the pairs as a training library reads them.

DIR/train.parquet or train.jsonl, DIR/validation.*, what else the library wants, and a README.md that says how
to load them and what to beware of.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl
import yaml

from stepconf.core import exports as forms
from stepconf.core.exports import STEP_WARNING, Messages, Row
from stepconf.core.pairs.reasons import BRANCH
from stepconf.core.pairs.select import SPLITS, Split, split_of
from stepconf.core.prompts import chat_messages
from stepconf.core.records import CUT, Pair
from stepconf.errors import StepconfError
from stepconf.pairs.make import open_tokenizer
from stepconf.pairs.read import batches, frames_of
from stepconf.run.new_folder import check_new, new_folder
from stepconf.run.shards import write_atomically, write_rows
from stepconf.run.tables import pairs_manifest, read_pairs, read_recipe

Library = Literal["trl", "trl-stepwise", "step-kto", "openrlhf", "llamafactory", "axolotl"]
STEPS = ("trl-stepwise", "step-kto")  # made of labelled steps, not of pairs
Form = Literal["step", "trajectory"]
_COUNTED = 10_000  # rows whose token ids are looked at: each is encoded five times


def check_folder(out: Path) -> None:
    """Raise StepconfError where an export may not be written."""
    check_new(out, _OURS)


class Exported(NamedTuple):
    """Rows by split, what was left out by reason, what to beware of, and whether stock tokenizers give our ids."""

    rows: dict[str, int]
    dropped: Counter[str]
    warning: str
    token_ids: str


def export_pairs(
    run: Path,
    library: Library,
    out: Path,
    form: Form,
    conversational: bool,
    validation: float,
    model: str = "",
) -> Exported:
    """Write the export; `model` as in `make_pairs`.

    Raises:
        StepconfError: the folder is not empty, or nothing is left to export.
    """
    check_folder(out)
    prompts = read_recipe(run).get("prompt", {})
    dropped: Counter[str] = Counter()
    terminal, token_ids = True, ""
    rows: dict[Split, list[Row]] = {}
    if library == "trl-stepwise":
        rows = _stepwise(run, validation, dropped)
    elif library == "step-kto":
        rows, terminal = _judged(run, validation, dropped, model), False
    else:
        paths = _by_problem(run) if form == "trajectory" else {}
        of_split: dict[Split, list[Pair]] = {}
        for split in SPLITS:
            pairs: Iterable[Pair] = (pair for shard in read_pairs(run, split) for pair in shard)
            of_split[split] = list(
                forms.trajectories(pairs, paths, dropped) if form == "trajectory" else pairs
            )
            rows[split] = [_row(pair, library, conversational, prompts) for pair in of_split[split]]
        everything = list(chain.from_iterable(of_split.values()))
        terminal = all(pair.chosen_is_terminal and pair.rejected_is_terminal for pair in everything)
        if form == "step" and everything:
            token_ids = _token_ids(run, everything, conversational, model)
    counts: dict[str, int] = {split: len(own) for split, own in rows.items() if own}
    if not counts:
        reasons = dropped or Counter((pairs_manifest(run) or {}).get("drops", {}))
        raise StepconfError(f"{run} gives nothing to export: {_reasons(reasons)}.", _HINT)
    exported = Exported(counts, dropped, "" if terminal else STEP_WARNING, token_ids)
    readme = _readme(run, library, form, conversational, exported)
    with new_folder(out, _OURS):
        for split, own in rows.items():
            if own:
                write_rows(out / f"{split}.{'parquet' if library in _PARQUET else 'jsonl'}", own)
        _write_beside(out, library, conversational, list(counts))
        write_atomically(out / "README.md", readme.encode())
    return exported


_PARQUET = ("trl", *STEPS)
_OURS = (
    *(f"{split}.{kind}" for split in SPLITS for kind in ("parquet", "jsonl")),
    *("dataset_info.json", "axolotl.yaml", "README.md"),
)
_HINT = "Other pairs: --strategy, --tau; more of them: more samples, branches (--branch), a critic."


def _token_ids(run: Path, pairs: list[Pair], conversational: bool, model: str) -> str:
    """In how many rows a stock tokenizer gives other ids than those that were sampled; one sentence."""
    try:
        tokenizer = open_tokenizer(run, model=model)
    except StepconfError as error:
        return f"not counted in how many rows a tokenizer gives other ids than those sampled: {error.problem}"
    looked_at = pairs[:_COUNTED]
    apart, together = map(
        sum, zip(*(forms.boundary(tokenizer.encode, pair, conversational) for pair in looked_at), strict=True)
    )
    return (
        f"of {len(looked_at):,} rows, {apart:,} have other ids than those sampled where prompt and side are encoded "
        f"one by one, and {together:,} where they are encoded together and the prompt is cut off, as TRL does. "
        "`stepconf train` takes the sampled ids."
    )


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
    """Of solutions from the prompt; what branches say of their parents' steps is in these steps' labels."""
    rows: dict[Split, list[Row]] = {split: [] for split in SPLITS}
    for batch in batches(run):
        roots = batch.solutions.filter(pl.col("parent_solution_id").is_null())
        dropped[BRANCH] += batch.solutions.height - roots.height
        steps = batch.steps.sort("step_index").group_by("solution_id").agg("text", "label")
        found = roots.select("solution_id", "problem_id", "problem").join(
            steps, on="solution_id", how="left", maintain_order="left"
        )
        for _, problem_id, problem, texts, labels in found.iter_rows():
            pairs = zip(texts or (), labels or (), strict=True)
            rows[split_of(problem_id, validation)] += forms.stepwise(problem, pairs, dropped)
    dropped += Counter()  # no reason that never came up
    return rows


def _judged(run: Path, validation: float, dropped: Counter[str], model: str) -> dict[Split, list[Row]]:
    """The labelled steps of solutions and branches, each text after its prompt once."""
    rows: dict[Split, list[Row]] = {split: [] for split in SPLITS}
    tokenizer, prompts = open_tokenizer(run, model=model), dict[tuple[int, ...], str]()
    seen = set[tuple[str, str]]()
    for batch in batches(run):
        steps = batch.steps.sort("step_index").group_by("solution_id").agg("text", "label", "after_error")
        found = batch.solutions.select("solution_id", "problem_id", "prompt_token_ids").join(
            steps, on="solution_id", how="inner", maintain_order="left"
        )
        for _, problem_id, prompt, *columns in found.iter_rows():
            ids = tuple(prompt)
            before = prompts[ids] if ids in prompts else prompts.setdefault(ids, tokenizer.decode(list(ids)))
            for row in forms.judged(before, zip(*columns, strict=True), dropped):
                key = (row["prompt"], row["completion"])
                if key in seen:
                    dropped["sampled before"] += 1
                    continue
                seen.add(key)
                rows[split_of(problem_id, validation)].append(row)
    return rows


def _by_problem(run: Path) -> dict[str, list[forms.Path]]:
    found: dict[str, list[forms.Path]] = {}
    for batch in batches(run):
        rows = frames_of(batch).solutions.select(
            "problem_id", "solution_id", "prompt_token_ids", "token_ids", "finish_reason", "answer_correct",
            text=pl.col("lead") + pl.col("text"),
        )  # fmt: skip
        for problem, solution, prompt, own, finish, right, text in rows.iter_rows():
            tokens = array("i", prompt + own).tobytes()
            path = forms.Path(solution, tokens, text, finish not in CUT, right)
            found.setdefault(problem, []).append(path)
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


def _readme(run: Path, library: Library, form: Form, conversational: bool, exported: Exported) -> str:
    sizes = ", ".join(f"{n:,} {split}" for split, n in exported.rows.items())
    lines = [f"# {run.name} for {library}", "", f"Made by stepconf: {sizes} rows."]
    if library not in STEPS:
        style = "conversational" if conversational else "plain text"
        lines += [f"Form: {form}, {style}. Splits are by problem."]
    if exported.warning:
        lines += ["", f"**Warning.** {exported.warning}"]
    if exported.token_ids:
        lines += ["", f"**Token ids.** {exported.token_ids}"]
    if exported.dropped:
        lines += ["", f"Left out: {_reasons(exported.dropped)}."]
    return "\n".join([*lines, "", "```", *_usage(library, conversational, list(exported.rows)), "```", ""])


def _usage(library: Library, conversational: bool, splits: list[str]) -> Iterator[str]:
    """What to type, in the folder that holds the export."""
    if library in _PARQUET:
        files = ", ".join(f'"{split}": "{split}.parquet"' for split in splits)
        yield f'data = datasets.load_dataset("parquet", data_files={{{files}}})'
        if library == "trl":
            yield 'trl.DPOTrainer(model, train_dataset=data["train"], ...)'
        elif library == "step-kto":
            yield 'trl.KTOTrainer(model, train_dataset=data["train"], ...)'
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
