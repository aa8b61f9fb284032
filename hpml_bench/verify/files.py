"""Files: what lies in a results folder, and whether the report there is what its records give."""

import getpass
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from hpml_bench.judge.results import Results
from hpml_bench.page.render import load_libraries, page_of, write_page
from hpml_bench.records.files import KEPT, POINTS, PREDICTIONS, RECORD
from hpml_bench.records.jobs import NO_RUNS
from hpml_bench.records.load import kept_digests
from hpml_bench.records.points import MOST_BYTES
from hpml_bench.records.predictions import read_predictions
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import is_plain_file, read_bytes
from hpml_bench.system.redaction import HOMES
from hpml_bench.system.redaction import secrets as secret_values
from hpml_bench.verify.folder import Evidence, Finding, State, failed

SECRETS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}",
    "an AWS key id": rb"(?<![A-Za-z0-9+/])A[KS]IA[0-9A-Z]{16}(?![A-Za-z0-9+/])",
    "an AWS secret key": rb"(?i:aws_?secret[^\n]{0,40}?[=:\"' ])[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/])",
    "a Weights & Biases key": (
        rb"\bwandb_v1_\w{20,}|(?i:(?:wandb|api)[\w -]{0,20}key\W{1,10})[0-9a-f]{40}\b"
        rb"|\blocal-[0-9a-f]{40}\b"
    ),
    "a GitHub token": rb"\bgh[opsur]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{40,}",
    "a GitLab token": rb"\bglpat-[\w-]{20,}",
    "an API key": rb"\bsk-(?:proj-|ant-)?[\w-]{32,}|\bAIza[\w-]{35}|\bxox[abprs]-[\w-]{20,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a login in an address": rb"://[^/@\s\"'<>:]{1,100}:[^/@\s\"'<>]{1,200}@[\w.-]",
}
"""Forms of tokens and keys by what they are."""
COMMON = frozenset({"root", "user", "ubuntu", "admin", "runner", "nobody", "work"})
"""Names of users that identify nobody, and of folders that many machines have."""
MOST_LOOKED_AT = 500_000_000  # bytes of a file in which secrets are looked for
LONGEST_SHOWN = 200  # characters of the path of a folder that lies deep
MOST = 3  # places that are named of a file, of each kind
FORMATS = {"html": "report.html", "md": "report.md", "csv": "tables/*.csv", "tex": "tables/*.tex"}
"""Format -> files that show it was written."""
NUMBERS = frozenset(
    {".json", ".html", ".md", ".csv", ".tex", ".svg"}
)  # suffixes of files with numbers and sentences
PAGES = frozenset({".html", ".htm", ".xhtml", ".md", ".svg", ".pdf"})
"""Suffixes of files that a reader may take for pages or charts of the report."""
# no match begins within digits: of many digits without a point each would be tried, to the last
NUMBER = re.compile(r"((?:-|(?<!\d))\d+\.\d+(?:e[+-]?\d+)?)")
LONG = re.compile(
    r"[-0.]*[1-9](\.?\d){9}"
)  # ten significant digits or more, which are behind those shown
AGAIN = "hpml-bench report writes it again; older versions wrote other pages"


def plain_files(evidence: Evidence) -> Iterator[Finding]:
    """Every entry is a file or folder: no link or device."""
    for path in evidence.entries:
        if not is_plain_file(path):
            yield failed(
                evidence.name(path), f"is {'a link' if path.is_symlink() else 'no regular file'}"
            )
    for error in evidence.unseen:
        unseen = evidence.name(Path(error.filename))
        shown = unseen if len(unseen) <= LONGEST_SHOWN else f"{unseen[:LONGEST_SHOWN]}..."
        yield failed(shown, f"can't be listed: {error.strerror}")
    yield from _too_large(evidence)
    for place in (
        evidence.tracking
    ):  # whoever gives the folder on must know that nobody looked there for secrets
        what = "a tracker's own state, no part of the result; not looked at"
        yield Finding(
            "not checked",
            f"{evidence.name(place)}: {what}",
            "leave it out when you give the folder on",
        )


def _too_large(evidence: Evidence) -> Iterator[Finding]:
    """Yield the files that are too large to be hashed, or to look for secrets in them."""
    for path in evidence.files:
        size, weights = path.stat().st_size, path.suffix == ".safetensors"
        if evidence.holes(path):
            what = f"is of {size:,} bytes, most of which are holes, and isn't hashed"
            yield failed(evidence.name(path), what)
        elif not evidence.hashed(path):
            what = f"is of {size:,} bytes, and at most {MOST_BYTES:,} are hashed"
            state: State = "not checked" if weights else "failed"
            yield Finding(state, f"{evidence.name(path)}: {what}")
        elif size > MOST_LOOKED_AT and not weights:
            what = f"of {size:,} bytes, and at most {MOST_LOOKED_AT:,} are looked at for secrets"
            yield Finding("not checked", f"{evidence.name(path)}: {what}")


def hashes(evidence: Evidence) -> Iterator[Finding]:
    """Files are those that the records were written with."""
    for problem in evidence.loaded.problems:
        where, _, what = problem.rpartition("; ")[0].partition("/")
        yield failed(where, what)
    known = {record.run_id: record for record in evidence.records}
    unread = {problem.partition("/")[0] for problem in evidence.loaded.problems}
    for place in (
        one for one in sorted(evidence.folder.glob("*/")) if one.name not in {*NO_RUNS, *unread}
    ):
        there, record = (
            [name for name in (POINTS, PREDICTIONS) if (place / name).exists()],
            known.get(place.name),
        )
        if there and record is None:
            what = f"holds {' and '.join(there)} and no {RECORD}, which says how the run ended"
            yield failed(place.name, what, "a run that was killed has none: run-all does it again")
        elif record is not None and record.status == "ok":
            for name in set(there) - record.files.keys():
                yield failed(place.name, f"holds {name}, which its record doesn't name")
            try:
                kept = kept_digests(place)
            except OSError as error:
                yield failed(f"{place.name}/{KEPT}", f"can't be read: {error.strerror}")
                continue
            for name, value in kept.items():  # none where they were removed, which is no fault
                if record.kept.get(name) != value:
                    yield failed(f"{place.name}/{KEPT}/{name}", "is not the file that was recorded")


def secrets(evidence: Evidence) -> Iterator[Finding]:
    """No file holds a key or token of a known form."""
    values = b"|".join(
        re.escape(value.encode(errors="surrogateescape")) for value in secret_values()
    )
    patterns = SECRETS | ({"a secret of this environment": values} if values else {})
    for where, what, _ in _matches(evidence, patterns):
        yield failed(
            where,
            f"holds {what}",
            "withdraw it; take it out where it came from, and make the run again",
        )


def private_paths(evidence: Evidence) -> Iterator[Finding]:
    """No file names a home folder or the user who verifies."""
    patterns = {"a home folder": HOMES.encode()}
    home, user = Path.home(), "root"
    with suppress(OSError, KeyError):  # no such user on this machine
        user = getpass.getuser()
    if len(home.parts) > 1 and home.name not in COMMON:
        patterns["the home folder here"] = re.escape(bytes(home)) + rb"(?![\w.-])"
    if user not in COMMON and len(user) > 2:
        patterns["the user here"] = rb"/%b(?=[/\s\"'])|\b%b@[\w.-]+" % (
            (re.escape(user.encode()),) * 2
        )
    advice = (
        "logs need not be given on; run-all does a failed run again, whose error then names no "
        "home folder; of another text say so where you publish the folder"
    )
    for where, what, found in _matches(evidence, patterns):
        yield failed(where, f"names {what}, {found[0].decode(errors='replace')}", advice)


def _matches(
    evidence: Evidence, patterns: Mapping[str, bytes]
) -> Iterator[tuple[str, str, re.Match[bytes]]]:
    """Yield the first matches of each pattern in each file: file and line, the pattern's name,
    the match.
    """
    compiled = {what: re.compile(pattern) for what, pattern in patterns.items()}
    for path in (
        path for path in evidence.files if path.suffix != ".safetensors"
    ):  # weights look like anything
        if path.name != PREDICTIONS or (stored := read_predictions(path.parent)) is None:
            try:
                content = read_bytes(path, MOST_LOOKED_AT)
            except OSError:
                continue  # `plain_files` says so
        else:  # whose texts are compressed there
            said = stored.texts
            texts = () if said is None else (said.question, said.expected, said.answer or ())
            content = "\n".join(text for column in texts for text in column).encode()
        for what, pattern in compiled.items():  # one after the other is quicker than all at once
            for found in islice(pattern.finditer(content), MOST):
                line = content[: found.start()].count(b"\n") + 1
                yield f"{evidence.name(path)}:{line}", what, found


def page(evidence: Evidence) -> Iterator[Finding]:
    """The report is what the records give."""
    folder = evidence.folder
    if evidence.selection is None:
        return
    there, given = (
        tuple(name for name, pattern in FORMATS.items() if any(folder.glob(pattern))),
        dict[Path, str](),
    )
    if there or (folder / "report.json").exists():
        load_libraries()
        made = page_of(Results.of(evidence.selection))
        with tempfile.TemporaryDirectory() as name:
            fresh = Path(name)
            try:
                write_page(made, fresh, there or ("md",))
            except UserError as error:
                yield Finding("not checked", f"the report can't be written again: {error}")
                return
            given = {
                path.relative_to(fresh): _text(path)
                for path in fresh.rglob("*")
                if path.suffix in NUMBERS
            }
    else:
        yield Finding(
            "not checked", "there is no report in the folder", "hpml-bench report writes one"
        )
    for path, content in sorted(given.items()):
        if (folder / path).exists() and not same(_text(folder / path), content):
            yield failed(path.as_posix(), "is not what the records give", AGAIN)
    for path in sorted(
        path.relative_to(folder) for name in there for path in folder.glob(FORMATS[name])
    ):
        if path not in given:
            yield failed(path.as_posix(), "is no part of the report that the records give", AGAIN)
    for path in evidence.files:
        if path.suffix.lower() in PAGES and path.relative_to(folder) not in given:
            what = "is no page of the report; nothing compares it with records"
            yield Finding("not checked", f"{evidence.name(path)}: {what}")


def _text(path: Path) -> str:
    return read_bytes(path, MOST_LOOKED_AT).decode(errors="replace")


def same(one: str, other: str) -> bool:
    """Return whether two texts have the same words and numbers, but for the digits that another
    order of sums gives.
    """
    parts, others = NUMBER.split(one), NUMBER.split(other)
    pairs = zip(parts[1::2], others[1::2], strict=True)
    return parts[::2] == others[::2] and all(
        a == b
        or (LONG.match(a) and LONG.match(b) and math.isclose(float(a), float(b), rel_tol=1e-12))
        for a, b in pairs
    )
