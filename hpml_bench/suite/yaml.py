"""YAML of suites and `--set`: plain values of bounded size and depth."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_bytes

MAX_BYTES = 64_000
MAX_DEPTH = 16


class _Loader(yaml.SafeLoader):
    """A loader of JSON's values only; 1e-3 is read as a number.

    Refused are aliases, a few lines of which expand to gigabytes, all tags but that of a string,
    deep nesting, and a key given twice.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read")
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _PLAIN:
            raise yaml.YAMLError(f"tags (here {tag[:80]}) are not read")
        if self.depth == MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH} levels")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_scalar(self, node: Any) -> str:
        value = str(super().construct_scalar(node))
        # JSON writes a character beyond 16 bits as a pair of escapes; half a pair is no character.
        return (
            value
            if value.isascii()
            else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        )

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for twice in (key for key, count in keys.items() if count > 1):
            raise yaml.YAMLError(f"the key {twice[:80]} stands twice in one mapping")
        return super().construct_mapping(node, deep)


_PLAIN = frozenset({"!", "tag:yaml.org,2002:str"})
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in known
        if not tag.endswith((":timestamp", ":value", ":merge"))
    ]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_mapping(path: Path, file: str, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """Return the content of a YAML file; errors name it by `file` and `what`, such as a suite
    file and a suite.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {file} has at most {MAX_BYTES} bytes")
        text = read_bytes(path, MAX_BYTES, follow=True).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    content = parse(text, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: {what} is a mapping with {', '.join(keys)}")
    return content


def parse(text: str, where: str) -> Any:
    """Return the value of a YAML text, plain values alone; errors begin with `where` and the
    line.
    """
    where = where if len(where) <= 200 else f"{where[:199]}…"
    if len(text) > MAX_BYTES:
        raise UserError(f"{where}: longer than {MAX_BYTES} characters")
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError, ArithmeticError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise UserError(
            f"{where}{line}: not readable as YAML: {' '.join(problem.split())[:300]}"
        ) from None
