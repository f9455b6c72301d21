"""Copies of a run with one thing changed, its manifests put right, so that nothing else is wrong with them."""

import atexit
import json
import tempfile
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.test_pipeline import write_jsonl
from tests.tiny import stepconf, with_tiny

Row = dict[str, Any]
PROBLEMS = [{"question": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1), "level": i} for i in range(6)]


def command(folder: Path, out: Path) -> list[object]:
    """`generate` of six problems with four samples each, in chunks of two problems."""
    problems = write_jsonl(folder / "problems.jsonl", PROBLEMS)
    options = ["--verify", "final,symbolic", "--samples", 4, "--max-tokens", 48]
    return ["generate", "--problems", problems, "--out", out, *with_tiny(), *options]


@cache
def good_run() -> Path:
    """A run of the tiny model with pairs, made once for all tests; copy it before changing anything."""
    scratch = tempfile.TemporaryDirectory(prefix="stepconf-run-")
    atexit.register(scratch.cleanup)
    out = Path(scratch.name) / "run"
    made = stepconf(*command(Path(scratch.name), out))
    assert made.code == 0, made.err
    label_some(out)
    paired = stepconf("pairs", out, "--tau", 0.99, "--set", "pairs.validation=0.5")
    assert paired.code == 0, paired.err
    return out


def label_some(run: Path) -> None:
    """Verdicts of an invented verifier on every step: what a random model writes, no real one decides."""

    def speak(row: Row) -> None:
        label = "incorrect" if len(row["text"]) % 2 else "correct"
        row["verdicts"].append(
            {"verifier": "prm", "version": "1", "label": label, "score": 0.5, "reason": "", "seconds": 0.0}
            | {"reference": None}
        )

    edit(run, "steps", lambda rows: [speak(row) for row in rows])
    relabelled = stepconf("relabel", run, "--policy", "first-decided")
    assert relabelled.code == 0, relabelled.err


def edit(run: Path, table: str, change: Callable[[list[Row]], Any], chunk: str | None = None) -> None:
    """Apply `change` to the rows of the table's shards (of one chunk), in place, and mend the manifests.

    The pairs of all chunks of a small run lie together.
    """
    if table == "pairs":
        chunk = None
    for file in sorted((run / table).glob(f"*-{chunk or '*'}.parquet")):
        read = pq.read_table(file)
        rows = read.to_pylist()
        change(rows)
        rewrite(run, file, pa.Table.from_pylist(rows, schema=read.schema))


def rewrite(run: Path, file: Path, rows: pa.Table) -> None:
    """Replace a shard, and say so in its manifest."""
    pq.write_table(rows, file, compression="zstd")
    name = f"{file.parent.name}/{file.name}"
    for manifest in sorted((run / "manifests").glob("*.json")):
        held = json.loads(manifest.read_text())
        if name in held["files"]:
            digest = blake2b(file.read_bytes(), digest_size=16).hexdigest()
            held["files"][name] = {"rows": len(rows), "bytes": file.stat().st_size, "blake2b": digest}
            if file.parent.name in held:
                held[file.parent.name] = len(rows)
            held.pop("checksum", None)
            manifest.write_text(json.dumps(held))


def with_lists_of_others(rows: pa.Table) -> pa.Table:
    """The rows as other writers have them: items of lists may be missing."""
    kinds = {f.name: pa.list_(f.type.value_type) for f in rows.schema if pa.types.is_list(f.type)}
    fields = [f.with_type(kinds.get(f.name, f.type)) for f in rows.schema]
    return rows.cast(pa.schema(fields, rows.schema.metadata))
