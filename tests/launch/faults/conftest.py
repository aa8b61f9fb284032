"""What tests of faults share: prepared rows, ranks that know the method `faulty`, and an eye on
what is left behind.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_runs import FAULTY

from helpers import plugin_packages, tiny
from helpers.waiting import until
from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import fork_server
from hpml_bench.system import processes


@pytest.fixture(scope="session")
def plug_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package that registers the method `faulty`."""
    return plugin_packages.write(tmp_path_factory.mktemp("plug-in"), "methods", faulty=FAULTY)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, plug_in: Path) -> Iterator[Prepared]:
    """Rows and a backbone, in place of those of all tests; ranks know the method `faulty`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(plug_in)
        fork_server.run(
            os.getpid, ()
        )  # until the server has imported all, which no stall limit of seconds must meet
        yield tiny.prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    until(lambda: not processes.descendants())
    assert processes.descendants() == set()
