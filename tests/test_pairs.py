"""`stepconf pairs` through the command line: counts against an independent query, splits, strategies, what is said."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from stepconf.calibration.signals import Kind, read_units
from stepconf.core.schema import ADDED
from stepconf.run.tables import pairs_manifest, read_pairs, read_recipe, read_shard
from tests.benchmarks.pairs_at_size import counted_by_polars
from tests.benchmarks.synthetic_run import make_run
from tests.edited_run import rewrite, with_lists_of_others
from tests.invariants import rows_of
from tests.test_pipeline import GIVEN, write_jsonl
from tests.tiny import Ended, stepconf, with_tiny

N_PROBLEMS = 48


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("synthetic") / "run"
    make_run(run, N_PROBLEMS, 20)
    return run


def paired(run: Path, *options: object) -> dict[str, Any]:
    """The manifest of the pairs that the command makes with these options."""
    ended = stepconf("pairs", run, *options)
    assert ended.code == 0, ended.err
    found = pairs_manifest(run)
    assert found is not None and sum(found["splits"].values()) == sum(found["kinds"].values())
    assert sum(file["rows"] for file in found["files"].values()) == sum(found["kinds"].values())
    return found


def sets(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", f"pairs.{value}")]


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_as_many_pairs_as_an_independent_query_counts(synthetic: Path, quantile: float) -> None:
    found = paired(synthetic, *sets(f"tau_quantile={quantile}"))
    assert sum(found["kinds"].values()) == counted_by_polars(synthetic, quantile) > 100
    assert found["drops"]["same pair again"] > 50, "siblings are there"


@pytest.fixture(scope="module")
def branched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("branched") / "run"
    make_run(run, N_PROBLEMS, 20, branched=True)
    return run


@pytest.mark.parametrize("strategy", ["caspo", "step-dpo", "rstar", "cgpo"])
def test_branches_make_the_pairs_that_whole_samples_make(
    synthetic: Path, branched: Path, strategy: str
) -> None:
    """Their texts, tokens and prompts are those of the solutions that were cut into branches."""
    columns = ("prompt_ids", "chosen_ids", "rejected_ids", "prompt", "prefix", "chosen", "rejected", "kind")
    found = []
    for run in (synthetic, branched):
        manifest = paired(run, "--strategy", strategy, "--set", "pairs.tau=0.25")
        problems = {row["problem_id"] for row in rows_of(run, "pairs")}
        assert manifest["problems"] == len(problems) > 40
        rows = rows_of(run, "pairs")
        if strategy == "step-dpo":  # which of its first steps reach the answer only their own solution says
            rows = [row for row in rows if row["prefix"]]
        found.append({json.dumps([row[name] for name in columns]) for row in rows})
    whole, of_branches = found
    if strategy == "cgpo":  # one pair a root, and there are fewer roots
        assert of_branches < whole
    else:
        assert of_branches == whole


def test_the_branched_run_keeps_every_law(branched: Path) -> None:
    ended = stepconf("check", branched)
    assert ended.code == 0, ended.out


def test_pairs_of_small_parts_are_written_together(synthetic: Path) -> None:
    found = paired(synthetic, *sets("validation=0.4"))
    assert len(list((synthetic / "steps").iterdir())) == 3
    assert set(found["files"]) == {"pairs/train-00000.parquet", "pairs/validation-00000.parquet"}


@pytest.mark.parametrize("lost", ["steps/part-00000.parquet", "steps/part-00001.parquet"])
def test_a_lost_shard_is_named(synthetic: Path, tmp_path: Path, lost: str) -> None:
    run = Path(shutil.copytree(synthetic, tmp_path / "run"))
    (run / lost).unlink()
    ended = stepconf("pairs", run)
    assert ended.code == 1 and lost in ended.err and "--repair" in ended.err
    assert "Traceback" not in ended.err


def test_a_summary_of_the_same_shards_is_not_computed_again(synthetic: Path) -> None:
    file = synthetic / "summary.json"
    there = json.loads(file.read_text())
    file.write_text(json.dumps(there | {"problems": 99}))
    paired(synthetic)
    assert json.loads(file.read_text())["problems"] == 99
    file.write_text(json.dumps(there | {"problems": 99, "shards": "others"}))
    paired(synthetic)
    assert json.loads(file.read_text())["problems"] == there["problems"] == N_PROBLEMS


def test_every_step_is_a_pair_or_counted(synthetic: Path) -> None:
    found = paired(synthetic)
    n_steps = N_PROBLEMS * 8 * 5
    assert sum(found["kinds"].values()) + sum(found["drops"].values()) == n_steps
    again = paired(synthetic, *sets("max_per_problem=3", "balance=true", "validation=0.4"))
    assert sum(again["kinds"].values()) + sum(again["drops"].values()) == n_steps
    assert again["drops"]["beyond the cap of its problem"] > 0 and again["drops"]["surplus of its kind"] > 0


def test_caps_balance_and_splits(synthetic: Path) -> None:
    paired(synthetic, *sets("max_per_problem=3", "balance=true", "validation=0.4"))
    train = [pair for shard in read_pairs(synthetic) for pair in shard]
    held_out = [pair for shard in read_pairs(synthetic, "validation") for pair in shard]
    assert {p.problem_id for p in train}.isdisjoint({p.problem_id for p in held_out})
    for pairs in (train, held_out):
        kinds = Counter(pair.kind for pair in pairs)
        assert kinds["incorrect"] == kinds["correct_uncertain"] > 0
    assert max(Counter(p.problem_id for p in train + held_out).values()) == 3
    everything = {row["pair_id"] for row in rows_of(synthetic, "pairs")}
    assert everything == {p.pair_id for p in train + held_out}


def test_pairs_load_as_a_dataset_with_splits(synthetic: Path) -> None:
    from datasets import load_dataset

    found = paired(synthetic, *sets("validation=0.4"))
    files = {split: str(synthetic / f"pairs/{split}-*.parquet") for split in ("train", "validation")}
    data = load_dataset("parquet", data_files=files, cache_dir=str(synthetic.parent / "cache"))
    assert {split: data[split].num_rows for split in data} == found["splits"]


@pytest.fixture(scope="module")
def given_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two solutions of one problem that part after the first step, and one of another."""
    folder = tmp_path_factory.mktemp("given")
    rows = [row | {"answer": answer} for row, answer in zip(GIVEN, ("9", "9", "4"), strict=True)]
    file = write_jsonl(folder / "given.jsonl", rows)
    ended = stepconf("score", file, "--out", folder / "run", *with_tiny())
    assert ended.code == 0, ended.err
    return folder / "run"


@pytest.mark.parametrize("strategy", ["step-dpo", "dpo-vp", "pcpo"])
def test_other_strategies(given_run: Path, strategy: str) -> None:
    found = paired(given_run, "--strategy", strategy, *sets("validation=0", "round=2"))
    assert found["tau"] is None
    (pair,) = (pair for shard in read_pairs(given_run) for pair in shard)
    wrong, right = GIVEN[1]["steps"], GIVEN[0]["steps"]
    assert pair.round == 2
    if strategy == "step-dpo":
        assert (pair.kind, pair.step_index) == ("incorrect", 1)
        assert (pair.chosen.strip(), pair.rejected.strip()) == (right[1], wrong[1])
        assert found["drops"] == {"not a first error": 6}
    else:
        assert pair.kind == "trajectory" and pair.prefix == "" and pair.chosen_is_terminal
        assert pair.chosen.split() == " ".join(right).split()
        assert pair.rejected.split() == " ".join(wrong).split()
        assert (pair.chosen_source, pair.rejected_source) == ("solution", "solution")
        assert found["drops"] == {"all decided answers of the problem are alike": 1}
        assert "trajectory" in stepconf("pairs", given_run, "--strategy", strategy).out


def check_refused(ended: Ended, *said: str) -> None:
    assert ended.code in (1, 2) and "Traceback" not in ended.err
    for part in said:
        assert part in ended.err, ended.err


def test_bad_input(given_run: Path, tmp_path: Path) -> None:
    check_refused(stepconf("pairs", given_run, "--strategy", "ppo"), "'ppo'", "pair strategy", "step-dpo")
    check_refused(stepconf("pairs", given_run, *sets("candidates=3")), "pairs.candidates", "--branch")
    check_refused(stepconf("pairs", given_run, *sets("margin=0")), "pairs.margin", "0")
    check_refused(stepconf("pairs", given_run, *sets("validation=1")), "pairs.validation", "1")
    check_refused(stepconf("pairs", given_run, "--export", "trl"), "--export", "--out")
    check_refused(stepconf("pairs", given_run, "--out", tmp_path / "x"), "--out", "--export")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    full = stepconf("pairs", given_run, "--tau", 0.5, "--export", "trl", "--out", tmp_path / "full")
    check_refused(full, "is not empty", "--out")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine"]


def test_a_model_whose_tokenizer_changed_is_refused(given_run: Path, tmp_path: Path) -> None:
    """Its prompts would be shown as another text."""
    model, run, before = tmp_path / "model", tmp_path / "run", read_recipe(given_run)["model"]
    shutil.copytree(before, model)
    shutil.copytree(given_run, run)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(before, str(model)))
    assert stepconf("pairs", run, "--tau", 0.5).code == 0
    text = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(text.replace("<|endoftext|>", "<|end|>"))
    check_refused(stepconf("pairs", run, "--tau", 0.5), str(model), "another tokenizer", "Put the model back")


def test_a_handful_of_pairs_is_no_training_set(synthetic: Path, tmp_path: Path) -> None:
    few = stepconf("pairs", synthetic, *sets("max_per_problem=1", "tau=0.0001"), columns=200)
    n = sum(pairs_manifest(synthetic)["kinds"].values())  # type: ignore[index]  # it is there
    assert n < 50 and f"Only {n} pairs by caspo: " in few.out and "stepconf train" not in few.out
    assert "The run lacks uncertain steps; raise --tau." in few.out
    many = stepconf("pairs", synthetic, columns=200)
    summary = json.loads((synthetic / "summary.json").read_text())
    n = sum(summary["pairs"].values())
    assert f"{1000 * n / summary['tokens']:.2f} per 1,000 sampled tokens" in many.out
    assert f"of {summary['pair_problems']} of {N_PROBLEMS} problems" in many.out
    assert "stepconf train" in many.out and "Only" not in many.out


def test_pairs_of_an_older_version_are_read(synthetic: Path, tmp_path: Path) -> None:
    """Its manifest counts candidates, and no problems."""
    paired(synthetic)
    run = Path(shutil.copytree(synthetic, tmp_path / "run"))
    file = run / "manifests/pairs.json"
    manifest = json.loads(file.read_text())
    del manifest["problems"], manifest["checksum"]
    manifest["candidates"] = {"sampled": 3}
    manifest["options"] |= {"candidates": 1, "candidate_temperature": None, "candidate_max_tokens": 256}
    file.write_text(json.dumps(manifest))
    shown = stepconf("pairs", run, "--export", "trl", "--out", tmp_path / "x")
    assert shown.code == 0, shown.err
    assert json.loads(file.read_text())["candidates"] == {"sampled": 3}, "they are exported as they are"


@pytest.mark.parametrize("strategy", ["caspo", "rstar", "pcpo"])
def test_shards_of_schema_1_0_and_of_other_writers_give_the_same_pairs(
    synthetic: Path, tmp_path: Path, strategy: str
) -> None:
    run = Path(shutil.copytree(synthetic, tmp_path / "run"))
    paired(run, "--strategy", strategy)
    before = rows_of(run, "pairs")
    for table, later in ADDED["1.0"].items():
        rewrite(
            run,
            run / table / "part-00001.parquet",
            with_lists_of_others(read_shard(run, f"{table}/part-00001.parquet")),
        )
        old = read_shard(run, f"{table}/part-00000.parquet").drop_columns(list(later))
        old = old.replace_schema_metadata({**old.schema.metadata, b"stepconf_schema": b"1.0"})
        rewrite(run, run / table / "part-00000.parquet", old)
    paired(run, "--strategy", strategy)
    assert rows_of(run, "pairs") == before
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        found, wanted = read_units(run, kind), read_units(synthetic, kind)
        assert Counter(found.correct.tolist()) == Counter(wanted.correct.tolist()) and found.correct.size


def test_strategies_that_need_siblings_say_so(given_run: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "given.jsonl", GIVEN[:1])
    assert stepconf("score", file, "--out", tmp_path / "r", *with_tiny()).code == 0
    for strategy in ("caspo", "rstar", "cgpo"):
        options = ["--tau", "1.0"] if strategy == "caspo" else []
        made = stepconf("pairs", tmp_path / "r", "--strategy", strategy, *options, columns=200)
        assert f"No pairs by {strategy}: " in made.out and "--branch first-error,uncertain" in made.out


def test_no_pairs_is_said_with_the_reasons(given_run: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "given.jsonl", GIVEN[2:])
    assert stepconf("score", file, "--out", tmp_path / "r", *with_tiny()).code == 0
    made = stepconf("pairs", tmp_path / "r", "--tau", 0.001, columns=200)
    assert made.code == 0 and "No pairs by caspo: 1 correct and confident." in made.out
    assert "The run lacks uncertain steps; raise --tau" in made.out and "stepconf train" not in made.out
    exported = stepconf("pairs", tmp_path / "r", "--tau", 0.001, "--export", "trl", "--out", tmp_path / "x")
    check_refused(exported, "nothing to export", "1 correct and confident")
    assert json.loads((tmp_path / "r/summary.json").read_text())["pairs"] == {}
