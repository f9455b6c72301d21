"""The whole pipeline on a real tiny model, through the command line, in this process."""

import gc
import json
import math
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepconf.core.paths import families
from stepconf.core.records import Solved
from stepconf.core.schema import TABLES, arrow_schema
from stepconf.engines.base import SampleRequest, Sampling
from stepconf.errors import StepconfError
from stepconf.pipeline import segment
from stepconf.recipe import load_recipe
from stepconf.run.meter import BusyClock
from stepconf.stages.chunks import Chunk
from stepconf.stages.solutions import reread
from stepconf.stages.stream import Made, overlapped, through
from stepconf.stages.verify import n_chunks_at_once
from tests.core.test_pairs import Sample, make
from tests.invariants import check_invariants, rows_of
from tests.shared_data import shared_rows
from tests.tiny import VOCABULARY, stepconf, tiny_model, with_tiny

PROBLEMS = [{"question": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1), "level": i} for i in range(5)]
# In ProcessBench's form. The second has a false step; the third says the same as the first in other steps.
GIVEN = [
    {
        "id": "toy-0",
        "generator": "by hand",
        "problem": "What is 2 + 3 + 4?",
        "steps": ["First, 2 + 3 = 5.", "Then 5 + 4 = 9.", "The answer is \\boxed{9}"],
        "final_answer_correct": True,
        "label": -1,
    },
    {
        "id": "toy-1",
        "generator": "by hand",
        "problem": "What is 2 + 3 + 4?",
        "steps": ["First, 2 + 3 = 5.", "Then 5 + 4 = 8.\nSo it is 8.", "The answer is \\boxed{8}"],
        "final_answer_correct": False,
        "label": 1,
    },
    {
        "id": "toy-2",
        "generator": "by hand",
        "problem": "What is 7 - 3?",
        "steps": ["7 - 3 = 4.\n\nThe answer is \\boxed{4}"],
        "final_answer_correct": True,
        "label": -1,
    },
]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("problems") / "problems.jsonl", PROBLEMS)


@pytest.fixture(scope="module")
def given_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("given") / "given.jsonl", GIVEN)


@pytest.fixture(scope="module")
def run(problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `generate`: 5 problems x 4 samples in chunks of 2 problems."""
    out = tmp_path_factory.mktemp("runs") / "run"
    made = generate(problems, out, "--samples", 4, "--max-tokens", 48)
    assert made.code == 0, made.err
    return out


@pytest.fixture(scope="module")
def scored(given_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "scored"
    made = stepconf("score", given_file, "--out", out, *with_tiny())
    assert made.code == 0, made.err
    return out


def generate(problems: Path, out: Path, *options: object) -> Any:
    fixed = ["--problems", problems, "--out", out, *with_tiny(), "--verify", "final"]
    return stepconf("generate", *fixed, *options)


def independent_scores(prompt: list[int], tokens: list[int]) -> list[tuple[float, float, float]]:
    """(log p, entropy, max p) of each token: a plain float32 forward, then float64 formulas."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model(), dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].double()
    logs = logits - logits.logsumexp(-1, keepdim=True)
    entropies = -(logs.exp() * logs).sum(-1)
    return [
        (logs[i, token].item(), entropies[i].item(), logs[i].exp().max().item())
        for i, token in enumerate(tokens)
    ]


def check_against_independent(solutions: list[dict[str, Any]], steps: list[dict[str, Any]]) -> None:
    for solution in solutions:
        own = [step for step in steps if step["solution_id"] == solution["solution_id"]]
        ours = zip(
            *(
                [x for step in own for x in step[f"token_{name}"]]
                for name in ("logprobs", "entropies", "max_probs")
            ),
            strict=True,
        )
        expected = independent_scores(solution["prompt_token_ids"], solution["token_ids"])
        for found, reference in zip(ours, expected, strict=True):
            assert all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(found, reference, strict=True))


def test_a_run_holds_every_invariant(run: Path) -> None:
    solutions, _ = check_invariants(run, VOCABULARY)
    assert len(solutions) == 20 and {one["finish_reason"] for one in solutions} == {"stop", "length"}
    assert max(one["n_steps"] for one in solutions) > 1
    assert list(Counter(one["problem_id"] for one in solutions).values()) == [4] * 5
    assert len({tuple(one["token_ids"]) for one in solutions}) > 15, "samples must differ"
    assert len({one["seed"] for one in solutions}) == 20, "every sample has a stream of its own"


def test_columns_of_the_source_are_carried(run: Path) -> None:
    solutions = rows_of(run, "solutions")
    for solution in solutions:
        extra = json.loads(solution["extra"])
        assert solution["problem"] == f"What is {extra['level']} + {extra['level'] + 1}?"
        assert solution["gold_answer"] == str(2 * extra["level"] + 1)


def test_scores_equal_an_independent_forward(run: Path) -> None:
    check_against_independent(rows_of(run, "solutions"), rows_of(run, "steps"))


def test_given_steps_are_scored_like_an_independent_forward(scored: Path) -> None:
    solutions, steps = check_invariants(scored, VOCABULARY)
    check_against_independent(solutions, steps)


@pytest.mark.parametrize("table", ["solutions", "steps"])
def test_tables_open_in_polars_and_datasets(run: Path, table: str, tmp_path: Path) -> None:
    from datasets import Features, load_dataset

    files = [str(file) for file in sorted((run / table).glob("*.parquet"))]
    frame = pl.scan_parquet(f"{run}/{table}/*.parquet").collect()
    loaded = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert loaded.features == Features.from_arrow_schema(arrow_schema(table))
    assert list(loaded.features) == frame.columns == [field.name for field in TABLES[table]]
    key = f"{table.removesuffix('s')}_id"
    assert loaded[key] == frame[key].to_list()


def test_the_schema_says_how_entropy_was_estimated(run: Path) -> None:
    import pyarrow.parquet as pq

    metadata = pq.read_schema(next((run / "steps").glob("*.parquet"))).metadata
    said = {key.decode(): value.decode() for key, value in metadata.items()}
    assert said["entropy_unit"] == "nats" and "temperature 1" in said["entropy_distribution"]
    assert (said["engine"], said["dtype"], said["vocabulary"]) == ("transformers", "float32", str(VOCABULARY))
    assert said["engine_version"] and said["tokenizer"]


def test_the_same_command_elsewhere_gives_the_same_rows(run: Path, problems: Path, tmp_path: Path) -> None:
    made = generate(problems, tmp_path / "b", "--samples", 4, "--max-tokens", 48)
    assert made.code == 0, made.err
    assert rows_of(tmp_path / "b", "solutions") == rows_of(run, "solutions")
    assert [s["step_id"] for s in rows_of(tmp_path / "b", "steps")] == [
        s["step_id"] for s in rows_of(run, "steps")
    ]


def test_chunks_do_not_change_what_is_sampled(run: Path, problems: Path, tmp_path: Path) -> None:
    made = generate(problems, tmp_path / "b", "--samples", 4, "--max-tokens", 48, "--set", "chunk=3")
    assert made.code == 0, made.err
    assert rows_of(tmp_path / "b", "solutions") == rows_of(run, "solutions")


def test_greedy_samples_are_told_apart_by_their_index(problems: Path, tmp_path: Path) -> None:
    made = generate(
        problems, tmp_path / "r", "--limit", 1, "--samples", 3, "--temperature", 0, "--max-tokens", 8
    )
    assert made.code == 0, made.err
    solutions, _ = check_invariants(tmp_path / "r", VOCABULARY)
    assert len({one["text"] for one in solutions}) == 1
    assert [one["sample_index"] for one in solutions] == [0, 1, 2]


def test_a_chat_template_is_used_where_there_is_one(problems: Path, tmp_path: Path) -> None:
    from stepconf.engines.tokenizer import Tokenizer

    options = ["--problems", problems, "--out", tmp_path / "r", *with_tiny(chat=True)]
    options += ["--limit", 1, "--samples", 1, "--max-tokens", 4, "--verify", ""]
    made = stepconf("generate", *options, "--set", "prompt.system=Be brief.")
    assert made.code == 0, made.err
    (solution,) = rows_of(tmp_path / "r", "solutions")
    prompt = Tokenizer(str(tiny_model(True))).decode(solution["prompt_token_ids"])
    assert prompt.startswith("<|system|>\nBe brief.\n<|user|>\nWhat is 0 + 1?\n")
    assert prompt.endswith("\n<|assistant|>\n")


@pytest.mark.parametrize("command", ["segment", "verify", "score"])
def test_given_steps_are_kept(command: str, given_file: Path, scored: Path, tmp_path: Path) -> None:
    out = scored
    if command != "score":
        out = tmp_path / "r"
        made = stepconf(command, given_file, "--out", out)
        assert made.code == 0, made.err
    solutions, steps = check_invariants(out, VOCABULARY)
    assert [one["external_id"] for one in solutions] == ["toy-0", "toy-1", "toy-2"]
    for solution, row in zip(solutions, GIVEN, strict=True):
        own = [step["text"] for step in steps if step["solution_id"] == solution["solution_id"]]
        assert [text.strip() for text in own] == row["steps"]
        carried = {name: row[name] for name in ("generator", "final_answer_correct", "label")}
        assert carried.items() <= json.loads(solution["extra"]).items()
    if command != "score":
        assert not any(step["token_ids"] for step in steps) and not any(one["model"] for one in solutions)
    said = {verdict["verifier"] for step in steps for verdict in step["verdicts"]}
    assert said == (set() if command == "segment" else {"final", "symbolic"})
    if command != "segment":
        assert [step["label"] for step in steps][3:5] == ["correct", "incorrect"]


def test_real_processbench_rows_are_accepted(tmp_path: Path) -> None:
    rows = shared_rows("processbench/gsm8k_dev.jsonl.gz")[:40]
    made = stepconf("segment", write_jsonl(tmp_path / "pb.jsonl", rows), "--out", tmp_path / "r")
    assert made.code == 0, made.err
    solutions, steps = check_invariants(tmp_path / "r")
    assert [one["n_steps"] for one in solutions] == [len(row["steps"]) for row in rows]
    assert len(steps) == sum(len(row["steps"]) for row in rows)
    assert [one["external_id"] for one in solutions] == [row["id"] for row in rows]


def test_verify_of_a_run_keeps_its_tokens_and_scores(scored: Path, tmp_path: Path) -> None:
    made = stepconf("verify", scored, "--verify", "symbolic", "--out", tmp_path / "r")
    assert made.code == 0, made.err
    check_invariants(tmp_path / "r", VOCABULARY)
    before, after = rows_of(scored, "steps"), rows_of(tmp_path / "r", "steps")
    judged = {"verdicts", "label", "label_source", "is_first_error"}
    assert [{k: v for k, v in row.items() if k not in judged} for row in before] == [
        {k: v for k, v in row.items() if k not in judged} for row in after
    ]
    for old, new in zip(before, after, strict=True):
        assert {v["verifier"] for v in old["verdicts"]} == {v["verifier"] for v in new["verdicts"]}
    made = stepconf("pairs", tmp_path / "r", "--tau", 0.99)
    assert made.code == 0, made.err


def test_a_run_may_be_scored_again_from_its_solutions(run: Path, tmp_path: Path) -> None:
    made = stepconf(
        "score", run / "solutions", "--out", tmp_path / "r", *with_tiny(), "--limit", 4, "--verify", "final"
    )
    assert made.code == 0, made.err
    solutions, _ = check_invariants(tmp_path / "r", VOCABULARY)
    assert [one["text"] for one in solutions] == [one["text"] for one in rows_of(run, "solutions")[:4]]


def test_of_a_long_run_only_a_few_chunks_are_held(tmp_path: Path) -> None:
    source = tmp_path / "given.jsonl"
    rows = [{"problem": f"{i}?", "answer": "1", "solution": f"One.\n\nTwo of {i}."} for i in range(60)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"problems.source": str(source), "verify.verifiers": ["final"], "verify.workers": 1, "chunk": 2}
    done, held = 0, 0

    def live() -> int:
        return sum(type(one) is Solved for one in gc.get_objects())

    def tick(stage: str, n: int) -> None:
        nonlocal done, held
        done += n if stage == "verify" else 0
        held = live() - before if stage == "verify" and done == 60 else held

    gc.collect()
    before = live()
    assert segment(load_recipe(None, values), tmp_path / "run", tick)["solutions"] == 60
    assert 0 < held <= 2 * 8


def test_a_run_is_read_again_chunk_by_chunk_and_must_be_the_same() -> None:
    solved = [make(Sample(0, [("a\n", "correct", 0.2)], "stop"), i) for i in range(4)]
    ids = [one.solution.solution_id for one in solved]

    def read(samples: Iterator[list[Solved]], *wanted: list[str]) -> list[list[Solved]]:
        chunks = (Chunk(f"{i:05d}", "", own) for i, own in enumerate(wanted))
        return [chunk.solved for chunk in reread(chunks, samples, lambda stage, n: None)]

    assert read(families(solved), ids[1:2], ids[2:]) == [solved[1:2], solved[2:]]
    samples = families(solved)  # wave by wave
    assert [read(samples, own)[0] for own in (ids[:1], ids[1:3], ids[3:])] == [
        solved[:1],
        solved[1:3],
        solved[3:],
    ]
    with pytest.raises(StepconfError, match="has changed"):
        read(families(solved[:2]), ids)


def _chunks(sizes: list[int]) -> list[Chunk]:
    return [Chunk(f"{i:05d}", "", [None] * n) for i, n in enumerate(sizes)]  # type: ignore[list-item]


@given(st.lists(st.integers(1, 4), max_size=6), st.integers(0, 1000), st.data())
def test_results_in_any_order_give_the_same_chunks(sizes: list[int], seed: int, data: st.DataObject) -> None:
    random = Random(seed)  # none of hypothesis: how often it is asked depends on threads
    names = [f"{chunk.name}/{i}" for chunk in _chunks(sizes) for i in range(len(chunk.items))]
    rounds = {name: data.draw(st.lists(st.integers(0, 3), max_size=3), name) for name in names}

    def engine(requests: Iterator[SampleRequest | None]) -> Iterator[tuple[SampleRequest, list[int]]]:
        """Holds up to five requests and answers them in any order, as a batching engine does."""
        held: list[SampleRequest] = []
        for request in requests:
            held += [] if request is None else [request]
            # Nothing to add now: it goes on with what it has.
            while len(held) > random.randint(0, 5) or (held and request is None):
                one = held.pop(random.randrange(len(held)))
                yield one, one.prompt_ids
        random.shuffle(held)
        yield from ((one, one.prompt_ids) for one in held)

    def task(name: str) -> Iterator[Any]:
        """Some rounds of some requests each; what it is sent is what it asked for."""
        for number, n in enumerate(rounds[name]):
            wanted = [[names.index(name), number, part] for part in range(n)]
            assert (yield [SampleRequest("", ids, 1, 0, Sampling(1.0, 1)) for ids in wanted]) == wanted
        return Made([name], Counter({"dropped": len(rounds[name])}))  # type: ignore[list-item]

    chunks = [Chunk(c.name, c.digest, [f"{c.name}/{i}" for i in range(len(c.items))]) for c in _chunks(sizes)]
    done = list(through(iter(chunks), engine, task, "sample"))  # type: ignore[arg-type]
    assert sorted(chunk.name for chunk in done) == [chunk.name for chunk in chunks]
    for chunk in done:
        assert chunk.solved == chunk.items
        assert chunk.drops["dropped"] == sum(len(rounds[name]) for name in chunk.items)


def test_one_chunk_is_judged_while_the_next_is_made() -> None:
    started = threading.Event()

    def making() -> Iterator[Chunk]:
        first, second, third = _chunks([1, 1, 1])
        yield first
        assert started.wait(60), "the work on the first chunk did not start while the second was made"
        yield second
        yield third

    done: list[str] = []

    def work(chunk: Chunk) -> None:
        started.set()

    overlapped(making(), work, lambda chunk: done.append(chunk.name), 1)
    assert done == ["00000", "00001", "00002"]


def test_no_chunk_waits_for_the_hard_answers_of_another() -> None:
    others, done = threading.Event(), list[str]()

    def work(chunk: Chunk) -> None:
        assert chunk.name != "00000" or others.wait(60), "the others waited for the first"

    def finish(chunk: Chunk) -> None:
        done.append(chunk.name)
        if len(done) == 4:
            others.set()

    overlapped(_chunks([1] * 5), work, finish, 2)
    assert sorted(done[:4]) == ["00001", "00002", "00003", "00004"] and done[4] == "00000"


def test_chunks_are_finished_one_at_a_time() -> None:
    worked, inside = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=0.2)

    def work(chunk: Chunk) -> None:
        worked.wait()

    def finish(chunk: Chunk) -> None:
        with pytest.raises(threading.BrokenBarrierError):  # two are never in here
            inside.wait()

    overlapped(_chunks([1, 1]), work, finish, 2)


def test_a_failure_while_judging_reaches_the_caller() -> None:
    begun: list[str] = []

    def work(chunk: Chunk) -> None:
        begun.append(chunk.name)
        raise ZeroDivisionError(chunk.name)

    with pytest.raises(ZeroDivisionError, match="00000"):
        overlapped(_chunks([1, 1, 1, 1]), work, begun.append, 1)
    assert begun == ["00000"], "what cannot be written once is not tried again and again"


def test_what_was_made_before_an_interrupt_is_finished() -> None:
    done: list[str] = []

    def making() -> Iterator[Chunk]:
        yield from _chunks([1, 1, 1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        overlapped(making(), lambda chunk: None, lambda chunk: done.append(chunk.name), 2)
    assert sorted(done) == ["00000", "00001", "00002"]


def test_models_judge_one_chunk_at_a_time() -> None:
    def beside(*verifiers: str, workers: int = 3) -> int:
        return n_chunks_at_once(
            load_recipe(None, {"verify.verifiers": list(verifiers), "verify.workers": workers})
        )

    assert beside("final", "symbolic") == 3 and beside("final", workers=64) == 4 and beside() == 3
    assert beside("final", "critic") == 1


def test_time_in_which_several_judge_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 5.0, 10.0, 20.0, 21.0])
    monkeypatch.setattr("stepconf.run.meter.time", SimpleNamespace(perf_counter=lambda: next(now)))
    clock = BusyClock()
    clock.begin()
    clock.begin()
    assert [clock.end(), clock.end()] == [5.0, 5.0]
    clock.begin()
    assert clock.end() == 1.0
