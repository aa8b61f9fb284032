"""A hub on this machine with one model, `o/n`, that serves, drips or breaks off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves a folder's files; of the weights what `weights` says."""

    daemon_threads = True

    def __init__(self, folder: Path, weights: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.weights = folder, weights
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.dripping = threading.Event()
        self.fetched: list[str] = []
        """The files whose content was asked for."""


class _Handler(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks for a snapshot: commit, list of files, and of each file head and content."""

    server: Hub

    def do_HEAD(self) -> None:
        self._head((self.server.folder / self.path.rpartition("/")[2]).stat().st_size)

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            told = json.dumps(self._tree() if "/tree/" in self.path else {"id": "o/n", "sha": COMMIT}).encode()
            self._head(len(told))
            self.wfile.write(told)
            return
        name = self.path.rpartition("/")[2]
        content = (self.server.folder / name).read_bytes()
        self.server.fetched.append(name)
        self._head(len(content))
        how = self.server.weights if name == "model.safetensors" else "serve"
        if how == "drip":
            self._drip(content)
        else:
            self.wfile.write(content[: len(content) // 2] if how == "break off" else content)

    def _drip(self, content: bytes) -> None:
        for byte in content:
            self.server.dripping.set()
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return
            time.sleep(0.5)

    def _tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "oid": path.name, "size": path.stat().st_size, "path": path.name}
            for path in self.server.folder.iterdir()
        ]

    def _head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.path.rpartition("/")[2]}"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextmanager
def serving(folder: Path, weights: str = "serve") -> Iterator[Hub]:
    """Serve a model folder as `o/n`; `weights` is `serve`, `drip` or `break off`."""
    with Hub(folder, weights) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()
