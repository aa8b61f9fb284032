"""Child processes that end with this one: jobs, which print into a file, pip, and a pool;
arguments to run a module.
"""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>
SETUP = "HPML_BENCH_SETUP"  # variable with the shell lines before a job's command


def prctl(option: int, value: int) -> None:
    """Ask Linux for something of this process; other kernels have no such call, and are asked
    for nothing.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if call is not None:
        call(option, value, 0, 0, 0)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, however it does; SystemExit if
    it has ended already.
    """
    parent = os.getppid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        raise SystemExit("the parent has ended")


def module(name: str, *arguments: str) -> list[str]:
    """Return the arguments to run a module, which imports from the working folder only if this
    process does.
    """
    return [*([] if imports_from_working_folder() else ["-P"]), "-m", name, *arguments]


def imports_from_working_folder() -> bool:
    """Return whether this process imports modules from the working folder, as after `python -m`."""
    with suppress(FileNotFoundError):  # it was removed
        return not {"", str(Path.cwd())}.isdisjoint(sys.path)
    return False


def start(
    command: Sequence[str],
    variables: Mapping[str, str],
    log: Path,
    setup: Sequence[str] = (),
    scratch: str | None = None,
    place: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a job whose output is appended to `log`; the kernel kills it when this thread's process
    ends.

    `setup`: shell lines before the command, of which the first that fails ends the job. `scratch`:
    a folder for temporary files, whose variables are expanded. `place` is called in the child
    before its command.
    """
    environment = {**os.environ, **variables}
    if scratch:
        folder = Path(os.path.expandvars(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        environment["TMPDIR"] = str(folder)
    words = [*command]
    if setup:  # by the environment, since all users of the machine can read arguments
        environment[SETUP] = "\n".join(setup)
        words = [
            "bash",
            "-c",
            f'setup=${SETUP}; unset {SETUP}; set -e; eval "$setup"; exec "$0" "$@"',
            *command,
        ]

    def begin() -> None:
        die_with_parent()
        if place is not None:
            place()

    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as file:
        # in a session of its own: Ctrl-C in the terminal reaches this process alone, which asks the
        # job to end
        return subprocess.Popen(  # noqa: S603 - the words are ours, the lines the profile's
            words,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=begin,  # noqa: PLW1509 - it makes two calls of the kernel
        )


def end(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Terminate jobs, and kill those that have not ended after `seconds`."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_PROGRAM = (
    f"import os, runpy, sys; runpy.run_path({__file__!r})['die_with_parent'](); "
    "os.getppid() == int(sys.argv.pop(1)) or sys.exit(); runpy.run_module('pip', "
    "run_name='__main__', alter_sys=True)"
)
"""The module is run by its path: an installed or local `hpml_bench` may be another version,
which is being checked.
"""


def pip_command(*arguments: str) -> list[str]:
    """Return the command of this interpreter's pip, which doesn't begin if this process has
    ended meanwhile.
    """
    return [sys.executable, "-P", "-c", _PROGRAM, str(os.getpid()), *arguments]


def run_pip(
    command: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a pip command, which ends with this process; return status and output. TimeoutExpired
    after `seconds`.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **(variables or {})},
        )
        try:
            status = process.wait(seconds)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        return status, log.read()


_work: Callable[[Any], Any] = id  # of a forked process; its parent's needs no pickling


def in_order(work: Callable[[Any], Any], items: Iterable[Any], processes: int) -> Iterator[Any]:
    """Yield `work` of each item in order, done by that many forked processes, or by this one where
    they can't start.

    They end with this one. An exception of `work` is raised here, UserError where a process was
    killed.
    """
    from hpml_bench.system.errors import (
        UserError,
    )  # pip's process runs this file without the package

    pool = _pool(work, processes) if processes > 1 else None
    if pool is None:
        yield from map(work, items)
        return
    waiting = deque[Future[Any]]()
    try:
        for item in items:
            waiting.append(pool.submit(_call, item))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a process that prepares rows was killed, perhaps for lack of memory; try again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(work: Callable[[Any], Any], processes: int) -> ProcessPoolExecutor | None:
    before = {*multiprocessing.active_children()}
    try:
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _begin, (work,))
        pool.submit(os.getpid)  # which starts them all
    except (OSError, RuntimeError, ImportError):  # no more processes or threads, no semaphore
        for process in {*multiprocessing.active_children()} - before:
            process.kill()  # its exit would be awaited
        return None
    return pool


def _begin(work: Callable[[Any], Any]) -> None:
    global _work  # noqa: PLW0603 - one for each forked process
    die_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads are the parent's alone
    _work = work


def _call(item: Any) -> Any:
    return _work(item)
