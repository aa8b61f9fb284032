"""Suites: YAML files, validated, and the list of their runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen, Growing
from hpml_bench.suite.prior import Prior
from hpml_bench.suite.registry import did_you_mean, validate_options, validated
from hpml_bench.suite.settings import MethodSpec, OptimizerSpec, RunSpec, Settings
from hpml_bench.suite.yaml import MAX_DEPTH, parse, read_mapping
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import real_path

MAX_METHODS = 200
NAMED = (
    "task",
    "dataset",
    "optimizer",
    "quantization",
)  # keys whose value is a name, or a name and options
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"  # pattern of a suite's name, which is also its folder's


class MethodEntry(Frozen):
    """A method as a suite file writes it; missing keys come from the method's own file."""

    method: str | None = None
    """The method's file (`hpml-bench list methods`); empty where the entry's own name is one."""
    lr: float | None = None
    """Learning rate of the method's parameters; empty for the method's default."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The method's own options; those left out keep the method's defaults."""
    optimizer: OptimizerSpec | None = None
    """The method's own optimizer; empty for the suite's."""


class Margin(Frozen):
    """Largest difference that counts as none: two methods within it are called equivalent."""

    quality: float | None = Field(default=None, gt=0)
    """Margin of a score, in its unit: 0.01 is one point of accuracy, or an RMSE of 0.01. Empty
    for 0.01 of the score's range, or where it has none, as RMSE, of the score of guessing.
    """
    cost: float = Field(default=0.05, gt=0, lt=1)
    """Margin of a cost, as a share of it: 0.05 is 5 %."""
    largest_difference: float | None = Field(default=None, gt=0)
    """No margin, but declared with them: the largest plausible difference of one test row's
    score between two methods, in its unit. Tests allow for rare rows that differ by it, not by
    the score's range, so that fewer rows decide. Only for scores that are means of real numbers,
    as ROUGE-L; empty for the range.
    """


class Until(Frozen):
    """Question at whose answer a sweep ends, and the numbers of seeds at which it is looked at."""

    question: Literal["decided", "costs"] = "decided"
    """`decided`: which method scores best; `costs`: how those that may be best differ in time
    and memory as well.
    """
    rounds: tuple[int, ...] = (3, 4, 5, 7, 10, 14, 20)
    """Seeds of each method that is still in the race at each look, rising from 3 or more."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"question": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _rising(self) -> Until:
        if not self.rounds or self.rounds[0] < 3 or any(b <= a for a, b in pairwise(self.rounds)):
            raise ValueError("rounds rise from 3 or more seeds, as in [3, 5, 10]")
        return self

    def within(self, most: int) -> Until:
        """Return the same with at most so many seeds; a UserError under three."""
        if most < 3:
            raise UserError(f"--max-seeds {most}: verdicts take 3 seeds or more")
        return self.model_copy(update={"rounds": (*(n for n in self.rounds if n < most), most)})


class Suite(Growing):
    """A comparison: one set of settings, several methods, several seeds."""

    later: ClassVar[tuple[str, ...]] = ("looks", "prior", "requested")

    name: str = Field(pattern=NAME)
    """Results go to a folder of this name; the file's own name where it is left out."""
    description: str = ""
    """A sentence at the head of the report."""
    seeds: int = Field(default=5, ge=1, le=1000)
    """Runs of each method: seeds 0, 1, ... decide initialisation, order and dropout."""
    settings: Settings
    """All that is identical for every method."""
    margin: Margin = Margin()
    """Differences that are too small to matter: methods within them are called equivalent. Set
    them beforehand.
    """
    until: Until | None = None
    """Seeds are added until a question is answered, and methods that are shown to be behind
    leave; empty: all methods have `seeds`.
    """
    looks: int | None = Field(default=None, ge=1, le=100)
    """Number of looks at growing numbers of seeds, declared before the first run: each may use
    the same share of the 5 %. Empty: the first look has two thirds of them, each later one two
    thirds of what is left.
    """
    prior: Prior | None = None
    """Variance over seeds that earlier suites lend, as `run-all --prior DIR` writes it to
    suite.json; no setting.
    """
    requested: tuple[str, ...] | None = None
    """Methods that the last `run-all` chose by --methods, which writes them to suite.json for
    `status`; no setting.
    """
    methods: dict[str, MethodEntry] = Field(max_length=MAX_METHODS)
    """The methods to compare, each under the name the report shows."""

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        if self.looks is not None and self.until is not None:
            raise ValueError("looks go without until, whose rounds are declared looks already")
        task = self.settings.task.name
        known = task in registry.names("tasks")
        if (
            self.margin.largest_difference is not None
            and known
            and registry.plugin("tasks", task).binary
        ):
            raise ValueError(
                f"margin.largest_difference is for real scores, and rows of {task} are right or "
                f"wrong"
            )
        if known and (by := self.settings.rank_by) is not None:
            target, names = registry.plugin("tasks", task).target, registry.names("metrics")
            fitting = [name for name in names if registry.plugin("metrics", name).target == target]
            if by not in fitting:
                allowed = ", ".join(fitting) or "nothing but the task's score: leave it out"
                raise ValueError(f"settings.rank_by is {by!r}; {task} can be ranked by {allowed}")
        return self

    def asked(
        self, question: str | None, most: int | None, seeds: int | None, looks: int | None = None
    ) -> Suite:
        """Return the suite with a call's question, most seeds, seeds and looks; a UserError
        where they don't fit.
        """
        until = self.until
        if looks is not None and (question is not None or (until is not None and seeds is None)):
            raise UserError(
                "--looks goes without --until, whose rounds are declared looks already; leave one "
                "out"
            )
        if question is not None:
            until = Until.model_validate({**(until or Until()).model_dump(), "question": question})
        if (most is not None and (until is None or seeds is not None)) or (
            seeds is not None and question is not None
        ):
            raise UserError("--max-seeds goes with --until, and --seeds without it")
        until = until.within(most) if until is not None and most is not None else until
        until = until if seeds is None else None
        # the rounds of a race are declared looks
        changes = {
            "until": until,
            "looks": None if until else self.looks if looks is None else looks,
        }
        return self.model_copy(update=changes)

    def runs(
        self, methods: Iterable[str] | None = None, seeds: Iterable[int] | None = None
    ) -> tuple[RunSpec, ...]:
        """Return the runs seed by seed, of all or the given; a method that answers alike with
        all seeds has one.
        """
        specs = [
            self.method(name)
            for name in dict.fromkeys(self.methods if methods is None else methods)
        ]
        chosen = tuple(range(self.seeds) if seeds is None else seeds)
        pairs = (
            (s, spec)
            for s in chosen
            for spec in specs
            if s == chosen[0] or not alike(self.settings, spec)
        )
        return tuple(
            RunSpec(suite=self.name, settings=self.settings, method=spec, seed=seed)
            for seed, spec in pairs
        )

    def method(self, name: str) -> MethodSpec:
        """Return the complete specification of one method: of this suite, any registered one, or
        `peft:TYPE`.
        """
        registered = registry.names("methods")
        entry = self.methods.get(name, MethodEntry() if name in registered else None)
        if entry is None and name.startswith("peft:"):
            entry = MethodEntry(method="peft", options={"type": name.removeprefix("peft:")})
        if entry is None:
            known = ", ".join(dict.fromkeys([*self.methods, *registered, "peft:TYPE"]))
            raise UserError(f"suite {self.name} has no method '{name}'; choose from {known}")
        where, kind = f"suite {self.name}: methods.{name}", entry.method or name
        if kind not in registered:
            raise UserError(
                f"{where}: there is no method '{kind}'; choose from {', '.join(registered)}"
            )
        options = validate_options("methods", kind, entry.options, f"{where}.options")
        if (optimizer := entry.optimizer) is not None:
            own = validate_options(
                "optimizers", optimizer.name, optimizer.options, f"{where}.optimizer.options"
            )
            optimizer = OptimizerSpec(name=optimizer.name, options=own.model_dump(mode="json"))
        lr = registry.plugin("methods", kind).lr if entry.lr is None else entry.lr
        chosen = {
            "name": name,
            "method": kind,
            "options": options.model_dump(mode="json"),
            "lr": lr,
        }
        return validated(MethodSpec, chosen | {"optimizer": optimizer}, f"{where}:")


def alike(settings: Settings, method: MethodSpec) -> bool:
    """Return whether a method answers alike with every seed: nothing is trained, drawn, put on
    as a head or sampled.
    """
    kinds = (("methods", method.method), ("tasks", settings.task.name))
    if any(name not in registry.names(kind) for kind, name in kinds):
        return False
    task = registry.plugin("tasks", settings.task.name)
    greedy = not settings.task.options.get("temperature")
    itself = registry.plugin("methods", method.method).depends_on_seed()
    return not itself and task.model_kind == "language_model" and greedy


def suite_name(name: str) -> str:
    """Return the name if a suite can have it; a UserError if not, such as for a path out of the
    results folder.
    """
    if not re.fullmatch(NAME, name):
        raise UserError(
            f"'{name}' can't be a suite's name: use letters, digits, - and _, 64 at most"
        )
    return name


def suites_folder() -> Path:
    return packaged("suites", "benchmarks/suites")


def packaged(in_wheel: str, in_repository: str) -> Path:
    package = Path(str(files("hpml_bench")))
    inside = package / in_wheel
    return inside if inside.is_dir() else package.parent / in_repository


def packaged_suites() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in suites_folder().glob("*.yaml")))


def load_suite(
    name: str,
    overrides: Iterable[str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Suite:
    """Read and validate a packaged suite, by its name, or a YAML file, by its path.

    `overrides` are `KEY=VALUE` with a dotted key, a setting's (`train_samples=512`,
    `dataset.options.own_share=0.5`) or the suite's (`methods.lora.lr=1e-3`); the value is YAML.
    `settings` override by dotted key, None included; `changes` are `seeds` and settings that have
    an option of their own on the command line: None changes nothing.
    """
    known = packaged_suites()
    path = suites_folder() / f"{name}.yaml" if name in known else Path(name)
    there = False
    with suppress(OSError):  # too long for a path
        there = path.is_file()
    if not there:
        raise UserError(
            f"there is no suite '{name}': give one of {', '.join(known)}, or the path of a YAML "
            f"file"
        )
    content = read_mapping(path, "a suite file", "a suite", Suite.model_fields)
    content.setdefault("name", path.stem)
    _anchor_paths(content, path.parent, scripts=path.parent != suites_folder())
    for override in overrides:
        _apply(content, override, path)
    given = [(key, value) for key, value in changes.items() if value is not None]
    for key, value in [*(settings or {}).items(), *given]:
        _set(content, key, value, path)
    return validated(Suite, content, f"{path}:")


def _anchor_paths(value: Any, folder: Path, *, scripts: bool) -> None:
    """Make relative `path:` values of a suite file relative to that file, in place, and with
    `scripts` .py and .sh files too.

    Those of packaged suites stay as they are, so that their runs have the same ids everywhere.
    """
    may_name_scripts = scripts and isinstance(value, list)
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        is_path = isinstance(item, str) and item.startswith("path:")
        if is_path or (may_name_scripts and _is_script(item, folder)):
            value[key] = _anchored(item, folder)
        elif isinstance(item, dict | list):
            _anchor_paths(item, folder, scripts=scripts)


def _is_script(item: Any, folder: Path) -> bool:
    """Return whether a value of a suite file is the name of a script in its folder."""
    if not isinstance(item, str) or not item.endswith((".py", ".sh")):
        return False
    with suppress(OSError, ValueError):  # too long for a path, or with a NUL
        return (folder / item).is_file()
    return False


def _anchored(uri: str, folder: Path) -> str:
    try:
        return f"path:{real_path(folder / Path(uri.removeprefix('path:')).expanduser())}"
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # a NUL, too long, a loop of links, no such user
        raise UserError(f"{uri[:200]!r} is not a path: {error}") from None


def settings_of(overrides: Iterable[str]) -> dict[str, Any]:
    """Return the settings that `KEY=VALUE` give, nested; a UserError where one is of something
    else.
    """
    content: dict[str, Any] = {"settings": {}}
    for override in overrides:
        _apply(content, override, Path("the suite"))
    if other := set(content) - {"settings"}:
        raise UserError(
            f"--set {other.pop()}: is no setting; change it in the suite that is written"
        )
    settings: dict[str, Any] = content["settings"]
    return settings


def _apply(content: dict[str, Any], override: str, path: Path) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: write KEY=VALUE, as in --set train_samples=512")
    value = parse(text, f"--set {override}")
    if isinstance(value, str) and value.startswith("path:"):
        value = _anchored(value, Path())
    _set(content, key, value, path)


def _set(content: dict[str, Any], dotted: str, value: Any, path: Path) -> None:
    """Set the value of a dotted key; a setting's first key may be left out."""
    keys = dotted.split(".")
    if keys[0] in Settings.model_fields:
        keys = ["settings", *keys]
    if len(keys) > MAX_DEPTH:
        raise UserError(f"--set {'.'.join(keys)[:80]}...: a key has at most {MAX_DEPTH} parts")
    if keys[0] not in Suite.model_fields:
        hint = did_you_mean(keys[0], [*Settings.model_fields, *Suite.model_fields])
        raise UserError(
            f"--set {'.'.join(keys)}: there is no such setting{hint} (docs/settings.md has all; "
            f"of a suite itself: {', '.join(Suite.model_fields)})"
        )
    if keys[-1] in {"epochs", "steps"} and keys[:-1] == ["settings"] and value is not None:
        settings = content.get("settings")
        if isinstance(settings, dict):
            settings.pop("steps" if keys[-1] == "epochs" else "epochs", None)
    node: Any = content
    for key in keys[:-1]:
        if node.get(key) is None:
            node[key] = {}
        elif key in NAMED and isinstance(node[key], str):  # so that options can be overridden
            node[key] = {"name": node[key]}
        node = node[key]
        if not isinstance(node, dict):
            raise UserError(f"--set {'.'.join(keys)}: {key} in {path} has no keys of its own")
    node[keys[-1]] = value
