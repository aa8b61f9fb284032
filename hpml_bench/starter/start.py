"""A commented suite from a model and rows: the steps in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpml_bench.data.conversations import Shape
from hpml_bench.data.prepare import prepare, silence
from hpml_bench.plugins.dataset import make_loader
from hpml_bench.plugins.task import Task, make_task
from hpml_bench.plugins.tokenizer import Encoder, generation_ends, load_tokenizer
from hpml_bench.starter.budget import choose_budget
from hpml_bench.starter.entries import Entry
from hpml_bench.starter.kinds import KINDS
from hpml_bench.starter.lengths import MOST_TOKENS, UNLIMITED, choose_limit, measure
from hpml_bench.starter.memory import predict_memory
from hpml_bench.starter.model import Model, look_at_model
from hpml_bench.starter.page import Findings, page
from hpml_bench.starter.rates import encoder_recipe, language_recipe
from hpml_bench.starter.rows import Data, look_at_rows
from hpml_bench.starter.target import Learnt, find_target
from hpml_bench.starter.view import View, plain
from hpml_bench.suite.settings import Settings, TaskSpec
from hpml_bench.system.errors import UserError

LEAST_ROWS = 8
"""Fewest rows of which some can be trained on, validated and tested."""


@dataclass(frozen=True)
class Starter:
    """A suite file, and what its reader should know first."""

    text: str
    warnings: tuple[str, ...]


def starter_suite(model: str, data: Sequence[str], file: str = "FILE") -> Starter:
    """Return a suite that compares methods on this model and these rows, with the reason for each choice.

    Model and rows are prepared as `run-all` prepares them, of a large file the first rows.

    Args:
        model: a source as suites write it, a folder, a .gguf file, or OWNER/NAME of the hub.
        data: files, or one repository of a data set.
        file: name of the suite file in the commands that its comments give.

    Raises:
        UserError: either can't be read, or nothing can be learnt from the rows by this model.

    """
    silence()
    looked_model = look_at_model(model)
    rows = look_at_rows(data)
    learnt = find_target(rows, looked_model)
    with rows.named_in_errors():
        return _written(looked_model, rows, learnt, file)


def _written(model: Model, data: Data, learnt: Learnt, file: str) -> Starter:
    if (count := len(data.train)) < LEAST_ROWS:
        raise UserError(
            f"{data.where}: has {count} row{'s' * (count != 1)}, of which some have to be trained on, validated and "
            f"tested; give at least {LEAST_ROWS}, better some hundred"
        )
    kind = KINDS[learnt.target]
    columns = _columns(learnt, data)
    heads = {**data.heads, **plain(columns)}
    draft = _settings(model, kind.task, {}, data, heads, epochs=1, global_batch=1, max_length=UNLIMITED)
    loaded = make_loader(draft).load(draft, learnt.target)
    tokenizer = load_tokenizer(model.folder)
    ends = generation_ends(model.folder, tokenizer)
    encoder = Encoder(tokenizer, UNLIMITED, model.vocabulary or None, model.source, ends=ends)
    view = View(model, data, learnt, loaded, encoder)
    options = kind.options(view)
    names = kind.names(view)
    task = make_task(TaskSpec(name=kind.task, options=plain(options)), loaded.label_names)
    lengths = measure(loaded.train, task, encoder)
    most = MOST_TOKENS[task.model_kind]
    limit = choose_limit(lengths, model.positions, most, cuts=task.cuts_texts)
    budget = choose_budget(view, task, _recipe(model, task))
    chosen = {**plain(budget.entries), "max_length": limit}
    batch = chosen["global_batch"]
    if not data.whole:  # a head may have fewer rows than the suite takes of the whole
        chosen |= {"train_samples": None, "test_samples": None, "global_batch": 1}
    looked = {**data.heads, **plain(columns), **plain(names)}
    prepared = prepare(_settings(model, kind.task, plain(options), data, looked, **chosen))
    fitted = _settings(model, kind.task, plain(options), data, looked, **chosen | {"global_batch": batch})
    memory = predict_memory(fitted, budget.methods, file)
    found = Findings(
        view, kind, options, (*columns, *names), lengths, limit, most, budget, prepared, task, memory, file
    )
    return Starter(page(found), tuple(prepared.warnings))


def _settings(
    model: Model, task: str, task_options: dict[str, Any], data: Data, options: dict[str, Any], **more: Any
) -> Settings:
    content = {
        "backbone": model.source,
        "task": {"name": task, "options": task_options},
        "dataset": {"name": data.dataset, "options": options},
    }
    return Settings.model_validate(content | more)


def _recipe(model: Model, task: Task) -> Any:
    recipe = language_recipe if task.model_kind == "language_model" else encoder_recipe
    return recipe(model.parameters)


def _columns(learnt: Learnt, data: Data) -> tuple[Entry, ...]:
    """Return the columns, as a suite names them: by position where the file has no names."""
    names = list(data.train.column_names)
    columns = learnt.columns
    if isinstance(columns, Shape):
        text = (columns.turns,) if columns.turns else columns.prompt or columns.text
        label, read = columns.completion, columns.columns
    else:
        text, label, read = columns.text, columns.label, (*columns.text, columns.label)

    def as_given(name: str) -> str | int:
        return name if data.named else names.index(name) + 1

    rest = [name for name in names if name not in read]
    left = f"not read: {', '.join(rest[:20])}" if rest else "no other column is left"
    given = as_given(text[0]) if len(text) == 1 else [as_given(name) for name in text]
    entries = [Entry("text", given, (f"{learnt.text}; {left}",))]
    if label is not None:
        entries.append(Entry("label", as_given(label), (learnt.how,)))
    if not data.named:
        why = "the first row is data: a cell of it is a number, or occurs again below"
        entries.insert(0, Entry("header", False, (why,)))
    return tuple(entries)
