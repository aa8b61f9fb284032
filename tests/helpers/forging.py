"""Copies of a reference folder, and edits of its runs whose hashes, ids and self-checks are made
to fit again.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hpml_bench.records.files import POINTS, PREDICTIONS, RECORD, SUITE
from hpml_bench.records.load import digests_of
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import RunRecord, protocol_id
from hpml_bench.select.predictions import task_of
from hpml_bench.suite.settings import Digests, RunSpec
from hpml_bench.suite.suite import Suite
from hpml_bench.sweep.request import places, shuffled
from hpml_bench.verify.folder import RunFiles

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
Json = dict[str, Any]


class Forged:
    """A results folder whose files are edited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, method: str, seed: int) -> Path:
        """Return the folder of the run of a method and seed, which is named by its id."""
        (found,) = self.folder.glob(f"{method.replace('_', '-')}-s{seed}-*")
        return found

    @property
    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob(f"*/{RECORD}"))

    def edit(self, *places: Path, **changes: Any) -> None:
        """Set fields of records by dotted path, with `__` for a point; a function is given the
        former value.
        """
        for place in places:
            content = record_of(place)
            for key, value in changes.items():
                *parents, last = key.split("__")
                node = content
                for part in parents:
                    node = node[part]
                node[last] = value(node.get(last)) if callable(value) else value
            write(place / RECORD, content)

    def suite(self, **changes: Any) -> None:
        content = json.loads((self.folder / SUITE).read_text())
        write(self.folder / SUITE, content | changes)

    def seal(self, *places: Path) -> list[Path]:
        """Make hashes, run ids, protocol ids, folders' names and self-checks fit the edited
        files, as a forger can.
        """
        apart = [
            place.rename(place.with_name(f"{place.name}.edited")) for place in places or self.runs
        ]
        return [_sealed(place) for place in apart]

    def copy(self, source: Path, name: str) -> Path:
        return Path(shutil.copytree(source, self.folder / name))


def record_of(place: Path) -> Json:
    content: Json = json.loads((place / RECORD).read_text())
    return content


def write(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def edit_points(place: Path, change: Callable[[list[Json]], list[Json]]) -> None:
    points = [json.loads(line) for line in (place / POINTS).read_text().splitlines()]
    (place / POINTS).write_text("".join(f"{json.dumps(point)}\n" for point in change(points)))


def edit_predictions(place: Path, change: Callable[[Any], Any]) -> None:
    import pandas as pd

    change(pd.read_parquet(place / PREDICTIONS)).to_parquet(place / PREDICTIONS, index=False)


def of_quickstart(
    folder: Path, methods: tuple[str, ...] = ("lora", "full", "head"), seeds: int = 3
) -> Forged:
    """Copy the records of the reference quickstart as if the suite had these methods and seeds;
    without its page.
    """
    folder.mkdir()
    for place in sorted((REFERENCE / "quickstart").glob("*-s*")):
        spec = record_of(place)["spec"]
        if spec["seed"] < seeds and spec["method"]["name"] in methods:
            shutil.copytree(place, folder / place.name)
    shutil.copy(REFERENCE / "quickstart" / SUITE, folder)
    made = Forged(folder)
    whole = json.loads((folder / SUITE).read_text())
    made.suite(seeds=seeds, methods={name: whole["methods"][name] for name in methods})
    reorder(made, declared__seeds=seeds)
    return made


def reorder(made: Forged, **changes: Any) -> None:
    """Number the runs as a sweep of the suite beside them does, and let them begin one right
    after another.
    """
    suite = Suite.model_validate_json((made.folder / SUITE).read_text())
    began = datetime(2026, 1, 2, 3, tzinfo=UTC)
    for run_id, place in places(shuffled(suite.runs(), suite), suite).items():
        run, started = made.folder / run_id, began.isoformat(timespec="seconds")
        made.edit(run, order=place.in_sweep, place=place.in_seed, started=started, **changes)
        began += timedelta(seconds=record_of(run)["seconds"])


def _sealed(place: Path) -> Path:
    content = record_of(place)
    content["files"] = digests_of(place)
    spec = RunSpec.model_validate(content["spec"])
    content["run_id"] = spec.run_id
    content["protocol_id"] = protocol_id(spec.settings, Digests.model_validate(content["digests"]))
    write(place / RECORD, content)
    write(place / RECORD, content | {"checks": _checks(place, RunRecord.model_validate(content))})
    return (
        place.rename(place.with_name(content["run_id"]))
        if content["run_id"] != place.name
        else place
    )


def _checks(place: Path, record: RunRecord) -> list[Json]:
    """Return the self-checks that a record names, as its files give them, passed."""
    if record.status != "ok":
        return [check.model_dump() for check in record.checks]
    files = RunFiles(record, tuple(read_points(place)), read_predictions(place), task_of(record))
    again = {check.name: check for check in files.self_checks() if check.name != "parameters"}
    return [again.get(check.name, check).model_dump() | {"passed": True} for check in record.checks]


# Edits: each returns the runs that it edits, or where it shows

Edit = Callable[[Forged], Sequence[Path] | str]


def runs(made: Forged, which: str) -> list[Path]:
    """Return runs by method and seed (`lora 0`), by method, by seed, or all (``)."""
    method, _, seed = which.rpartition(" ") if which[-1:].isdigit() else (which, "", "")
    return [
        run
        for run in made.runs
        if run.name.startswith(f"{method}-" if method else "") and f"-s{seed}" in run.name
    ]


def record(which: str, **changes: Any) -> Edit:
    """Set fields of records, `metrics__x` that of metric x; a function is given the former
    value.
    """

    def edit(made: Forged) -> list[Path]:
        made.edit(*(found := runs(made, which)), **changes)
        return found

    return edit


def points(which: str, change: Callable[[list[Json]], list[Json]], **changes: Any) -> Edit:
    """Rewrite points, and fields of records."""

    def edit(made: Forged) -> list[Path]:
        for run in runs(made, which):
            edit_points(run, change)
        return list(record(which, **changes)(made))

    return edit


def sealed(made: Forged, edit: Edit) -> str:
    """Edit a folder, make hashes and ids fit, and return where it shows."""
    edited = edit(made)
    return edited if isinstance(edited, str) else made.seal(*edited)[0].name
