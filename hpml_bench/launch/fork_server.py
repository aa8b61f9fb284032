"""Fork server: the process from which the preparation and all ranks are forked; its start, its
forks, what they do.
"""

import json
import multiprocessing
import os
import pkgutil
import signal
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from typing import Any
from unittest import mock

from hpml_bench.system import child, environment, gpus, processes, temporary
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import write_atomically
from hpml_bench.system.redaction import redacted

PRELOAD = ["hpml_bench.launch.fork_server_main", "hpml_bench.training.worker"]
WITHOUT_PEFT = [PRELOAD[0], "torch", "transformers.modeling_utils"]
"""Modules that don't initialise CUDA, even where bitsandbytes is installed: more than half of
the import time.
"""
SAFE_PATH = "PYTHONSAFEPATH"


def start_fork_server() -> None:
    """Start the fork server, which imports the libraries once for all runs; UserError if TMPDIR
    is too long.
    """
    # a fork takes 0.3-0.5 s to the first step, a new interpreter 3 s
    environment.set_process_environment()
    temporary.check_length()
    multiprocessing.set_forkserver_preload(preload())
    processes.await_dying_server()
    with temporary.as_temporary():
        resource_tracker.ensure_running()  # outside the block below, since it unblocks signals
        # blocked until the server ignores it, which as a `python -c` may import a `datasets.py` of
        # the working folder only if this process would
        safe = {} if child.imports_from_working_folder() else {SAFE_PATH: "1"}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with mock.patch.dict(os.environ, safe):
                forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def preload() -> list[str]:
    """Return the modules that the server imports; without PEFT where that would initialise CUDA."""
    # PEFT imports bitsandbytes where it is installed, which queries the GPUs' capability, and
    # processes that are forked after CUDA was initialised can't use it. Each process then imports
    # the rest itself.
    initialises = find_spec("bitsandbytes") is not None and gpus.visible_gpus()
    return WITHOUT_PEFT if initialises else PRELOAD


def run(work: Callable[..., object], *arguments: tuple[object, ...]) -> tuple[int, int] | None:
    """Do some work in a fork for each tuple of arguments; return number and exit status of the
    first that failed.

    The others are killed then. A status below 0 is a signal's. EOFError or ConnectionError: the
    server has ended.
    """
    context = multiprocessing.get_context("forkserver")
    forks = [context.Process(target=work, args=own) for own in arguments]
    start_fork_server()  # one that multiprocessing starts itself would not ignore Ctrl-C
    for fork in forks:
        fork.start()
    failed, left = None, forks
    while left and failed is None:
        connection.wait([fork.sentinel for fork in left])
        failed = next(
            ((number, fork.exitcode) for number, fork in enumerate(forks) if fork.exitcode), None
        )
        left = [fork for fork in left if fork.exitcode is None]
    for fork in left:
        fork.kill()
    for fork in forks:
        fork.join()
    return failed


# What its forks do


def call(work: str, target: str, arguments: tuple[Any, ...]) -> None:
    """Call a function, named MODULE:NAME, and write its result, or its user error, to a JSON
    file.
    """
    # by its name, so that the parent need not import what it needs
    try:
        result = {"result": pkgutil.resolve_name(work)(*arguments)}
    except UserError as error:
        result = {"error": redacted(str(error))}
    write_atomically(Path(target), json.dumps(result))


def start_rank(
    request_json: str, beats: str, launched: float, variables: Mapping[str, str]
) -> None:
    os.environ.update(variables)  # before a library reads them
    from hpml_bench.training import worker

    worker.start(request_json, beats, launched)
