"""Is a file what was written: manifests that can be read, and shards that have the bytes they should have."""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from stepconf.core.documents import manifest_checksum
from stepconf.errors import StepconfError
from stepconf.run.facts import from_json, manifest_flaw
from stepconf.run.parts import superseded

_BLOCK = 1 << 20  # bytes read at a time


def live_manifests(run: Path) -> dict[Path, dict[str, Any] | str]:
    """The manifests that count, in the order of their names, as `read_manifest` gives them."""
    while True:
        found = {file: read_manifest(file) for file in sorted((run / "manifests").glob("*.json"))}
        if all(
            file.exists() for file in found
        ):  # else a run that is being compacted: what is gone is in others now
            gone = superseded(one for one in found.values() if isinstance(one, dict))
            return {
                file: one for file, one in found.items() if isinstance(one, str) or one["chunk"] not in gone
            }


def read_manifest(file: Path) -> dict[str, Any] | str:
    """What the manifest holds, or what is wrong with it."""
    try:
        manifest = from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"is not JSON: {error}"
    if flaw := manifest_flaw(manifest):
        return flaw
    if manifest["chunk"] != file.stem:
        return f"is of chunk {manifest['chunk']!r}"
    if manifest.get("checksum", (expected := manifest_checksum(manifest))) != expected:
        return "is not as it was written"
    return dict(manifest)


def shard_damage(file: Path, facts: dict[str, Any]) -> tuple[str, str] | None:
    """How a shard differs from what its manifest says: the name of the check, and a clause. None if not."""
    if not file.exists():
        return "shard-missing", "is not there"
    size = file.stat().st_size
    if size != facts["bytes"]:
        return "shard-size", f"{size:,} bytes, {facts['bytes']:,} were written"
    digest = file_digest(file)
    if digest != facts["blake2b"]:
        return "shard-checksum", f"BLAKE2b {digest}, {facts['blake2b']} was written"
    return None


def damaged_manifests(run: Path) -> dict[Path, str]:
    """The manifests of a run that are unreadable or have a damaged shard, with what is wrong."""
    found: dict[Path, str] = {}
    for file in sorted((run / "manifests").glob("*.json")):
        manifest = read_manifest(file)
        if isinstance(manifest, str):
            found[file] = f"manifests/{file.name} {manifest}"
            continue
        for name, facts in manifest["files"].items():
            if damage := shard_damage(run / name, facts):
                found[file] = f"{name}: {damage[1]}"
    return found


def check_sizes(run: Path, manifests: Iterable[dict[str, Any]]) -> None:
    """Raise StepconfError where a committed shard is missing or has not its size; it names the first."""
    for manifest in manifests:
        for name, facts in manifest["files"].items():
            file = run / name
            size = file.stat().st_size if file.exists() else None
            if size != facts["bytes"]:
                found = (
                    "is not there"
                    if size is None
                    else f"has {size:,} bytes, not the {facts['bytes']:,} written"
                )
                raise damage_error(run, f"the shard {file} {found}.")


def damage_error(run: Path, problem: str) -> StepconfError:
    """What to say of damage, and how to mend it."""
    return StepconfError(
        problem,
        f"Type the command that made {run} again with --repair: what is damaged is made again. (Pairs: type "
        "stepconf pairs again. A pulled run: pull it into a new folder.)",
    )


def file_digest(file: Path) -> str:
    """The BLAKE2b hash (128 bits, hex) of a file's bytes."""
    digest = blake2b(digest_size=16)
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
