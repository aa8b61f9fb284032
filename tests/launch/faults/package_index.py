"""A package index on this machine with one wheel, `pack==1.0`, that it drips or serves."""

from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WHEEL = "pack-1.0-py3-none-any.whl"


def make_wheel(folder: Path, model: Path, ballast: int = 0) -> tuple[Path, str]:
    """Write a wheel that holds a model's folder, and as many bytes more; return it and the URI of the model in it."""
    file = folder / WHEEL
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(model.iterdir()):
            archive.write(path, f"pack/model/{path.name}")
        archive.writestr("pack/ballast", b"\0" * ballast)
        archive.writestr("pack-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: pack\nVersion: 1.0\n")
        archive.writestr("pack-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("pack-1.0.dist-info/RECORD", "")
    return file, f"wheel:pack==1.0/pack/model#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}"


class Index(ThreadingHTTPServer):
    """Serves the wheel; while `drips`, a byte of it each tenth of a second."""

    daemon_threads = True

    def __init__(self, wheel: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wheel, self.drips, self.dripping = wheel, True, threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}/simple"


class _Handler(BaseHTTPRequestHandler):
    """Answers what pip asks: the page of the package, and the wheel."""

    server: Index

    def do_GET(self) -> None:
        if not self.path.endswith(".whl"):
            self._head("text/html", page := f'<a href="/{WHEEL}">{WHEEL}</a>'.encode())
            self.wfile.write(page)
            return
        self._head("application/octet-stream", content := self.server.wheel.read_bytes())
        if not self.server.drips:
            self.wfile.write(content)
            return
        self.server.dripping.set()
        for byte in content:
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return
            time.sleep(0.1)

    def _head(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextmanager
def serving(wheel: Path) -> Iterator[Index]:
    with Index(wheel) as index:
        threading.Thread(target=index.serve_forever, daemon=True).start()
        try:
            yield index
        finally:
            index.shutdown()
