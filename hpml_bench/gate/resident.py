"""Resident: one side of a comparison, a process that trains on request and returns how long it took.

It is a newly started interpreter (`python -m hpml_bench.gate.resident`), never a fork. Requests and answers are JSON, a
line each. Output of libraries goes to standard error. It ends with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hpml_bench.gate.records import PROTOCOL
from hpml_bench.system.child import die_with_parent
from hpml_bench.system.errors import Unsupported, UserError

if TYPE_CHECKING:
    from hpml_bench.gate.workload import Workload


def main() -> None:
    """Greet, then answer until the input ends."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group; the parent decides
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers:
        print(json.dumps({"protocol": PROTOCOL}), file=answers, flush=True)
        resident = Resident()
        for line in sys.stdin:
            print(json.dumps(resident.answer(json.loads(line))), file=answers, flush=True)


class Resident:
    """Requests that the process answers; everything heavy is imported at the first one."""

    workload: Workload  # the parent loads first

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a request `{"do": NAME, ...arguments}`, or the error in words."""
        arguments = {key: value for key, value in request.items() if key != "do"}
        try:
            return {"result": getattr(self, f"do_{request['do']}")(**arguments)}
        except (UserError, Unsupported) as error:
            return {"error": str(error)}
        except Exception as error:
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}", "bug": True}

    def do_describe(self) -> dict[str, Any]:
        from hpml_bench.system import environment

        return environment.describe()

    def do_prepare(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Prepare model and data with this side's own code; return a `Prepared`."""
        from hpml_bench.data.prepare import prepare
        from hpml_bench.suite.settings import Settings

        return prepare(Settings.model_validate(settings)).model_dump(mode="json")

    def do_load(self, **arguments: Any) -> None:
        from hpml_bench.gate.workload import Workload

        self.workload = Workload(**arguments)

    def do_warm_up(self, core: int | None = None) -> dict[str, float]:
        """Stay on a core, where one is given, and take first steps; return each method's seconds per step."""
        if core is not None:
            for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - names, not paths
                with suppress(OSError):  # it may have ended meanwhile
                    os.sched_setaffinity(int(thread), {core})
        return {name: job.warm_up() for name, job in self.workload.jobs.items()}

    def do_delay(self, share: float, turns: dict[str, int] | None) -> dict[str, tuple[int, float]]:
        """Inject busy work into each method's steps: these turns, or a share of a step; return turns and seconds."""
        return {
            name: job.delay.begin(share, turns[name] if turns else None) for name, job in self.workload.jobs.items()
        }

    def do_run(self, method: str, steps: int, first: int = 0) -> tuple[float, float]:
        """Take steps from batch `first` on; return the seconds, and those in which others had the core."""
        return self.workload.jobs[method].run(steps, first)

    def do_counts(self, method: str) -> dict[str, Any]:
        """Return the quantities without noise of a method; call it before any `run`."""
        from hpml_bench.gate.workload import count

        return count(self.workload.jobs[method])

    def do_calibrate(self) -> dict[str, float]:
        """Return the seconds of reference work, which show how fast this machine is right now."""
        from hpml_bench.gate.workload import calibrate

        return calibrate()


if __name__ == "__main__":
    main()
