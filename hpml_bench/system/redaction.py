"""Redaction of the environment's keys, tokens and passwords in records, logs and uploads to wandb.

A variable is a secret by the words in its name. Passwords in addresses,
`scheme://user:password@host`, are secrets too.
"""

import mmap
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from hpml_bench.system.text import map_texts

SECRET_VARIABLE = re.compile(
    r"(?i)(?!(OLD)?PWD$)"  # the working directory is none
    r".*((key|token|secret|password|passwd|passphrase|credential)|(?<![^_])(pass|pwd|pat))s?\d*(_|$)"
)
"""Names with a word that ends in key, token and so on (PGPASSWORD does), or that is pass, pwd or
pat.
"""
# characters below which a value is not redacted: without every `1` or `true`, messages could not be
# read
SHORTEST = 8
HIDDEN = "[redacted]"
MAX_REDACTED = 200_000_000  # bytes of a file, which is searched and written in memory

HOMES = (
    r"(?<![\w.-])/(?:home|Users)/[\w.-]+|(?<![\w.-])/root(?=/[\w.-])"
    r"|\b[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)[\w.-]+"
)
"""Pattern of a home folder of Linux, macOS or Windows in a text."""

_ASSIGNED = re.compile(
    r"""(?<![\w-])([A-Za-z_]\w*)=((?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s;'"\\])+)"""
)
"""A variable and a word of a shell's, which may be quoted in parts."""
_QUOTED = re.compile(r"""(['"])([A-Za-z_]\w*)=.*?\1""")  # both within one pair of quotes
_REFERENCE = re.compile(
    r'"?(\$\w+|\$\{\w+\}|\$\(.*|`.*)"?'
)  # a value that a shell takes from elsewhere
_LOGIN = re.compile(r"://([^/@\s]+)@")


def secrets() -> tuple[str, ...]:
    """Return the values that must not be written anywhere, the longest first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if SECRET_VARIABLE.match(name):
            # a PEM may be shown line by line, indented
            found |= {value, value.strip(), *map(str.strip, value.splitlines())}
        for login in _LOGIN.findall(value):
            password = login.partition(":")[2] or login
            found |= {password, unquote(password)}
    found |= {quote(value, safe="") for value in found}
    return tuple(
        sorted(
            (value for value in found if len(value) >= SHORTEST),
            key=lambda value: (-len(value), value),
        )
    )


def redacted(value: Any, hidden: Collection[str] | None = None) -> Any:
    """Return the value with `hidden` texts (`secrets()` if not given), and logins in addresses,
    redacted.
    """
    hidden = secrets() if hidden is None else hidden
    if isinstance(value, str):
        for secret in hidden:
            value = value.replace(secret, HIDDEN)
        return _LOGIN.sub("://", value)
    if isinstance(value, Mapping):
        return {redacted(key, hidden): redacted(item, hidden) for key, item in value.items()}
    return [redacted(item, hidden) for item in value] if isinstance(value, list | tuple) else value


def without_assigned(text: str) -> str:
    """Return a shell's text with the values redacted that it assigns to secret variables, unless
    from elsewhere.
    """

    def shown(match: re.Match[str]) -> str:
        secret = SECRET_VARIABLE.match(match[1]) and not _REFERENCE.fullmatch(match[2])
        return f"{match[1]}=" + (f"'{HIDDEN}'" if secret else without_assigned(match[2]))

    text = _QUOTED.sub(
        lambda match: f"{match[2]}='{HIDDEN}'" if SECRET_VARIABLE.match(match[2]) else match[0],
        text,
    )
    return _ASSIGNED.sub(shown, text)


def redacted_error(value: Any) -> Any:
    """Return an error's text or dictionary, as `redacted` does, with `~` for home folders, which
    name a user.
    """
    homes = re.compile(_homes())
    return map_texts(redacted(value), lambda text: homes.sub("~", text))


def _homes() -> str:
    own = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises for a user without one
    here = (
        rf"(?<![\w.-]){re.escape(str(own))}(?![\w.-])|"
        if own.is_absolute() and len(own.parts) > 1
        else ""
    )
    return here + HOMES


def redact_files(*paths: Path) -> None:
    """Redact files in place, with `~` for home folders; those without secrets are not written,
    missing ones, and what is no regular file, skipped.

    Of a file of more than `MAX_REDACTED` bytes only the end is left.
    """
    from hpml_bench.system.files import is_plain_file, open_plain, write_atomically

    parts = [*(re.escape(os.fsencode(secret)) for secret in secrets()), rb"(?<=://)[^/@\s]{1,400}@"]
    pattern, homes = re.compile(b"|".join(parts)), re.compile(os.fsencode(_homes()))
    for path in paths:
        if not is_plain_file(path):
            continue
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                continue
            if size > MAX_REDACTED:
                end = _end_of_large(file, size)
                write_atomically(path, homes.sub(b"~", pattern.sub(_hide, end)))
                continue
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if pattern.search(content) or homes.search(content):
                    write_atomically(path, homes.sub(b"~", pattern.sub(_hide, content)))


def _hide(secret: re.Match[bytes]) -> bytes:
    return b"" if secret[0].endswith(b"@") else HIDDEN.encode()


def _end_of_large(file: BinaryIO, size: int) -> bytes:
    """Return the last lines of a file of this size, after one that says what was left out."""
    from hpml_bench.system.files import MAX_LOG_BYTES

    file.seek(size - MAX_LOG_BYTES)
    # half a secret wouldn't be recognised
    skipped = len(file.readline(MAX_LOG_BYTES))
    head = (
        f"[{size - MAX_LOG_BYTES + skipped:,} bytes were left out here: a log of more than "
        f"{MAX_REDACTED:,} bytes isn't searched for secrets]\n"
    )
    return head.encode() + file.read(MAX_LOG_BYTES)
