"""The fault of a server is named, and none where there is none (`benchmarks/served.py`), by a
trial of each.
"""

from pathlib import Path

import pytest
from served import FAULTS, Serving, examined, suite_of_pairs, trained

from hpml_bench.data.prepare import prepare
from hpml_bench.records.files import KEPT
from hpml_bench.records.run import RunRecord


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, Path]:
    """Return a run of LoRA with what it trained."""
    folder = tmp_path_factory.mktemp("served")
    return trained(suite_of_pairs(folder).model_copy(update={"seeds": 1}), folder / "runs")[0]


@pytest.mark.parametrize(
    ("fault", "weights"),
    [("", "float32"), ("", "int8"), *((fault, "bfloat16") for fault in FAULTS)],
)
def test_the_fault_is_named(fault: str, weights: str, run: tuple[RunRecord, Path]) -> None:
    """Also where the served weights are rounded; rounding alone is no fault."""
    record, folder = run
    base = Path(prepare(record.spec.settings).backbone)
    found = examined(record, folder, Serving(base, folder / KEPT, fault, weights), range(40))
    assert (found.cause, bool(found.beyond)) == (fault, bool(fault)), found.sentence
