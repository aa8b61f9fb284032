"""A real browser and a server that notes what it is asked for."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from helpers import skips, web

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def needs_browser(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that looks at a page in Chromium; tests/packages.sh installs it, where it may."""
    reason = (
        skips.NOT_ROOT
        if os.geteuid()
        else "Chromium is not installed; tests/packages.sh chromium installs it"
    )
    return pytest.mark.browser(pytest.mark.skipif(CHROMIUM is None, reason=reason)(test))


FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-sync",
    ),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-extensions",
        "--mute-audio",
    ),
    *("--no-proxy-server", "--virtual-time-budget=1500", "--timeout=20000"),
)


@dataclass
class Site:
    """A local web site: pages by path, and the paths that were asked for."""

    address: str = ""
    pages: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def site() -> Iterator[Site]:
    served = Site()

    class Handler(web.Handler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            content = served.pages.get(self.path, "").encode()
            self.reply(content, 200 if content else 404, Content_Type="text/html; charset=utf-8")

    with web.Server(Handler) as server:
        served.address = server.address
        yield served


def opened(address: str, profile: Path, *more: str) -> tuple[str, str]:
    """Open an address in Chromium; return the document after its scripts ran, and what Chromium
    said.
    """
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, *more, f"--user-data-dir={profile}", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def look(page: Path, profile: Path, fragment: str = "", *more: str) -> tuple[str, list[str]]:
    """Open a page from disk; return the document, and the console's messages."""
    flags = ("--virtual-time-budget=4000", "--enable-logging=stderr", *more)
    document, said = opened(f"{page.as_uri()}{fragment}", profile, *flags)
    return document, [line for line in said.splitlines() if "CONSOLE" in line]


def visit(served: Site, page: str, profile: Path) -> tuple[str, set[str]]:
    """Open a page; return the document, and what else was asked for."""
    served.pages["/page.html"] = page
    served.asked.clear()
    document, _ = opened(f"{served.address}/page.html", profile)
    assert "/page.html" in served.asked
    return document, set(served.asked) - {"/page.html", "/favicon.ico"}
