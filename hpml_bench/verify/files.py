"""Files: regular ones, those that records name, and texts that belong in none of them."""

from __future__ import annotations

import getpass
import mmap
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD, is_plain_file
from hpml_bench.records.jobs import NO_RUNS
from hpml_bench.records.predictions import read_predictions
from hpml_bench.system.redaction import HOMES
from hpml_bench.system.redaction import secrets as secret_values
from hpml_bench.verify.evidence import Evidence, Found, failed

SECRETS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}",
    "an AWS key id": rb"(?<![A-Za-z0-9+/])A[KS]IA[0-9A-Z]{16}(?![A-Za-z0-9+/])",
    "an AWS secret key": rb"(?i:aws_?secret[^\n]{0,40}?[=:\"' ])[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/])",
    "a Weights & Biases key": rb"\bwandb_v1_\w{20,}|(?i:(?:wandb|api)[\w -]{0,20}key\W{1,10})[0-9a-f]{40}\b"
    rb"|\blocal-[0-9a-f]{40}\b",
    "a GitHub token": rb"\bgh[opsur]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{40,}",
    "a GitLab token": rb"\bglpat-[\w-]{20,}",
    "an API key": rb"\bsk-(?:proj-|ant-)?[\w-]{32,}|\bAIza[\w-]{35}|\bxox[abprs]-[\w-]{20,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a login in an address": rb"://[^/@\s\"'<>:]{1,100}:[^/@\s\"'<>]{1,200}@[\w.-]",
}
"""Forms of tokens and keys by what they are."""
COMMON = frozenset({"root", "user", "ubuntu", "admin", "runner", "nobody", "work"})
"""Names of users that identify nobody, and of folders that many machines have."""
MOST = 3
"""Places that are named of a file, of each kind."""


def plain_files(evidence: Evidence) -> Iterator[Found]:
    """Every entry is a file or folder: no link or device."""
    for path in evidence.entries:
        if not is_plain_file(path):
            yield failed(evidence.name(path), f"is {'a link' if path.is_symlink() else 'no regular file'}")
    for place in evidence.tracking:  # whoever gives the folder on must know that nobody looked there for secrets
        what = "a tracker's own state, no part of the result; not looked at"
        yield Found("not checked", f"{evidence.name(place)}: {what}", "leave it out when you give the folder on")


def hashes(evidence: Evidence) -> Iterator[Found]:
    """Files are those that the records were written with."""
    for problem in evidence.loaded.problems:
        where, _, what = problem.rpartition("; ")[0].partition("/")
        yield failed(where, what)
    known = {record.run_id: record for record in evidence.records}
    unread = {problem.partition("/")[0] for problem in evidence.loaded.problems}
    for place in sorted(evidence.folder.glob("*/")):
        if place.name in NO_RUNS or place.name in unread:
            continue
        there = [name for name in (POINTS, PREDICTIONS) if (place / name).exists()]
        if there and place.name not in known:
            what = f"holds {' and '.join(there)} and no {RECORD}, which says how the run ended"
            yield failed(place.name, what, "a run that was killed has none: run-all does it again")
        elif place.name in known and known[place.name].status == "ok":
            for name in set(there) - known[place.name].files.keys():
                yield failed(place.name, f"holds {name}, which its record doesn't name")


def secrets(evidence: Evidence) -> Iterator[Found]:
    """No file holds a key or token of a known form."""
    values = b"|".join(re.escape(value.encode(errors="surrogateescape")) for value in secret_values())
    patterns = SECRETS | ({"a secret of this environment": values} if values else {})
    for where, what, _ in _matches(evidence, patterns):
        yield failed(where, f"holds {what}", "withdraw it; take it out where it came from, and make the run again")


def private_paths(evidence: Evidence) -> Iterator[Found]:
    """No file names a home folder or the user who verifies."""
    patterns = {"a home folder": HOMES.encode()}
    home, user = Path.home(), _user()
    if len(home.parts) > 1 and home.name not in COMMON:
        patterns["the home folder here"] = re.escape(bytes(home)) + rb"(?![\w.-])"
    if user not in COMMON and len(user) > 2:
        patterns["the user here"] = rb"/%b(?=[/\s\"'])|\b%b@[\w.-]+" % ((re.escape(user.encode()),) * 2)
    advice = (
        "logs need not be given on; run-all does a failed run again, whose error then names no home folder; "
        "of another text say so where you publish the folder"
    )
    for where, what, found in _matches(evidence, patterns):
        yield failed(where, f"names {what}, {found[0].decode(errors='replace')}", advice)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user on this machine
        return "root"


def _matches(evidence: Evidence, patterns: Mapping[str, bytes]) -> Iterator[tuple[str, str, re.Match[bytes]]]:
    """Yield the first matches of each pattern in each file: file and line, the pattern's name, the match."""
    compiled = {what: re.compile(pattern) for what, pattern in patterns.items()}
    for path in evidence.files:
        with _content(path) as content:
            for what, pattern in compiled.items():  # one after the other is quicker than all at once
                for found in islice(pattern.finditer(content), MOST):
                    line = content[: found.start()].count(b"\n") + 1
                    yield f"{evidence.name(path)}:{line}", what, found


@contextmanager
def _content(path: Path) -> Iterator[bytes | mmap.mmap]:
    """Open the content of a file; of predictions the texts, which are compressed there."""
    if path.name == PREDICTIONS and (stored := read_predictions(path.parent)) is not None:
        said = stored.texts
        texts = () if said is None else (said.question, said.expected, said.answer or ())
        yield "\n".join(text for column in texts for text in column).encode()
    elif path.stat().st_size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content
    else:
        yield b""
