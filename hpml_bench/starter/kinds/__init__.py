"""The kinds of work, a module each: a task's options and label names with their reasons."""

from __future__ import annotations

from collections.abc import Mapping

from hpml_bench.plugins.dataset import Target
from hpml_bench.starter.kinds import answers, classes, numbers, tags
from hpml_bench.starter.view import Kind

KINDS: Mapping[Target, Kind] = {
    "class": classes.KIND,
    "number": numbers.KIND,
    "tags": tags.KIND,
    "answer": answers.KIND,
}
"""What is learnt -> the kind of work."""
