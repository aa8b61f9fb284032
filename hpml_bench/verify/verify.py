"""Verification of a results folder: all checks, and the file of their verdicts beside the runs."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hpml_bench.records.load import sha256
from hpml_bench.system.checklist import name_of, printable
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_json, write_atomically
from hpml_bench.system.text import summary_of
from hpml_bench.verify import declared, figures, files, likeness
from hpml_bench.verify.folder import (
    VERIFIED,
    Evidence,
    Finding,
    FolderCheck,
    RunCheck,
    State,
    failed,
)

FORMAT = 1  # counts up when a field of verified.json changes its meaning
WORST: tuple[State, ...] = ("failed", "not checked", "ok")
OF_RUNS: tuple[RunCheck, ...] = (
    figures.scores,
    figures.self_checks,
    figures.metrics,
    figures.wall_time,
    figures.steps,
    figures.figures,
    figures.ranks,
    figures.rates,
    figures.evaluations,
)
"""Checks of each run that ended well; all others are of the folder."""
ALL: tuple[FolderCheck | RunCheck, ...] = (
    files.plain_files,
    files.hashes,
    files.secrets,
    files.private_paths,
    declared.ids,
    declared.once_each,
    declared.planned,
    declared.suite,
    declared.places,
    declared.unfinished,
    declared.set_aside,
    declared.dates,
    declared.breaks,
    declared.environment,
    declared.protocol,
    declared.labels,
    figures.predictions,
    figures.passed,
    figures.definitions,
    figures.times,
    figures.copies,
    *OF_RUNS,
    declared.consumption,
    figures.batches,
    figures.answers,
    likeness.near_copies,
    likeness.exchanged,
    likeness.repeated_losses,
    declared.sizes,
    declared.sample_order,
    files.page,
)
"""All checks, in the order in which they are shown."""


@dataclass(frozen=True)
class Verified:
    """The verdicts on a results folder."""

    folder: Path
    suite: str
    runs: int  # number of records that can be read
    checks: tuple[Finding, ...]
    """The findings, worst first; one for each thing that is wrong, and one for each check that
    holds.
    """
    files: dict[
        str, str
    ]  # path within the folder -> SHA-256, of all regular files but verified.json and locks

    @property
    def consistent(self) -> bool:
        return all(check.state != "failed" for check in self.checks)

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(check.name for check in self.checks if check.state == "failed"))

    @property
    def digest(self) -> str:
        """SHA-256 of everything: of a line `DIGEST  PATH` for each file, sorted by path, as
        sha256sum writes them.
        """
        return hashlib.sha256(
            "".join(f"{d}  {path}\n" for path, d in self.files.items()).encode(
                errors="surrogateescape"  # a file's name is bytes, of which not all are UTF-8
            )
        ).hexdigest()

    def changed(self) -> tuple[str, ...] | None:
        """Return the files that differ from those an earlier verified.json names; None where
        there is none.
        """
        files = (read_json(self.folder / VERIFIED) or {}).get("files")
        if not isinstance(files, dict):
            return None
        return tuple(
            name
            for name in sorted({*files, *self.files})
            if files.get(name) != self.files.get(name)
        )

    def write(self) -> Path:
        """Write verified.json; a UserError where that can't be done."""
        content = {
            "format": FORMAT,
            "hpml_bench": version("hpml-bench"),
            "suite": self.suite,
            "consistent": self.consistent,
            "checks": [asdict(check) for check in self.checks],
            "digest": self.digest,
            "files": self.files,
        }
        path = self.folder / VERIFIED
        try:
            write_atomically(path, json.dumps(content, indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"{path} can't be written: {error.strerror}; verify a copy of the folder"
            ) from None
        return path


def verify(folder: Path) -> Verified:
    """Check a suite's results folder; a UserError where it has no record at all."""
    evidence = Evidence.read(folder)
    found: dict[Callable[..., Any], list[Finding]] = {check: [] for check in ALL}
    for run in evidence.runs():
        for of_run in OF_RUNS:
            found[of_run] += _found(failed(run.record.run_id, why) for why in of_run(run))
    for check in found.keys() - OF_RUNS:
        found[check] = _found(check(evidence))
    checks = []
    for check, findings in found.items():
        if not findings:  # its docstring's first sentence holds
            sentence = summary_of(check).rstrip(".")
            findings.append(
                Finding("ok", sentence[0].lower() + sentence[1:])
                if evidence.records
                else Finding("not checked", "no record can be read")
            )
        checks += [printable(name_of(check), finding) for finding in findings]
    suite, digests = evidence.suite.name if evidence.suite else "", dict[str, str]()
    for path in filter(evidence.hashed, evidence.files):
        try:
            digests[evidence.name(path)] = sha256(path)
        except OSError as error:
            raise UserError(
                f"{path} can't be read: {error.strerror}; verify a folder that you may read"
            ) from None
    ordered = sorted(checks, key=lambda check: WORST.index(check.state))
    return Verified(folder, suite, len(evidence.records), tuple(ordered), digests)


def _found(findings: Iterable[Finding]) -> list[Finding]:
    """Return a check's findings; what stops it is one, since a record may be made to stop it."""
    found = list[Finding]()
    try:
        found.extend(findings)  # what was found before an error stays
    except UserError as error:
        found.append(Finding("not checked", str(error)))
    except Exception as error:
        found.append(Finding("failed", f"can't be checked ({type(error).__name__}: {error})"))
    return found
