"""What one table's columns must be, whatever is in the others: schema, missing values, allowed values, pairs."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stepconf.core.answers import ANSWER_TYPES
from stepconf.core.checks.findings import Findings
from stepconf.core.checks.steps import numbers
from stepconf.core.reasoning import PARTS
from stepconf.core.records import FinishReason, Label, PairKind
from stepconf.core.schema import ADDED, ENTROPY_METADATA, VERSION, arrow_schema, older_verdicts, plain
from stepconf.core.signals import CONFIDENCE, SIGNALS

IDS = {"solutions": "solution_id", "steps": "step_id", "pairs": "pair_id"}
_VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "solutions": {"answer_type": ANSWER_TYPES, "finish_reason": get_args(FinishReason)},
    "steps": {"label": get_args(Label), "part": PARTS},
    "pairs": {"kind": get_args(PairKind)},
}
_SLACK = 1e-6  # as `checks/steps.py` allows a probability to be above 1
_RANGES = {
    **{signal.name: signal for signal in SIGNALS},
    # A product over many steps may be too small for a float.
    "cumulative_confidence": replace(CONFIDENCE, open_low=False),
    **dict.fromkeys(("chosen_confidence", "rejected_confidence", "fitted_confidence"), CONFIDENCE),
}


def check_schema(table: str, schema: Any, where: str, found: Findings) -> bool:
    """Whether the shard `where` has the declared columns, so that its rows can be looked at."""
    declared = arrow_schema(table)
    try:
        metadata = plain(schema.metadata)
    except UnicodeDecodeError as error:
        found.add("schema", f"{where}: metadata: {error}")
        return False
    version = metadata.get("stepconf_schema")
    if version not in (VERSION, *ADDED):
        found.add("schema", f"{where}: schema version {version!r}, not {VERSION!r}")
    later = ADDED.get(version or "", {}).get(table, ())
    for key, value in ENTROPY_METADATA.items():
        if metadata.get(key) != value:
            found.add("schema", f"{where}: metadata {key} is {metadata.get(key)!r}")
    fits = True
    for name in dict.fromkeys([*declared.names, *schema.names]):
        there = [s.field(name).type if name in s.names else None for s in (declared, schema)]
        if name == "verdicts" and version in ADDED and _alike(older_verdicts(), there[1]):
            continue
        if not _alike(*there) and not (name in later and there[1] is None):
            fits = False
            found.add(
                "schema", f"{where}: column {name} is {there[1] or 'absent'}, not {there[0] or 'there'}"
            )
    return fits


def check_values(table: str, rows: Any, found: Findings) -> None:
    """Missing values and values that the column may not have."""
    ids = rows[IDS[table]]
    for field in arrow_schema(table):
        if not field.nullable and rows[field.name].null_count:
            found.add_rows("null", numbers(rows[field.name].is_null()), ids, field.name)
        if pa.types.is_list(field.type) and not field.type.value_field.nullable:
            found.add_rows("null", _lacks_items(rows[field.name]), ids, field.name)
    for name, allowed in _VALUES[table].items():
        wrong = ~numbers(pc.is_in(rows[name], value_set=pa.array(allowed)))
        found.add_rows("value", wrong, ids, name)
    for name, signal in _RANGES.items():
        if name in rows.column_names:
            value = rows[name].combine_chunks().to_numpy(zero_copy_only=False).astype(np.float64)
            low = value <= signal.low if signal.open_low else value < signal.low - _SLACK
            found.add_rows("value", low | (value > signal.high + _SLACK), ids, name)


def _alike(declared: Any, there: Any) -> bool:
    """Whether types are the same, whatever items are called and whether they may be missing: writers differ in that."""
    if declared is not None and there is not None and pa.types.is_list(declared) and pa.types.is_list(there):
        return _alike(declared.value_type, there.value_type)
    return bool(declared == there)


def _lacks_items(lists: Any) -> np.ndarray:
    """Which lists (n,) have a null among their items."""
    missing, items = np.zeros(len(lists), bool), pc.list_flatten(lists)
    if items.null_count:
        missing[pc.list_parent_indices(lists).filter(items.is_null()).to_numpy()] = True
    return missing


def check_pair_sides(pairs: Any, found: Findings) -> None:
    """Two sides that differ, each with tokens."""
    chosen, rejected = pairs["chosen_ids"], pairs["rejected_ids"]
    empty = (numbers(pc.list_value_length(chosen)) == 0) | (numbers(pc.list_value_length(rejected)) == 0)
    same = numbers(pc.equal(pairs["chosen"], pairs["rejected"]))
    found.add_rows("pair-sides", empty | same, pairs["pair_id"])
