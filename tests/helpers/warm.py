"""Warm processes: commands forked from a process that has imported torch and the libraries, instead
of executed anew.

A cold command, its fork server and each of its jobs import for seconds of a core. Tests that look
at what commands do take theirs from one server per session (`Server`). In it, and in every process
that descends from it, two calls fork instead of executing: `subprocess.Popen` of this interpreter,
and the start of a fork server. All else is as in a cold process: parent, session, signals,
descriptors, environment, `__main__`, exit handlers, and the arguments in /proc.
"""

from __future__ import annotations

import array
import atexit
import base64
import ctypes
import fcntl
import gc
import json
import logging
import os
import pickle
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hpml_bench.system import processes

if TYPE_CHECKING:
    import pytest

ADDRESS = "HPML_TEST_WARM"
"""Variable with the server's socket."""
SPACE = 16_000
"""Bytes that the server's own arguments and environment take at least: those of its descendants
are written there.
"""
_cold_execute = subprocess.Popen._execute_child
_cold_spawn = util.spawnv_passfds
_started: list[Server] = []
_used: list[bool] = []
"""Whether a command has run in this process."""


# In the server, and what descends from it


def serve(address: str) -> None:
    """Import, then fork a command for each connection, and answer with its number, and later
    with its status.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # as in a fork server
    import hpml_bench.cli
    import hpml_bench.training.worker  # noqa: F401 - what takes the time

    subprocess.Popen._execute_child = _execute
    util.spawnv_passfds = _spawn
    gc.freeze()
    assert not _has_threads(), "a process with threads can't be forked"
    connections: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(f"{address}.new")
        listener.listen(64)
        Path(f"{address}.new").rename(address)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)  # closed when the session ends
        while True:
            ready = [key.fileobj for key, _ in selector.select(0.02 if connections else None)]
            if 0 in ready:
                return
            if listener in ready:
                connection = listener.accept()[0]
                with suppress(OSError, ValueError):
                    pid = _begin(connection)
                    connections[pid] = connection
                    connection.sendall(f"{pid}\n".encode())
            for pid in [*connections]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with suppress(OSError), connections.pop(pid) as connection:
                        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _begin(connection: socket.socket) -> int:
    """Fork what a connection asks for, a command or a fork server of the process that asks;
    return its number.
    """
    message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 8)
    connection.settimeout(30)
    try:
        while not message.endswith(b"\n"):
            if not (part := connection.recv(1 << 20)):
                raise ConnectionError("who asked has ended")
            message += part
        asked = json.loads(message)
        if pid := os.fork():
            return pid
        if "session" in asked:
            _become(
                asked["command"],
                asked["environment"],
                asked["folder"],
                descriptors,
                set(),
                asked["session"],
                None,
            )
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 500) for descriptor in descriptors]
        for copy, number in zip(high, asked["numbers"], strict=True):
            os.dup2(copy, number)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        _be_fork_server(asked["command"], set(asked["numbers"]))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _execute(
    process: subprocess.Popen[Any], command: Any, executable: Any, preexec: Any, *others: Any
) -> None:
    """Start a process as Popen does; a command of this interpreter by a fork."""
    _, pass_fds, cwd, env, _, _, shell, *pipes, _, _, _, _, _, session, _ = others
    if shell or not _is_ours(command) or _has_threads():
        _cold_execute(process, command, executable, preexec, *others)
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    process.pid = os.fork()
    if process.pid == 0:
        streams = [
            own if own != -1 else number
            for number, own in enumerate((pipes[0], pipes[3], pipes[5]))
        ]
        environment = dict(os.environ if env is None else env)
        _become(
            [*map(os.fspath, command)], environment, cwd, streams, set(pass_fds), session, preexec
        )
    process._child_created = True
    process._close_pipe_fds(*pipes)


def _has_threads() -> bool:
    """Tell whether this process has another thread, which may hold a lock; that of pyarrow's
    allocator minds forks.
    """
    names = [
        task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()
    ]
    return len([name for name in names if name != "jemalloc_bg_thd"]) > 1


def _is_ours(command: Any) -> bool:
    """Tell whether a command runs a module of the package, or a script of the tests, with this
    interpreter.
    """
    if isinstance(command, str) or command[0] != sys.executable or len(command) < 2:
        return False
    command = [word for word in command if word != "-P"]
    if command[1] == "-m":
        return str(command[2]).partition(".")[0] == "hpml_bench"
    if command[1] == "-c":
        return "hpml_bench" in command[2]
    return str(command[1]).endswith(".py") and "tests" in Path(command[1]).parts


def _become(
    command: list[str],
    environment: Mapping[str, str],
    folder: Any,
    streams: Sequence[int],
    keep: set[int],
    session: bool,
    preexec: Callable[[], None] | None,
) -> NoReturn:
    """Turn this new child into the process that the command would be."""
    code = 1
    try:
        copies = [os.dup(stream) for stream in streams]
        for number, copy in enumerate(copies):
            os.dup2(copy, number)
        _close_all_but(keep)
        if folder is not None:
            os.chdir(folder)
        if session:
            os.setsid()
        _forget()
        os.environ.clear()
        os.environ.update(environment)
        _show(command, environment)
        if preexec is not None:
            preexec()
        places = environment.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [path for path in places if path not in {"", *sys.path}]
        code = _main(command)
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _main(command: list[str]) -> int:
    """Run the module, code or script of a command; return the exit status, negative for that of
    a signal.
    """
    safe = command[1] == "-P"
    command = command[:1] + command[1 + safe :]
    try:
        if command[1] == "-m":
            sys.argv = command[2:]
            if not safe:
                sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(command[2], run_name="__main__", alter_sys=True)
        elif command[1] == "-c":
            sys.argv = ["-c", *command[3:]]
            sys.path.insert(0, "")
            sys.modules["__main__"] = main = types.ModuleType("__main__")
            exec(compile(command[2], "<string>", "exec"), vars(main))
        else:
            sys.argv = command[1:]
            runpy.run_path(command[1], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _leave(code: int) -> NoReturn:
    """End as an interpreter does, exit handlers first, but without finalizing it."""
    with suppress(BaseException):
        threading._shutdown()
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _spawn(path: bytes, words: Sequence[str], descriptors: Iterable[int]) -> int:
    """Start one of multiprocessing's helpers as it does; a fork server by a fork."""
    if "multiprocessing.forkserver" not in words[-1] or _has_threads():
        pid: int = _cold_spawn(path, words, descriptors)
        return pid
    return os.fork() or _be_fork_server([os.fsdecode(word) for word in words], set(descriptors))


def _be_fork_server(words: list[str], descriptors: set[int]) -> NoReturn:
    """Turn this new child into the fork server that the words would start."""
    try:
        _close_all_but(descriptors)
        _forget()
        _show(words, os.environ)
        exec(words[-1], {"__name__": "__main__"})
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(0)


def _forget() -> None:
    """Reset what an execution resets: signals, and what belongs to the parent."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            )
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    tempfile.tempdir = None
    forkserver._forkserver.__init__()
    resource_tracker._resource_tracker.__init__()
    # a command has run here: the package with what it has kept, and plug-ins, which extend its
    # classes
    if _used:
        for name, module in [*sys.modules.items()]:
            file = getattr(module, "__file__", None) or ""
            installed = (
                not file or file.startswith(sysconfig.get_path("stdlib")) or "-packages" in file
            )
            if name.partition(".")[0] == "hpml_bench" or not (installed or name == "__main__"):
                del sys.modules[name]
    _used.append(True)


def _close_all_but(keep: set[int]) -> None:
    """Close the descriptors that an execution would close."""
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in keep:
            with suppress(OSError):
                os.close(descriptor)


def _show(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Write arguments and environment where /proc reads them, as much as there is room for."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    arguments, variables = (int(fields[45]), int(fields[46])), (int(fields[47]), int(fields[48]))
    shown = [
        f"{name}={value}"
        for name, value in environment.items()
        if not name.startswith("HPML_TEST_SPACE")
    ]
    for (start, end), words in ((arguments, command), (variables, shown)):
        text = b"".join(os.fsencode(word) + b"\0" for word in words)[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


# In tests


class Server:
    """The server of a session of tests: of its only process, or of the one that the others
    belong to.
    """

    def __init__(self) -> None:
        """Start it; it imports in the background, and ends with `end` or with this process."""
        from hpml_bench.system.environment import PROCESS_ENVIRONMENT

        self._folder = tempfile.TemporaryDirectory(prefix="hpml-warm-", dir="/tmp")
        self.address = str(Path(self._folder.name) / "socket")
        # glibc reads some of them when a process starts
        variables = {**PROCESS_ENVIRONMENT, **os.environ, "HPML_TEST_SPACE": "-" * SPACE}
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.address, "-" * SPACE],
            env=variables,
            stdin=subprocess.PIPE,
        )

    def end(self) -> None:
        """End it; what was forked from it is on its own."""
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def address() -> str:
    """Return the socket of the session's server, which is started where there is none, once it
    has imported all.
    """
    if ADDRESS not in os.environ:  # or no more: a caller may put the environment back
        if not _started:
            _started.append(Server())
            atexit.register(_started[0].end)
        os.environ[ADDRESS] = _started[0].address
    deadline = time.monotonic() + 600
    while not Path(os.environ[ADDRESS]).exists():
        assert time.monotonic() < deadline, "the warm server has not come up; see what it printed"
        time.sleep(0.02)
    return os.environ[ADDRESS]


def start_fork_servers_warm(patch: pytest.MonkeyPatch) -> None:
    """Let the fork servers of this process be forked from the session's server, which is then
    their parent.
    """
    patch.setattr(util, "spawnv_passfds", _spawn_elsewhere)
    patch.setattr(forkserver, "os", _NotItsParent())


def _spawn_elsewhere(path: bytes, words: Sequence[str], descriptors: Iterable[int]) -> int:
    """Start one of multiprocessing's helpers as it does; a fork server by the session's server."""
    if "multiprocessing.forkserver" not in words[-1]:
        pid: int = _cold_spawn(path, words, descriptors)
        return pid
    numbers = [1, 2, *descriptors]
    asked: dict[str, Any] = {"command": [*map(os.fsdecode, words)], "numbers": numbers}
    asked |= {"environment": {**os.environ}, "folder": str(Path.cwd())}
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address())
    _ask(connection, asked, numbers)
    return int(connection.makefile("r").readline())


class _NotItsParent:
    """Module `os` for multiprocessing, by which it can wait for a fork server that is no child
    of this process.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @staticmethod
    def waitpid(pid: int, options: int) -> tuple[int, int]:
        """Return the number where the process has ended, else 0; and no status."""
        try:
            return os.waitpid(pid, options)
        except ChildProcessError:
            return (0 if processes.identify(pid) else pid), 0


def _ask(connection: socket.socket, asked: dict[str, Any], descriptors: Sequence[int]) -> None:
    message = json.dumps(asked).encode() + b"\n"
    rights = array.array("i", descriptors)
    sent = connection.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    connection.sendall(message[sent:])


class WarmProcess:
    """A command forked from the server, with the methods of Popen that tests use."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        new_session: bool = False,
        folder: Path | None = None,
        output: int | None = None,
    ) -> None:
        """Start `command`, which begins with this interpreter; it prints to `output`, else into
        a file.
        """
        self.returncode: int | None = None
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this is
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address())
        written = self._printed.fileno() if output is None else output
        asked = {
            "command": [*command],
            "environment": {**environment},
            "folder": str(folder or Path.cwd()),
            "session": new_session,
        }
        with Path(os.devnull).open() as nothing:
            _ask(self._socket, asked, [nothing.fileno(), written, written])
        self._lines = self._socket.makefile("r")
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._socket, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._lines.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait until it has ended, and return what it printed."""
        self.wait(timeout)
        file = (
            self._printed.fileno()
        )  # what it left running may still write, at the place that it shares
        return os.pread(file, os.fstat(file).st_size, 0).decode(), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def call(function: Callable[..., None], *arguments: object) -> WarmProcess:
    """Start a warm process that calls a function of a test module."""
    asked = base64.b64encode(pickle.dumps((function, arguments))).decode()
    program = (
        f"import base64, pickle, hpml_bench\nfunction, arguments = "
        f"pickle.loads(base64.b64decode({asked!r}))\n"
    )
    places = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return WarmProcess(
        [sys.executable, "-c", f"{program}function(*arguments)"], {**os.environ, **places}
    )


if __name__ == "__main__":
    del sys.path[0]  # this folder, which a command hasn't got
    serve(sys.argv[1])
