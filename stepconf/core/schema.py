"""The product: three tables, declared once. Parquet, JSON Schema and the data dictionary come from here.

Kinds: a trailing `?` allows null; `json` is an object stored as a JSON string.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from stepconf.core.documents import read_object
from stepconf.core.records import Pair, Solution, Step, Verdict
from stepconf.core.signals import SIGNALS
from stepconf.errors import StepconfError

VERSION = "1.3"
_IN_1_3: dict[str, tuple[str, ...]] = {
    "solutions": ("fitted_confidence", "reasoning_start", "reasoning_end"),
    "steps": (
        *("token_varentropies", "token_mean_logprobs", "token_second_probs"),
        *("fitted_confidence", "part", "is_reconsidering", "entropy_topk", "entropy_low", "entropy_high"),
    ),
}
# Columns that older versions lack; `upgraded` adds them to what was written then.
ADDED: dict[str, dict[str, tuple[str, ...]]] = {
    "1.0": {
        "solutions": ("answer_type", "parent_solution_id", "branch_step", *_IN_1_3["solutions"]),
        "steps": ("prefix_id", "after_error", *_IN_1_3["steps"]),
    },
    "1.1": {"solutions": ("answer_type", *_IN_1_3["solutions"]), "steps": _IN_1_3["steps"]},
    "1.2": _IN_1_3,
}
# What they are in rows of versions that lack them.
_OLDER: dict[str, Any] = {"part": "answer", "is_reconsidering": False}
UPGRADED_FROM = "stepconf_upgraded_from"
ENTROPY_METADATA = {
    "entropy_estimator": "exact, full vocabulary",
    "entropy_unit": "nats",
    "entropy_distribution": "raw next-token distribution, temperature 1, before any sampling processor",
}


class Field(NamedTuple):
    """One column: its name, kind, and what it means (with its unit or range)."""

    name: str
    kind: str
    meaning: str


SOLUTIONS = (
    Field("solution_id", "string", "content hash of problem, model, tokens or text, and sample index"),
    Field("problem_id", "string", "content hash of the problem's text and gold answer"),
    Field("external_id", "string?", "the id column of the source, if it had one"),
    Field("source", "string", "problem set, file or generator"),
    Field("split", "string", "split of the source"),
    Field("problem", "string", "text of the problem"),
    Field("gold_answer", "string?", "reference answer"),
    Field(
        "answer_type", "string", "how it is compared: math, number, choice, yesno, string, literal or code"
    ),
    Field("model", "string", "model that sampled or scored the solution; empty where none did"),
    Field("model_revision", "string", "Hub revision of the model, if given"),
    Field("engine", "string", "vllm, transformers, openai or one's own; empty where none ran"),
    Field("prompt_token_ids", "list<int32>", "exact tokens before the text; of a branch, its parent's too"),
    Field("text", "string", "the solution, of a branch what it adds; equals the join of its steps"),
    Field("token_ids", "list<int32>", "exact tokens of the solution, without the end-of-sequence token"),
    Field("temperature", "float64?", "sampling temperature"),
    Field("top_p", "float64?", "nucleus mass"),
    Field("seed", "int64?", "seed of this sample's random stream"),
    Field("sample_index", "int32", "which sample of its problem"),
    Field(
        "finish_reason",
        "string",
        "stop (the model ended), length (cut off), length_in_reasoning (cut off inside its thinking), or imported",
    ),
    Field("predicted_answer", "string?", "the answer extracted from the text"),
    Field("answer_correct", "bool?", "verdict of `final` on the answer; null where unknown"),
    Field("n_steps", "int32", "steps in the solution"),
    Field("n_tokens", "int32", "tokens in the solution"),
    Field("entropy_mean", "float64?", "mean token entropy in nats"),
    Field("confidence", "float64?", "exp(-entropy_mean), in (0, 1]"),
    Field("extra", "json", "every column of the source that was not used"),
    Field("parent_solution_id", "string?", "the solution that a branch leaves; null where it is no branch"),
    Field("branch_step", "int32?", "the step of the parent before which a branch leaves it, from 0"),
    Field("fitted_confidence", "float64?", "P(the answer is right) by the recipe's confidence file, (0, 1)"),
    Field(
        "reasoning_start", "int32?", "first character of the thinking, its mark too; null where there is none"
    ),
    Field("reasoning_end", "int32?", "one past its last character, its mark too: where the answer begins"),
)

STEP_SIGNALS = tuple(signal for signal in SIGNALS if signal.column)
STEPS = (
    Field("step_id", "string", "content hash of solution, index and span"),
    Field("solution_id", "string", "the solution it belongs to"),
    Field("problem_id", "string", "the problem it belongs to"),
    Field("step_index", "int32", "position in the solution, from 0"),
    Field("n_steps", "int32", "steps in the solution"),
    Field("text", "string", "the step with its trailing white space"),
    Field("char_start", "int32", "first character in the solution's text"),
    Field("char_end", "int32", "one past its last character"),
    Field("token_start", "int32", "first token in the solution's token_ids"),
    Field("token_end", "int32", "one past its last token"),
    Field("token_ids", "list<int32>", "tokens that start in the step"),
    Field("token_logprobs", "list<float32>", "log-probability of each token, nats, <= 0"),
    Field("token_entropies", "list<float32>", "exact entropy of each token's distribution, nats, 0 to ln V"),
    Field("token_max_probs", "list<float32>", "largest probability of each token's distribution, (0, 1]"),
    *(Field(signal.name, "float64?", signal.described) for signal in STEP_SIGNALS),
    Field(
        "cumulative_confidence", "float64?", "product of the solution's confidences up to this step, [0, 1]"
    ),
    Field(
        "verdicts",
        "list<verdict>",
        "what each verifier said; `reference`: the step put right; `raw`: the replies, if kept",
    ),
    Field("label", "string", "correct, incorrect or unknown, from the verdicts by the run's policy"),
    Field(
        "label_source",
        "string",
        "the verifiers that decided the label, or that it is an error taken back later",
    ),
    Field("is_first_error", "bool", "the first step of its solution that is labelled incorrect"),
    Field(
        "after_error", "bool", "a step before it is labelled incorrect, in its solution or before it branches"
    ),
    Field("prefix_id", "string?", "content hash of the exact tokens before the step, the prompt's too"),
    Field("token_varentropies", "list<float32>?", "varentropy of each token's distribution, nats^2, >= 0"),
    Field("token_mean_logprobs", "list<float32>?", "mean over the vocabulary of ln p, nats, <= -ln V"),
    Field("token_second_probs", "list<float32>?", "second largest probability of each token, [0, 1/2]"),
    Field("fitted_confidence", "float64?", "P(the step is right) by the recipe's confidence file, (0, 1)"),
    Field("part", "string", "reasoning (the thinking of a reasoning model) or answer (all else)"),
    Field("is_reconsidering", "bool", "it holds a turn of thought, such as Wait or Alternatively"),
    Field(
        "entropy_topk",
        "float64?",
        "entropy over the likeliest tokens alone, where a server gives no more, mean in nats",
    ),
    Field("entropy_low", "float64?", "the least entropy that the likeliest tokens allow, mean in nats"),
    Field("entropy_high", "float64?", "the greatest entropy that the likeliest tokens allow, mean in nats"),
)

_SOURCES = "step (of solution_id), candidate (another one's step), solution, completer (another model)"
PAIRS = (
    Field("pair_id", "string", "content hash of prompt, chosen and rejected tokens"),
    Field("problem_id", "string", "the problem it belongs to"),
    Field("solution_id", "string", "the solution whose step gave rise to it"),
    Field("step_index", "int32", "that step"),
    Field(
        "kind", "string", "correct_uncertain, incorrect, trajectory or outcome (chosen is right more often)"
    ),
    Field("messages", "list<message>", "the problem as a conversation"),
    Field("prefix", "string", "the steps before on the whole path, as text"),
    Field("prompt", "string", "everything before the two sides, as text"),
    Field("chosen", "string", "the better continuation"),
    Field("rejected", "string", "the worse continuation"),
    Field("prompt_ids", "list<int32>", "exact tokens of the prompt"),
    Field("chosen_ids", "list<int32>", "exact tokens of chosen"),
    Field("rejected_ids", "list<int32>", "exact tokens of rejected"),
    Field("chosen_is_terminal", "bool", "the solution ends after chosen: only then end-of-sequence follows"),
    Field("rejected_is_terminal", "bool", "the solution ends after rejected"),
    Field("chosen_confidence", "float64?", "exp(-mean entropy) of chosen, (0, 1]"),
    Field("rejected_confidence", "float64?", "exp(-mean entropy) of rejected, (0, 1]"),
    Field("chosen_source", "string", f"who wrote chosen: {_SOURCES}; critic (a reference)"),
    Field("rejected_source", "string", f"who wrote rejected: {_SOURCES}"),
    Field("round", "int32", "round of iterative training, from 0"),
    Field("policy", "string", "the model whose samples these are"),
)

TABLES: dict[str, tuple[Field, ...]] = {"solutions": SOLUTIONS, "steps": STEPS, "pairs": PAIRS}

_VERDICT = (
    ("verifier", "string"),
    ("version", "string"),
    ("label", "string"),
    ("score", "float64"),
    ("reason", "string"),
    ("seconds", "float64"),
    ("reference", "string"),
    ("raw", "string"),
)
_NULLABLE = ("score", "reference", "raw")
_MESSAGE = (("role", "string"), ("content", "string"))


def plain(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    """Arrow's schema metadata as texts.

    Raises:
        UnicodeDecodeError: another writer's are none.
    """
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}


def arrow_schema(table: str, metadata: dict[str, str] | None = None) -> Any:
    """The `pyarrow.Schema` of a table; `metadata` (engine, model, ...) joins the estimator's identity."""
    import pyarrow as pa

    fields = [pa.field(f.name, _arrow_type(f.kind), nullable=f.kind.endswith("?")) for f in TABLES[table]]
    said = {"stepconf_schema": VERSION, **ENTROPY_METADATA, **(metadata or {})}
    # The version is that of what is written now, not of the rows that the metadata come from.
    return pa.schema(fields, metadata=said | {"stepconf_schema": VERSION})


def older_verdicts() -> Any:
    """The Arrow type of the column `verdicts` in the versions of `ADDED`, which lack the field `raw`."""
    import pyarrow as pa

    kind = _arrow_type("verdict")
    return pa.list_(pa.field("item", pa.struct([part for part in kind if part.name != "raw"])))


def _arrow_type(kind: str) -> Any:
    import pyarrow as pa

    kind = kind.removesuffix("?")
    if kind == "json":
        return pa.string()
    if kind.startswith("list<"):
        item = _arrow_type(kind[5:-1])
        # Parquet keeps, and reads, a mark for each number that may be missing: a quarter of the time of a column.
        return pa.list_(pa.field("item", item, nullable=pa.types.is_struct(item)))
    if kind in ("verdict", "message"):
        parts = _VERDICT if kind == "verdict" else _MESSAGE
        return pa.struct([(name, _arrow_type(part)) for name, part in parts])
    return {"bool": pa.bool_(), "string": pa.string()}.get(kind) or getattr(pa, kind)()


def upgraded(table: str, rows: Any) -> Any:
    """An Arrow table as this version declares its columns; what an older one lacks is added.

    `after_error` follows from `is_first_error`, and `answer_type` was in `extra`; all steps were of the answer. The
    others were not known then, and are null, or false where they cannot be.
    """

    declared, metadata = arrow_schema(table), rows.schema.metadata or {}
    version = metadata.get(b"stepconf_schema", b"").decode(errors="replace")
    if version not in ADDED:
        return rows
    if "verdicts" in rows.schema.names and _is_of_structs(rows["verdicts"].type):
        index = rows.schema.get_field_index("verdicts")
        rows = rows.set_column(index, declared.field("verdicts"), _with_raw(rows["verdicts"]))
    later = ADDED[version].get(table, ())
    for index, field in enumerate(declared):  # in order, so that those before it are there
        if field.name not in later or field.name in rows.schema.names:
            continue
        if field.name == "answer_type":
            added, extra = _answer_types(rows["extra"].to_pylist())
            rows = rows.set_column(rows.schema.get_field_index("extra"), declared.field("extra"), extra)
        else:
            added = _after_error(rows) if field.name == "after_error" else _older(field, len(rows))
        rows = rows.add_column(min(index, rows.num_columns), field, added)
    first = {UPGRADED_FROM.encode(): version.encode()}
    return rows.replace_schema_metadata({**first, **metadata, b"stepconf_schema": VERSION.encode()})


def was_unknown(table: str, column: str, rows: Any) -> bool:
    """Whether the version that first wrote an Arrow table lacked a column, which may therefore be null in it."""
    version = (rows.schema.metadata or {}).get(UPGRADED_FROM.encode(), b"").decode(errors="replace")
    return column in ADDED.get(version, {}).get(table, ())


def _answer_types(extras: Sequence[str]) -> tuple[Any, Any]:
    """The answer types that `extra` held before version 1.2, `math` where it held none, and what else it holds."""
    import pyarrow as pa

    found: list[tuple[str, str]] = []
    for text in extras:
        try:
            held = read_object(text)
        except ValueError:  # `extra_of` reports it, with its solution
            held = {}
        kind = held.pop("answer_type", None)
        found.append(("math", text) if kind is None else (str(kind), _json(held)))
    return pa.array([kind for kind, _ in found], pa.string()), pa.array(
        [rest for _, rest in found], pa.string()
    )


def _is_of_structs(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) and pa.types.is_struct(kind.value_type))


def _with_raw(verdicts: Any) -> Any:
    """Verdicts with the field `raw`, null where they lack it, as this version declares them."""
    import pyarrow as pa

    kind = arrow_schema("steps").field("verdicts").type
    chunks = []
    for lists in verdicts.chunks:
        held = lists.flatten()
        parts = [
            held.field(part.name).cast(part.type)
            if held.type.get_field_index(part.name) >= 0
            else pa.nulls(len(held), part.type)
            for part in kind.value_type
        ]
        structs = pa.StructArray.from_arrays(parts, fields=list(kind.value_type))
        sizes = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        ends = pa.array([0, *sizes.cumsum().tolist()], pa.int32())
        chunks.append(pa.ListArray.from_arrays(ends, structs, type=kind))
    return pa.chunked_array(chunks, kind)


def _older(field: Any, n: int) -> Any:
    import pyarrow as pa

    value = _OLDER.get(field.name)
    return pa.nulls(n, field.type) if value is None else pa.repeat(pa.scalar(value, field.type), n)


def _after_error(steps: Any) -> Any:
    import pyarrow.compute as pc

    errors = steps.filter(steps["is_first_error"])
    at = errors["step_index"].take(pc.index_in(steps["solution_id"], value_set=errors["solution_id"]))
    return pc.fill_null(pc.greater(steps["step_index"], at), False)


def json_schema(table: str) -> dict[str, Any]:
    """The table's rows as JSON Schema (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": table,
        "version": VERSION,
        "type": "object",
        "properties": {f.name: {**_json_type(f.kind), "description": f.meaning} for f in TABLES[table]},
        "required": [f.name for f in TABLES[table]],
        "additionalProperties": False,
    }


def _json_type(kind: str) -> dict[str, Any]:
    if kind.endswith("?"):
        own = _json_type(kind[:-1])
        return own | {"type": [own["type"], "null"]}
    if kind.startswith("list<"):
        return {"type": "array", "items": _json_type(kind[5:-1])}
    if kind in ("verdict", "message"):
        parts = _VERDICT if kind == "verdict" else _MESSAGE
        kinds = {name: part + "?" if name in _NULLABLE else part for name, part in parts}
        return {"type": "object", "properties": {n: _json_type(k) for n, k in kinds.items()}}
    if kind == "json":
        return {"type": "string", "contentMediaType": "application/json"}
    names = {"string": "string", "bool": "boolean"}
    return {"type": names.get(kind) or ("integer" if kind.startswith("int") else "number")}


def to_columns(table: str, rows: Sequence[Solution | Step | Pair]) -> dict[str, list[Any]]:
    """Rows as columns of plain values, ready for `pyarrow.Table.from_pydict`."""
    columns = {f.name: [_value(row, f.name) for row in rows] for f in TABLES[table]}
    if "extra" in columns:
        columns["extra"] = list(map(_json, columns["extra"]))
    if "verdicts" in columns:
        columns["verdicts"] = [[asdict(v) for v in verdicts] for verdicts in columns["verdicts"]]
    return columns


def _value(row: Solution | Step | Pair, column: str) -> Any:
    return row.signals[column] if isinstance(row, Step) and column in row.signals else getattr(row, column)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def solution_of(row: dict[str, Any]) -> Solution:
    """A row of `solutions` as read from Parquet, as its record; raises as `extra_of`."""
    return Solution(**(row | {"extra": extra_of(row["extra"], row["solution_id"])}))


def extra_of(text: str, solution_id: str) -> dict[str, Any]:
    """What the column `extra` of a solution holds.

    Raises:
        StepconfError: it is not JSON, not an object, or nested too deeply.
    """
    try:
        return read_object(text)
    except ValueError as error:
        raise StepconfError(
            f"the column extra of solution {solution_id} is not an object of JSON: {error}",
            "The run was changed after it was written: take another copy of it, or make it again.",
        ) from error


def step_of(row: dict[str, Any]) -> Step:
    """A row of `steps` as read from Parquet, as its record."""
    own = dict(row)
    signals = {signal.name: own.pop(signal.name) for signal in STEP_SIGNALS}
    return Step(**(own | {"signals": signals, "verdicts": [Verdict(**v) for v in row["verdicts"]]}))
