"""`verify` of folders that lie deep, can't be listed, or hold names that aren't UTF-8."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import hostile_files, made_records
from hpml_bench.records.folder import RunFolder
from hpml_bench.verify.verify import Verified, verify


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield made_records.write(tmp_path / "made", made_records.sweep(("lora", "full"), 1))
    # pytest's own removal of old folders calls itself for each level
    subprocess.run(["rm", "-rf", tmp_path / "made"], check=True)


def plain_files(verified: Verified) -> list[str]:
    return [check.finding for check in verified.checks if check.name == "plain files"]


def test_a_name_that_is_not_utf_8_is_part_of_the_digest(folder: Path) -> None:
    """Names are bytes: the digest is that of the lines that sha256sum writes."""
    (folder / os.fsdecode(b"bad\xff.txt")).write_text("notes")
    verified = verify(folder)
    assert len(verified.digest) == 64
    assert verified.write().is_file()
    assert verified.changed() == ()


@pytest.mark.parametrize("name", ["d", "d" * 250])
def test_folders_that_lie_too_deep_are_named(name: str, folder: Path) -> None:
    """Neither many levels nor a path beyond what Linux opens ends the check."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(1_100 if name == "d" else 20):
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    (finding,) = plain_files(verify(folder))
    assert finding.endswith("...: can't be listed: it lies too deep")


def test_a_folder_that_cannot_be_listed_is_named(folder: Path) -> None:
    """What lies in it isn't known, and the folder isn't consistent."""
    (folder / "closed").mkdir(mode=0)
    with hostile_files.without_overrides():
        verified = verify(folder)
    assert plain_files(verified) == ["closed: can't be listed: Permission denied"]
    assert not verified.consistent


def test_trained_parts_of_holes_are_named(folder: Path) -> None:
    """Gigabytes that take no room on disk aren't read, and aren't what was recorded."""
    run = next(path.parent for path in sorted(folder.glob("*/run.json")))
    (run / "kept").mkdir()
    with (run / "kept" / "adapter_model.safetensors").open("wb") as parts:
        parts.truncate(8_000_000_000)
    findings = [check.finding for check in verify(folder).checks]
    assert f"{run.name}/kept: can't be read: most of it is holes" in findings
    assert not RunFolder(run).keeps
