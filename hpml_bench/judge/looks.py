"""Looks: what the pages below a folder were made of, and under which declarations, since each
look may err.
"""

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, TypeAdapter

from hpml_bench.records.numbers import sentence_list
from hpml_bench.suite.base import Frozen
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_bytes, write_atomically
from hpml_bench.system.text import count_of, sanitize

FILE = "looks.json"
OVER = "over several"
"""Name of what a page over suites, or data sets, is of."""
SKETCHED = 1024
"""Most ids that a sketch keeps, so that a look takes 13 KB of the file. Where a data set grows a
hundredfold in one step, about ten earlier ids are among those kept of the larger one, and none
with a chance of e^-10.
"""


def sketch(ids: Iterable[str]) -> str:
    """Return the smallest 48-bit digests of ids, at most `SKETCHED`, in hexadecimal with spaces
    between.

    It is a bottom-k sketch (Cohen and Kaplan 2007): it holds all of a small set, of a large one a
    sample that is the same wherever an id is. So sets that share a good part of their ids, as a
    subset, a superset or a doubled one does, share digests, and others share none but by a chance
    below one in 100,000.
    """
    digests = {hashlib.blake2b(one.encode(), digest_size=6).hexdigest() for one in ids}
    return " ".join(heapq.nsmallest(SKETCHED, digests))


class Data(Frozen):
    """What a page is of, by which a later page is known to be of the same."""

    of: str = OVER
    """The data set, by its own name or its file's; empty in lists of earlier versions, where
    inputs name none.
    """
    by_file: bool = False
    """Whether the name is that of a file, since the inputs name no data set."""
    rows: str = ""
    """Sketch of the ids of its rows, or of a page's suites; empty where there are none."""
    parts: tuple[str, ...] = ()
    """Names of the data sets, or suites, that a page is over."""

    def same(self, other: "Data") -> bool:
        """Return whether both may be of one data set; where that isn't known, they are."""
        if self.of != OVER and not (self.by_file or other.by_file):
            return self.of == other.of
        if self.rows and other.rows:
            return not {*self.rows.split()}.isdisjoint(other.rows.split())
        unnamed = (self.by_file and not other.of) or (other.by_file and not self.of)
        return unnamed or self.of == other.of


class Declarations(Frozen):
    """What a user declares of the data, which counts if that was before their first look; in the
    score's unit.
    """

    metric: str = ""
    worst: str = ""
    """Which scores are better, where missing rows take the worst score."""
    bounds: tuple[float | None, float | None] = (None, None)
    largest: float | None = None
    margin: float | None = None

    def phrases(self) -> tuple[str, ...]:
        """Return each declaration in words, in one order."""
        low, high = ("open" if end is None else f"{end:.12g}" for end in self.bounds)
        largest, margin = (
            "" if one is None else f"{one:.12g}" for one in (self.largest, self.margin)
        )
        return (
            f"the score {sanitize(self.metric, 60)}",
            f"{self.worst}-is-better scores" if self.worst else "no worst score for missing rows",
            "no range" if self.bounds == (None, None) else f"a range of {low} to {high}",
            f"a largest difference of {largest}" if largest else "no largest difference",
            f"a margin of {margin}" if margin else "no margin",
        )


NOTHING = Declarations()


class Look(Data):
    """A page, of a list in the order of their looks."""

    digest: str
    """Of its scores."""
    systems: tuple[str, ...] = ()
    look: int = Field(ge=0)
    """Its number, from 1; 0 of a page without a test, at which nothing can err."""
    page: str = ""
    """Its folder below that of the list; empty where it is the same."""
    declared: Declarations | None = None
    """None in lists of earlier versions, which don't record it."""
    looks: int = Field(0, ge=0)
    """The number of looks that was declared at the first one; 0 where none was."""


class Taken(NamedTuple):
    """A look that a page is."""

    look: int  # its number, from 1
    declared: int  # number of looks that was declared at the first
    # which declarations were made after the first look, as a sentence; empty where none was
    changed: str


_LOOKS = TypeAdapter(list[Look])


def look_at(
    folder: Path,
    digest: str,
    data: Data,
    systems: Iterable[str] = (),
    stated: int | None = None,
    *,
    declared: Declarations = NOTHING,
    looks: int | None = None,
    page: str = "",
    tested: bool = True,
) -> Taken:
    """Return which look at its data a page with scores of this digest is, and note it in the list
    of a folder.

    The same scores under the same declarations are the same look. Others of the same data are the
    next one if two systems or more are in both. A number that the user states as `stated` counts as
    given, and later looks follow it; of `looks`, the number of looks that are declared, that of the
    first look counts. `page` is the page's folder below that of the list. A UserError where the
    list can't be read or written, or the page would replace one of other data.
    """
    file = folder / FILE
    known = _read(file)
    new = Look(
        **dict(data),
        digest=digest,
        systems=tuple(systems),
        look=0,
        page=page,
        declared=declared,
        looks=looks or 0,
    )
    there = [one for one in known if one.page == page]
    if there and not any(
        one.same(data) or one.of in data.parts or data.of in one.parts for one in there
    ):
        raise UserError(
            f"{folder / page} has a page of other data, {sanitize(there[-1].of, 60)}, which this "
            "one would replace; give another --out"
        )
    if not tested:
        if not there:
            _write(file, [*known, new])
        return Taken(1, new.looks, "")
    shared = [one for one in _at_same_data(known, data) if one.look and _of_same_systems(one, new)]
    first = min(shared, key=lambda one: one.look, default=new)
    again = [one for one in shared if one.digest == digest and not _changes(one.declared, declared)]
    noted = max((one.look for one in again), default=None)
    look = stated or noted or 1 + max((one.look for one in shared), default=0)
    if look != noted or page not in {one.page for one in again}:
        kept = [one for one in known if one not in again or one.page != page]
        _write(file, [*kept, new.model_copy(update={"look": look, "looks": first.looks})])
    changed = f"{changed_since(first.declared, declared)} {_other_number(first, looks)}".strip()
    return Taken(look, first.looks, changed)


def _at_same_data(known: Sequence[Look], data: Data) -> list[Look]:
    """Return the looks at the same data, and those at data that are the same as these, since
    rows come and go.
    """
    found = [one for one in known if one.same(data)]
    for one in found:  # which grows
        # without them, as in lists of earlier versions, a look may be at any data and would link
        # them all
        if one.rows:
            found += [other for other in known if other not in found and _linked(one, other)]
    return found


def _linked(one: Look, other: Look) -> bool:
    # a file may have the row ids of several data sets that inputs name, which stay different
    return one.by_file == other.by_file and one.same(other)


def _of_same_systems(one: Look, other: Look) -> bool:
    return not one.systems or len({*one.systems} & {*other.systems}) > 1


def _changes(first: Declarations | None, now: Declarations) -> list[tuple[str, str]]:
    """Return the declarations that changed, in words: as each was, and as it is."""
    # a list that doesn't record what was declared can't show that a declaration was made before
    before = first or Declarations(metric=now.metric, worst=now.worst)
    return [
        (was, now_is)
        for was, now_is in zip(before.phrases(), now.phrases(), strict=True)
        if was != now_is
    ]


def changed_since(first: Declarations | None, now: Declarations) -> str:
    """Return what was declared first and what now, as a sentence, where that isn't the same;
    else an empty one.
    """
    changes = _changes(first, now)
    if not changes:
        return ""
    was, now_is = (sentence_list(list(phrases)) for phrases in zip(*changes, strict=True))
    before = f"The first look at these data declared {was}, this page {now_is}"
    unknown = (
        f"No declaration is recorded of the first look at these data, and this page declares "
        f"{now_is}"
    )
    return (
        f"{before if first else unknown}: a claim that rests on what was declared after a look may "
        "be false in more than 5 % of cases."
    )


def _other_number(first: Look, looks: int | None) -> str:
    """Return that the number of looks declared first counts, as a sentence, where another is
    given; else an empty.
    """
    if looks is None or looks == first.looks:
        return ""
    declared = count_of(first.looks, "look") if first.looks else "no number of looks"
    return (
        f"The first look at these data declared {declared}, this page {looks}: the first number "
        f"counts."
    )


def _read(file: Path) -> list[Look]:
    try:
        return _LOOKS.validate_json(read_bytes(file)) if file.exists() else []
    except (OSError, ValueError):
        raise UserError(
            f"{file} is no list of looks; restore the file, or give another --out"
        ) from None


def _write(file: Path, looks: list[Look]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, _LOOKS.dump_json(looks, indent=1) + b"\n")
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror or error}") from None
