"""Weights & Biases: each run's history in one group, and one comparison run with the report's
own tables.
"""

import netrc
import os
import shlex
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from hpml_bench.plugins.publishing import (
    CERTIFICATES,
    PROXIES,
    Entry,
    Publisher,
    carry_out,
    group_of,
)
from hpml_bench.records.run import RunRecord
from hpml_bench.system.errors import UserError

Mode = Literal["online", "offline", "off"]

CHOICES = ("auto", "online", "offline", "off")
SERVERS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")
"""Two names of one service; which of them `wandb login` writes into netrc depends on wandb's
version.
"""
CONNECT_SECONDS = 2.0
PASSED = ("WANDB_ENTITY", "WANDB_PROJECT")
PASSED_ONLINE = (
    *("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "NETRC", "WANDB_INSECURE_DISABLE_SSL"),
    *CERTIFICATES,
    *PROXIES,
)
"""Environment variables that an online helper gets beside `PASSED`."""
PROJECT = "hpml-bench"
SETTINGS: dict[str, Any] = {  # wandb collects nothing by itself
    **dict.fromkeys(("host", "program", "email", "username", "docker"), ""),
    **dict.fromkeys(
        (
            "disable_git",
            "disable_code",
            "disable_job_creation",
            "label_disable",
            "sagemaker_disable",
        ),
        True,
    ),
    **dict.fromkeys(("x_disable_meta", "x_disable_stats", "x_disable_machine_info"), True),
    **dict.fromkeys(("save_code", "x_save_requirements", "symlink", "use_dot_wandb"), False),
    "silent": True,
    "console": "off",
    "reinit": "create_new",
    **dict.fromkeys(("init_timeout", "finish_timeout", "x_service_wait"), 20.0),
    "login_timeout": 1.0,
    "x_graphql_retry_max": 3,
    "x_graphql_timeout_seconds": 10.0,
}


class Wandb(Publisher):
    """Follows runs live where it is online, and publishes their history and the report's tables."""

    def __init__(self, mode: str) -> None:
        """Publish online or offline; what can't be published online is kept offline."""
        super().__init__(mode)
        self.name = "wandb"
        self.places = ("online", "offline") if mode == "online" else (mode,)
        self.live = mode if mode == "online" else None

    @classmethod
    def choose_mode(cls, asked: str) -> Mode:
        """Return how to publish: `auto` or `on` follow WANDB_MODE, else are online where there are
        a key and a route.

        Raises UserError: `online` was requested without a key or a route, or `asked` is none of the
        choices.
        """
        asked = "auto" if asked == "on" else asked
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
        if not os.environ.get("WANDB_API_KEY") and not any(
            _in_netrc(urlsplit(server).netloc) for server in servers
        ):
            return f"there is no API key for {host}; set WANDB_API_KEY or run `wandb login`"
        proxied = urllib.request.getproxies().get(parts.scheme) and not urllib.request.proxy_bypass(
            host
        )
        if not proxied and not _reachable(host, port):
            return f"{host}:{port} can't be reached within {CONNECT_SECONDS:g} s; check the network"
        return None

    def environment(self, place: str, home: Path) -> Mapping[str, str]:
        names = (*PASSED, *PASSED_ONLINE) if place == "online" else PASSED
        return {
            **{name: os.environ[name] for name in names if name in os.environ},
            "WANDB_DATA_DIR": str(
                home / "staging"
            ),  # an offline run's tables lie here until they are uploaded
            "WANDB_ERROR_REPORTING": "false",
        }

    def kept(self, results_folder: Path, entry: Entry) -> Iterator[Path]:
        return self.home(results_folder).glob(f"offline-run-*-{entry.id}")

    def sentence(self, records: Sequence[RunRecord], place: str, results_folder: Path) -> str:
        entries = self.published(results_folder)
        runs = (
            len(records)
            if place == "online"
            else sum(entries[r.run_id].place == "offline" for r in records)
        )
        what = (
            f"{runs} run{'s' * (runs != 1)} and the comparison are" if runs else "the comparison is"
        )
        if place == "online":
            host = urlsplit(os.environ.get("WANDB_BASE_URL") or SERVERS[0]).hostname
            return f"{what} in wandb's group {group_of(records[-1].spec)} at {host}"
        upload = f"wandb sync {shlex.quote(str(self.home(results_folder)))}/offline-run-*"
        return f"{what} kept offline for wandb; upload with `{upload}`"


def _in_netrc(machine: str) -> bool:
    named = os.environ.get("NETRC")
    for file in (named,) if named else ("~/.netrc", "~/_netrc"):
        with suppress(OSError, netrc.NetrcParseError, ValueError, RuntimeError):
            entry = netrc.netrc(Path(file).expanduser()).authenticators(machine)
            if entry and entry[2]:
                return True
    return False


def _reachable(host: str, port: int) -> bool:
    """Return whether a TCP connection opens in time; the limit covers a name server that doesn't
    answer.
    """
    opened = threading.Event()

    def connect() -> None:
        with (
            suppress(OSError, ValueError),
            socket.create_connection((host, port), timeout=CONNECT_SECONDS),
        ):
            opened.set()

    thread = threading.Thread(target=connect, name="wandb-route", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return opened.is_set()


class Session:
    """Carries out orders with wandb."""

    def __init__(self, mode: str, directory: str) -> None:
        os.environ["WANDB_CACHE_DIR"] = f"{os.environ['TMPDIR']}/cache"
        import wandb

        self._wandb: Any = wandb
        wanted = SETTINGS | {"mode": mode, "root_dir": directory}
        known = wandb.Settings.model_fields  # it differs between versions
        self._settings = {name: value for name, value in wanted.items() if name in known}
        self._run: Any = None
        self._at = -1
        self._step: int | None = None

    def open(self, order: dict[str, Any]) -> None:
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            **{name: order[name] for name in ("id", "group", "name", "job_type", "config")},
            settings=self._wandb.Settings(**self._settings),
        )
        self._run.define_metric("*", step_metric="step")
        self._at, self._step = -1, None

    def log(self, order: dict[str, Any]) -> None:
        # wandb's own step may only grow: it is ours while ours grows, and the next free one when a
        # point comes late.
        if order["step"] != self._step:
            self._at, self._step = max(self._at + 1, order["step"]), order["step"]
        self._run.log({**order["values"], "step": order["step"]}, step=self._at)

    def tables(self, order: dict[str, Any]) -> None:
        make = self._wandb.Table
        content = {
            table["name"]: make(
                columns=table["columns"], data=table["rows"], allow_mixed_types=True
            )
            for table in order["tables"]
        }
        if content:
            self._run.log(content)

    def close(self, order: dict[str, Any]) -> None:
        self._run.log(
            {}, commit=True
        )  # a row still open would overwrite the final values of the same name
        self._run.summary.update(order["summary"])
        self._run.finish(exit_code=order["exit_code"])
        self._run = None

    def end(self) -> None:
        if self._run is not None:
            self._run.finish(exit_code=1)
        self._wandb.teardown()


if __name__ == "__main__":
    mode, home = sys.argv[1:]
    carry_out(lambda: Session(mode, str(Path(home).parent)))
