"""What `push --dry-run` writes: a data set that `datasets` reads as declared, and a card that claims no more."""

import json
import re
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from stepconf.core.schema import TABLES, arrow_schema
from stepconf.errors import StepconfError
from stepconf.hub import folder as hub_folder
from stepconf.hub.folder import write_folder
from stepconf.hub.restore import read_folder
from stepconf.run.damage import file_digest
from stepconf.run.new_folder import new_folder
from tests.edited_run import edit, good_run
from tests.forked import forked
from tests.invariants import rows_of
from tests.test_hub import FILES
from tests.test_pipeline import GIVEN, write_jsonl
from tests.tiny import stepconf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dry run of a good run."""
    out = tmp_path_factory.mktemp("dry") / "out"
    ended = stepconf("push", good_run(), "me/set", "--dry-run", "--out", out)
    assert ended.code == 0, ended.err
    assert all(name.rpartition("/")[2] in ended.out for name in FILES[1:]) and "Nothing was sent" in ended.out
    return out


def front(folder: Path) -> Any:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_datasets_loads_every_config_with_the_declared_features(folder: Path, tmp_path: Path) -> None:
    from datasets import Features, load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    for table in TABLES:
        name = None if table == "steps" else table  # the default config
        loaded = load_dataset(str(folder), name, cache_dir=str(tmp_path))
        assert list(loaded) == (["train", "validation"] if table == "pairs" else ["train"])
        for split in loaded.values():
            assert split.features == Features.from_arrow_schema(arrow_schema(table))
        rows = [row for split in loaded.values() for row in split.to_list()]
        assert rows == rows_of(good_run(), table)


def test_the_card_passes_the_clients_own_validation(folder: Path) -> None:
    from huggingface_hub import DatasetCard, metadata_load

    card = DatasetCard.load(folder / "README.md")
    assert metadata_load(folder / "README.md") == card.data.to_dict() == front(folder)
    assert [config["config_name"] for config in front(folder)["configs"]] == ["steps", "solutions", "pairs"]
    assert front(folder)["license"] == "other" and "To be filled in" in card.text


def test_the_card_says_what_the_run_says(folder: Path) -> None:
    text, summary = (folder / "README.md").read_text(), json.loads((good_run() / "summary.json").read_text())
    for label, n in summary["labels"].items():
        assert f"{n:,} {label}" in text
    assert f"{summary['entropy']['auroc']['estimate']:.3f}" in text
    assert "temperature 0.7" in text and "seed 42" in text and "V = 384" in text
    for table, fields in TABLES.items():
        assert f"### {table}" in text and all(f"| `{field.name}` |" in text for field in fields)
    assert str(good_run().parent) not in text, "no path of this machine"
    images = re.findall(r"^!\[(.+)\]\((.+)\)$", text, re.MULTILINE)
    assert [file for _, file in images] == ["figures/reliability-steps.png", "figures/entropy-steps.png"]
    assert all((folder / file).read_bytes()[:4] == b"\x89PNG" and len(said) > 40 for said, file in images)


def test_a_card_states_nothing_that_the_run_lacks(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "given|<b>.jsonl", [GIVEN[0] | {"problem": "Is <script> *2*?"}])
    assert stepconf("segment", file, "--out", tmp_path / "run").code == 0
    out = tmp_path / "out"
    ended = stepconf("push", tmp_path / "run", "me/set", "--dry-run", "--out", out, "--license", "cc-by-4.0")
    assert ended.code == 0, ended.err
    text = (out / "README.md").read_text()
    assert front(out)["license"] == "cc-by-4.0" and "To be filled in" not in text
    assert [config["config_name"] for config in front(out)["configs"]] == ["steps", "solutions"]
    for absent in (
        "AUROC",
        "mean entropy",
        "| engine |",
        "| sampling |",
        "| model |",
        "### pairs",
        "tau",
        "exact full",
        "![",
        "## Figures\n\n!",
    ):
        assert absent not in text
    assert not (out / "figures").exists()
    assert "preference" not in front(out)["tags"] and "given¦<b>.jsonl" in text


def test_row_groups_and_files_are_bounded_and_keep_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_folder, "GROUP_ROWS", 7)
    monkeypatch.setattr(hub_folder, "FILE_BYTES", 6000)
    out, back = tmp_path / "out", tmp_path / "back"
    write_folder(good_run(), out, "me/set", None, False, lambda stage, n: None)
    files = sorted((out / "data/steps").iterdir())
    assert len(files) > 2
    assert [file.name for file in files] == [
        f"train-{i:05d}-of-{len(files):05d}.parquet" for i in range(len(files))
    ]
    rows = []
    for file in files:
        metadata = pq.ParquetFile(file).metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        assert all(group.num_rows <= 7 for group in groups)
        assert all(group.column(0).has_offset_index and group.column(0).has_column_index for group in groups)
        rows += pq.read_table(file).to_pylist()
    assert rows == rows_of(good_run(), "steps")
    read_folder(out, back, "me/set", lambda stage, n: None)
    for table in TABLES:
        assert rows_of(back, table) == rows_of(good_run(), table)
    assert stepconf("check", back).code == 0


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("manifests.jsonl", '"chunk": "00001"', '"chunk": "../../x"'),
        ("manifests.jsonl", "steps/part-00001", "../steps/part-00001"),
        ("manifests.jsonl", "pairs/train-", "pairs/../../train-"),
        ("manifests.jsonl", '"rows": ', '"rows": -'),
        ("manifests.jsonl", '"rows": ', '"rows": 99'),
        ("manifests.jsonl", "{", "["),
        ("manifests.jsonl", '"solutions": ', '"samples": '),
        ("manifests.jsonl", '"drops": {', '"drops": {"a": "b", '),
        ("manifests.jsonl", '"seconds": {', '"seconds": {"\\ud800": 1, '),
        ("manifests.jsonl", '"options": {', '"options": [], "was": {'),
        ("manifests.jsonl", '"chunk": "00001"', '"chunk": "00001", "chunks": {"x": ""}'),
        ("checksums.json", "{", ""),
        ("checksums.json", "data/steps", "../steps"),
    ],
)
def test_a_set_that_was_tampered_with_is_refused(
    folder: Path, tmp_path: Path, file: str, old: str, new: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    changed = copy / "stepconf" / file
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new))
    with pytest.raises(StepconfError, match="me/set"):
        read_folder(copy, tmp_path / "a" / "b" / "out", "me/set", lambda stage, n: None)
    assert {p.name for p in tmp_path.iterdir()} <= {"copy", "a"} and not list((tmp_path / "a").glob("[!b]*"))


@pytest.mark.parametrize(
    "name", ["../x", "{tmp}/x", "data/steps/../../../x", "README.md", "data/steps", "x\0"]
)
def test_checksums_of_what_is_not_the_sets_own_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (tmp_path / "x").write_text("private")
    named = name.format(tmp=tmp_path)
    sums = json.loads((copy / "stepconf/checksums.json").read_text())
    digest = blake2b(b"private", digest_size=16).hexdigest()
    (copy / "stepconf/checksums.json").write_text(json.dumps(sums | {named: digest}))
    with pytest.raises(StepconfError, match="no file of the set"):
        read_folder(copy, tmp_path / "out", "me/set", lambda stage, n: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("table", TABLES)
def test_files_that_were_not_published_are_not_read(folder: Path, tmp_path: Path, table: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    rows = pq.read_table(min((copy / "data" / table).iterdir()))
    for place in ("00000-of-00000", "00001-of-00002"):  # before and after what was published
        pq.write_table(rows[::-1], copy / "data" / table / f"train-{place}.parquet")
    read_folder(copy, tmp_path / "out", "me/set", lambda stage, n: None)
    for name in TABLES:
        assert rows_of(tmp_path / "out", name) == rows_of(good_run(), name)


@pytest.mark.parametrize("linked", ["data", "data/steps", "a file"])
def test_checksums_of_links_are_refused(folder: Path, tmp_path: Path, linked: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    link = min((copy / "data/steps").iterdir()) if linked == "a file" else copy / linked
    link.rename(tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StepconfError, match="no file of the set"):
        read_folder(copy, tmp_path / "out", "me/set", lambda stage, n: None)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_killed_dry_run_can_be_typed_again(folder: Path, tmp_path: Path, n: int) -> None:
    out = tmp_path / "set"
    command = ["push", good_run(), "me/set", "--dry-run", "--out", out]
    assert forked(command, tmp_path, at=("os.rename", n, "before")).code == -9
    assert (out / "data").is_dir() and not (out / "README.md").exists()
    mine = out / "mine.txt"
    mine.write_text("x")
    refused = stepconf(*command)
    assert refused.code == 1 and "is not empty" in refused.err and mine.exists()
    mine.unlink()
    again = stepconf(*command)
    assert again.code == 0, again.err
    assert {p.relative_to(out) for p in (out).rglob("*")} == {
        p.relative_to(folder) for p in folder.rglob("*")
    }
    assert (out / "stepconf/checksums.json").read_text() == (folder / "stepconf/checksums.json").read_text()
    once_more = stepconf(*command)
    assert once_more.code == 1 and "is not empty" in once_more.err, "what is whole is not made anew"


def test_two_processes_do_not_fill_one_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", ["a"]):
        (tmp_path / "out/a").write_text("x")
        refused = stepconf("push", good_run(), "me/set", "--dry-run", "--out", tmp_path / "out")
        assert refused.code == 1 and (tmp_path / "out/a").exists()
        with (
            pytest.raises(StepconfError, match="another process is writing"),
            new_folder(tmp_path / "out", ["a"]),
        ):
            pass
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]


@pytest.mark.parametrize("table", ["solutions", "steps", "pairs"])
@pytest.mark.parametrize("cut", [0, 20, 2000])
def test_a_table_that_cannot_be_read_is_named(folder: Path, tmp_path: Path, table: str, cut: int) -> None:
    """Also where whoever changed it changed the checksums, too."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    file = min((copy / "data" / table).iterdir())
    file.write_bytes(file.read_bytes()[:cut])
    sums = json.loads((copy / "stepconf/checksums.json").read_text())
    sums[file.relative_to(copy).as_posix()] = file_digest(file)
    (copy / "stepconf/checksums.json").write_text(json.dumps(sums))
    with pytest.raises(StepconfError, match=rf"me/set: {table}/{file.name} cannot be read"):
        read_folder(copy, tmp_path / "out", "me/set", lambda stage, n: None)


def texts(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(map(str, column.to_pylist()))


def structs(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([{"is": str(value)} for value in column.to_pylist()])


@pytest.mark.parametrize(
    ("table", "column", "change", "version"),
    [
        ("steps", "token_ids", texts, None),
        ("steps", "label", structs, None),
        ("steps", "is_first_error", None, "1.0"),
        ("steps", "is_first_error", structs, "1.0"),
        ("solutions", "extra", None, "1.1"),
        ("solutions", "extra", structs, "1.1"),
        ("solutions", "extra", lambda column: pa.nulls(len(column), pa.string()), "1.1"),
        ("pairs", "chosen_ids", texts, None),
        ("pairs", "pair_id", None, None),
    ],
)
def test_a_set_with_other_columns_or_types_is_refused(
    folder: Path, tmp_path: Path, table: str, column: str, change: Any, version: str | None
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    sums = json.loads((copy / "stepconf/checksums.json").read_text())
    for file in (copy / "data" / table).iterdir():
        rows = pq.read_table(file)
        other = rows.drop_columns([column])
        if change is not None:
            other = other.append_column(column, change(rows[column])).select(rows.column_names)
        if version is not None:
            other = other.drop_columns([n for n in ("after_error", "answer_type") if n in other.column_names])
            other = other.replace_schema_metadata(
                rows.schema.metadata | {b"stepconf_schema": version.encode()}
            )
        pq.write_table(other, file)
        sums[file.relative_to(copy).as_posix()] = file_digest(file)
    (copy / "stepconf/checksums.json").write_text(json.dumps(sums))
    with pytest.raises(StepconfError, match="me/set: its tables are not those of a run"):
        read_folder(copy, tmp_path / "out", "me/set", lambda stage, n: None)


@pytest.mark.parametrize(
    ("name", "text", "command", "said"),
    [
        ("source.json", "[1]", ["relabel", "--policy", "consensus"], "not numbers by reason"),
        ("source.json", '{"a": "b"}', ["relabel", "--policy", "consensus"], "not numbers by reason"),
        ("source.json", '{"\\ud800": 1}', ["relabel", "--policy", "consensus"], "is not JSON"),
        ("recipe.yaml", "command: generate\nmodel: {}", ["pairs"], "is not the recipe of a run"),
        (
            "recipe.yaml",
            "command: generate\nverify: 3",
            ["relabel", "--policy", "consensus"],
            "is not the recipe of a run",
        ),
        (
            "recipe.yaml",
            'command: generate\nmodel: "\\ud800"',
            ["relabel", "--policy", "consensus"],
            "is not the recipe of a run",
        ),
        ("recipe.yaml", "command: generate\nsampling: 3", ["pairs"], "sampling"),
        ("recipe.yaml", "command: generate\nsampling: 3", ["push", "me/set", "--dry-run"], "sampling"),
        ("summary.json", "[]", ["relabel", "--policy", "consensus"], ""),
        ("summary.json", '{"shards": "x"}', ["pairs"], ""),
    ],
)
def test_whatever_a_small_file_says_there_is_one_clear_message(
    tmp_path: Path, name: str, text: str, command: list[str], said: str
) -> None:
    run = Path(shutil.copytree(good_run(), tmp_path / "run"))
    (run / name).write_text(text)
    ended = stepconf(command[0], run, *command[1:])
    assert ended.code == (1 if said else 0) and said in ended.err and "Traceback" not in ended.err


def test_what_is_there_is_kept_or_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    read_folder(folder, out, "me/set", lambda stage, n: None)
    kept = (out / "manifests/00000.json").stat().st_mtime_ns
    (out / "manifests/00001.json").unlink()
    read_folder(folder, out, "me/set", lambda stage, n: None)
    assert (out / "manifests/00000.json").stat().st_mtime_ns == kept
    assert rows_of(out, "steps") == rows_of(good_run(), "steps")
    edit(out, "solutions", lambda rows: rows.pop(), "00001")
    with pytest.raises(StepconfError, match=r"chunk 00001 of .*out is not that of me/set"):
        read_folder(folder, out, "me/set", lambda stage, n: None)


def test_chunks_are_cut_by_content(tmp_path: Path) -> None:
    """A row put in front moves all others, and most of the file's bytes are as before: little is sent again."""
    # Incompressible and much longer than a chunk, so that the cuts are what decides.
    import numpy as np
    import pyarrow as pa

    noise = np.random.default_rng(7).bytes(8 << 20).hex()
    texts = [noise[i : i + 1000] for i in range(0, len(noise), 1000)]
    written = []
    for name, rows in (("a", texts), ("b", ["new", *texts])):
        table = pa.table({"text": rows})
        with hub_folder._writer(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
        written.append((tmp_path / name).read_bytes())
    old, new = written
    probes = [old[i : i + 64] for i in range(0, len(old) - 64, len(old) // 50)]
    assert sum(probe in new for probe in probes) > 0.7 * len(probes)


def test_what_is_not_published(tmp_path: Path) -> None:
    run = Path(shutil.copytree(good_run(), tmp_path / "run"))
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("x")
    refused = stepconf("push", run, "me/set", "--dry-run", "--out", full)
    assert refused.code == 1 and "is not empty" in refused.err
    assert "--dry-run" in stepconf("push", run, "me/set", "--out", tmp_path / "new").err
    edit(run, "solutions", lambda rows: rows[0].update(extra='{"k": "hf_' + "aB3" * 11 + '"}'))
    secret = stepconf("push", run, "me/set", "--dry-run", "--out", tmp_path / "new")
    assert secret.code == 1 and "secret" in secret.err and "aB3aB3" not in secret.err
    assert not (tmp_path / "new").exists()
    (run / "summary.json").unlink()
    (run / "steps/part-00001.parquet").unlink()
    damaged = stepconf("push", run, "me/set", "--dry-run", "--partial", "--out", tmp_path / "new")
    assert damaged.code == 1 and "shard-missing" in damaged.err
    assert "not a run folder" in stepconf("push", tmp_path, "me/set", "--dry-run").err
