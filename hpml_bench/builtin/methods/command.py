"""Command: another program trains, such as TRL; what it leaves in a folder is loaded and scored
as any method is.
"""

from __future__ import annotations

import string
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from hpml_bench.plugins.method import Method
from hpml_bench.records.files import COMMAND
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.suite import suites_folder
from hpml_bench.system.errors import Unsupported, UserError

if TYPE_CHECKING:
    from hpml_bench.plugins.group import Group
    from hpml_bench.training.request import RunRequest

SETTINGS = (
    "world_size",
    "threads",
    "global_batch",
    "max_length",
    "precision",
    "schedule",
    "lr_warmup",
    "weight_decay",
    "clip_norm",
)
"""Settings that a command may contain."""
KNOWN = ("model", "train", "validation", "out", "seed", "steps", "lr", *SETTINGS)
WAIT_SECONDS = 0.1


class Command(Method):
    """A command of the suite, run once on rank 0 before the model is loaded; the other ranks
    wait.
    """

    title = "Own program"
    trains = False

    class Options(Frozen):
        """The command, and the form of its rows."""

        run: list[str] = Field(default=[])
        """Words of the command, without a shell. `python` is this environment's; a script's path
        is relative to the suite's file. In braces: `model`, `out` (folders), `train`,
        `validation` (jsonl files), `seed`, `steps`, `lr` and settings, as in `{out}`.
        """
        rows: Literal["messages", "sharegpt"] = "messages"
        """Form of the rows: TRL's `messages`, or ShareGPT's `conversations`."""

        @field_validator("run")
        @classmethod
        def _known(cls, words: list[str]) -> list[str]:
            unknown = {name for word in words for _, name, *_ in string.Formatter().parse(word)} - {
                None,
                *KNOWN,
            }
            if unknown:
                raise ValueError(
                    f"{{{min(map(str, unknown))}}} is unknown; known are {', '.join(KNOWN)}"
                )
            return words

    @property
    def command(self) -> tuple[str, ...]:
        return tuple(self.options.run)

    def prepare(self, request: RunRequest, group: Group) -> None:
        from hpml_bench.plugins.task import make_task
        from hpml_bench.training.program import run_program, write_files

        settings, ours = request.spec.settings, suites_folder()
        if not self.command:
            raise UserError(
                "method command: give its words, as options: {run: [python, train.py, --out, "
                '"{out}"]}'
            )
        if make_task(settings.task).model_kind != "language_model":
            raise Unsupported(
                "a program's model has a head of its own, and the task's is ours; take causal_lm"
            )
        if group.nodes > 1:
            raise Unsupported("a command runs on one node")
        folder = (
            request.folder.absolute() / COMMAND
        )  # where the program runs, and --out may be relative
        self.out = folder / "out"
        if group.main:
            values = write_files(request, folder, self.options.rows)
            values |= {name: str(getattr(settings, name)) for name in SETTINGS}
            words = [word.format_map(values).removeprefix("path:") for word in self.command]
            words = [
                str(ours / word) if word.endswith(".py") and (ours / word).is_file() else word
                for word in words
            ]
            words[0] = sys.executable if words[0] == "python" else words[0]
            ranks = (
                1
                if any("{world_size}" in word for word in self.command)
                else settings.world_size or 1
            )
            log, threads = request.folder / "rank0-command.log", ranks * (settings.threads or 1)
            self.measured = run_program(words, folder, log, str(settings.device), threads)
            (folder / "done").touch()
        while not (folder / "done").exists():  # a collective would give up after an hour
            time.sleep(WAIT_SECONDS)
        group.barrier()

    def build(self, backbone: Any) -> Any:
        from hpml_bench.training.systems import load_system

        if not hasattr(self, "out"):
            raise Unsupported("only its program makes it; load a saved one by PEFT or transformers")
        return load_system(backbone, self.out)

    def save(self, encoder: Any, folder: Path) -> bool:
        import shutil

        shutil.copytree(self.out, folder, dirs_exist_ok=True)
        return True
