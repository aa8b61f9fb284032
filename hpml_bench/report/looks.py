"""Looks: the inputs that the pages of a folder were made of, since each look at more of them may err."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, TypeAdapter

from hpml_bench.suite.base import Frozen
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import write_atomically

FILE = "looks.json"
OVER = "over several"
"""Name of what a page over suites, or data sets, is of."""


class Look(Frozen):
    """A page with a test."""

    digest: str
    """Of its scores."""
    of: str = OVER
    """The data set; empty where the inputs name none."""
    systems: tuple[str, ...] = ()
    look: int = Field(ge=1)
    """Its number, from 1."""


_LOOKS = TypeAdapter(list[Look])


def look_at(folder: Path, digest: str, of: str = OVER, systems: Iterable[str] = (), stated: int | None = None) -> int:
    """Return the number, from 1, of the look at scores of this digest, and note it in the folder of their page.

    The same scores are the same look. Others of the same data set are the next one if two systems or more are in both.
    A number that the user states counts as given, and later looks follow it. A UserError where the folder's list of
    looks can't be read or written.
    """
    file, named = folder / FILE, tuple(systems)
    try:
        known = _LOOKS.validate_json(file.read_bytes()) if file.exists() else []
    except (OSError, ValueError):
        raise UserError(f"{file} is no list of looks; restore the file, or give another --out") from None
    same = [one for one in known if one.of == of and (not one.systems or len({*one.systems} & {*named}) > 1)]
    noted = next((one.look for one in same if one.digest == digest), None)
    look = stated or noted or 1 + max((one.look for one in same), default=0)
    if look != noted:
        kept = [one for one in known if one not in same or one.digest != digest]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            content = _LOOKS.dump_json([*kept, Look(digest=digest, of=of, systems=named, look=look)], indent=1)
            write_atomically(file, content + b"\n")
        except OSError as error:
            raise UserError(f"{file} can't be written: {error.strerror or error}") from None
    return look
