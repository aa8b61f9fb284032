"""Calls over the committed reference results: reports, what trackers get, checks of the folders."""

import shutil
from pathlib import Path

from net_cases import Case

SUITES = ("quickstart", "minilm", "faq", "chat", "regression", "tagging", "trainers")
CHECKS = {
    "amd-epyc": "amd-epyc/b4628faa.jsonl.gz",
    "intel-xeon": "intel-xeon/76b3cf83.jsonl.gz",
    "intel-xeon-loaded": "intel-xeon/loaded/7335b30b.jsonl.gz",
}
"""Recorded trials of `check`, by the name of their case."""
PAPERS = ("quickstart", "faq")
"""Suites whose pictures are also drawn for papers, which takes seconds a suite."""


def write_inputs(folder: Path, reference: Path) -> None:
    for name in (*SUITES, "check"):
        shutil.copytree(reference / name, folder / name)


def cases() -> list[Case]:
    found = []
    for name in SUITES:
        formats = "html,md,csv,tex,peft,pdf,png" if name in PAPERS else "html,md,csv,tex,peft"
        calls = (
            f"report {name} --format {formats} --out out",
            f"report {name} --format html,md,csv",
            f"verify {name}",
            f"status {name}",
            f"list runs {name}",
            f"report {name} --format html --wandb offline --out tracked",
        )
        found.append(Case(name, calls, copies=(name,)))
    for name, packed in CHECKS.items():
        file = Path(packed).name
        found.append(Case(f"check-{name}", (f"check-pages {file}",), copies=(f"check/{packed}",)))
    return found
