"""Fork server: the process from which the preparation and all ranks are forked; its start, and what they do."""

import multiprocessing
import os
import signal
from importlib.util import find_spec
from multiprocessing import forkserver, resource_tracker
from unittest import mock

from hpml_bench.system import child, environment, gpus, processes, temporary

PRELOAD = ["hpml_bench.launch.fork_server_main", "hpml_bench.training.worker"]
WITHOUT_PEFT = [PRELOAD[0], "torch", "transformers.modeling_utils"]
"""Modules that don't initialise CUDA, even where bitsandbytes is installed: more than half of the import time."""
SAFE_PATH = "PYTHONSAFEPATH"


def start_fork_server() -> None:
    """Start the fork server, which imports the libraries once for all runs; UserError if TMPDIR is too long."""
    # a fork takes 0.3-0.5 s to the first step, a new interpreter 3 s
    environment.set_process_environment()
    temporary.check_length()
    multiprocessing.set_forkserver_preload(preload())
    processes.await_dying_server()
    with temporary.as_temporary():
        resource_tracker.ensure_running()  # outside the block below, since it unblocks signals
        # blocked until the server ignores it, which as a `python -c` may import a `datasets.py` of the working folder
        # only if this process would
        safe = {} if child.imports_from_working_folder() else {SAFE_PATH: "1"}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with mock.patch.dict(os.environ, safe):
                forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def preload() -> list[str]:
    """Return the modules that the server imports; without PEFT where that would initialise CUDA."""
    # PEFT imports bitsandbytes where it is installed, which queries the GPUs' capability, and processes that are forked
    # after CUDA was initialised can't use it. Each process then imports the rest itself.
    initialises = find_spec("bitsandbytes") is not None and gpus.visible_gpus()
    return WITHOUT_PEFT if initialises else PRELOAD


# What its children do: passed by name, so that the parent need not import what they import


def prepare(settings_json: str, target: str) -> None:
    from hpml_bench.training import worker

    worker.prepare_to(settings_json, target)


def measure(settings_json: str, target: str) -> None:
    from hpml_bench.training import worker

    worker.measure_to(settings_json, target)


def start_rank(request_json: str, beats: str, launched: float) -> None:
    from hpml_bench.training import worker

    child.die_with_parent()  # by SIGKILL; torch's launcher asks for SIGINT, which ranks ignore
    worker.start(request_json, beats, launched)
