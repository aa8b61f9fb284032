"""Choice of trackers, and wandb's mode in two seconds at most; one of another package is in
tests/test_adding.py.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers import made_records
from helpers.commands import called
from hpml_bench.builtin.trackers import wandb
from hpml_bench.plugins.tracker import make_trackers
from hpml_bench.system.errors import UserError

pytestmark = pytest.mark.usefixtures("home")
choose_mode = wandb.Wandb.choose_mode


KEY = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


READY = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "open"}
PROXIED = {
    "WANDB_API_KEY": KEY,
    "WANDB_BASE_URL": "https://wandb.invalid",
    "HTTPS_PROXY": "http://proxy.invalid",
}
CHOSEN = [
    (READY, "auto", "online"),
    (READY, "online", "online"),
    # WANDB_MODE decides for `auto`; an explicit --wandb stands above it
    (READY | {"WANDB_MODE": "offline"}, "auto", "offline"),
    (READY | {"WANDB_MODE": "dryrun"}, "auto", "offline"),
    (READY | {"WANDB_MODE": "disabled"}, "auto", "off"),
    (READY | {"WANDB_MODE": "online"}, "auto", "online"),
    (READY | {"WANDB_MODE": "disabled"}, "offline", "offline"),
    (READY | {"WANDB_MODE": "offline"}, "online", "online"),
    (READY | {"WANDB_MODE": "online"}, "online", "online"),
    # behind a proxy no direct route is looked for, unless NO_PROXY names the server
    (PROXIED, "auto", "online"),
    (PROXIED | {"NO_PROXY": "wandb.invalid"}, "auto", "offline"),
]


@pytest.mark.parametrize(("variables", "asked", "chosen"), CHOSEN)
def test_variables_decide(
    variables: dict[str, str], asked: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is asked for, and there are a key and a route; what is asked for stands
    above it.
    """
    with listening() as url:
        for name, value in variables.items():
            monkeypatch.setenv(name, url if value == "open" else value)
        assert choose_mode(asked) == chosen


ADDRESSES = ("nonsense", "http://", "http://h:99999999/", "ftp://127.0.0.1", "http://[::1")


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"WANDB_BASE_URL": "open"}, r"no API key for 127\.0\.0\.1; set WANDB_API_KEY"),
        (
            {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "closed"},
            r"127\.0\.0\.1:\d+ can't be reached within 2 s",
        ),
        *(
            ({"WANDB_API_KEY": KEY, "WANDB_BASE_URL": url}, "WANDB_BASE_URL is not an http")
            for url in ADDRESSES
        ),
    ],
)
def test_online_needs_key_and_route(
    variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one of them `auto` is offline, and `online` names what is missing, and no key."""
    with listening() as url:
        with listening() as closed:  # another port than the open one's
            pass
        for name, value in variables.items():
            monkeypatch.setenv(name, {"open": url, "closed": closed}.get(value, value))
        assert choose_mode("auto") == "offline"
        with pytest.raises(UserError, match=problem) as caught:
            choose_mode("online")
    assert KEY not in str(caught.value)


def test_a_name_server_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a look-up of the name that hangs is given up in time."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    silent = threading.Event()

    def unanswered(*_: object, **__: object) -> socket.socket:
        silent.wait(120)
        raise OSError

    assert wandb.CONNECT_SECONDS <= 2
    monkeypatch.setattr(wandb, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(socket, "create_connection", unanswered)
    began = time.monotonic()
    assert choose_mode("auto") == "offline"
    assert time.monotonic() - began < 60  # of 120
    silent.set()


@pytest.mark.parametrize("place", [".netrc", "_netrc", "elsewhere"])
def test_a_key_in_netrc_counts_for_its_host_only(
    place: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """What `wandb login` wrote is found, for that server only; a damaged file is none."""
    with listening() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        file = home / place
        file.write_text(f"machine api.elsewhere.org login user password {KEY}\n")
        if place == "elsewhere":
            monkeypatch.setenv("NETRC", str(file))
        assert choose_mode("auto") == "offline"
        file.write_text(f"machine {url.removeprefix('http://')} login user password {KEY}\n")
        assert choose_mode("auto") == "online"
        file.write_text("machine \x00 nonsense")
        assert choose_mode("auto") == "offline"


def test_importing_and_choosing_do_not_import_wandb() -> None:
    """Choosing is done without wandb, which takes seconds to import."""
    code = (
        "import sys; from hpml_bench.plugins.tracker import make_trackers; "
        "make_trackers({'wandb': 'auto'})"
    )
    code += "; sys.exit('wandb' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env=environment, timeout=60, check=False
        ).returncode
        == 0
    )


# All trackers


def test_a_report_ends_with_where_its_runs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracker gets the records of all runs, and the page where one is written."""
    told = []
    monkeypatch.setattr(wandb.Wandb, "publish", lambda _, *given: told.append(given) or "X!")
    folder = made_records.write(tmp_path / "example", made_records.sweep(("lora", "full"), 1))
    result = called("report", folder, "--format", "md", "--track", "wandb=offline")
    assert "X!" in result.output
    assert [(len(records), page) for _, records, _, page in told] == [(2, None)]


def test_a_tracker_that_is_off_is_left_out() -> None:
    """Off by what is asked, or by its own choice; an unknown tracker or mode, and one without a
    service, are told.
    """
    assert make_trackers({"wandb": "off", "mlflow": "off", "accelerate": "auto"}) == ()
    with pytest.raises(UserError, match="mlflow has no modes; write --track mlflow"):
        make_trackers({"mlflow": "offline"})
    with pytest.raises(
        UserError, match=r"there is no tracker 'diary'; there are .*mlflow, .*tensorboard, "
    ):
        make_trackers({"diary": "on"})
    with pytest.raises(UserError, match="name a service, one of mlflow, tensorboard, trackio"):
        make_trackers({"accelerate": "on"})
    with pytest.raises(UserError, match="'maybe'; allowed are auto, online, offline, off"):
        choose_mode("maybe")


@pytest.mark.parametrize("given", ["=on", "notebook=", "notebook=on,mlflow="])
def test_half_a_tracker_is_refused(tmp_path: Path, given: str) -> None:
    """`--track` takes names, each alone or with a mode."""
    result = called("report", tmp_path, "--track", given, status=2)
    assert "write NAME or NAME=MODE" in result.output
