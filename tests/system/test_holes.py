"""Files of holes are known, and files without any are read as before."""

import os
from pathlib import Path

import pytest

from hpml_bench.system import files
from hpml_bench.system.files import mostly_holes


def test_a_file_is_read_on_after_a_look_for_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever its reader was: on a file system that counts no blocks each large file is looked
    at.
    """
    monkeypatch.setattr(files, "MOST_HOLES", 0)
    monkeypatch.setattr(files, "BLOCK", 0)
    path = tmp_path / "whole"
    content = os.urandom(300_000)
    path.write_bytes(content)
    with path.open("rb") as file:
        assert file.read(100) == content[:100]
        assert not mostly_holes(file)
        file.seek(0)
        assert file.read() == content


def test_a_file_of_holes_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its first hole, which lies before its end."""
    monkeypatch.setattr(files, "MOST_HOLES", 0)
    path = tmp_path / "sparse"
    path.write_bytes(b"head")
    os.truncate(path, 10_000_000)
    with path.open("rb") as file:
        assert mostly_holes(file)
