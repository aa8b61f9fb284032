"""Trained: nothing is trained; a system that others trained, or an earlier run, is loaded from
its folder.
"""

from pathlib import Path
from typing import Any

from pydantic import model_validator

from hpml_bench.plugins.method import Method
from hpml_bench.suite.base import Frozen
from hpml_bench.system.errors import UserError

READ = ("*.safetensors", "*.gguf", "*config.json", "tokenizer.json", "run_spec.json")
"""Files by whose content a folder is known."""


class Trained(Method):
    """A system as it lies in a folder: evaluated like the methods, trained on nothing."""

    title = "Trained before"
    trains = False

    class Options(Frozen):
        """The folder, and what it held when it was named."""

        path: str = ""
        """Folder of an adapter as PEFT writes it, of a checkpoint or of a run that was saved; or
        a .gguf file.
        """
        digest: str = ""
        """SHA-256 of the files that are read; made from the folder where it is left out."""

        @model_validator(mode="before")
        @classmethod
        def _with_digest(cls, given: Any) -> Any:
            where = place_of(given.get("path") or "") if isinstance(given, dict) else None
            if where is None or given.get("digest") or not where.exists():
                return given
            return {**given, "digest": content_digest(where)}

    def build(self, backbone: Any) -> Any:
        from hpml_bench.training.systems import load_system

        where = place_of(self.options.path)
        if where is None:
            raise UserError("method trained: name a folder, as options: {path: FOLDER}")
        if self.options.digest and where.exists() and content_digest(where) != self.options.digest:
            raise UserError(f"{where}: isn't what it was when the run was planned; plan it again")
        return load_system(backbone, where)

    def complete(self, model: Any, task: Any) -> None:
        from hpml_bench.training.systems import load_head

        if (where := place_of(self.options.path)) is not None:
            load_head(model, task, where)


def place_of(path: str) -> Path | None:
    return Path(path.removeprefix("path:")).expanduser() if path else None


def content_digest(where: Path) -> str:
    """Return one SHA-256 of a .gguf file, or of the files of a folder that are read of a trained
    system.
    """
    from hpml_bench.system.cache import file_sha256
    from hpml_bench.system.text import digest

    files = (
        [where]
        if where.is_file()
        else sorted(file for pattern in READ for file in where.glob(pattern))
    )
    return digest([[file.name, file_sha256(file)] for file in files], 32)
