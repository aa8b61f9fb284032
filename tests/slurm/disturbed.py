"""Sweeps on the tests' Slurm of two nodes that are held at a known place while something breaks."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import yaml
from two_nodes import PATIENCE, TwoNodes, until

from hpml_bench.records.files import SET_ASIDE
from hpml_bench.records.jobs import Job, claims, read_jobs
from hpml_bench.records.load import load_records
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.jobs import JobSweep
from hpml_bench.sweep.request import SweepRequest, methods_of_seed

PROFILE = Path(__file__).with_name("slurm.yaml")


def write_suite(path: Path) -> Path:
    """Have the suite of tiny.local_suite with a method that can be held, after one that can't."""
    content = yaml.safe_load(path.read_text())
    content["methods"] = {"lora": {"lr": 1e-2}, "held": {"method": "held"}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


class Disturbed:
    """A sweep on the cluster, by default of one seed: a job with two runs, of which the second
    stays at its gate.
    """

    def __init__(self, cluster: TwoNodes, suite: Path, out: Path, **profile: Any) -> None:
        """Plan it; nothing is submitted."""
        self.cluster, self.suite, self.out = cluster, suite, out
        self.gate = out / "gate"
        self.gate.mkdir(parents=True)
        given = yaml.safe_load(PROFILE.read_text()) | profile
        given["env"] = {"HELD_AT": str(self.gate)} | given.get("env", {})
        self.profile = Profile.model_validate(given)

    def open(
        self,
        seeds: int = 1,
        methods: tuple[str, ...] = ("lora", "held"),
        again: bool = False,
        **limits: Any,
    ) -> JobSweep:
        """Do what run-all does before it submits; keep the sweep."""
        loaded = load_suite(str(self.suite), seeds=seeds)
        row = methods_of_seed(
            len(methods), 0, loaded.name
        )  # the suite's first method may come later by lot
        ordered = {
            methods[row.index(n)]: loaded.methods[methods[row.index(n)]]
            for n in range(len(methods))
        }
        loaded = loaded.model_copy(update={"methods": ordered})
        request = SweepRequest(loaded, self.out, limits=Limits(**{"stall": 300} | limits))
        sweep = JobSweep.open(request, self.profile, request.folder, lambda _: None)
        if sweep.plan.digests is None:
            sweep = sweep.prepared()
        if not again:
            self.sweep = sweep
        return sweep

    def begin(self, **asked: Any) -> str:
        self.close()
        assert self.open(**asked).submit(again=True)
        return self.arrived()

    def command(self, *options: str) -> list[str]:
        """Return the words of `hpml-bench run-all` for the sweep of its held run."""
        file = self.out / "profile.yaml"
        file.write_text(self.profile.model_dump_json())  # JSON is YAML
        shared = (
            "--seeds",
            "1",
            "--methods",
            "held",
            "--out",
            str(self.out),
            "--wandb",
            "off",
            "--on",
            str(file),
        )
        return ["run-all", str(self.suite), *shared, *options]

    # The gate

    def close(self) -> None:
        (self.gate / "closed").touch()

    def rank(self, job: str, number: int) -> tuple[str, str]:
        host, pid = (self.gate / f"{job}.0.{number}").read_text().split()
        return host, pid

    def pass_on(self) -> None:
        (self.gate / "closed").unlink()

    def at_gate(self) -> set[str]:
        names = [
            path.name.rsplit(".", 1)[0] for path in self.gate.glob("*.*.*") if path.stat().st_size
        ]
        return {name for name in names if names.count(name) == 2}

    def arrived(self, restart: int = 0) -> str:
        """Wait until a job is at the gate in this start or a later one; return its name."""
        # Slurm may begin a job more than once anew, such as for a slurmd that is silent and a node
        # that is marked down.

        def those() -> list[str]:
            found = (name.rsplit(".", 1) for name in sorted(self.at_gate()))
            return [job for job, start in found if int(start) >= restart]

        try:
            until(those, f"a job is at the gate in its start {restart}")
        except TimeoutError as error:
            told = (
                f"jobs {self.cluster.jobs()}, starts {self.starts()}, at the gate {self.at_gate()}"
            )
            raise TimeoutError(f"{error}; {told}") from None
        return those()[0]

    def node(self, job: str) -> str:
        return self.cluster.jobs()[job][1]

    # The end

    def complete(
        self, seconds: float = PATIENCE, meanwhile: Callable[[], object] = lambda: None
    ) -> bool:
        """Wait as run-all does, which submits again what is left undone; return whether all runs
        have a record.
        """
        ended: list[bool] = []
        waiter = threading.Thread(
            target=lambda: ended.append(self.sweep.wait(lambda _: None, poll=0.5)), daemon=True
        )
        waiter.start()
        meanwhile()
        waiter.join(seconds)
        assert ended, f"the sweep is not complete after {seconds:.0f} s: {self.cluster.jobs()}"
        return ended[0]

    @property
    def folder(self) -> Path:
        return self.sweep.folder

    def content(self) -> dict[str, Any]:
        return faults.content(self.folder)

    def record(self, method: str = "held", seed: int = 0) -> RunRecord:
        (found,) = [
            r
            for r in load_records(self.folder).records
            if (r.spec.method.name, r.spec.seed) == (method, seed)
        ]
        return found

    def starts(self) -> list[tuple[str, str | None]]:
        return [(job.name, job.how) for job in read_jobs(self.folder)]

    def left(self) -> tuple[Job, ...]:
        return claims(self.folder)

    def aside(self) -> list[str]:
        return sorted(path.name for path in (self.folder / SET_ASIDE).glob("*/"))

    def attempts(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "attempts").glob("*/"))
