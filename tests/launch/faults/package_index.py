"""A package index on this machine with one wheel, `pack==1.0`, that it drips or serves."""

import hashlib
import threading
import zipfile
from pathlib import Path

from helpers import web

WHEEL = "pack-1.0-py3-none-any.whl"


def make_wheel(folder: Path, model: Path, ballast: int = 0) -> tuple[Path, str]:
    """Write a wheel that holds a model's folder, and as many bytes more; return it and the URI
    of the model in it.
    """
    file = folder / WHEEL
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(model.iterdir()):
            archive.write(path, f"pack/model/{path.name}")
        archive.writestr("pack/ballast", b"\0" * ballast)
        archive.writestr(
            "pack-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: pack\nVersion: 1.0\n"
        )
        archive.writestr("pack-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("pack-1.0.dist-info/RECORD", "")
    return (
        file,
        f"wheel:pack==1.0/pack/model#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}",
    )


class Index(web.Server):
    """Serves the wheel; while `drips`, a byte of it each tenth of a second."""

    def __init__(self, wheel: Path) -> None:
        super().__init__(_Handler)
        self.wheel, self.drips, self.dripping = wheel, True, threading.Event()


class _Handler(web.Handler):
    """Answers what pip asks: the page of the package, and the wheel."""

    server: Index

    def do_GET(self) -> None:
        content = self.server.wheel.read_bytes()
        if not self.path.endswith(".whl"):
            self.reply(f'<a href="/{WHEEL}">{WHEEL}</a>'.encode(), Content_Type="text/html")
        elif self.server.drips:
            self.head(len(content), Content_Type="application/octet-stream")
            self.drip(content, 0.1, self.server.dripping)
        else:
            self.reply(content, Content_Type="application/octet-stream")
