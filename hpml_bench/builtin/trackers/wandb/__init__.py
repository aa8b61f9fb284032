"""Weights & Biases: each run's history in one group, and one comparison run with the report's own tables.

wandb runs in a helper process of its own (`python -m hpml_bench.builtin.trackers.wandb`). It may be slow, hang or die:
then the helper is ended, one sentence says so, and nothing else is affected. The helper gets few environment variables,
so that other keys and tokens can't reach wandb; and since each attempt has its own helper, an online one
that failed doesn't spoil the offline one after it.
"""

from __future__ import annotations

import json
import netrc
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast
from urllib.parse import urlsplit

import psutil
from pydantic import ValidationError

from hpml_bench.builtin.trackers.wandb.orders import Order, closing, comparison, group_of, history, opening
from hpml_bench.plugins.blocks import Table
from hpml_bench.plugins.tracker import Tracker
from hpml_bench.records.files import POINTS, read_json, write_atomically
from hpml_bench.records.load import read_record
from hpml_bench.records.points import Tail, iterate_points
from hpml_bench.records.run import Point, RunRecord
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import UserError
from hpml_bench.system.processes import kill
from hpml_bench.system.redaction import redacted, secrets
from hpml_bench.system.text import digest, for_terminal

Mode = Literal["online", "offline", "off"]

CHOICES = ("auto", "online", "offline", "off")
SERVERS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")
"""Two names of one service; which of them `wandb login` writes into netrc depends on wandb's version."""
CONNECT_SECONDS = 2.0
POLL_SECONDS = 0.5
RUN_SECONDS, SWEEP_SECONDS, INTERRUPTED_SECONDS = 20.0, 120.0, 2.0
"""Time limits of the end of a run that is followed, of publishing a sweep, and of the end of an interrupted run."""

PASSED = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "WANDB_ENTITY", "WANDB_PROJECT")
"""Environment variables that the helper gets."""
PASSED_ONLINE = (
    *("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "NETRC"),
    *("WANDB_INSECURE_DISABLE_SSL", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""Further variables that an online helper gets."""

PUBLISHED = Path("wandb", "published.json")
_given_up: set[Path] = set()
"""Results folders whose live publishing failed once: later runs must not pay for another attempt."""


class Wandb(Tracker):
    """Follows runs live where it is online, and publishes their history and the report's tables."""

    @classmethod
    def choose_mode(cls, asked: str) -> Mode:
        """Return how to publish: `auto` follows WANDB_MODE, else is online where there are a key and a route.

        Raises UserError: `online` was requested without a key or a route, or `asked` is none of the choices.
        """
        if asked not in CHOICES:
            raise UserError(f"--wandb is {asked!r}; allowed are {', '.join(CHOICES)}")
        wanted = os.environ.get("WANDB_MODE", "").lower() if asked == "auto" else asked
        if wanted in {"off", "disabled"}:
            return "off"
        if wanted in {"offline", "dryrun"}:
            return "offline"
        missing = cls.obstacle()
        if missing is not None and asked == "online":
            raise UserError(f"--wandb online: {missing}; or use --wandb offline")
        return "online" if missing is None else "offline"

    @classmethod
    def obstacle(cls) -> str | None:
        chosen = os.environ.get("WANDB_BASE_URL")
        servers = (chosen,) if chosen else SERVERS
        try:
            parts = urlsplit(servers[0])
            host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            host, port = None, 0
        if host is None or parts.scheme not in {"http", "https"}:
            return "WANDB_BASE_URL is not an http(s) address; correct or unset it"
        if not os.environ.get("WANDB_API_KEY") and not any(_in_netrc(urlsplit(server).netloc) for server in servers):
            return f"there is no API key for {host}; set WANDB_API_KEY or run `wandb login`"
        proxied = urllib.request.getproxies().get(parts.scheme) and not urllib.request.proxy_bypass(host)
        if not proxied and not _reachable(host, port):
            return f"{host}:{port} can't be reached within {CONNECT_SECONDS:g} s; check the network"
        return None

    def follow(self, spec: RunSpec, folder: Path, results_folder: Path) -> AbstractContextManager[object]:
        return follow(spec, folder, "online" if self.mode == "online" else "off", results_folder)

    def publish(self, folder: Path, records: Sequence[RunRecord], tables: Callable[[], Sequence[Table]]) -> str | None:
        return publish(records, tables, cast(Mode, self.mode), folder)


def _in_netrc(machine: str) -> bool:
    named = os.environ.get("NETRC")
    for file in (named,) if named else ("~/.netrc", "~/_netrc"):
        with suppress(OSError, netrc.NetrcParseError, ValueError, RuntimeError):
            entry = netrc.netrc(Path(file).expanduser()).authenticators(machine)
            if entry and entry[2]:
                return True
    return False


def _reachable(host: str, port: int) -> bool:
    """Return whether a TCP connection opens in time; the limit covers a name server that doesn't answer."""
    opened = threading.Event()

    def connect() -> None:
        with suppress(OSError, ValueError), socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            opened.set()

    thread = threading.Thread(target=connect, name="wandb-route", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return opened.is_set()


class Helper(threading.Thread):
    """The process that calls wandb, started by a thread that sends its orders; `finish` ends both, whatever happens."""

    def __init__(self, mode: Mode, directory: Path, orders: Iterable[Order], niceness: int = 0) -> None:
        """Start; the process writes below `directory`/wandb only."""
        super().__init__(name="wandb-orders", daemon=True)
        self._mode, self._home = mode, directory.resolve() / "wandb"
        self._orders, self._niceness = orders, niceness
        self._begun = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._reply = self._failure = ""
        self.start()

    def run(self) -> None:
        """Send the orders, which blocks while the process is busy, and wait for its end."""
        hidden = secrets()
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            with (
                tempfile.TemporaryDirectory(prefix="hpml-wandb-", ignore_cleanup_errors=True) as scratch,
                tempfile.TemporaryFile("w+", errors="replace") as replies,
            ):
                self._process = subprocess.Popen(  # noqa: S603 - this very package
                    [sys.executable, "-P", "-m", __name__, self._mode, str(self._home.parent)],
                    stdin=subprocess.PIPE,
                    stdout=replies,
                    stderr=subprocess.DEVNULL,
                    cwd=self._home,
                    env=self._environment(scratch),
                    start_new_session=True,  # Ctrl-C is for the benchmark, which ends the helper itself
                )
                self._begun.set()
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, self._process.pid, self._niceness)
                try:
                    with suppress(BrokenPipeError), cast(IO[bytes], self._process.stdin) as sink:
                        for order in self._orders:
                            sink.write(json.dumps(redacted(order, hidden)).encode() + b"\n")
                            sink.flush()
                except Exception:
                    self._kill()
                    raise
                status = self._process.wait()
                replies.seek(0)
                self._reply = for_terminal(redacted(replies.read(), hidden).strip(), 300)
                self._failure = f"its helper process ended with status {status}" if status else ""
        except Exception as error:  # publishing must never hurt the sweep
            self._failure = for_terminal(redacted(str(error) or type(error).__name__, hidden), 300)
        finally:
            self._begun.set()

    def _environment(self, scratch: str) -> dict[str, str]:
        names = (*PASSED, *PASSED_ONLINE) if self._mode == "online" else PASSED
        return {
            **{name: os.environ[name] for name in names if name in os.environ},
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": scratch,
            "WANDB_CACHE_DIR": f"{scratch}/cache",
            "WANDB_DATA_DIR": str(self._home / "staging"),  # an offline run's tables lie here until they are uploaded
            "WANDB_ERROR_REPORTING": "false",
        }

    def finish(self, seconds: float) -> str | None:
        """Wait until all is sent, and end the process after `seconds`; return what failed, if so."""
        late = ""
        try:
            self.join(seconds)
            late = f"it took longer than {seconds:g} s" if self.is_alive() else ""
        finally:
            self._begun.wait(5)
            self._kill()
            self.join(10)
        return self._reply or late or self._failure or None

    def _kill(self) -> None:
        """Kill the process and all that it has started."""
        with suppress(psutil.Error):
            if self._process is not None and self._process.poll() is None:  # else its number may be another's by now
                leader = psutil.Process(self._process.pid)
                family = [*leader.children(recursive=True), leader]
                kill(family)
                psutil.wait_procs(family, timeout=5)


@contextmanager
def follow(spec: RunSpec, folder: Path, mode: Mode, directory: Path, seconds: float = RUN_SECONDS) -> Iterator[None]:
    """Publish a run live while the body runs it in `folder` and commits its record; wandb's files go to `directory`.

    No error of wandb is raised. published.json says afterwards whether wandb has the whole run.
    """
    if mode == "off" or directory in _given_up:
        yield
        return
    wandb_id = digest([group_of(spec), spec.run_id, datetime.now(UTC).isoformat()])
    over = threading.Event()

    def orders() -> Iterator[Order]:
        yield opening(spec, wandb_id)
        tail, last = Tail(folder / POINTS), False
        while not last:
            last = over.wait(POLL_SECONDS)  # before reading, so that all points written until then are read
            yield from history(_points(tail.lines()))
        yield closing(read_record(folder))

    helper = Helper(mode, directory, orders(), niceness=19)  # training must not wait for it
    left = INTERRUPTED_SECONDS
    try:
        yield
        left = seconds
    finally:
        over.set()
        why = helper.finish(left)
        if why is not None and left == seconds:
            _given_up.add(directory)
            _tell(f"live publishing stopped, the results are not affected: {why}")
        record = read_record(folder)
        if record is not None:
            with suppress(OSError):
                _note(directory, {spec.run_id: Entry(wandb_id, record.started, mode if why is None else "")})


def _points(lines: list[str]) -> Iterator[Point]:
    for line in lines:
        with suppress(ValidationError):
            yield Point.model_validate_json(line)


def publish(
    records: Sequence[RunRecord],
    tables: Callable[[], Sequence[Table]],
    mode: Mode,
    directory: Path,
    seconds: float = SWEEP_SECONDS,
) -> str | None:
    """Publish the runs of `directory` that wandb doesn't have yet, oldest first, and their comparison.

    If online fails, they are kept offline, in `directory`/wandb. Nothing is raised; returns a sentence on where they
    are, or None if nothing was published.
    """
    if mode == "off" or not records:
        return None
    places: tuple[Mode, ...] = ("online", "offline") if mode == "online" else ("offline",)
    for place in places:
        limit = seconds if place == mode else SWEEP_SECONDS  # a disk isn't slow because a server is
        why = _publish(records, tables, place, directory, limit)
        if why is None:
            return _sentence(records, place, directory)
        instead = "; they are kept offline instead" if place != places[-1] else ""
        _tell(f"publishing {place} failed, the results are not affected: {why}{instead}")
    return None


def _publish(
    records: Sequence[RunRecord],
    tables: Callable[[], Sequence[Table]],
    place: Mode,
    directory: Path,
    seconds: float,
) -> str | None:
    """Send what `place` lacks; return what failed, if so."""
    before = published(directory)
    new: dict[str, Entry] = {}

    def lacks(name: str, state: str, wandb_id: str) -> bool:
        known = before.get(name)
        if known is not None and known.state == state and known.place in {place, "online"}:
            return False  # what is online needs no offline copy
        new[name] = Entry(wandb_id, state, place)
        return True

    # An attempt has one id, so that a second publishing replaces the first; its start time distinguishes it from those
    # of other users. The comparison keeps its id.
    ids = {name: entry.id for name, entry in before.items()}
    sent = []
    for r in records:
        again = r.run_id in before and before[r.run_id].state == r.started
        if lacks(r.run_id, r.started, ids[r.run_id] if again else digest([group_of(r.spec), r.run_id, r.started])):
            sent.append(r)
    last, name = records[-1], f"comparison {group_of(records[-1].spec)}"
    state = digest([version("hpml-bench"), *((record.run_id, record.started) for record in records)])
    compared = lacks(name, state, ids.get(name) or digest([name, last.started]))
    shown = tables() if compared else ()
    replaced = [path for entry in new.values() for path in (directory / "wandb").glob(f"offline-run-*-{entry.id}")]

    def orders() -> Iterator[Order]:
        for record in sent:
            yield opening(record.spec, new[record.run_id].id)
            yield from history(sorted(iterate_points(directory / record.run_id), key=lambda point: point.step))
            yield closing(record)
        if compared:
            yield from comparison(last.spec, new[name].id, shown)

    if not new:
        return None
    why = Helper(place, directory, orders()).finish(seconds)
    if why is None:
        for path in replaced:
            shutil.rmtree(path, ignore_errors=True)
        _note(directory, new)
    return why


def _sentence(records: Sequence[RunRecord], place: Mode, directory: Path) -> str:
    entries = published(directory)
    runs = len(records) if place == "online" else sum(entries[r.run_id].place == "offline" for r in records)
    what = f"{runs} run{'s' * (runs != 1)} and the comparison are" if runs else "the comparison is"
    if place == "online":
        host = urlsplit(os.environ.get("WANDB_BASE_URL") or SERVERS[0]).hostname
        return f"{what} in wandb's group {group_of(records[-1].spec)} at {host}"
    upload = f"wandb sync {shlex.quote(str(directory / 'wandb'))}/offline-run-*"
    return f"{what} kept offline for wandb; upload with `{upload}`"


class Entry(NamedTuple):
    """A run or comparison that was published: wandb's id, the state that was sent, and where ("": it isn't whole)."""

    id: str
    state: str
    place: str


def published(directory: Path) -> dict[str, Entry]:
    """Return what of a results folder was published, by run id or comparison; a damaged file counts as none."""
    with suppress(TypeError):
        return {name: Entry(**entry) for name, entry in (read_json(directory / PUBLISHED) or {}).items()}
    return {}


def _note(directory: Path, entries: Mapping[str, Entry]) -> None:
    content = {name: entry._asdict() for name, entry in (published(directory) | {**entries}).items()}
    write_atomically(directory / PUBLISHED, json.dumps(content, indent=1))


def _tell(sentence: str) -> None:
    print(f"wandb: {sentence}", file=sys.stderr, flush=True)
