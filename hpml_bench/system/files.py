"""Safe writing and reading of small files."""

import errno
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from hpml_bench.system import temporary
from hpml_bench.system.errors import UserError

Model = TypeVar("Model", bound=BaseModel)

# bytes of a file of JSON: as objects of Python it takes up to thirty times as many
MAX_RECORD_BYTES = 10_000_000
MAX_LOG_BYTES = 1_000_000  # of a log, from its end
MOST_HOLES = 50_000_000  # bytes up to which a file may be of holes: they are read in no time
BLOCK = 512  # bytes of a block of `st_blocks`, whatever the file system's own are


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
    """Write a file atomically: a crash leaves the whole old file or the whole new one.

    Raises UserError where a folder lies in its place.
    """
    with written_beside(path, content) as fresh:
        try:
            fresh.replace(path)
        except IsADirectoryError:
            raise UserError(
                f"{path}: is a folder, and a file is written there; move it away"
            ) from None
    sync_folder(path.parent)  # the new name itself must survive a crash


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder or a file, or what lies in its place, if it exists; of a link only the link,
    not its target.
    """
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    elif os.path.lexists(folder):
        folder.unlink(missing_ok=True)


def real_path(path: Path) -> Path:
    """Return a path with its links resolved; one that leads to itself as it is, where
    `Path.resolve` raises a RuntimeError.
    """
    return Path(os.path.realpath(path))


def is_plain_file(path: Path) -> bool:
    """Return whether a path is a regular file: no link, pipe or device."""
    return path.is_file() and not path.is_symlink()


def check_regular(path: Path) -> None:
    """Raise OSError for what is no regular file, and no link to one, before a library opens it."""
    _refuse_odd(path, path.stat())


def open_plain(path: Path, *, follow: bool = False) -> io.BufferedReader:
    """Open a regular file to read its bytes; `follow`: through a link too.

    Raises OSError, whose `strerror` says what is there, for a link, a pipe, a device, a folder, and
    what can't be opened.
    """
    if "\0" in str(path):  # which raises a ValueError, and data may name such a path
        raise OSError(errno.EINVAL, "its path holds a null character", str(path))
    _refuse_odd(path, path.stat() if follow else path.lstat())
    # another process may put a pipe there meanwhile: to open one waits for a writer without
    # O_NONBLOCK, which regular files ignore
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _refuse_odd(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def append(path: Path, text: str) -> None:
    """Add text to the end of a regular file, which is made where there is none.

    Raises OSError as `open_plain` does.
    """
    # without a reader, a pipe that is opened to write waits for one, and is refused with O_NONBLOCK
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
        _refuse_odd(path, os.fstat(file.fileno()))
        file.write(text.encode())


def _refuse_odd(path: Path, facts: os.stat_result) -> None:
    if stat.S_ISLNK(facts.st_mode):
        raise OSError(errno.ELOOP, "it is a link, and none is followed", str(path))
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def mostly_holes(file: BinaryIO) -> bool:
    """Return whether a large file is mostly holes, which take no room and are read as zeros: no
    program of ours leaves any.
    """
    facts = os.fstat(file.fileno())
    # of a compressed file the blocks are fewer, too, and it has no holes; a file system that knows
    # of none says that the first one lies at the end
    if facts.st_size <= MOST_HOLES or facts.st_blocks * BLOCK * 10 > facts.st_size:
        return False
    # the descriptor's own position, which lies behind what the file object has read ahead
    position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
    first_hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
    os.lseek(file.fileno(), position, os.SEEK_SET)
    return first_hole < facts.st_size


def read_bytes(path: Path, most: int = MAX_RECORD_BYTES, *, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most `most` bytes; raises as `open_plain`, and
    OSError for a larger file.
    """
    with open_plain(path, follow=follow) as file:
        if os.fstat(file.fileno()).st_size <= most:
            content = file.read(most + 1)  # it may grow meanwhile
            if len(content) <= most:
                return content
    raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))


def end_of(log: Path, most: int = MAX_LOG_BYTES) -> str:
    """Return the end of a log as text; empty where there is no such regular file."""
    try:
        with open_plain(log) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read(most).decode(errors="replace")
    except OSError:
        return ""


def read_model(path: Path, kind: type[Model]) -> Model | None:
    """Return a value of this type from its JSON; None where the file is missing, incomplete or
    of another type.
    """
    try:
        return kind.model_validate_json(read_bytes(path))
    except (OSError, ValidationError):
        return None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object written by a rank, or None where it is missing or incomplete."""
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
