"""Copies among rows: equal texts, and texts that share half of their word sequences, within and
between splits.

Near-copies are found by MinHash (Broder 1997, On the resemblance and containment of documents) with
bands (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, ch. 3), and likely pairs are
compared exactly. Cost grows with the number of words compared, at most `MOST_ROWS` x `MOST_WORDS`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field

from hpml_bench.data.draw import groups_of
from hpml_bench.plugins.dataset import PAIR, Target
from hpml_bench.suite.base import Frozen

if TYPE_CHECKING:
    from datasets import Dataset

LENGTH, SHARE = 5, 0.5
"""Words per sequence, and the least Jaccard index of the sequences of two near-copies: two of
forty words, or one of twenty, may differ.
"""
MOST_ROWS, MOST_WORDS = 100_000, 200
"""Most rows compared, the test rows first, and most words compared at the beginning of each."""
FRAME, FEW, ANY, SAMPLE = 0.1, 100, 10, 2000
"""Sequences in more than a tenth of the texts and in more than a hundred (of few texts, in more
than half of them and in more than ten) count as a frame around texts, such as an instruction,
and are left out; shares are of a sample.
"""
BANDS, BAND = 20, 3
"""Number of bands, and minima per band: of pairs with an index of 0.5 93 % agree in a band, of
0.6 99 %, of 0.1 2 %.
"""
NEIGHBOURS = 3
"""Following texts of its band with which each text is compared, so that cost grows linearly with
the rows.
"""
LIKELY, MOST_PAIRS = 0.4, 200_000
"""Least share of equal minima of a pair to be compared exactly, and most such pairs, the
likeliest first.
"""
BATCH = 1000

Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]


class CopyCount(Frozen):
    """Rows that have near-copies, equal texts included, and rows that have equal texts."""

    near: int = 0
    equal: int = 0


class Copies(Frozen):
    """Copies among the rows of each split, and among the training rows."""

    rows: dict[str, int] = Field(default_factory=dict)  # split -> rows in it
    looked_at: dict[str, int] = Field(default_factory=dict)
    within: dict[str, CopyCount] = Field(default_factory=dict)
    """Split -> its rows with a copy in the same split; where rows have groups, in another group."""
    in_train: dict[str, CopyCount] = Field(default_factory=dict)
    """Split -> its rows that have a copy among the training rows."""
    groups: int | None = (
        None  # test rows whose group has training rows too; None where rows have no groups
    )

    @property
    def note(self) -> str:
        parts = [
            f"{split}{where} {count.near:,} of {self.looked_at[split]:,} ({count.equal:,} equal)"
            for counts, where in ((self.within, ""), (self.in_train, " in train"))
            for split, count in counts.items()
            if count.near
        ]
        looked, rows = sum(self.looked_at.values()), sum(self.rows.values())
        seen = f" ({looked:,} of {rows:,} rows looked at)" if looked < rows else ""
        return ("; ".join(parts) or "none") + seen

    @property
    def warning(self) -> str | None:
        """Warning that copies bias the scores of the test rows; None without such copies."""
        within, trained = (
            self.within.get("test", CopyCount()),
            self.in_train.get("test", CopyCount()),
        )
        others = "the others" if self.groups is None else "those of other groups"
        findings = [
            f"{count.near:,} have a copy or near-copy among {where} ({count.equal:,} equal)"
            for count, where in ((within, others), (trained, "the training rows"))
            if count.near
        ]
        if self.groups:
            findings.append(f"{self.groups:,} belong to a group that has training rows too")
        if not findings:
            return None
        effects = ["better"] * bool(trained.near or self.groups) + ["more certain"] * bool(
            within.near
        )
        return (
            f"of {self.looked_at['test']:,} test rows {' and '.join(findings)}, so that scores "
            f"look {' and '.join(effects)} than they are"
        )


def find_copies(rows: Mapping[str, Dataset], target: Target) -> Copies:
    """Return the copies among the loaded rows of train, validation and test; labels, answers and
    case don't count.
    """
    texts = Texts()
    equal: dict[str, Numbers] = {}  # split -> number of the text of each row
    for split in ("test", "validation", "train"):
        left = MOST_ROWS - sum(map(len, equal.values()))
        equal[split] = np.array(
            list(map(texts.add, _texts(rows[split], target, left))), dtype=np.int64
        )
    alike = texts.near_copies()
    near = {split: alike[numbers] for split, numbers in equal.items()}
    groups = {
        split: groups_of(rows[split].select(range(len(numbers))))
        for split, numbers in equal.items()
    }
    return Copies(
        rows={split: len(rows[split]) for split in equal},
        looked_at={split: len(numbers) for split, numbers in equal.items()},
        within={
            s: CopyCount(near=_within(near[s], groups[s]), equal=_within(of, groups[s]))
            for s, of in equal.items()
        },
        in_train={
            s: CopyCount(
                near=_among(near[s], near["train"]), equal=_among(equal[s], equal["train"])
            )
            for s in ("test", "validation")
        },
        groups=None if groups["test"] is None else _among(groups["test"], groups["train"]),
    )


def _within(kinds: Numbers, groups: Numbers | None) -> int:
    """Return how many rows share their kind with another row; with `groups`, with a row of
    another group.
    """
    members = np.arange(len(kinds)) if groups is None else groups
    pairs = np.unique(np.stack([kinds, members], axis=1), axis=0)
    several, counts = np.unique(pairs[:, 0], return_counts=True)
    return int(np.isin(kinds, several[counts > 1]).sum())


def _among(kinds: Numbers, others: Numbers | None) -> int:
    return 0 if others is None else int(np.isin(kinds, others).sum())


def _texts(rows: Dataset, target: Target, most: int) -> Iterator[str]:
    for batch in rows.select(range(min(most, len(rows)))).iter(BATCH):
        if target == "tags":
            yield from map(" ".join, batch["words"])
        elif target == "answer":
            for roles, contents, choices in zip(
                batch["roles"], batch["contents"], batch["choices"], strict=True
            ):
                before = [
                    text
                    for role, text in zip(roles[:-1], contents[:-1], strict=True)
                    if role != "system"
                ]
                yield "\n".join([*(before or contents[-1:]), *(choices or ())])
        else:
            yield from map(
                "\n".join,
                zip(*(batch[name] for name in ("text", PAIR) if name in batch), strict=True),
            )


class Texts:
    """Distinct texts, numbered in the order of their addition."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._vocabulary: defaultdict[str, int] = defaultdict(count().__next__)
        self._sequences: list[
            Words
        ] = []  # of each text its different sequences of `LENGTH` words, as numbers

    def add(self, text: str) -> int:
        """Return the number of a text, the same for texts that differ in case and white space
        alone.
        """
        words = text.casefold().split()
        key = hashlib.blake2b(
            " ".join(words).encode(errors="surrogatepass"), digest_size=16
        ).digest()
        number = self._known.setdefault(key, len(self._known))
        if number == len(self._sequences):
            # A script without spaces, such as Chinese: each letter counts as a word.
            long = sum(map(len, words)) > 20 * len(words)
            words = (list("".join(words)) if long else words)[:MOST_WORDS]
            words += [""] * (LENGTH - len(words))
            numbers = _mixed(np.array([self._vocabulary[word] for word in words], dtype=np.uint64))
            self._sequences.append(
                np.unique(_mixed((sliding_window_view(numbers, LENGTH) * ODD).sum(axis=1)))
            )
        return number

    def near_copies(self) -> Numbers:
        """Return a group number for each text, [texts]; texts connected by pairs of near-copies
        are in one group.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        # sequences that many texts share, judged by a sample of texts
        every, none = self._sequences, np.zeros(0, dtype=np.uint64)
        chosen = np.linspace(0, len(every) - 1, min(len(every), SAMPLE)).astype(int).tolist()
        numbers, counts = np.unique(
            np.concatenate([none, *(every[text] for text in chosen)]), return_counts=True
        )
        frame = numbers[counts > max(ANY, min(len(chosen) / 2, max(FEW, FRAME * len(chosen))))]
        kept = [np.setdiff1d(of, frame, assume_unique=True) if len(frame) else of for of in every]
        texts = np.array([text for text, of in enumerate(kept) if len(of)], dtype=np.int64)
        minima = np.array(
            [(kept[text] * TURNS[:, None]).min(axis=1) for text in texts], dtype=np.uint64
        )

        def jaccard(one: int, other: int) -> float:
            shared = len(np.intersect1d(kept[one], kept[other], assume_unique=True))
            return shared / (len(kept[one]) + len(kept[other]) - shared)

        likely = texts[_candidates(minima.reshape(-1, len(TURNS)))]
        pairs = [(a, b) for a, b in likely.tolist() if jaccard(a, b) >= SHARE]
        a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        edges = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(len(every), len(every)))
        return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)


ODD = np.random.default_rng(0).integers(0, 2**63, LENGTH, dtype=np.uint64) * np.uint64(
    2
) + np.uint64(1)
"""Multipliers of the places in a sequence."""
TURNS = np.random.default_rng(1).integers(0, 2**63, BANDS * BAND, dtype=np.uint64) * np.uint64(
    2
) + np.uint64(1)
"""Multipliers that reorder the numbers of sequences (MinHash's hash functions); each order has
its own minimum.
"""


def _mixed(numbers: Words) -> Words:
    """Return numbers hashed to 64 bits by SplitMix64 (Steele, Lea and Flood 2014)."""
    spread = numbers + np.uint64(0x9E3779B97F4A7C15)
    spread = (spread ^ (spread >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    spread = (spread ^ (spread >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return spread ^ (spread >> np.uint64(31))


def _candidates(minima: Words) -> Numbers:
    """Return pairs of texts, [pairs, 2], that agree in a band and in enough minima."""
    keys = (minima.reshape(len(minima), BANDS, BAND) * TURNS[:BAND]).sum(axis=2, dtype=np.uint64)
    codes = [np.zeros(0, dtype=np.int64)]
    for band in range(BANDS):
        key = keys[:, band]
        order = np.lexsort(
            (keys[:, band - 1], key)
        )  # ties in this band are ordered by another band
        for distance in range(1, NEIGHBOURS + 1):
            same = np.flatnonzero(key[order[distance:]] == key[order[:-distance]])
            one, other = order[same], order[same + distance]
            codes.append(np.minimum(one, other) * len(minima) + np.maximum(one, other))
    pairs = np.stack(np.divmod(np.unique(np.concatenate(codes)), len(minima)), axis=1)
    parts = np.array_split(pairs, 1 + len(pairs) // BATCH)  # less memory
    likely = np.concatenate(
        [(minima[part[:, 0]] == minima[part[:, 1]]).mean(axis=1) for part in parts]
    )
    first = np.argsort(-likely, kind="stable")[:MOST_PAIRS]
    return np.asarray(pairs[first][likely[first] >= LIKELY])
