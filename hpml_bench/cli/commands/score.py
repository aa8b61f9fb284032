"""`hpml-bench score`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpml_bench.cli.exit_status import ended
from hpml_bench.cli.options import limited, load, out, overrides

if TYPE_CHECKING:
    from hpml_bench.records.plan import Limits
    from hpml_bench.sweep.scored import Scoring

OPTIONS = ("as", "api", "key")
"""Options that may follow a server's address."""


@dataclass(frozen=True)
class System:
    """A system as it is named on the command line."""

    name: str
    where: str
    options: dict[str, str]

    @property
    def served(self) -> bool:
        return re.match(r"https?://", self.where) is not None

    @classmethod
    def of(cls, text: str) -> System:
        from hpml_bench.system.errors import UserError

        name, equals, rest = text.partition("=")
        where, *given = re.split(rf",(?=(?:{'|'.join(OPTIONS)})=)", rest)
        options = dict(option.split("=", 1) for option in given)
        if not (name and equals and where):
            raise UserError(f"--system {text}: write NAME=WHERE, as in --system theirs=./adapter")
        system = cls(name, where, options)
        if options and not system.served:
            raise UserError(
                f"--system {text}: {', '.join(options)} are for servers, and {where} is a folder "
                f"or file"
            )
        if not system.served and not Path(where).expanduser().exists():
            raise UserError(f"--system {name}: {where}: there is no such folder or file")
        if system.served and (unknown := re.search(r",(\w+)=", where)):
            raise UserError(
                f"--system {name}: {unknown[1]} is unknown; known are {', '.join(OPTIONS)}"
            )
        if system.served and "@" in where.partition("#")[0]:
            raise UserError(
                f"--system {name}: keep the login out of the address; ,key=VARIABLE names a key's "
                f"variable"
            )
        return system

    @property
    def key(self) -> str | None:
        """The key, from the variable that `key` names; a UserError where that is empty."""
        from hpml_bench.system.errors import UserError

        variable = self.options.get("key")
        if variable is None:
            return None
        if not os.environ.get(variable):
            raise UserError(
                f"--system {self.name}: the variable {variable} is empty; put the server's key "
                f"there"
            )
        return os.environ[variable]

    def entry(self, timeout: float) -> dict[str, Any]:
        """Return the method that a suite names for it; a server's only model where none is
        named.
        """
        from hpml_bench.launch.server import only_model
        from hpml_bench.system.files import real_path

        if not self.served:
            return {
                "method": "trained",
                "options": {"path": str(real_path(Path(self.where).expanduser()))},
            }
        url, _, model = self.where.partition("#")
        options = {"url": url.rstrip("/"), "api": self.options.get("api", "chat"), "model": model}
        options["model"] = model or only_model(options, self.key, timeout)
        return {"method": "served", "options": options}


def unknown_bases(folders: Iterable[Path]) -> dict[str, str]:
    """Return a sentence on each scored adapter of these folders whose base model isn't on this
    machine, by its system's name.
    """
    from hpml_bench.records.load import load_records
    from hpml_bench.system.files import read_json

    found: dict[str, str] = {}
    for record in chain.from_iterable(load_records(folder).records for folder in folders):
        path = record.spec.method.options.get("path")
        if record.status != "ok" or record.spec.method.method != "trained" or path is None:
            continue
        said = read_json(Path(path) / "adapter_config.json")
        base = str((said or {}).get("base_model_name_or_path") or "")
        # os.path.exists is False also of a name that is too long
        if base and not os.path.exists(base):  # noqa: PTH110
            name = record.spec.method.name
            found[name] = (
                f"{name}: its adapter names {base} as its base model, which isn't here to be "
                f"compared."
            )
    return found


def check_seeds(scoring: Scoring) -> None:
    """Raise UserError where an earlier call scored more systems by a name than this one names: they
    would stay on the page as seeds of other systems.
    """
    from hpml_bench.records.load import load_records
    from hpml_bench.system.errors import UserError

    named = Counter(name for name, _ in scoring.systems)
    for folder in scoring.folders:
        if folder == scoring.folder:
            continue
        for record in load_records(folder).records:
            name, seed = record.spec.method.name, record.spec.seed
            if name in named and seed >= named[name]:
                raise UserError(
                    f"--system {name}: an earlier call named {seed + 1} or more systems so, its "
                    f"seeds, and this one {named[name]}; name all of them, or give another name"
                )


@click.command()
@click.argument("suite", default="quickstart")
@click.option(
    "--system",
    "systems",
    multiple=True,
    required=True,
    metavar="NAME=WHERE",
    help="A system: a folder of an adapter, a checkpoint or a saved run, a .gguf file, or "
    "http://HOST/v1#MODEL. Repeatable; of one NAME the seeds 0, 1, ... To a server's address add "
    ",key=VARIABLE for a key, ,api=completions for prompts as the suite writes them, "
    ",as=METHOD-sSEED to compare its answers with those of a run.",
)
@out("Recorded runs are in DIR/SUITE, scored systems go to DIR/scored.")
@overrides("Override a setting by dotted path, as the recorded runs did. Repeatable.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    metavar="N",
    help="Rows that a server is asked at a time.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 1e6, min_open=True),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for one answer.",
)
@click.option("--fresh", is_flag=True, help="Remove earlier results of these systems.")
@limited
@click.pass_context
def score(
    ctx: click.Context,
    suite: str,
    systems: tuple[str, ...],
    out: Path,
    overrides: tuple[str, ...],
    concurrency: int,
    timeout: float,
    fresh: bool,
    limits: Limits,
) -> None:
    """Score systems that SUITE didn't train on its test rows, beside its recorded runs.

    The rows, template, scorer and limits are the suite's; nothing is trained. Call it again and it
    goes on.
    """
    from hpml_bench.cli.commands.compare import show
    from hpml_bench.comparison.assemble import assemble
    from hpml_bench.comparison.inputs import read
    from hpml_bench.comparison.page import FORMATS
    from hpml_bench.launch.server import Access
    from hpml_bench.page.terminal import terminal
    from hpml_bench.sweep.scored import Scoring
    from hpml_bench.system import disk
    from hpml_bench.system.signals import stoppable
    from hpml_bench.system.text import for_terminal

    named = [System.of(text) for text in systems]
    access = Access({one.name: key for one in named if (key := one.key)}, concurrency, timeout)
    entries = [(one.name, one.entry(timeout)) for one in named]
    scoring = Scoring(load(suite, overrides), entries, out, access, limits, fresh)
    with disk.errors_as_user_errors(out), stoppable():
        recorded = scoring.recorded()
        check_seeds(scoring)
        for one in named:
            if "as" in one.options:
                scoring.check_claim(one.name, one.options["as"], recorded)
        done = scoring.run(recorded, terminal())
        records = [record for one in done for record in one.records]
        statuses = [record.status for record in records]
        status = ended(done[-1].ending, statuses, sum(one.runs for one in done))
        if done[-1].ending.how == "done":
            well = {
                record.spec.method.name
                for record in records
                if record.status == "ok" and not record.spec.seed
            }
            claims = [one for one in named if "as" in one.options and one.name in well]
            said = [
                scoring.agreement(done, one.name, one.options["as"], recorded) for one in claims
            ]
            unknown = unknown_bases(scoring.folders)
            unsure = [unknown[one.name] for one in named if one.name in unknown]
            scores = [
                replace(one, remarks=(*one.remarks, *unknown.values()))
                for one in read(scoring.folders)
            ]
            if sum(len({*one.lines["system"]}) for one in scores) > 1:
                show(assemble(scores, title=scoring.suite.name), scoring.page, FORMATS)
            else:
                click.echo(
                    for_terminal(
                        f"{done[0].folder}: one system alone has no page to be compared on"
                    )
                )
            for record in records:
                click.echo(
                    for_terminal(
                        f"{record.spec.method.name} seed {record.spec.seed}: "
                        f"{record.shown or record.status}"
                    )
                )
            for sentence in dict.fromkeys((*said, *unsure)):
                click.echo(for_terminal(sentence))
    ctx.exit(status)
