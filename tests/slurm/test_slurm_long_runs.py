"""Runs longer than the time limit of their jobs, on a real Slurm: they go on from job to job."""

from pathlib import Path

import faults
import pytest
import yaml
from disturbed import Disturbed
from two_nodes import TwoNodes, slurm, until

from hpml_bench.records.folder import RunFolder
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.local import run_sweep
from hpml_bench.sweep.request import SweepRequest

pytestmark = [pytest.mark.cluster, pytest.mark.cluster_slow]
STEPS, SECONDS = 480, 0.5
"""Steps, and what each takes at least."""
LONGEST = 200.0
"""Seconds after which a job of two minutes has ended; Slurm may warn it a minute earlier than
asked.
"""


def test_a_run_beyond_the_limit(
    slurm_cluster: TwoNodes, held_suite: Path, shared_folder: Path, tmp_path: Path
) -> None:
    """Four minutes under limits of two, saved at SIGTERM, and a requeue: without a retry one
    record, the same bits.
    """
    from rich.console import Console

    content = yaml.safe_load(held_suite.read_text())
    content["settings"] |= {"steps": STEPS, "dropout": 0.1, "eval_every": STEPS // 8}
    content |= {"methods": {"held": {"method": "held"}}, "seeds": 1}
    suite = held_suite.with_name(f"long{STEPS}.yaml")
    suite.write_text(yaml.safe_dump(content))
    request = SweepRequest(load_suite(str(suite)), tmp_path)
    (undisturbed,) = run_sweep(request, Console(quiet=True)).records
    expected = faults.content_of(request.folder / undisturbed.run_id, undisturbed)
    sweep = Disturbed(
        slurm_cluster,
        suite,
        shared_folder / "out",
        env={"HELD_SECONDS": str(SECONDS)},
        time="0:02:00",
    )
    assert sweep.open(methods=("held",)).submit(again=True)

    def attempts() -> list[RunFolder]:
        return [RunFolder(path) for path in (sweep.folder / "attempts").glob("*/")]

    def requeue_the_second() -> None:
        (first,) = slurm_cluster.jobs()
        until(
            lambda: [how for _, how in sweep.starts()][:1] == ["time"],
            "the first job met its limit",
            LONGEST,
        )
        until(lambda: slurm_cluster.jobs().keys() - {first}, "a second one is submitted")
        (second,) = slurm_cluster.jobs().keys() - {first}
        until(
            lambda: any(run.saved and run.path.name.endswith(f".{second}.0") for run in attempts()),
            "it has adopted",
        )
        slurm("scontrol", "requeue", second)

    assert sweep.complete(STEPS / 20 * LONGEST, requeue_the_second)
    record = sweep.record()
    assert faults.content_of(sweep.folder / record.run_id, record) == expected
    assert record.earlier_attempts == ()
    hows = [how for _, how in sweep.starts()]
    assert (hows[0], hows[-1]) == ("time", "done")
    assert hows[1] in {"interrupted", None}  # Slurm kills a requeued job soon
    assert len(record.segments) >= 2
    assert [part.first for part in record.segments] == [
        1,
        *(part.last + 1 for part in record.segments[:-1]),
    ]
    assert not any(run.saved for run in attempts())
    slurm_cluster.restore()
