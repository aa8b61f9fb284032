"""Neighbours of a run: the runs of other jobs on its hosts while it ran, which slow it as it slows them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from hpml_bench.records.files import read_json, write_atomically
from hpml_bench.records.folder import SharedResults
from hpml_bench.records.jobs import RUNNING, claims
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system import processes


class Neighbours:
    """Registration of a run on its hosts; collects overlapping runs, each of which adds itself to the others' lists."""

    def __init__(self, results: SharedResults, spec: RunSpec, hosts: Iterable[str]) -> None:
        self._hosts = {host.partition(".")[0] for host in hosts}  # without domains, which not every name has
        self._results, self._run = results, spec.run_id
        self._folder = results.path / RUNNING
        self._file = self._folder / f"{spec.run_id}.{results.job.name}.json"
        self._others: set[str] = set()

    def __enter__(self) -> Neighbours:
        """Register this run, then look for others: of two that begin at once, both see the other."""
        self._folder.mkdir(exist_ok=True)
        host = socket.gethostname()
        own = {"job": self._results.job.name, "pid": os.getpid(), "process": processes.identity(os.getpid())}
        write_atomically(self._file, json.dumps({"run": self._run, "host": host, "hosts": sorted(self._hosts)} | own))
        working = {owner.name for owner in claims(self._results.path)}
        for path in self._folder.glob("*.json"):
            other = read_json(path)
            if path == self._file or other is None or self._hosts.isdisjoint(other["hosts"]):
                continue
            here = other["host"] == host and processes.is_here(other["process"])
            if not (processes.identity(int(other["pid"])) == other["process"] if here else other["job"] in working):
                _remove(path)  # it was killed
                continue
            self._others.add(str(other["run"]))
            with _arrivals(path).open("a", encoding="utf-8") as file:
                file.write(f"{self._run}\n")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Read the runs that began meanwhile, and deregister this one."""
        if _arrivals(self._file).exists():
            self._others |= set(_arrivals(self._file).read_text(encoding="utf-8").split())
        _remove(self._file)

    def commit(self, record: RunRecord) -> RunRecord:
        """Commit the run's record with its neighbours, and return it."""
        record = record.model_copy(update={"neighbours": tuple(sorted(self._others - {self._run}))})
        return self._results.attempt(record.spec).commit(record)


def _arrivals(path: Path) -> Path:
    return path.with_suffix(".came")


def _remove(path: Path) -> None:
    for file in (path, _arrivals(path)):
        file.unlink(missing_ok=True)
