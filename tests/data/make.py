"""Makes the samples of this folder from the large sets again: `python -m tests.data.make`.

The rows are those whose id has the smallest SHA-256, in the order of the set.
"""

import gzip
import hashlib
import json
from io import BytesIO

from tests.shared_data import SAMPLES, Row, large_rows

# The set, the column that names a row, and how many rows. Sets whose licence forbids copies have none.
SETS = [
    ("answer_equivalence_dev.jsonl.gz", None, 1_000),
    ("cases", "id", 1_000),
    ("gsm8k/train.jsonl.gz", "question", 50),
    ("gsm8k/test.jsonl.gz", "question", 25),
    ("math/train.jsonl.gz", "unique_id", 50),
    ("math/test.jsonl.gz", "unique_id", 25),
    ("processbench/gsm8k_dev.jsonl.gz", "id", 60),
    ("processbench/math_dev.jsonl.gz", "id", 60),
    ("solutions/gsm8k_openai_models.jsonl.gz", "question", 25),
    ("benchmarks/math500.jsonl.gz", "unique_id", 50),
    ("benchmarks/humaneval.jsonl.gz", "task_id", 16),
    ("benchmarks/cruxeval.jsonl.gz", "id", 30),
    ("benchmarks/svamp.jsonl.gz", "ID", 6),
    ("benchmarks/strategyqa_dev.jsonl.gz", "qid", 6),
    ("benchmarks/tablebench.jsonl.gz", "id", 6),
    ("benchmarks/mmlu_pro_stem.jsonl.gz", "question_id", 6),
    ("benchmarks/boardgameqa_bbeh.jsonl.gz", "input", 2),
    ("benchmarks/olympiadbench.jsonl.gz", "id", 6),
]


def sample_name(name: str) -> str:
    """The sample's file: the `cases` are a folder, and one file here."""
    return name if name.endswith(".gz") else f"{name}.jsonl.gz"


def chosen(rows: list[Row], column: str | None, count: int) -> list[Row]:
    """The rows with the `count` smallest hashes of the column, or of the whole row where it is None."""
    names = [json.dumps(row if column is None else row[column], ensure_ascii=False) for row in rows]
    ranked = sorted(range(len(rows)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    return [rows[i] for i in sorted(ranked[:count])]


def packed(rows: list[Row]) -> bytes:
    """The rows as gzipped JSON lines; no time in it, so that the same rows are the same bytes."""
    buffer = BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    return buffer.getvalue()


def main() -> None:
    """Write every sample, and say how large each is."""
    for name, column, count in SETS:
        rows = chosen(large_rows(name), column, count)
        path = SAMPLES / sample_name(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(packed(rows))
        print(f"{sample_name(name)}: {len(rows)} rows, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
