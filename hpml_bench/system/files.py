"""Safe writing and reading of small files."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hpml_bench.system import temporary

Model = TypeVar("Model", bound=BaseModel)

MAX_RECORD_BYTES = 50_000_000


def absolute_keeping_links(path: Path) -> Path:
    """Return an absolute path with its links unresolved: other hosts may not have their targets."""
    typed = os.environ.get(
        "PWD", ""
    )  # the shell's path of the working folder, with links unresolved too
    folder = (
        Path(typed) if typed and Path(typed).is_absolute() and Path(typed).exists() else Path.cwd()
    )
    return (folder if folder.samefile(Path.cwd()) else Path.cwd()) / path


@contextmanager
def written_beside(path: Path, content: str | bytes) -> Iterator[Path]:
    """Yield a file beside a path with this content, which is on disk; it is removed unless the
    body renames it.
    """
    fresh = temporary.beside(path)
    try:
        with fresh.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a crash leaves the whole old file or the whole new one."""
    with written_beside(path, content) as fresh:
        fresh.replace(path)
    sync_folder(path.parent)  # the new name itself must survive a crash


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder if it exists; of a link only the link, not its target."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def is_plain_file(path: Path) -> bool:
    """Return whether a path is a regular file: no link, pipe or device."""
    return path.is_file() and not path.is_symlink()


def read_model(path: Path, kind: type[Model]) -> Model | None:
    """Return a value of this type from its JSON; None where the file is missing, incomplete or
    of another type.
    """
    try:
        return kind.model_validate_json(path.read_bytes()) if is_plain_file(path) else None
    except (OSError, ValidationError):
        return None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object written by a rank, or None where it is missing or incomplete."""
    try:
        small = is_plain_file(path) and path.stat().st_size <= MAX_RECORD_BYTES
        content = json.loads(path.read_text(encoding="utf-8")) if small else None
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
