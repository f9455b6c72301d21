"""Step-level DPO against TRL's DPOTrainer: pairs per second and peak memory on the same pairs, in one run.

Pairs: at each step of N solutions, the step against a slip in it (one digit changed), after the exact steps before.
`gsm8k` and `math` are the data sets' own solutions; `math-models` those that models wrote to problems of MATH (from
ProcessBench, with its steps): the others have about 190 tokens, these 600, as what a policy samples.
Both sides: the same model, float type, AdamW, batch of 64 pairs an optimiser step, reference forward included,
loading and saving left out, each in a process of its own. We train on all pairs, before and after TRL; TRL on an
even sample of them (its pairs share nothing, so its rate does not depend on how many there are). It runs without
gradient checkpointing, at its default of 8 pairs a device, and at whichever number is fastest on a few of them;
what does not fit into memory is said, and the largest number that fits stands for the default.

    python -m tests.benchmarks.dpo_throughput [--data gsm8k|math|math-models] [--solutions 40] [--trl-pairs 32]
        [--dtype float32|bfloat16]
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepconf.core.segment import segment
from stepconf.training.measure import BATCH, TRL_PER_DEVICE, TextPair, peak_gib, run_stepconf, run_trl

PROBED = (1, 4, TRL_PER_DEVICE)
PROBE_PAIRS = 8
NO_MEMORY = ("can't allocate memory", "OutOfMemoryError", "MemoryError")
Row = dict[str, Any]


def solutions_of(data: str, n: int) -> list[tuple[str, list[str]]]:
    """Questions, each with the steps of one solution, which joined are its text."""
    from tests.shared_data import large_rows

    if data == "math-models":
        rows = large_rows("processbench/math_dev.jsonl.gz")[:n]
        return [(row["problem"], [f"{step}\n\n" for step in row["steps"]]) for row in rows]
    question, solution = ("question", "answer") if data == "gsm8k" else ("problem", "solution")
    rows = large_rows(f"{data}/train.jsonl.gz")[:n]
    return [(r[question], [r[solution][start:end] for start, end in segment(r[solution])]) for r in rows]


def step_pairs(data: str, solutions: int) -> list[TextPair]:
    """At each step of the solutions, the step against a slip in it."""
    draw = random.Random(7)
    pairs = []
    for number, (question, steps) in enumerate(solutions_of(data, solutions)):
        prompt = f"Question: {question}\nAnswer:\n"
        for k, chosen in enumerate(steps):
            slip = with_a_slip(chosen, draw)
            if slip != chosen:
                # Step by step, so that a step has the same tokens before it and as a side, as those of a run have:
                # the blank line after a step is one token where a text ends with it, and two before the next step.
                before = (prompt, *steps[:k])
                pairs.append(TextPair(before, chosen, slip, str(number), k == len(steps) - 1))
    return pairs


def with_a_slip(step: str, draw: random.Random) -> str:
    """The step with one digit changed; with a word doubled where it has none."""
    digits = [m.start() for m in re.finditer(r"\d", step)]
    if not digits:
        first, space, rest = step.partition(" ")
        return f"{first}{space}{first}{space}{rest}"
    at = draw.choice(digits)
    return step[:at] + str((int(step[at]) + draw.randint(1, 9)) % 10) + step[at + 1 :]


def apart(model: str, pairs: list[TextPair], dtype: str, per_device: int) -> Row | None:
    """One of the two in a process of its own (`per_device` 0 is ours), with its peak memory in GiB.

    None where it needs more memory than there is.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([asdict(pair) for pair in pairs], file)
        file.flush()
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.dpo_throughput",
            "--one",
            file.name,
            str(per_device),
        ]
        done = subprocess.run(
            [*command, "--model", model, "--dtype", dtype], capture_output=True, text=True, check=False
        )
    if done.returncode and any(said in done.stderr for said in NO_MEMORY):
        return None
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    result: Row = json.loads(done.stdout.splitlines()[-1])
    return result | {"rate": len(pairs) / result["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", choices=["gsm8k", "math", "math-models"], default="gsm8k")
    parser.add_argument("--solutions", type=int, default=40)
    parser.add_argument("--trl-pairs", type=int, default=32)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    from stepconf.demo_model import resolve_model

    model = resolve_model(args.model)
    if args.one:
        ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10
        resource.setrlimit(resource.RLIMIT_DATA, (ram, ram))  # rather an error than a killed machine
        pairs = [
            TextPair(**one | {"before": tuple(one["before"])})
            for one in json.loads(Path(args.one[0]).read_text())
        ]
        per_device = int(args.one[1])
        result = (
            run_trl(model, args.dtype, pairs, per_device)
            if per_device
            else run_stepconf(model, args.dtype, pairs)
        )
        print(json.dumps(result | {"peak_gib": peak_gib()}))
        return
    pairs = step_pairs(args.data, args.solutions)
    print(f"{len(pairs)} step pairs of {args.solutions} {args.data} solutions, {args.dtype}, batch {BATCH}")
    before = measure_ours(model, pairs, args.dtype)
    sample = pairs[:: -(-len(pairs) // args.trl_pairs)]
    theirs = measure_trl(model, sample, args.dtype)
    after = measure_ours(model, pairs, args.dtype)
    for n, one in theirs.items():
        speed = (before["rate"] + after["rate"]) / 2 / one["rate"]
        memory = max(before["peak_gib"], after["peak_gib"]) / one["peak_gib"]
        print(f"ratio pairs_per_second_over_trl_{n}_a_device: {speed:.2f}")
        print(f"ratio peak_memory_over_trl_{n}_a_device: {memory:.2f}")


def measure_trl(model: str, sample: list[TextPair], dtype: str) -> dict[int, Row]:
    """TRL on the sample, by pairs a device: at the fastest number, and at the default or the largest that fits."""
    few = sample[:: -(-len(sample) // PROBE_PAIRS)]
    tried = {n: apart(model, few, dtype, n) for n in PROBED}
    probes = {n: one for n, one in tried.items() if one}
    rates = {n: f"{one['rate']:.3f}" if one else "out of memory" for n, one in tried.items()}
    print(f"TRL on {len(few)} pairs, by batch per device: {rates}", flush=True)
    fastest = max(probes, key=lambda n: probes[n]["rate"])
    theirs: dict[int, Row] = {}
    for n in dict.fromkeys((fastest, max(probes))):
        one = probes[n] if few == sample else apart(model, sample, dtype, n)
        if one is None:
            print(f"TRL, {n} a device: out of memory on {len(sample)} pairs", flush=True)
            continue
        theirs[n] = one
        print(
            f"TRL, {n} a device: {one['rate']:.3f} pairs/s on {len(sample)} pairs, peak {one['peak_gib']:.2f} GiB",
            flush=True,
        )
    return theirs


def measure_ours(model: str, pairs: list[TextPair], dtype: str) -> Row:
    """All pairs through stepconf, once."""
    ours = apart(model, pairs, dtype, 0)
    if ours is None:
        raise SystemExit("stepconf: out of memory")
    print(
        f"stepconf: {ours['rate']:.2f} pairs/s, peak {ours['peak_gib']:.2f} GiB; "
        f"tokens {ours['tokens']:,} of {ours['tokens_unpacked']:,} unpacked",
        flush=True,
    )
    return ours


if __name__ == "__main__":
    main()
