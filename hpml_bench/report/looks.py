"""Looks: the inputs that the pages of a folder were made of, since each look at more of them may err."""

from __future__ import annotations

import json
from pathlib import Path

from hpml_bench.errors import UserError
from hpml_bench.records.files import write_atomically

FILE = "looks.json"


def look_at(folder: Path, digest: str) -> int:
    """Return the number, from 1, of the look at inputs of this digest, and note it beside the page.

    The same inputs are the same look, others the next one of the folder.

    Raises:
        UserError: the folder's list of looks can't be read or written.

    """
    file = folder / FILE
    known = _known(file)
    if digest not in known:
        known.append(digest)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(known, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"{file} can't be written: {error.strerror or error}; give another --out") from None
    return known.index(digest) + 1


def _known(file: Path) -> list[str]:
    """Return the digests of a folder's looks, in their order."""
    try:
        found = json.loads(file.read_bytes()) if file.exists() else []
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise UserError(f"{file} is no list of the looks at these results; give another --out, or restore the file")
    return found
