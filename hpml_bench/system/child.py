"""Jobs as children of this process, which end with it and print into a file; the words by which modules are run."""

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
    """Return an interpreter's words that run a module; it imports from the working folder only if this process does.

    A `datasets.py` that lies there would stand in for the library.
    """
    return [*([] if imports_from_working_folder() else ["-P"]), "-m", name, *arguments]


def imports_from_working_folder() -> bool:
    """Tell whether this process finds modules in the working folder, as one does that `python -m` started there."""
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
    """Start a job; the kernel kills it when this thread's process ends, whatever the reason.

    Args:
        command: its words.
        variables: of the environment, beside those of this process.
        log: the file to which what it prints is added.
        setup: shell lines before the command; the first that fails ends the job.
        scratch: folder for its temporary files, made if it isn't there; variables in it are expanded.
        place: what the child does before its command.

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
    """Ask jobs to end, and kill those that have not ended after so long."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
