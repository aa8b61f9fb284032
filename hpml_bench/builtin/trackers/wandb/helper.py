"""Helper process, on its parent's side: started with few variables, given orders, ended for certain."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from hpml_bench.builtin.trackers.wandb.content import Order
from hpml_bench.builtin.trackers.wandb.mode import Mode
from hpml_bench.system.redaction import redacted, secrets
from hpml_bench.system.text import for_terminal

FINISH_SECONDS = 20.0
"""Seconds that the end of a run may wait for wandb."""

PASSED = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "WANDB_ENTITY", "WANDB_PROJECT")
"""Environment variables that the helper gets."""
PASSED_ONLINE = (
    *("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "NETRC"),
    *("WANDB_INSECURE_DISABLE_SSL", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""Further variables that an online helper gets."""


def end_within(seconds: float) -> Order:
    """Return the order to end; if this process dies meanwhile, the helper gives up 10 s after `seconds`."""
    return {"do": "end", "seconds": math.ceil(seconds) + 10}


class HelperFailedError(Exception):
    """The helper failed; the message is one line with the reason."""


class Helper:
    """The process that calls wandb; whatever happens in it, it can be ended from here."""

    def __init__(self, mode: Mode, directory: Path, niceness: int = 0) -> None:
        """Start the process; it writes below `directory`/wandb only. An OSError says that it can't be started."""
        home = directory.resolve() / "wandb"
        home.mkdir(parents=True, exist_ok=True)
        self._secrets = secrets()
        self._error: str | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="hpml-wandb-"))
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very package
                [sys.executable, "-P", "-m", "hpml_bench.builtin.trackers.wandb", mode, str(home.parent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=home,
                env=self._environment(mode, home),
                start_new_session=True,  # Ctrl-C is for the benchmark, which ends the helper itself
            )
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)
        self._listener = threading.Thread(target=self._listen, name="wandb-replies", daemon=True)
        self._listener.start()

    def _environment(self, mode: Mode, home: Path) -> dict[str, str]:
        names = (*PASSED, *PASSED_ONLINE) if mode == "online" else PASSED
        return {
            **{name: os.environ[name] for name in names if name in os.environ},
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self._scratch),
            "WANDB_CACHE_DIR": str(self._scratch / "cache"),
            "WANDB_DATA_DIR": str(home / "staging"),  # an offline run's tables lie here until they are uploaded
            "WANDB_ERROR_REPORTING": "false",
        }

    def send(self, *orders: Order) -> None:
        """Send orders; may block while the helper is busy, until it is ended. A HelperFailedError says it is gone."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        try:
            for order in orders:
                self._process.stdin.write(json.dumps(redacted(order, self._secrets)).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            self._listener.join(1)  # its last message may be under way
            raise HelperFailedError(self._reason("its helper process ended")) from None

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        for line in self._process.stdout:
            self._error = self._error or line.decode(errors="replace")

    def finish(self, seconds: float) -> None:
        """Wait until the helper ends by itself after the order `end`, for `seconds` at most.

        A HelperFailedError says that it met an error, or did not end in time.
        """
        try:
            self._process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            raise HelperFailedError(self._reason("it did not end in time")) from None
        finally:
            self.end()
        if self._error or self._process.returncode:
            raise HelperFailedError(self._reason(f"its helper process ended with status {self._process.returncode}"))

    def _reason(self, otherwise: str) -> str:
        return for_terminal(redacted(self._error or otherwise, self._secrets), 300)

    def end(self) -> None:
        """End the helper and all it has started, now."""
        import psutil

        from hpml_bench.system.processes import kill

        family: list[psutil.Process] = []
        with suppress(psutil.Error):
            if self._process.poll() is None:  # else its number may be another's by now
                leader = psutil.Process(self._process.pid)
                family = [*leader.children(recursive=True), leader]
        kill(family)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        psutil.wait_procs(family, timeout=5)
        self._listener.join(5)
        shutil.rmtree(self._scratch, ignore_errors=True)


def tell(sentence: str) -> None:
    """Print a problem with wandb to stderr."""
    print(f"wandb: {sentence}", file=sys.stderr, flush=True)
