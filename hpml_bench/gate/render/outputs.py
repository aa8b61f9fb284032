"""The files that a check leaves: receipt, JUnit XML, Markdown, page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from hpml_bench.errors import UserError
from hpml_bench.gate.records import Receipt
from hpml_bench.gate.render import junit, markdown, page
from hpml_bench.records.files import write_atomically

FORMATS: dict[str, Callable[[Receipt], str]] = {
    "json": lambda receipt: receipt.model_dump_json(indent=1) + "\n",
    "junit": junit.render,
    "markdown": markdown.render,
    "html": page.render,
}


def try_out(**files: Path | None) -> None:
    """See, before anything is measured, that a file can be written wherever one is asked for.

    Raises:
        UserError: one can't be.

    """
    for kind, path in files.items():
        if path is not None:
            with _place(kind, path), NamedTemporaryFile(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent):
                pass  # neither a file system that is read-only nor root's rights show in a folder's mode


def write(receipt: Receipt, **files: Path | None) -> None:
    """Write the receipt in each of `FORMATS` that a file is given for.

    Raises:
        UserError: a file can't be written.

    """
    for kind, path in files.items():
        if path is not None:
            text = FORMATS[kind](receipt)
            with _place(kind, path):
                write_atomically(path, text)


@contextmanager
def _place(kind: str, path: Path) -> Iterator[None]:
    """Make the file's folder, and tell in a sentence why there or in the body something can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"--{kind} {path}: can't be written ({error.strerror or error}); name another") from None
