"""The files that a check leaves: receipt, JUnit XML, Markdown, page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpml_bench.errors import UserError
from hpml_bench.gate import junit, markdown, page
from hpml_bench.gate.records import Receipt
from hpml_bench.store import write_atomically

FORMATS: dict[str, Callable[[Receipt], str]] = {
    "json": lambda receipt: receipt.model_dump_json(indent=1) + "\n",
    "junit": junit.render,
    "markdown": markdown.render,
    "html": page.render,
}


def write(receipt: Receipt, **files: Path | None) -> None:
    """Write the receipt in each of `FORMATS` that a file is given for.

    Raises:
        UserError: a file can't be written.

    """
    for kind, path in files.items():
        if path is None:
            continue
        text = FORMATS[kind](receipt)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        except OSError as error:
            raise UserError(f"--{kind} {path}: can't be written ({error.strerror or error}); name another") from None
