"""Set-up of every test."""

import os

import pytest
from hypothesis import settings

# A busy machine is no reason to fail: nothing in this suite asserts a time.
settings.register_profile("stepconf", deadline=None)
settings.load_profile("stepconf")

# Processes of tests share the CPUs; a thread pool in each would fight for them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test may reach out for a model or a data set.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Files are dealt to processes whole, in this order: the longest ones first, so that no process ends with one.
_LONGEST = (
    "test_vllm.py",
    "test_bad_input.py",
    "test_final.py",
    "test_hub.py",
    "test_serve.py",
    "test_resume.py",
    "test_browser.py",
    "test_rounds.py",
    "test_pool.py",
    "test_policy.py",
    "test_calibrate.py",
    "test_faults.py",
    "test_segment.py",
    "test_pairs.py",
    "test_infer.py",
    "test_chaos.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first; the rest stays in its order."""
    items.sort(
        key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST)
    )
