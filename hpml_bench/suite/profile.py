"""Profiles: where and how a sweep's runs are started beside this process; never part of the
suite or the protocol.
"""

import math
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.registry import explain, validate_options
from hpml_bench.suite.yaml import read_mapping
from hpml_bench.system.errors import UserError
from hpml_bench.system.redaction import without_assigned

TIME = re.compile(
    r"^(?:(\d+)-)?(\d{1,3}):(\d{2}):(\d{2})$"
)  # days, hours, minutes and seconds, as Slurm reads them
MEMORY = re.compile(r"^\d+[KMGT]?$")


class Profile(Frozen):
    """Machine and engine of a sweep's jobs; read from a YAML file."""

    engine: str
    """Engine that starts the jobs (`hpml-bench list engines`)."""
    unit: Literal["seed", "run"] = "seed"
    """Runs of one job: all methods of a seed, so that their costs are compared on one node, or a
    single run.
    """
    parallel: int = Field(default=8, ge=1, le=10_000)
    """Jobs that may run at the same time."""
    nodes: int = Field(default=1, ge=1, le=1000)
    """Nodes of each run."""
    gpus_per_node: int | None = Field(default=None, ge=0)
    """GPUs that a job gets on each node; empty: the engine's default."""
    cpus_per_node: int | None = Field(default=None, ge=1)
    """CPU cores that a job gets on each node; empty: the engine's default."""
    memory_per_node: str | None = None
    """Memory that a job gets on each node, such as 64G; empty: the engine's default."""
    time: str | None = None
    """Time limit of a job, as H:MM:SS or D-HH:MM:SS in quotes; a run that would exceed it is not
    begun.
    """
    exclusive: bool = False
    """Whether a job has its nodes to itself, so that no neighbour slows its runs."""
    prepare: Literal["here", "job"] = "here"
    """Where model and data are prepared: before the submission, where there is a network, or in
    a first job.
    """
    scratch: str | None = None
    """Folder on each node for temporary files; its variables are expanded there. Empty: TMPDIR,
    or /tmp.
    """
    setup: tuple[str, ...] = ()
    """Shell lines before each job's command, such as `module load cuda`; a line that fails ends
    the job.
    """
    launcher: tuple[str, ...] = ()
    """Words before each job's command, such as `apptainer`, `exec`, `--nv` and an image's path."""
    python: str | None = None
    """Interpreter of the jobs, such as a container's own; empty: the one that submits."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the jobs."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The engine's own options."""

    @field_validator("time", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, str) and TIME.match(value)):
            raise ValueError('write it in quotes as H:MM:SS or D-HH:MM:SS, as in "4:00:00"')
        return value

    @field_validator("memory_per_node", mode="before")
    @classmethod
    def _memory(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, str) and MEMORY.match(value)):
            raise ValueError("write a number with its unit K, M, G or T, as in 64G")
        return value

    @field_validator("env")
    @classmethod
    def _variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.match(r"^[A-Za-z_][A-Za-z0-9_]*$", name):
                raise ValueError(f"{name!r} can't be a variable's name")
        return value

    @property
    def elsewhere(self) -> bool:
        """Whether its jobs may be on other machines than this one."""
        return self.engine != "local"

    @property
    def seconds(self) -> float | None:
        match = TIME.match(self.time or "")
        if match is None:
            return None
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)

    def command(self, words: Iterable[str]) -> list[str]:
        """Return a job's command: the launcher, the interpreter and the interpreter's words."""
        return [*self.launcher, self.python or sys.executable, *words]

    def ranks_per_node(self, ranks: int | None) -> int | None:
        """Return the equal share of a run's ranks on each node; None if their number is left
        open.
        """
        if ranks is None:
            return None
        if ranks % self.nodes:
            raise UserError(
                f"{ranks} ranks can't be divided over {self.nodes} nodes; give --nproc a multiple "
                f"of {self.nodes}"
            )
        return ranks // self.nodes

    @property
    def warned(self) -> float:
        """Seconds before its time limit at which a job is signalled to end: a quarter of it, at
        most two minutes.
        """
        return min(120.0, (self.seconds or math.inf) / 4)


def profiles_folder() -> Path:
    return (
        Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        / "hpml-bench"
        / "clusters"
    )


def known_profiles() -> dict[str, str]:
    """Return name -> origin of the user's own profiles, and of the engines, which need no
    profile.
    """
    engines = dict.fromkeys(registry.names("engines"), "the engine with its defaults")
    return engines | {path.stem: str(path) for path in sorted(profiles_folder().glob("*.yaml"))}


def load_profile(name: str, overrides: Iterable[tuple[str, Any]] = ()) -> Profile:
    """Read and validate a profile; a UserError if there is none of the name, or something in it is
    wrong.

    `name` is the path of a YAML file, the name of one in the user's folder of profiles, or an
    engine's name for its defaults; `overrides` are keys and values that replace those of the file.
    """
    known = registry.names("engines")
    path = next((p for p in (Path(name), profiles_folder() / f"{name}.yaml") if p.is_file()), None)
    if path is not None:
        where, content = (
            str(path),
            read_mapping(path, "a profile", "a profile", Profile.model_fields),
        )
    elif name in known:
        where, content = f"--on {name}", {"engine": name}
    else:
        raise UserError(
            f"there is no profile '{name}': give the path of a YAML file, or one of "
            f"{', '.join(known_profiles())} (your own lie in {profiles_folder()})"
        )
    content |= dict(overrides)
    try:
        profile = Profile.model_validate(content)
    except ValidationError as error:
        unknown = error.errors()[0]["type"] == "extra_forbidden"
        hint = (
            "; write an engine's own options under options, such as sbatch's: {sbatch: "
            "{partition: gpu}}"
        )
        raise UserError(f"{where}: {explain(error, Profile)}{hint if unknown else ''}") from None
    if profile.engine not in known:
        raise UserError(
            f"{where}: there is no engine '{profile.engine}'; registered are {', '.join(known)}"
        )
    for key, words in (("launcher", " ".join(profile.launcher)), ("options", str(profile.options))):
        if without_assigned(words) != words:
            raise UserError(
                f"{where}: {key} is written down and has the value of a secret variable; give it "
                f"under env"
            )
    options = validate_options("engines", profile.engine, profile.options, f"{where}: options")
    return profile.model_copy(update={"options": options.model_dump(mode="json")})
