"""Suite file with the chosen rates, for run-all."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from hpml_bench.records.files import write_atomically
from hpml_bench.records.tuning import TuningRecord
from hpml_bench.suite.suite import Suite
from hpml_bench.system.errors import UserError


def check_target(path: Path, option: str = "--write", *, fresh: bool = False) -> Path:
    """Return the path if a suite can be written there, before hours are spent; else raises UserError.

    `option` gave it; with `fresh` no file may be there.
    """
    if path.suffix not in {".yaml", ".yml"} or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", path.stem):
        raise UserError(
            f"{option} {path}: the file's name becomes the suite's: letters, digits, - and _, then .yaml; "
            "choose another"
        )
    if fresh and path.exists():
        raise UserError(f"{option} {path}: there is such a file; remove it, or choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {path}: the folder can't be made: {error.strerror}; choose another") from None
    return path


def write_suite(path: Path, suite: Suite, record: TuningRecord) -> None:
    """Write the suite, named as the file, with each tuned method's chosen rate; UserError if it can't be written."""
    content = suite.model_dump(mode="json", exclude_unset=True, exclude={"name"})
    for tuned in record.methods:
        if tuned.name not in content["methods"]:  # named by --methods, as in peft:IA3
            content["methods"][tuned.name] = {"method": tuned.spec.method, "options": dict(tuned.spec.options)}
        if tuned.rated and tuned.best is not None:
            content["methods"][tuned.name]["lr"] = tuned.chosen
    trials = ", ".join(sorted({str(len(tuned.trials)) for tuned in record.methods}))
    head = (
        f"# The suite {suite.name} with learning rates chosen on its validation rows by `hpml-bench tune`:\n"
        f"# {trials} trials a method, from 1/{record.factor:g} to {record.factor:g} times its rate.\n"
    )
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=118)
    try:
        write_atomically(path, head + body)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror}; choose another with --write") from None
