"""Publishing through a helper process: each run's history and final metrics, and the comparison of
a suite.

The library of a service runs in a process of its own (`python -m` the tracker's module), which
reads its orders from a file. It may be slow, hang or die: then it is ended, one sentence says so,
and nothing else is affected. It gets few environment variables, so that other keys and tokens can't
reach the service; and since each attempt has its own helper, one that failed doesn't spoil the
next.
"""

import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, Protocol, cast

import psutil
from pydantic import ValidationError

from hpml_bench.plugins.blocks import Table
from hpml_bench.plugins.tracker import Tracker
from hpml_bench.records.files import POINTS
from hpml_bench.records.load import read_record
from hpml_bench.records.points import Tail, iterate_points
from hpml_bench.records.run import FINAL, Point, RunRecord
from hpml_bench.suite.settings import RunSpec, identity
from hpml_bench.system.files import read_json, write_atomically
from hpml_bench.system.processes import kill
from hpml_bench.system.redaction import redacted, secrets
from hpml_bench.system.text import digest, for_terminal, map_texts

Order = dict[str, Any]  # an order to the helper: its name under `do`, and its arguments
POLL_SECONDS = 0.5
LAST_SECONDS = (
    30  # seconds that what is left may take after the last order, also where the parent died before
)
ORDERS, LAST = (
    "orders.jsonl",
    "last.jsonl",
)  # files of a helper's orders, in its folder for temporary files
PARENT = "HPML_BENCH_PARENT"  # variable with the number of the process that started a helper
PASSED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PATH",
)  # variables that every helper gets
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE")
PUBLISHED = "published.json"
_given_up: set[Path] = (
    set()
)  # trackers' folders whose live publishing failed once: later runs must not pay again


class Entry(NamedTuple):
    """A run or comparison that was published: the service's id, the state that was sent, and
    where ("": not whole).
    """

    id: str
    state: str
    place: str


class Publisher(Tracker):
    """A tracker whose library runs in a helper process, in which `carry_out` carries out the
    orders.

    A subclass says where to publish, with which environment, and how that is told to the user.
    """

    run_seconds: float = 20.0
    sweep_seconds: float = 120.0
    interrupted_seconds: float = 2.0
    """Time limits of the end of a run that is followed, of publishing a sweep, and of the end of
    an interrupted run.
    """

    def __init__(self, mode: str) -> None:
        """Publish to one place, the mode, also live."""
        super().__init__(mode)
        self.name = mode
        self.places: tuple[str, ...] = (mode,)
        """Where to publish: the first, or else the next one."""
        self.live: str | None = mode
        """Where runs are followed; None: they are published afterwards only."""

    def home(self, results_folder: Path) -> Path:
        """Return the folder beside the runs for the tracker's own files, one of
        `records.files.TRACKING`.
        """
        return results_folder / self.name

    def environment(self, place: str, home: Path) -> Mapping[str, str]:
        """Return the environment variables of a helper, beside `PASSED`."""
        raise NotImplementedError

    def sentence(self, records: Sequence[RunRecord], place: str, results_folder: Path) -> str:
        """Return where the runs and their comparison are now."""
        raise NotImplementedError

    def kept(self, results_folder: Path, entry: Entry) -> Iterable[Path]:
        """Return the folders that hold an entry here, which are removed when it was published
        anew.
        """
        return ()

    @contextmanager
    def follow(self, spec: RunSpec, folder: Path, results_folder: Path) -> Iterator[None]:
        """Publish a run live while the body runs it in `folder` and commits its record.

        No error of the service is raised. published.json says afterwards whether the service has
        the whole run.
        """
        home = self.home(results_folder)
        if self.live is None or home in _given_up:
            yield
            return
        run = digest([group_of(spec), spec.run_id, datetime.now(UTC).isoformat()])
        orders = (opening(spec, run), points_of(folder, live=True))
        helper = Helper(self, self.live, home, orders, niceness=19)  # training must not wait for it
        try:
            yield
        finally:
            record = None
            with suppress(OSError):
                record = read_record(folder)
            interrupted = record is None or record.status == "interrupted"
            left = self.interrupted_seconds if interrupted else self.run_seconds
            why = helper.finish(left, closing(record))
            if why is not None and not interrupted:
                _given_up.add(home)
                self._tell(f"live publishing stopped, the results are not affected: {why}")
            if record is not None:
                with suppress(OSError):
                    self._note(
                        results_folder,
                        {spec.run_id: Entry(run, record.started, self.live if not why else "")},
                    )

    def publish(
        self,
        folder: Path,
        records: Sequence[RunRecord],
        tables: Callable[[], Sequence[Table]],
        page: Path | None = None,
    ) -> str | None:
        """Publish the runs that the service doesn't have yet, oldest first, and their comparison.

        If one place fails, they go to the next. Nothing is raised; returns a sentence on where they
        are, or None if nothing was published.
        """
        if not records:
            return None
        for place in self.places:
            # a disk isn't slow because a server is
            limit = self.sweep_seconds if place == self.places[0] else Publisher.sweep_seconds
            why = self._publish(folder, records, tables, page, place, limit)
            if why is None:
                return self.sentence(records, place, folder)
            what = "publishing" if place == self.name else f"publishing {place}"
            instead = "; they are kept offline instead" if place != self.places[-1] else ""
            self._tell(f"{what} failed, the results are not affected: {why}{instead}")
        return None

    def _publish(
        self,
        directory: Path,
        records: Sequence[RunRecord],
        tables: Callable[[], Sequence[Table]],
        page: Path | None,
        place: str,
        seconds: float,
    ) -> str | None:
        """Send what `place` lacks; return what failed, if so."""
        before, new, spec = self.published(directory), dict[str, Entry](), records[-1].spec
        states, name = (
            {record.run_id: record.started for record in records},
            f"comparison {group_of(spec)}",
        )
        for own, state in {
            **states,
            name: digest([version("hpml-bench"), *states.items()]),
        }.items():
            known = before.get(own)
            if known is None or known.state != state or known.place not in {place, "online"}:
                # An attempt has one id, so that a second publishing replaces the first; its start
                # time distinguishes it from those of other users. The comparison keeps its id.
                same = known is not None and (known.state == state or own == name)
                new[own] = Entry(
                    known.id if known and same else digest([group_of(spec), own, state]),
                    state,
                    place,
                )
        if not new:
            return None
        orders: list[Order] = []
        for record in (record for record in records if record.run_id in new):
            orders += (
                opening(record.spec, new[record.run_id].id),
                points_of(directory / record.run_id),
                closing(record),
            )
        if name in new:
            orders += comparison(spec, new[name].id, tables(), page)
        replaced = [path for entry in new.values() for path in self.kept(directory, entry)]
        why = Helper(self, place, self.home(directory), orders).finish(seconds)
        if why is None:
            for path in replaced:
                shutil.rmtree(path, ignore_errors=True)
            self._note(directory, new)
        return why

    def published(self, results_folder: Path) -> dict[str, Entry]:
        """Return what of a results folder was published, by run id or comparison; a damaged file
        counts as none.
        """
        with suppress(TypeError):
            content = read_json(self.home(results_folder) / PUBLISHED) or {}
            return {name: Entry(**entry) for name, entry in content.items()}
        return {}

    def _note(self, results_folder: Path, entries: Mapping[str, Entry]) -> None:
        content = {
            name: entry._asdict()
            for name, entry in (self.published(results_folder) | {**entries}).items()
        }
        write_atomically(self.home(results_folder) / PUBLISHED, json.dumps(content, indent=1))

    def _tell(self, sentence: str) -> None:
        print(f"{self.name}: {sentence}", file=sys.stderr, flush=True)


class Helper:
    """The process that calls a service, with its orders in a file; `finish` ends it, whatever
    happens.
    """

    def __init__(
        self, tracker: Publisher, place: str, home: Path, orders: Iterable[Order], niceness: int = 0
    ) -> None:
        """Start; the process writes below `home` only, unless the service keeps its data
        elsewhere.
        """
        self._hidden, self._failure, home = secrets(), "", home.resolve()
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: Path | None = None
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._scratch = Path(tempfile.mkdtemp(prefix="hpml-track-"))
            with (self._scratch / ORDERS).open("wb") as file:
                file.writelines(map(self._line, orders))
            self._replies = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - `finish` closes it
            self._process = subprocess.Popen(  # noqa: S603 - this very package
                [sys.executable, "-P", "-m", type(tracker).__module__, place, str(home)],
                cwd=home,
                stdin=subprocess.PIPE,
                stdout=self._replies,
                stderr=subprocess.DEVNULL,
                env={
                    **{name: os.environ[name] for name in PASSED if name in os.environ},
                    "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "TMPDIR": str(self._scratch),
                    PARENT: str(os.getpid()),
                    **tracker.environment(place, home),
                },
                start_new_session=True,  # Ctrl-C is for the benchmark, which ends the helper itself
            )
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)
        except Exception as error:  # publishing must never hurt the sweep
            self._failure = for_terminal(
                redacted(str(error) or type(error).__name__, self._hidden), 300
            )

    def _line(self, order: Order) -> bytes:
        shown = (
            order if order["do"] == "points" else redacted(order, self._hidden)
        )  # that is for the helper alone
        return json.dumps(shown).encode() + b"\n"

    def finish(self, seconds: float, last: Order | None = None) -> str | None:
        """Give the last order, and end the process after `seconds` at most; return what failed,
        if so.
        """
        reply, process = "", self._process
        try:
            if process is not None:
                try:
                    if last is not None and self._scratch is not None:
                        (self._scratch / LAST).write_bytes(self._line(last))
                except OSError as error:  # a full disk: the service lacks the run's end
                    self._failure = f"its last order can't be written ({error.strerror})"
                cast(IO[bytes], process.stdin).close()
                if status := process.wait(seconds):
                    self._failure = f"its helper process ended with status {status}"
        except subprocess.TimeoutExpired:
            self._failure = f"it took longer than {seconds:g} s"
        finally:
            if process is not None:
                self._kill(process)
                with self._replies as replies:
                    replies.seek(0)
                    reply = for_terminal(redacted(replies.read(), self._hidden).strip(), 300)
            if self._scratch is not None:
                shutil.rmtree(self._scratch, ignore_errors=True)
        return reply or self._failure or None

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the process and all that it has started."""
        with suppress(psutil.Error, subprocess.TimeoutExpired):
            if process.poll() is None:  # else its number may be another's by now
                leader = psutil.Process(process.pid)
                family = [*leader.children(recursive=True), leader]
                kill(family)
                psutil.wait_procs(family, timeout=5)
                process.wait(5)


class Session(Protocol):
    """Carries out the orders, a method for each, one after another, with a service's library.

    They are `open` (begin a run), `log` (the values of one step), `tables` (the report's, and its
    page where the service takes files) and `close` (end the run with its final values), which take
    the order.
    """

    def end(self) -> None:
        """End a run that is still open, as a failed one, and the library."""


def carry_out(begin: Callable[[], Session]) -> NoReturn:
    """Carry out the orders of the file in the session that `begin` makes, in the helper, and the
    last that may come.
    """
    coming, errors = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # neither the library's output nor its own service may hold our pipes
        os.dup2(nothing, stream)
    signal.signal(signal.SIGALRM, _too_long)
    status = 0
    try:
        session = begin()
        with Path(os.environ["TMPDIR"], ORDERS).open("rb") as file:
            for line in chain(file, _last(coming)):
                order = json.loads(line)
                if os.getppid() != int(os.environ[PARENT]):  # it was killed
                    break
                parts = _history(order, coming) if order["do"] == "points" else [order]
                for one in parts:
                    getattr(session, one["do"])(one)
        signal.alarm(LAST_SECONDS)
        session.end()
    except BaseException as error:  # also a SystemExit of the library
        status = 1
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        with suppress(OSError):
            print(" ".join(text.split()), file=errors, flush=True)
    children = psutil.Process().children(recursive=True)
    kill(children)  # the library's own service, which would go on retrying
    psutil.wait_procs(children, timeout=5)
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    os._exit(status)  # its exit hooks may wait without end for data that can't be sent


def _last(over: IO[bytes]) -> Iterator[bytes]:
    """Yield the last order, if there is one, when `over` is closed."""
    over.read()
    with suppress(FileNotFoundError):
        yield Path(os.environ["TMPDIR"], LAST).read_bytes()


def _history(order: Order, over: IO[bytes]) -> Iterator[Order]:
    """Yield the orders of a run's points, of a live one until `over` can be read."""
    folder = Path(order["folder"])
    if not order["live"]:
        yield from _by_step(sorted(iterate_points(folder), key=lambda point: point.step))
        return
    tail, last = Tail(folder / POINTS), False
    while not last:
        last = bool(
            select.select([over], [], [], POLL_SECONDS)[0]
        )  # before reading: all is written by then
        yield from _by_step(_points(tail.lines()))


def _points(lines: list[str]) -> Iterator[Point]:
    for line in lines:
        with suppress(ValidationError):
            yield Point.model_validate_json(line)


def _by_step(points: Iterable[Point]) -> Iterator[Order]:
    """Yield one order per step; consecutive points at the same step go together."""
    for step, group in groupby(
        (p for p in points if p.value is not None), key=lambda point: point.step
    ):
        yield {"do": "log", "step": step, "values": {point.metric: point.value for point in group}}


def _too_long(*_: object) -> NoReturn:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(5)
    raise TimeoutError("what is left could not be sent in time")


# Orders to the helper: what is sent. No secrets, no folders, nothing about the machine

SECRET_OPTION = re.compile(
    r"(?i)(^|_)(api_?key|access_key|auth|token|secret|password|passwd|credentials?)$"
)
PATH = re.compile(r"^(path:|~|/|[A-Za-z]:[\\/])")


def group_of(spec: RunSpec) -> str:
    """Return the name of the group of a sweep: its suite and what its runs have in common."""
    return f"{spec.suite}-{digest(identity(spec.settings), 12)}"


def opening(spec: RunSpec, own: str) -> Order:
    """Return the order that opens a run; `own` identifies it at the service.

    Its config has of paths the last part alone, and no options named like secrets.
    """

    def without_folders(text: str) -> str:
        if not PATH.match(text):
            return text
        source = "path:" if text.startswith("path:") else ""
        return source + re.split(r"[\\/]", text.removeprefix(source).rstrip("\\/"))[-1]

    config = map_texts(
        spec.model_dump(mode="json"), without_folders, lambda key: bool(SECRET_OPTION.search(key))
    )
    names = {"group": group_of(spec), "name": spec.run_id, "job_type": spec.method.name}
    return {"do": "open", "id": own, **names, "config": config}


def points_of(folder: Path, *, live: bool = False) -> Order:
    """Return the order that sends a run's history, as it grows where the run is `live`."""
    return {"do": "points", "folder": str(folder.absolute()), "live": live}


def closing(record: RunRecord | None) -> Order:
    """Return the order that ends a run, with its final metrics; without a record the run has
    crashed.
    """
    if record is None:
        return {"do": "close", "summary": {}, "exit_code": 1}
    summary = {name: value for name, value in record.metrics.items() if value is not None}
    facts = {
        "status": record.status,
        "run_seconds": record.seconds,
        "protocol_id": record.protocol_id,
    }
    return {
        "do": "close",
        "summary": summary | facts,
        "exit_code": 0 if record.status in FINAL else 1,
    }


def comparison(spec: RunSpec, own: str, tables: Sequence[Table], page: Path | None) -> list[Order]:
    """Return the orders for the comparison run of a suite: its page, and tables with raw values
    where JSON has them.
    """

    def cell(value: float | str | None, shown: str) -> float | str | None:
        return shown if isinstance(value, float) and not math.isfinite(value) else value

    def cells(table: Table) -> list[list[float | str | None]]:
        rows = table.rows if table.values is None else table.values
        return [list(map(cell, row, shown)) for row, shown in zip(rows, table.rows, strict=True)]

    names = {"group": group_of(spec), "name": "comparison", "job_type": "comparison"}
    shown = [
        {"name": table.name, "columns": table.columns, "rows": cells(table)} for table in tables
    ]
    return [
        {"do": "open", "id": own, **names, "config": {"suite": spec.suite}},
        {"do": "tables", "tables": shown, "page": page and str(page.resolve())},
        {"do": "close", "summary": {}, "exit_code": 0},
    ]
