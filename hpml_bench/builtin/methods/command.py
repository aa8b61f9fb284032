"""Command: another program trains, such as TRL; what it leaves in a folder is loaded and scored
as any method is.
"""

from __future__ import annotations

import os
import re
import shutil
import string
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from hpml_bench.plugins.method import Lack, Method
from hpml_bench.records.files import COMMAND
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.suite import suites_folder
from hpml_bench.system.errors import Unsupported

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
SCRIPTS = (".py", ".sh")
INTERPRETERS = re.compile(r"^(python[\d.]*|bash|sh|torchrun|accelerate|deepspeed)$")
"""Programs of which the first word with an ending of `SCRIPTS` is a script of this machine; a word
of `docker run` may name one in the image.
"""
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
        """Words of the command, without a shell. `python` is this environment's; the path of a
        .py or .sh script is relative to the suite's file. In braces: `model`, `out` (folders),
        `train`, `validation` (jsonl files), `seed`, `steps`, `lr` and settings, as in `{out}`.
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

    def lacks(self) -> tuple[Lack, ...]:
        if not self.command:
            return (Lack('give its words, as options: {run: [python, train.py, --out, "{out}"]}'),)
        program = _local_path(self.command[0])
        lacking = [_lack_of_program(program)]
        if INTERPRETERS.match(Path(program).name):
            scripts = (word for word in self.command[1:] if word.endswith(SCRIPTS))
            lacking.append(_lack_of_script(_local_path(next(scripts, ""))))
        return tuple(lack for lack in lacking if lack is not None)

    def prepare(self, request: RunRequest, group: Group) -> None:
        from hpml_bench.plugins.task import make_task
        from hpml_bench.training.program import run_program, write_files

        settings = request.spec.settings
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
            words = [_local_path(word.format_map(values)) for word in self.command]
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


def _local_path(word: str) -> str:
    """Return a word of a command, a path that the suite's file gives as one of this machine."""
    word = word.removeprefix("path:")
    packaged = suites_folder() / word
    return str(packaged) if word.endswith(".py") and _is_file(packaged) else word


def _lack_of_program(program: str) -> Lack | None:
    """Return what is wrong with the first word of a command; None: nothing that is known."""
    if program == "python" or "{" in program:
        return None
    if "/" not in program:
        if shutil.which(program) is not None:
            return None
        # jobs may have another PATH, by lines of `setup` or a container
        return Lack(
            f"there is no program {program} on PATH; install it, or give its path",
            everywhere=False,
        )
    return _lack_of_file(program, "program", executable=True)


def _lack_of_script(script: str) -> Lack | None:
    """Return what is wrong with the script that a command names, empty for none; None: nothing that
    is known.
    """
    if not script or "{" in script or script.startswith("-"):
        return None
    return _lack_of_file(script, "script")


def _lack_of_file(name: str, what: str, executable: bool = False) -> Lack | None:
    path = Path(name)
    if not path.is_absolute():
        # the command runs in a folder of its run, in which there is none
        return Lack(
            f"the {what} {name} isn't found; a relative path of a .py or .sh file begins at the "
            f"suite's file, and any other file needs its whole path"
        )
    if not _is_file(path):
        # a folder that isn't here may be on other machines' disks
        return Lack(f"there is no {what} {name}; correct its path", everywhere=path.parent.is_dir())
    if executable and not os.access(path, os.X_OK):
        return Lack(f"{name} can't be run as a program; make it executable (chmod +x)")
    return None


def _is_file(path: Path) -> bool:
    with suppress(OSError, ValueError):  # too long for a path, or with a NUL
        return path.is_file()
    return False
