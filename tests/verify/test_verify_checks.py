"""Checks of a folder: what they say where they hold, and hostile or unusual folders that must not mislead them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers import made_records
from helpers.forging import Forged, of_quickstart
from hpml_bench.records.load import headlines
from hpml_bench.verify.verify import ALL, Verified, verify

LINE = 52
"""Characters that 80 columns leave for a sentence."""


def of(made: Verified, name: str) -> list[str]:
    return [check.finding for check in made.checks if check.name == name and check.state == "failed"]


@pytest.fixture
def forged(tmp_path: Path) -> Forged:
    """Return a folder of three methods and one seed."""
    return of_quickstart(tmp_path / "quickstart", seeds=1)


def test_what_holds_is_one_line() -> None:
    """The first sentence of a check's docstring; every check is in the order that is shown, once."""
    assert len(ALL) == len({check.__name__ for check in ALL}) >= 30
    assert max(len(check.__name__) for check in ALL) <= 13
    for check in ALL:
        assert len((check.__doc__ or "").splitlines()[0]) <= LINE + 1, check.__name__


def test_pipes_and_links_are_named_and_not_followed(forged: Forged, tmp_path: Path) -> None:
    """Opening a pipe would wait for ever; nothing behind a link is read, also where a tracker's folder has its name."""
    os.mkfifo(forged.folder / "pipe")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("hf_" + "a1" * 20)
    (forged.folder / "wandb").symlink_to(tmp_path / "outside")
    (own := forged.run("lora", 0) / "wandb").mkdir()  # only the folder beside the runs is the tracker's
    (own / "log").symlink_to("/nowhere")
    made = verify(forged.folder)
    found = ["pipe: is no regular file", "wandb: is a link", f"{own.parent.name}/wandb/log: is a link"]
    assert sorted(of(made, "plain files")) == sorted(found)
    assert of(made, "secrets") == []


def test_a_trackers_folder_is_no_part_of_the_result(forged: Forged) -> None:
    """A line says that nobody looked there; neither its links nor its texts fail a check or change the digest."""
    before = verify(forged.folder).digest
    logs = forged.folder / "wandb" / "offline-run-1" / "logs"
    logs.mkdir(parents=True)
    (logs / "debug-core.log").symlink_to("/nowhere")
    (logs / "debug.log").write_text("/home/" + "alice/x\n")
    made = verify(forged.folder)
    assert made.consistent
    assert made.digest == before
    (found,) = [check for check in made.checks if "wandb" in check.finding]
    assert (found.state, found.name) == ("not checked", "plain files")


def test_a_run_in_the_trackers_folder_does_not_count(forged: Forged) -> None:
    """Moved there, it is missing from the runs that the suite declares."""
    runs = verify(forged.folder).runs
    forged.run("lora", 0).rename(forged.folder / "wandb")
    made = verify(forged.folder)
    assert made.runs == runs - 1
    assert [line for line in of(made, "planned") if "declares lora with seed 0" in line]
    assert [record.run_id for record in headlines(forged.folder)] == [run.name for run in forged.runs[:-1]]


def test_a_method_that_is_not_installed_is_said(forged: Forged) -> None:
    """Its suite can't be compared: a line says so, and other checks go on."""
    suite = forged.folder / "suite.json"
    suite.write_text(suite.read_text().replace('"method": null', '"method": "no_such_method"'))
    forged.edit(forged.run("lora", 0), spec__method__method="no_such_method", spec__suite="other")
    found = {check.finding: check.state for check in verify(forged.folder).checks if check.name in {"ids", "suite"}}
    assert "not checked" in {found[finding] for finding in found if "there is no method 'no_such_method'" in finding}
    assert "not checked" in {found[finding] for finding in found if "a plug-in of it isn't installed" in finding}


def test_secrets_of_this_environment_are_found(forged: Forged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their form."""
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct-horse-battery")
    (forged.folder / "notes.txt").write_text("with correct-horse-battery\n")
    assert of(verify(forged.folder), "secrets") == ["notes.txt:1: holds a secret of this environment"]


def test_home_folders(forged: Forged) -> None:
    """Of Linux, macOS and Windows; an address has none."""
    homes = ["/home/" + "alice/x", "/Users/" + "alice", "C:\\Users\\" + "alice\\x"]
    others = ["https://example.org/home/" + "page", "to /homework/1", "/data/x.csv"]
    (forged.folder / "notes.txt").write_text("\n".join((*homes, *others)))
    lines = [line.partition(" ")[0] for line in of(verify(forged.folder), "private paths")]
    assert lines == ["notes.txt:1:", "notes.txt:2:", "notes.txt:3:"]


def test_counts_that_differ_in_every_seed_are_no_contradiction(tmp_path: Path) -> None:
    """A method may choose its sizes by what it learns; one seed alone that differs is named."""
    made = of_quickstart(tmp_path / "quickstart", methods=("lora", "head"))
    for seed in range(3):
        made.edit(made.run("lora", seed), metrics__saved_bytes=1000.0 + seed)
    assert of(verify(made.folder), "sizes") == []
    made.edit(made.run("lora", 1), metrics__saved_bytes=1000.0)
    assert len(of(verify(made.folder), "sizes")) == 1


def test_an_order_that_no_record_has_is_not_checked(forged: Forged) -> None:
    """Without places nothing shows in which order methods ran."""
    forged.edit(*forged.runs, place=None, order=None)
    assert [check.state for check in verify(forged.folder).checks if check.name == "places"] == ["not checked"]


def test_records_without_a_suite_are_not_a_result(tmp_path: Path) -> None:
    """Nothing says which runs there should be."""
    made_records.write(tmp_path, made_records.sweep(("lora", "full"), 1))
    assert of(verify(tmp_path), "planned")[0].startswith("suite.json: is missing")
