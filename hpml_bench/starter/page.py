"""The suite file: its entries in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.task import Task
from hpml_bench.starter.budget import SEEDS, Budget
from hpml_bench.starter.cost import time_in_words, work_of
from hpml_bench.starter.entries import Entry, Rate, comment, written
from hpml_bench.starter.lengths import Lengths
from hpml_bench.starter.memory import Memory
from hpml_bench.starter.rates import Published
from hpml_bench.starter.view import Kind, View, plain

COPIES = "copies and near-copies"
"""Name of the preparation's note on copies."""


@dataclass(frozen=True)
class Findings:
    """All that was found and chosen."""

    view: View
    kind: Kind
    options: tuple[Entry, ...]
    """The task's options."""
    data_options: tuple[Entry, ...]
    """The data set's options on columns and names."""
    lengths: Lengths
    limit: int
    """`max_length`."""
    most: int
    """Largest one that is chosen."""
    budget: Budget
    prepared: Prepared
    task: Task
    memory: Memory
    file: str
    """Name of the suite file."""

    @property
    def compared(self) -> tuple[Published, ...]:
        """The methods that are compared."""
        return tuple(m for m in self.budget.methods if m.compared and m.name not in self.memory.dropped)


def page(found: Findings) -> str:
    """Return the file's text."""
    parts = [
        _head(found),
        written([Entry("seeds", SEEDS, (
            "runs of each method; three leave most pairs undecided, and hpml-bench plan says how many decide",
        ))]),
        written([Entry("settings", tuple(_settings(found)))]),
        "".join(f"{line}\n" for line in comment(_on_methods(found))),
        written([Entry("methods", tuple(_method(method, found) for method in found.budget.methods))]),
    ]  # fmt: skip
    return "\n".join(parts)


def _head(found: Findings) -> str:
    view, rows = found.view, found.prepared.rows
    part = "" if view.whole else " of the part that was read"
    paragraphs = [
        f"{found.task.title} with {view.model} on {view.data.name}.",
        "Written by hpml-bench init: each value has its reason beside or above it. Change what you know better; "
        "docs/settings.md has all keys.",
        f"  hpml-bench preview {found.file}    shows rows as the model gets them",
        f"  hpml-bench run-all {found.file}    runs the comparison",
        f"Rows{part}: {rows['train']:,} to train on, {rows['validation']:,} for the curves, {rows['test']:,} to test.",
        *_cost(found, rows),
    ]
    return "".join(f"{line}\n" for line in comment(paragraphs))


def _cost(found: Findings, rows: dict[str, int]) -> Iterator[str]:
    budget, view, lengths = found.budget, found.view, found.lengths
    chosen = plain(budget.entries)
    rows = {
        split: chosen[f"{split}_samples"] or int(count / view.data.share_of(split)) for split, count in rows.items()
    }
    mean = float(lengths.tokens.clip(max=found.limit).mean())
    answers = found.task.decoding is not None
    new = plain(found.options).get("max_new_tokens", 0) if answers else 0
    work = work_of(rows, mean, chosen["epochs"], new, rows["test"] + rows["validation"] if answers else 0)
    batch = int(budget.micro_batch * mean)
    yield time_in_words(view.model, found.compared, work, batch, SEEDS)
    yield found.memory.sentence


def _settings(found: Findings) -> Iterator[Entry]:
    view = found.view
    model = view.model
    yield Entry("backbone", model.source, (
        f"{model}, {model.layers} layers of width {model.width}, stored as {', '.join(model.dtypes)}; "
        f"{f'reads at most {model.positions:,}' if model.positions else 'config.json has no limit of'} tokens",
    ))  # fmt: skip
    task = (Entry("name", found.kind.task, (*view.learnt.why, *found.kind.facts(view))),)
    yield Entry("task", (*task, Entry("options", found.options)) if found.options else task)
    files = tuple(Entry(key, value, view.data.why.get(key, ())) for key, value in view.data.options.items())
    yield Entry("dataset", (
        Entry("name", view.data.dataset),
        Entry("options", (*files, *found.data_options, _group())),
    ), tuple(_on_rows(found)))  # fmt: skip
    yield from found.budget.entries
    yield _limit(found)
    yield Entry(
        "micro_batch", "auto", ("on a GPU the largest that fits for all methods; on a CPU a rank's whole share",)
    )
    yield Entry("precision", "auto", ("the faster of bf16 and fp32 where the machine has both",))
    if found.task.model_kind != "language_model":
        yield Entry("head_lr", Rate(1e-3), (
            "Rate of the new output layer, the same for all methods: Adam's default (Kingma and Ba 2015, "
            "arXiv:1412.6980).",
        ))  # fmt: skip


def _on_rows(found: Findings) -> Iterator[str]:
    """Yield what the preparation found about the rows."""
    notes, data = found.prepared.notes, found.view.data
    if "test" not in data.options or data.options["test"] is None:
        yield "No test rows are given: a tenth of the training rows, drawn with data_seed, is split off for the test."
    copies = notes.get(COPIES, "none")
    if copies == "none":
        yield "Copies and near-copies (half of the word sequences in common), within and between splits: none."
    else:
        yield f"Copies and near-copies (half of the word sequences in common): {copies}."
    for warning in found.prepared.warnings:
        if warning.startswith("copies:"):
            yield "They make scores look better or more certain than they are: remove them, or name a column of groups."
        else:
            yield f"Note: {warning}."
    shares = data.shares.get("train", 1.0)
    if shares < 1:
        yield f"The file has some {len(data.train) / shares:,.0f} rows; {len(data.train):,} were read."


def _group() -> Entry:
    why = (
        "Not set: each row stands alone. Rows that belong together (questions on one document) must not be in two "
        "splits: name the column that says so."
    )
    return Entry("group", "COLUMN", (why,), chosen=False)


def _limit(found: Findings) -> Entry:
    lengths, cuts, positions = found.lengths, found.task.cuts_texts, found.view.model.positions
    longer = lengths.longer(found.limit)
    what = "cut at the end" if cuts else "left out"
    if plain(found.options).get("too_long") == "cut_prompt":
        what = "their prompts are cut at the front"
    why = (
        f"{lengths.in_words()}. {longer[:1].upper()}{longer[1:]} longer than {found.limit}"
        f"{f', and {what}' if lengths.tokens.max() > found.limit else ''}.",
        f"{'The 99th percentile, as longer texts are cut' if cuts else 'The maximum, as no answer is cut'}; "
        + (f"the model reads at most {positions:,}, virtual tokens of prompt methods included; " if positions else "")
        + f"more than {found.most:,} are left to you.",
    )
    return Entry("max_length", found.limit, why)


def _on_methods(found: Findings) -> Iterator[str]:
    yield "Each rate is a published one, from which a search can begin; this tries equally many rates for each method:"
    yield f"  hpml-bench tune {found.file}"
    memory = found.memory
    for name in memory.dropped:
        yield (
            f"{name} is left out for lack of memory: {memory.here}. hpml-bench fit {found.file} --methods {name} says "
            "what helps."
        )
    if memory.tight:
        names = ", ".join(memory.tight)
        yield f"Memory is not enough for {names}: {memory.here}. hpml-bench fit {found.file} says what helps."
    yield "Further methods stand as comments: take the # before a name away to compare it too."


def _method(method: Published, found: Findings) -> Entry:
    value: dict[str, Any] = {"method": method.method} if method.method else {}
    value |= {"lr": Rate(method.lr)} if method.lr is not None else {}
    value |= {"options": dict(method.options)} if method.options else {}
    chosen = method in found.compared
    source = f" Rate: {method.source}." if method.source else ""
    return Entry(method.name, value, (f"Trains {method.trains}.{source}",), chosen)
