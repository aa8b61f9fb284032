"""Reference pages written from the code: two schemas, docs/settings.md, metrics.md, files.md and
commands.md.

python benchmarks/generate_docs.py
"""

import inspect
import json
import re
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import opened
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hpml_bench.cli import main as main_command
from hpml_bench.judge.summary import PageSummary
from hpml_bench.records.run import Metric, RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.settings import (
    DatasetSpec,
    OptimizerSpec,
    QuantizationSpec,
    Settings,
    TaskSpec,
)
from hpml_bench.suite.suite import Margin, MethodEntry, Suite
from hpml_bench.system.text import summary_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
POINTS = {
    "train_loss": "loss of one global batch, mean over its samples",
    "grad_norm": "L2 norm of the gradient in one step, before clipping",
    "learning_rate": "learning rate of the method's parameters in one step",
    "step_seconds": (
        "seconds of one step: from the moment all ranks had ended the one before until all had "
        "ended it; beside it `ranks`, each rank's own seconds, and `tokens` and `real_tokens`, the "
        "step's tokens over all ranks with and without padding"
    ),
    "validation_loss": "mean loss over the validation rows",
    "validation_<headline>": (
        "the task's headline metric of the validation rows, such as `validation_accuracy`"
    ),
}
"""The series of points.jsonl."""
NAMES = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    types.NoneType: "empty",
    Any: "anything",
}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "of a length ≥"}
SETTINGS: dict[str, type[BaseModel]] = {
    "A suite file": Suite,
    "`settings`: identical for every method\n\nOn the command line: `--set KEY=VALUE`, as in "
    "`--set train_samples=512`.": Settings,
    "`settings.task`: a name, or": TaskSpec,
    "`settings.dataset`: a name, or": DatasetSpec,
    "`settings.optimizer` and `methods.NAME.optimizer`: a name, or": OptimizerSpec,
    "`settings.quantization`: a name, or": QuantizationSpec,
    "`margin`: differences that are too small to matter": Margin,
    (
        "`methods.NAME`: what differs between methods\n\nOn the command line: `--set "
        "methods.NAME.lr=1e-3`."
    ): MethodEntry,
}
"""Title of each table of everything that a suite file can say -> its model."""
OPTIONS: dict[registry.Kind, str] = {
    "tasks": "settings.task.options",
    "datasets": "settings.dataset.options",
    "methods": "methods.NAME.options",
    "optimizers": "optimizer.options",
}
"""Kind of plug-in -> where a suite file has its options."""


def documents() -> dict[str, str]:
    """Return the text of each page by its file name in docs/."""
    found = {
        "settings.md": settings_page(),
        "metrics.md": metrics_page(),
        "files.md": files_page(),
        "commands.md": commands_page(),
    }
    models: dict[str, type[BaseModel]] = {"record": RunRecord, "report": PageSummary}
    for name, model in models.items():
        found[f"{name}.schema.json"] = (
            json.dumps(model.model_json_schema(), indent=1, ensure_ascii=False) + "\n"
        )
    return found


def built_in(kind: registry.Kind) -> list[str]:
    """Return the names of a kind's plug-ins that ship with the package, whatever is installed."""
    return [name for name in registry.names(kind) if registry.is_built_in(kind, name)]


def settings_page() -> str:
    """Return the page of everything a suite file can say."""
    parts = [
        "# Settings\n",
        "Made by `python benchmarks/generate_docs.py` from the code. *required* marks what has no "
        "default; *empty* is `null` in YAML.\n",
    ]
    for title, model in SETTINGS.items():
        parts += [f"## {title}\n", fields_table(model)]
    for kind, path in OPTIONS.items():
        for name in built_in(kind):
            options = registry.plugin(kind, name).Options
            if options.model_fields:
                parts += [f"## `{path}` of {registry.ONE[kind]} `{name}`\n", fields_table(options)]
    return "\n".join(parts)


def files_page() -> str:
    """Return the page of every kind of file that commands open."""
    head = (
        "file",
        "holds",
        "may be written by",
        "read at most",
        "checked by",
        "where it can't be used",
    )
    parts = [
        "# Files that commands open\n",
        "Made by `python benchmarks/generate_docs.py` from `benchmarks/opened.py`; what it is for: "
        "[security](security.md). `verify` names whatever in a results folder is no regular file; "
        "a command that isn't named in the last column does as if the file were missing.\n",
    ]
    titles = {
        "## In a results folder: no link is followed\n": opened.RESULTS,
        "## Files that a user names: links are followed\n": opened.GIVEN,
        "## In the cache\n": opened.CACHE,
    }
    for title, rows in titles.items():
        cells = [
            (
                f"`{row.pattern}`",
                row.holds,
                row.written_by,
                row.most,
                row.check,
                where_unusable(row),
            )
            for row in rows
        ]
        parts += [title, table(head, cells)]
    return "\n".join(parts)


def where_unusable(row: opened.Opened) -> str:
    """Return what commands do where a file can't be used."""
    commands = ", ".join(f"`{command}`" for command in row.named_by)
    told = f"named by {commands}" if commands else ""
    return "; ".join(part for part in (told, row.ignored) if part)


def metrics_page() -> str:
    """Return the page of every metric of every probe and task, and of the series of points."""
    head = ("name", "title", "unit", "better", "over ranks", "over steps", "phase", "definition")
    parts = [
        "# Metrics\n",
        "Made by `python benchmarks/generate_docs.py` from the definitions of probes and tasks, "
        "which also stand in records and in the report's glossary. *Over ranks* says how the "
        "ranks' values become one (`same`: they are equal on all), *over steps* how the steps' do. "
        "A metric that can't be measured on a machine is left out of its records.\n",
    ]
    kinds: tuple[registry.Kind, ...] = ("probes", "tasks")
    for kind, name in [(of, name) for of in kinds for name in built_in(of)]:
        if metrics := registry.plugin(kind, name).metrics:
            parts += [f"## {registry.ONE[kind]} {name}\n", table(head, map(metric_row, metrics))]
    # what a language model has beside its losses where a scorer is set: of answers, and of choices
    task = registry.plugin("tasks", "causal_lm")
    found = {
        m.name: m
        for scorer in ("exact", "choice")
        for m in task(task.Options(scorer=scorer)).metrics
    }
    said = {
        "title": "the scorer's",
        "definition": "Mean over the test rows of the scorer's score of a row.",
    }
    scored = [found.pop("test_score").model_copy(update=said)]
    scored += [m for name, m in found.items() if name not in {plain.name for plain in task.metrics}]
    scorers = {name: registry.plugin("scorers", name) for name in built_in("scorers")}
    compared = [
        (
            f"`{name}`",
            one.title,
            f"generated {one.of}" if one.of == "answers" else one.of,
            one.definition,
        )
        for name, one in scorers.items()
    ]
    ranking = [registry.plugin("metrics", name) for name in built_in("metrics")]
    return "\n".join(
        [
            *parts,
            "## task causal_lm with a scorer\n",
            table(head, map(metric_row, scored)),
            "## Scorers: what `test_score` is\n",
            "`settings.task.options.scorer`; the score is the mean over test rows.\n",
            table(("scorer", "title", "compares", "definition"), compared),
            "## Metrics to rank by\n",
            "`settings.rank_by`, in place of a task's score.\n",
            table(("learnt", *head), [(one.target, *metric_row(one.metric)) for one in ranking]),
            "## Series of `points.jsonl`\n",
            "Each point is a metric, a step (from 1) and a value.\n",
            table(
                ("metric", "value"), [(f"`{name}`", meaning) for name, meaning in POINTS.items()]
            ),
        ]
    )


def commands_page() -> str:
    """Return the page of every command with its options."""
    parts = [
        "# Commands\n",
        "Made by `python benchmarks/generate_docs.py` from the commands themselves; "
        "`hpml-bench COMMAND --help` prints the same.\n",
        "The exit status is 0 if all went well, 1 if a run failed (the report says which), 2 for a "
        "mistake in the command or the suite, and 130 after an interruption, unless the command "
        "says otherwise below.\n",
    ]
    context = click.Context(main_command, info_name="hpml-bench")
    commands = {
        name: main_command.get_command(context, name)
        for name in main_command.list_commands(context)
    }
    ours = {
        name: command
        for name, command in commands.items()
        if command is not None and command.callback.__module__.startswith("hpml_bench.")
    }
    rows = [
        (f"[`{name}`](#hpml-bench-{name})", summary_of(command.callback))
        for name, command in ours.items()
    ]
    parts.append(table(("command", "what it does"), rows))
    for name, command in ours.items():
        parts += command_parts(command, click.Context(command, context, info_name=name))
    return "\n".join(parts)


def command_parts(command: click.Command, context: click.Context) -> list[str]:
    """Return the parts of the page on a command, and on those of a group after it."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    help_text = inspect.cleandoc(command.help or "")
    parts = [f"## `{context.command_path}`\n", f"{help_text}\n", f"    {usage}\n"]
    # `--help` is of every command
    options = [one for one in command.params if isinstance(one, click.Option)]
    if options:
        rows = [option_row(option, context) for option in options]
        parts.append(table(("option", "meaning", "default and limits"), rows))
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            parts += command_parts(inner, click.Context(inner, context, info_name=name))
    return parts


def option_row(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    shown = option.get_help_record(context)
    if shown is None:
        return "", "", ""
    names, meaning = shown
    more = ""
    if found := re.search(r"  \[([^][]*)\]$", f"  {meaning}"):
        more = found[1]
        meaning = f"  {meaning}"[: found.start()].strip()
    return f"`{names}`", meaning, more


def metric_row(m: Metric) -> tuple[str, ...]:
    return (
        f"`{m.name}`",
        m.title,
        m.unit,
        m.better,
        m.over_ranks,
        m.over_steps,
        m.phase,
        m.definition,
    )


def fields_table(model: type[BaseModel]) -> str:
    """Return a table of a model's fields: key, type, default, meaning."""
    rows = [
        (
            f"`{name}`",
            type_name(field.annotation) + limits(field.metadata),
            default(field),
            field.description or "",
        )
        for name, field in model.model_fields.items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def type_name(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limited = limits(
            [part for field in inner[1:] for part in getattr(field, "metadata", [field])]
        )
        return type_name(inner[0]) + (f" ({limited.removeprefix(', ')})" if limited else "")
    if origin in {Union, types.UnionType}:
        return " or ".join(dict.fromkeys(type_name(kind) for kind in inner))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in {tuple, list}:
        several = origin is list or inner[-1] is Ellipsis
        return (
            f"list of {type_name(inner[0])}"
            if several
            else f"[{', '.join(type_name(kind) for kind in inner)}]"
        )
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    return NAMES.get(annotation) or str(annotation)


def limits(metadata: list[Any]) -> str:
    """Return the limits of a number or a text, as in `, ≥ 1`."""
    found = ((sign, getattr(part, key, None)) for key, sign in BOUNDS.items() for part in metadata)
    return "".join(f", {sign} {value}" for sign, value in found if value is not None)


def default(field: FieldInfo) -> str:
    """Return a field's default as YAML would have it."""
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return "*empty*" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def main() -> None:
    for name, text in documents().items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
