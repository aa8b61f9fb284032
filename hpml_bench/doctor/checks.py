"""All checks of this machine, in the order in which they are shown, and running them side by
side with a time limit.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError

from hpml_bench.doctor import machine, software
from hpml_bench.doctor.machine import Check, Result, refused
from hpml_bench.system.checklist import name_of, printable

CHECKS: tuple[Check, ...] = (
    software.python,
    software.dependencies,
    software.extras,
    software.quickstart,
    software.torch,
    machine.processor,
    software.gpus,
    software.precision,
    machine.memory,
    machine.shared_memory,
    machine.limits,
    machine.results_folder,
    machine.temporary_folder,
    machine.cache,
    machine.hub_cache,
    machine.datasets_cache,
    software.loopback,
    software.hub,
    software.package_index,
    software.trackers,
    software.engines,
    machine.clock,
)
SECONDS = 90.0  # time limit of all checks; a network drive may not answer


def run_checks(checks: Sequence[Check]) -> Iterator[Result]:
    """Run checks in threads and yield their results in order; an exception of a check becomes
    its finding.
    """
    kept: dict[Check, Result] = {}
    threads = [threading.Thread(target=_keep, args=(check, kept), daemon=True) for check in checks]
    deadline = time.monotonic() + SECONDS
    for thread in threads:
        thread.start()
    for check, thread in zip(checks, threads, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        yield printable(name_of(check), kept.get(check, Result("warn", "no answer in time")))


def _keep(check: Check, kept: dict[Check, Result]) -> None:
    from hpml_bench.system.errors import UserError

    try:
        kept[check] = check()
    except UserError as error:
        kept[check] = refused(error)
    except PackageNotFoundError as error:
        kept[check] = Result(
            "warn", f"not known: {error.name} isn't installed", "pip install . in the clone"
        )
    except ImportError as error:  # of ours, or of a dependency
        kept[check] = Result(
            "fail", str(error), "pip install . in the clone; see the line dependencies"
        )
    except Exception as error:
        kept[check] = Result("warn", f"not known ({type(error).__name__}: {error})")
