"""Tests of the scripts in benchmarks/, which an environment of their own runs."""

from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)  # before those with an environment of their own are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            own = (
                item.path.name == "test_fake_cuda.py"
            )  # leaves torch changed for other tests of its process
            item.add_marker(pytest.mark.cuda if own else pytest.mark.benchmarks)
