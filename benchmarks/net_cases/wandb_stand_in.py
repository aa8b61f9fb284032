"""A package `wandb` that keeps what it is given, line by line, and sends nothing.

`net.py` copies this file as `wandb.py` to a folder on the path of the tracker's helper process.
"""

import json
from pathlib import Path
from typing import Any


class Settings:
    """Settings of a run, of which the stand-in takes the folder alone."""

    model_fields = ("root_dir", "mode")

    def __init__(self, **given: Any) -> None:
        self.given = given


class Table:
    """A table as it was given."""

    def __init__(self, **given: Any) -> None:
        self.given = given


class Summary:
    """The final values of a run."""

    def __init__(self, run: "Run") -> None:
        self.run = run

    def update(self, values: dict[str, Any]) -> None:
        self.run.keep("summary", values)


class Run:
    """A run, all of whose calls are kept in the order in which they came."""

    def __init__(self, settings: Settings, **given: Any) -> None:
        self.file = Path(settings.given["root_dir"]) / "received-by-wandb.jsonl"
        self.summary = Summary(self)
        self.keep("init", given)

    def keep(self, call: str, given: dict[str, Any]) -> None:
        line = json.dumps({call: given}, default=lambda table: table.given, sort_keys=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def define_metric(self, name: str, **given: Any) -> None:
        self.keep("define_metric", {"name": name, **given})

    def log(self, values: dict[str, Any], **given: Any) -> None:
        self.keep("log", {"values": values, **given})

    def finish(self, **given: Any) -> None:
        self.keep("finish", given)


def init(settings: Settings, **given: Any) -> Run:
    return Run(settings, **given)


def teardown() -> None:
    """Do nothing, as no service was started."""
