"""hpml-bench compares fine-tuning methods under one protocol.

    import hpml_bench

    if __name__ == "__main__":  # ranks are processes that import this script
        hpml_bench.run_suite("quickstart", out="reports")
        frame = hpml_bench.load_results("reports/quickstart")

    verdicts = hpml_bench.compare(frame)  # of any scores: columns system, row, score; without torch

Names are loaded when used: `import hpml_bench` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpml_bench.api import compare as compare
    from hpml_bench.api import load_results as load_results
    from hpml_bench.api import run_suite as run_suite

__all__ = ["compare", "load_results", "run_suite"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hpml_bench import api

        return globals().get(name) or getattr(api, name)  # a package of that name is there once it is imported
    raise AttributeError(f"module 'hpml_bench' has no attribute '{name}'")
