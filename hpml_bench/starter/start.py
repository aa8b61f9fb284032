"""A commented suite from a model and rows: the steps in their order, and the suite file."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from hpml_bench.data.columns import LABEL_NAMES, NUMBER_NAMES, short, some
from hpml_bench.data.prepare import prepare, silence
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.tables import SPELLINGS, UNREAD_KEYS
from hpml_bench.plugins.dataset import LoadedData, make_loader
from hpml_bench.plugins.task import Task, make_task
from hpml_bench.plugins.tokenizer import Encoder, generation_ends, load_tokenizer
from hpml_bench.starter import estimates, kinds, power
from hpml_bench.starter.entries import Entry, Rate, as_values, comment, overridden, written
from hpml_bench.starter.model import Model, look_at_model
from hpml_bench.starter.rows import (
    Data,
    Learnt,
    find_target,
    look_at_rows,
    other_labels,
    with_notation,
)
from hpml_bench.suite import registry
from hpml_bench.suite.devices import default_ranks
from hpml_bench.suite.registry import validated
from hpml_bench.suite.schedule import total_steps
from hpml_bench.suite.settings import Settings, TaskSpec
from hpml_bench.system.errors import UserError

COPIES = "copies and near-copies"  # name of the preparation's note on copies
GROUP = Entry(
    "group",
    "COLUMN",
    (
        "Not set: each row stands alone. Rows that belong together (questions on one document) "
        "must not be in two splits: name the column that says so.",
    ),
    chosen=False,
)
JOINED = (
    "Labels that differ only in case or white space are taken for one each. To keep them apart, "
    "delete this line and label_names."
)
MOST_OF_TEST = 3  # one row in this many, at most, is advised for the test
LEAST_ROWS = 8  # fewest rows of which some can be trained on, validated and tested


@dataclass(frozen=True)
class SuiteDraft:
    """All that was found and chosen."""

    view: kinds.View
    entries: tuple[Entry, ...]  # the settings, chosen or given, each with its reason
    settings: Settings  # their values
    lengths: kinds.Lengths
    methods: tuple[estimates.Published, ...]  # all that are offered
    prepared: Prepared
    task: Task
    memory: estimates.Memory
    file: str  # name of the suite file

    @cached_property
    def compared(self) -> tuple[estimates.Published, ...]:
        return tuple(m for m in self.methods if m.compared and m.name not in self.memory.dropped)

    @cached_property
    def rows(self) -> str:
        of = self.prepared.rows
        return (
            f"{of['train']:,} to train on, {of['validation']:,} for the curves, {of['test']:,} to "
            f"test"
        )

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """Sentences on the differences that a page finds by so many test rows, and on what finds
        smaller ones; none for scores that aren't shares of right answers.
        """
        if not self.task.binary or self.settings.rank_by is not None:
            return ()
        rows, methods = self.prepared.rows["test"], len(self.compared)
        least = power.least_difference(rows, methods)
        if least is None:
            found = f"{rows:,} test rows are too few to show that two of {methods} methods differ."
        else:
            found = (
                f"A page of {methods} methods and {rows:,} test rows finds a difference of "
                f"{_points(least)} in four cases of five if seeds agree, and smaller ones less "
                f"often; hpml-bench plan says more after a few runs."
            )
        if least is not None and least <= power.LARGE:
            return (found,)
        return found, self._more_power(rows, methods)

    def _more_power(self, rows: int, methods: int) -> str:
        """Return the sentence on what finds smaller differences than so many test rows do."""
        needed = power.rows_needed(power.LARGE, methods)
        helps = [f"more test rows ({needed:,} find {_points(power.LARGE)})"]
        total, options = sum(self.prepared.rows.values()), self.settings.dataset.options
        offered = min(needed, total // MOST_OF_TEST)
        least = power.least_difference(offered, methods)
        split_off = options.get("test") is None and options.get("split") is None
        if split_off and offered > rows and least is not None:
            helps.append(
                f"test_samples: {offered} in {self.file} ({_points(least)}; leaves "
                f"{total - offered:,} rows for the rest)"
            )
        of_two = power.least_difference(rows, 2)
        if methods > 2 and of_two is not None:
            every = power.least_difference(rows, len(self.methods))
            of_all = "" if every is None else f"; all {len(self.methods)}: {_points(every)}"
            helps.append(f"fewer methods, as they share the 5 % (two: {_points(of_two)}{of_all})")
        helps.append(
            f"where seeds don't agree, more of them than {estimates.SEEDS} (hpml-bench run-all "
            f"{self.file} --seeds 5, or --until decided)"
        )
        return f"Methods mostly differ by less. What helps: {'; '.join(helps)}."

    @cached_property
    def cost(self) -> tuple[str, str]:
        """Sentences on time, which is measured, and memory."""
        rows, settings = self.prepared.rows, self.settings
        mean = float(self.lengths.tokens.clip(max=settings.max_length).mean())
        decoding = self.task.decoding
        work = estimates.Work(
            train_tokens=total_steps(settings, rows["train"]) * settings.global_batch * mean,
            eval_tokens=(rows["test"] + estimates.EVALUATIONS * rows["validation"]) * mean,
            new_tokens=(rows["test"] + rows["validation"])
            * (0 if decoding is None else decoding.max_new_tokens),
        )
        batch_tokens = int(max(1, settings.global_batch // default_ranks()) * mean)
        time = estimates.time_in_words(
            self.view.model, self.compared, work, batch_tokens, estimates.SEEDS
        )
        return time, self.memory.sentence


def _points(difference: float) -> str:
    return f"{100 * difference:.2g} points"


def starter_suite(
    model: str,
    data: Sequence[str],
    file: str = "FILE",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, list[str]]:
    """Return a suite that compares methods on this model and these rows, and what its reader should
    know first.

    `model`: a source as suites write it, a folder, a .gguf file, or OWNER/NAME of the hub; `data`:
    files, or one repository of a data set; `file`: name of the suite file in the commands that its
    comments give; `given`: settings that are not chosen here, nested. Model and rows are prepared
    as `run-all` prepares them.
    """
    silence()
    looked_model = look_at_model(model)
    if isinstance(given.get("task"), str):
        given = {**given, "task": {"name": given["task"]}}
    name = given.get("task", {}).get("name")
    target = registry.plugin("tasks", name).target if name else None
    rows = look_at_rows(data, given.get("dataset", {}).get("options", {}), target)
    learnt = find_target(rows, looked_model)
    try:
        return _drafted(looked_model, rows, learnt, file, given)
    except UserError as error:
        raise UserError(
            str(error).replace(f"data set {rows.dataset}: ", f"{rows.name}: ", 1)
        ) from None


def _drafted(
    model: Model, data: Data, learnt: Learnt, file: str, given: Mapping[str, Any]
) -> tuple[str, list[str]]:
    if (count := len(data.train)) < LEAST_ROWS:
        raise UserError(
            f"{data.where}: has {count} row{'s' * (count != 1)}, of which some have to be trained "
            f"on, validated and tested; give at least {LEAST_ROWS}, better some hundred"
        )
    kind, columns = kinds.KINDS[learnt.target], _columns(learnt, data)
    task_options = given.get("task", {}).get("options", {})
    files = tuple(Entry(key, value, data.why.get(key, ())) for key, value in data.options.items())

    def drafted(
        task: tuple[Entry, ...], rows: tuple[Entry, ...], more: Iterable[Entry]
    ) -> tuple[tuple[Entry, ...], Settings]:
        """Return the settings, as they are given or else chosen, and their values."""
        of_data = Entry(
            "dataset",
            (Entry("name", data.dataset), Entry("options", (*files, *columns, *rows, GROUP))),
        )
        entries = overridden((_backbone(model), Entry("task", task), of_data, *more), given)
        return entries, validated(Settings, as_values(entries), "--set")

    if "decimal_mark" not in task_options:
        learnt = with_notation(data, learnt)
    mark = kinds.decimal_mark(learnt)
    budget = {"global_batch": 1, "max_length": kinds.UNLIMITED} | (
        {} if "steps" in given else {"epochs": 1}
    )
    of_reading = (Entry("name", kind.task), *([Entry("options", mark)] if mark else []))

    def loaded_with(rows: tuple[Entry, ...]) -> LoadedData:
        entries = (Entry(key, value) for key, value in budget.items())
        _, draft = drafted(of_reading, rows, entries)
        return make_loader(draft).load(draft, learnt.target)

    loaded, joined = loaded_with(()), tuple[Entry, ...]()
    if kinds.spells_labels_apart(loaded, data):
        joined = (Entry("normalize_labels", True, (JOINED,)),)
        loaded = loaded_with(joined)
    tokenizer = load_tokenizer(model.folder)
    ends = generation_ends(model.folder, tokenizer)
    encoder = Encoder(tokenizer, kinds.UNLIMITED, model.vocabulary or None, model.source, ends=ends)
    view = kinds.View(model, data, learnt, loaded, encoder, task_options)
    options, names = overridden(kind.options(view), task_options), kind.names(view)
    task = make_task(TaskSpec(name=kind.task, options=as_values(options)), loaded.label_names)
    lengths = kinds.measure(loaded.train, task, encoder)
    defaults = (
        estimates.language_recipe
        if task.model_kind == "language_model"
        else estimates.encoder_recipe
    )
    recipe = defaults(model.parameters)
    of_task = (
        Entry("name", kind.task, (*learnt.why, *kind.facts(view))),
        *([Entry("options", options)] * bool(options)),
    )
    more = (
        *estimates.choose_budget(view, task, recipe, given),
        _limit(lengths, model, task, options),
        *_usual(task),
    )
    entries, settings = drafted(of_task, (*joined, *names), more)
    prepared = prepare(settings)
    memory = estimates.predict_memory(settings, recipe.methods, file)
    found = SuiteDraft(
        view, entries, settings, lengths, recipe.methods, prepared, task, memory, file
    )
    return _page(found), [*_facts(found), *kind.cautions(view, prepared), *prepared.warnings]


def _columns(learnt: Learnt, data: Data) -> tuple[Entry, ...]:
    """Return the columns, as a suite names them: by position where the file has no names."""
    names, columns = list(data.train.column_names), learnt.columns

    def as_given(name: str) -> str | int:
        return name if data.named else names.index(name) + 1

    left = (
        f"not read: {', '.join(columns.unread[:20])}"
        if columns.unread
        else "no other column is left"
    )
    text = [as_given(name) for name in columns.text]
    given, joined = (text, f", joined by {data.read.separator!r}") if text[1:] else (text[0], "")
    entries = [Entry("text", given, (f"found by name or content{joined}; {left}",))]
    if columns.pair is not None:
        entries.append(
            Entry("text_pair", as_given(columns.pair), ("the second text of each pair",))
        )
    if columns.label is not None:
        others = [str(as_given(name)) for name in other_labels(data, learnt)]
        how = "found by name or content"
        if others:
            how = f"guessed; also possible: {some(others, 12)}"
        entries.append(Entry("label", as_given(columns.label), (how,)))
    if not data.named:
        why = "the first row is data: a cell of it is a number, or occurs again below"
        entries.insert(0, Entry("header", False, (why,)))
    return tuple(entries)


def _facts(found: SuiteDraft) -> Iterator[str]:
    """Yield what a reader should know before the runs, in sentences for the terminal."""
    columns = [
        f"{name}: {value}"
        for name, value in found.prepared.notes.items()
        if name.startswith("columns") or name == UNREAD_KEYS
    ]
    yield f"{found.task.title} with {found.view.model}; {'; '.join(columns)}"
    yield from _guessed_label(found.view)
    joined = found.view.loaded.notes.get(SPELLINGS)
    if joined:
        yield (
            f"Labels that differ only in case or white space are {joined}. To keep them apart, "
            f"delete normalize_labels and label_names in {found.file}."
        )
    yield f"rows: {found.rows}."
    yield from found.shown
    yield from found.cost


def _guessed_label(view: kinds.View) -> Iterator[str]:
    """Yield the sentence on a label column that was guessed while others are possible."""
    data, label = view.data, view.learnt.columns.label
    others = other_labels(data, view.learnt)
    if label is None or not others:
        return
    known = others[0].strip().lower() in {*LABEL_NAMES, *NUMBER_NAMES}
    why = "its name" if known else "having the fewest different values"
    first = others[0] if data.named else str(data.train.column_names.index(others[0]) + 1)
    listing = some([f"'{short(name)}'" for name in others], 12)
    yield (
        f"The label column '{short(label)}' is guessed, by {why}; also possible: {listing}; use "
        f"--label {shlex.quote(first)}."
    )


def _page(found: SuiteDraft) -> str:
    """Return the file's text."""
    about = [
        f"{found.task.title} with {found.view.model} on {found.view.data.name}.",
        "Written by hpml-bench init: each value has its reason beside or above it. Change what you "
        "know better; docs/settings.md has all keys.",
        f"  hpml-bench preview {found.file}    shows rows as the model gets them",
        f"  hpml-bench run-all {found.file}    runs the comparison",
        f"Rows: {found.rows}.",
        *found.shown,
        *found.cost,
    ]
    methods = []
    for method in found.methods:
        value = {key: Rate(of) if key == "lr" else of for key, of in method.settings.items()}
        why = f"Trains {method.trains}.{f' Rate: {method.source}.' if method.source else ''}"
        methods.append(Entry(method.name, value, (why,), method in found.compared))
    seeds = Entry(
        "seeds",
        estimates.SEEDS,
        (
            "runs of each method; three leave most pairs undecided, and hpml-bench plan says how "
            "many decide; run-all --until decided adds seeds in rounds until the best is known",
        ),
    )
    entries = (
        replace(one, why=tuple(_on_rows(found))) if one.key == "dataset" else one
        for one in found.entries
    )
    settings = Entry("settings", tuple(entries))
    lines = (
        *comment(about),
        "",
        *written([seeds]),
        "",
        *written([settings]),
        "",
        *comment(_on_methods(found)),
        "",
    )
    return "".join(f"{line}\n" for line in (*lines, *written([Entry("methods", tuple(methods))])))


def _backbone(model: Model) -> Entry:
    return Entry(
        "backbone",
        model.source,
        (
            f"{model}, {model.layers} layers of width {model.width}, stored as "
            f"{', '.join(model.dtypes)}; "
            + (
                f"reads at most {model.positions:,} tokens"
                if model.positions
                else "config.json has no limit of tokens"
            ),
        ),
    )


def _usual(task: Task) -> Iterator[Entry]:
    why = "on a GPU the largest that fits for all methods; on a CPU a rank's whole share"
    yield Entry("micro_batch", "auto", (why,))
    yield Entry("precision", "auto", ("the faster of bf16 and fp32 where the machine has both",))
    if task.model_kind != "language_model":
        why = (
            "Rate of the new output layer, the same for all methods: Adam's default (Kingma and Ba "
            "2015, arXiv:1412.6980)."
        )
        yield Entry("head_lr", Rate(1e-3), (why,))


def _on_rows(found: SuiteDraft) -> Iterator[str]:
    """Yield what the preparation found about the rows."""
    notes, data = found.prepared.notes, found.view.data
    if "test" not in data.options or data.options["test"] is None:
        yield (
            "No test rows are given: a tenth of the training rows, drawn with data_seed, is split "
            "off for the test."
        )
    where = ", within and between splits" if notes[COPIES] == "none" else ""
    yield f"Copies and near-copies (half of the word sequences in common){where}: {notes[COPIES]}."
    for warning in found.prepared.warnings:
        if warning.startswith("copies:"):
            yield (
                "They make scores look better or more certain than they are: remove them, or name "
                "a column of groups."
            )
        else:
            yield f"Note: {warning}."


def _limit(lengths: kinds.Lengths, model: Model, task: Task, options: tuple[Entry, ...]) -> Entry:
    limit, cuts, positions = (
        kinds.choose_limit(lengths, model.positions, task),
        task.cuts_texts,
        model.positions,
    )
    median, high = np.percentile(lengths.tokens, [50, 99])
    count = int((lengths.tokens > limit).sum())
    longer = (
        f"{count:,} ({kinds.percent(count / len(lengths.tokens))} %) "
        f"{'is' if count == 1 else 'are'}"
    )
    what = "cut at the end" if cuts else "left out"
    if as_values(options).get("too_long") == "cut_prompt":
        what = "their prompts are cut at the front"
    why = (
        f"By the model's own tokenizer {len(lengths.tokens):,} training rows have {median:.0f} "
        f"tokens in the median, {high:.0f} at the 99th percentile and {lengths.tokens.max():,} at "
        f"most. {longer if count else 'None is'} longer than "
        f"{limit}{f', and {what}' if count else ''}.",
        (
            "The 99th percentile, as longer texts are cut; "
            if cuts
            else "The maximum, as no answer is cut; "
        )
        + (
            f"the model reads at most {positions:,}, virtual tokens of prompt methods included; "
            if positions
            else ""
        )
        + f"more than {kinds.MOST_TOKENS[task.model_kind]:,} are left to you.",
    )
    return Entry("max_length", limit, why)


def _on_methods(found: SuiteDraft) -> Iterator[str]:
    yield (
        "Each rate is a published one, from which a search can begin; this tries equally many "
        "rates for each method:"
    )
    yield f"  hpml-bench tune {found.file}"
    memory, fit = found.memory, f"hpml-bench fit {found.file}"
    for name in memory.dropped:
        yield (
            f"{name} is left out for lack of memory: {memory.here}. {fit} --methods {name} says "
            f"what helps."
        )
    if memory.tight:
        yield (
            f"Memory is not enough for {', '.join(memory.tight)}: {memory.here}. {fit} says what "
            f"helps."
        )
    yield "Further methods stand as comments: take the # before a name away to compare it too."
