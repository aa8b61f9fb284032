"""Sweeps whose runs take no time: each attempt ends at once with the status that a test gives."""

from collections.abc import Mapping

import pytest

from helpers import tiny
from hpml_bench.launch import fork_server, launcher, preparation
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.run import Outcome, RunError, RunRecord
from hpml_bench.suite.suite import Suite
from hpml_bench.training.request import RunRequest


def suite_of(*methods: str, seeds: int = 2) -> Suite:
    entries = {name: {"method": "head"} for name in methods}
    settings = tiny.settings().model_dump()
    return Suite.model_validate(
        {"name": "quick", "seeds": seeds, "settings": settings, "methods": entries}
    )


def arrange(patch: pytest.MonkeyPatch, statuses: Mapping[str, str | list[str]]) -> list[str]:
    """Let runs end with the status of their method, of several one per attempt and then `ok`;
    return what has run.
    """
    ran: list[str] = []

    def run(request: RunRequest, *_: object) -> RunRecord:
        name, earlier = request.spec.method.name, request.earlier_attempts
        ran.append(f"{name}-{request.spec.seed}")
        RunFolder(request.folder).begin()
        given = statuses.get(name, "ok")
        status = given if isinstance(given, str) else (given[len(earlier) :] or ["ok"])[0]
        if status == "interrupt":
            raise KeyboardInterrupt
        error = None if status == "ok" else RunError(kind="Fault", message="as arranged")
        ended = Outcome.model_validate({"status": status, "error": error})
        began = f"2026-01-01T00:00:{len(ran):02d}+00:00"
        return RunFolder(request.folder).commit(launcher.record_of(request, ended, began, 1.0))

    patch.setattr(fork_server, "start_fork_server", lambda: None)
    patch.setattr(preparation, "prepare", lambda *_: tiny.NOTHING)
    patch.setattr(launcher, "run", run)
    return ran
