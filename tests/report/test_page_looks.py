"""Looks at a page's folder: the same inputs are the same look, and a broken list is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpml_bench.report.looks import FILE, look_at
from hpml_bench.system.errors import UserError


def test_each_new_digest_is_the_next_look(tmp_path: Path) -> None:
    """A digest that was there keeps its number, in a folder that the first look makes."""
    folder = tmp_path / "pages" / "over"
    assert [look_at(folder, digest) for digest in "abacba"] == [1, 2, 1, 3, 2, 1]
    assert look_at(tmp_path, "b") == 1  # another folder has looks of its own
    assert [path.name for path in folder.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", "[" * 100_000], ids=repr)
def test_a_broken_list_is_refused(text: str, tmp_path: Path) -> None:
    """Else a later look would count as the first; the file stays as it is."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=f"{FILE} is no list of looks"):
        look_at(tmp_path, "a")
    assert (tmp_path / FILE).read_text() == text


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """One sentence where a file stands in its place."""
    (tmp_path / "page").write_text("")
    with pytest.raises(UserError, match=r"looks\.json can't be written"):
        look_at(tmp_path / "page", "a")
