"""Jobs as child processes that end with this one and print into a file; arguments that run a module."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hpml_bench.system.parent_death import die_with_parent


def module(name: str, *arguments: str) -> list[str]:
    """Return the arguments to run a module, which imports from the working folder only if this process does."""
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
    """Start a job whose output is appended to `log`; the kernel kills it when this thread's process ends.

    `variables` are added to the environment. `setup` are shell lines before the command; the first that fails ends the
    job. `scratch` is a folder for temporary files, made if missing; variables in its path are expanded. `place` is
    called in the child before its command.
    """
    environment = {**os.environ, **variables}
    if scratch:
        folder = Path(os.path.expandvars(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        environment["TMPDIR"] = str(folder)
    words = [*command] if not setup else ["bash", "-c", "\n".join(["set -e", *setup, 'exec "$0" "$@"']), *command]

    def begin() -> None:
        die_with_parent()
        if place is not None:
            place()

    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603 - the words are ours, the lines the profile's
            words,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal reaches this process alone, which asks the job to end
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
