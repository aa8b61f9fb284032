"""A hub on this machine with one model, `o/n`, that serves, drips or breaks off; and the layout
of its cache.
"""

import json
import threading
from pathlib import Path

from helpers import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(hub: Path, repo: str) -> Path:
    """Lay out a repository as the hub's cache does, and return its snapshot folder."""
    folder, refs = hub / repo / "snapshots" / COMMIT, hub / repo / "refs"
    for each in (folder, refs):
        each.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    return folder


class Hub(web.Server):
    """Serves a model folder as `o/n`; `weights` is `serve`, `drip` or `break off`."""

    def __init__(self, folder: Path, weights: str = "serve") -> None:
        super().__init__(_Handler)
        self.folder, self.weights = folder, weights
        self.dripping = threading.Event()
        self.fetched: list[str] = []
        """The files whose content was asked for."""


class _Handler(web.Handler):
    """Answers what huggingface_hub asks for a snapshot: commit, list of files, and of each file
    head and content.
    """

    server: Hub

    def do_HEAD(self) -> None:
        self._head((self.server.folder / self.path.rpartition("/")[2]).stat().st_size)

    def do_GET(self) -> None:
        files = [*self.server.folder.iterdir()]
        tree = [
            {"type": "file", "oid": p.name, "size": p.stat().st_size, "path": p.name} for p in files
        ]
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/api/"):
            content = json.dumps(
                tree if "/tree/" in self.path else {"id": "o/n", "sha": COMMIT}
            ).encode()
        else:
            content = (self.server.folder / name).read_bytes()
            self.server.fetched.append(name)
        self._head(len(content))
        how = self.server.weights if name == "model.safetensors" else "serve"
        if how == "drip":
            self.drip(content, 0.5, self.server.dripping)
        else:
            self.wfile.write(content[: len(content) // 2] if how == "break off" else content)

    def _head(self, length: int) -> None:
        self.head(length, X_Repo_Commit=COMMIT, ETag=f'"{self.path.rpartition("/")[2]}"')
