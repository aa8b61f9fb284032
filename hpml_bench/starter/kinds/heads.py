"""Entries that kinds of work with a head of their own share: what the head reads, and names of labels."""

from __future__ import annotations

from hpml_bench.starter.entries import Entry
from hpml_bench.starter.view import View

MOST_NAMES = 60
"""Most names that are written out."""


def pooling(view: View) -> Entry:
    """Return which hidden state the head reads."""
    model = view.model
    if model.pools_by:
        reason = "how sentence-transformers trained this model (1_Pooling/config.json)"
        return Entry("pooling", model.pools_by, (f"{reason}; others: {_others(model.pools_by)}",))
    if model.reads_both_ways:
        why = (
            "The mean over tokens: without further training it holds more of a text than the first token (Reimers and "
            "Gurevych 2019, arXiv:1908.10084, table 1), which matters to the method head. BERT's paper takes `first`."
        )
        return Entry("pooling", "mean", (why,))
    return Entry("pooling", "last", ("the only token that has read the whole text; others: first, mean",))


def label_names(view: View, counts: str) -> tuple[Entry, ...]:
    """Return the names of classes or tags, where all of them have been seen and the data set has none of its own."""
    names = list(view.loaded.label_names)
    reasons = [f"{len(names)} of them; {counts}."]
    if all(name.removeprefix("-").isdecimal() for name in names):
        reasons.append("The file has numbers alone: write their names here in the same order, for the report.")
    if view.data.dataset == "hub" or len(names) > MOST_NAMES or not view.whole:
        why = "only a part of the file was read, and run-all reads all names" if not view.whole else "the data's own"
        return (Entry("label_names", names[:MOST_NAMES], (*reasons, f"Not set: {why}."), chosen=False),)
    return (Entry("label_names", names, tuple(reasons)),)


def _others(chosen: str) -> str:
    return ", ".join(way for way in ("last", "first", "mean") if way != chosen)
