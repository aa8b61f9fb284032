"""Looks: the inputs that the pages of a folder were made of, since each look at more of them may err."""

from __future__ import annotations

import json
from pathlib import Path

from hpml_bench.records.files import write_atomically
from hpml_bench.system.errors import UserError

FILE = "looks.json"


def look_at(folder: Path, digest: str) -> int:
    """Return the number, from 1, of the look at inputs of this digest, and note it in the folder of their page.

    The same inputs are the same look. A UserError where the folder's list of looks can't be read or written.
    """
    file = folder / FILE
    try:
        known = json.loads(file.read_bytes()) if file.exists() else []
    except (OSError, ValueError, RecursionError):
        known = None
    if not isinstance(known, list) or not all(isinstance(one, str) for one in known):
        raise UserError(f"{file} is no list of looks at these results; restore the file, or give another --out")
    if digest not in known:
        known.append(digest)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(known, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"{file} can't be written: {error.strerror or error}") from None
    return known.index(digest) + 1
