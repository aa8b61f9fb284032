"""Python API: the sweep and its results without the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_bench.compare import compare

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare", "load_results", "load_trained", "run_suite"]


def run_suite(
    suite: str = "quickstart",
    *,
    out: str | Path = "reports",
    seeds: int | None = None,
    methods: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    fresh: bool = False,
    quiet: bool = True,
    report: bool = True,
) -> pd.DataFrame:
    """Run a suite's missing runs, write the report, and return the results as `load_results` does.

    Ranks are processes of their own, which import the calling script: call this under `if __name__ == "__main__":`.

    Args:
        suite: a packaged suite's name or the path of a YAML file.
        out: results go to `<out>/<suite's name>`.
        seeds: number of seeds; the suite's own where None.
        methods: names of methods; the suite's own where None.
        settings: settings to override, by (dotted) name.
        fresh: remove earlier results first.
        quiet: print nothing.
        report: write report.html, report.md and report.json.

    Raises:
        hpml_bench.errors.UserError: the suite or a setting is invalid, or a source isn't available.

    """
    from rich.console import Console

    from hpml_bench.suite.suite import load_suite
    from hpml_bench.sweep.local import run_sweep
    from hpml_bench.sweep.request import SweepRequest

    loaded = load_suite(suite, seeds=seeds, settings=settings)
    chosen = None if methods is None else tuple(methods)
    result = run_sweep(SweepRequest(loaded, Path(out), chosen, fresh=fresh), Console(quiet=quiet))
    if result.ending.how == "interrupted":
        raise KeyboardInterrupt
    if report:
        from hpml_bench.report.render import write_report

        write_report(result.folder)
    return load_results(result.folder)


def load_results(folder: str | Path) -> pd.DataFrame:
    """Return the runs of a results folder, one row each: identity, status, and a column per metric."""
    from hpml_bench.report.frame import load_results as load

    return load(Path(folder))


def load_trained(folder: str | Path) -> Any:
    """Return the model that `hpml-bench run --save` wrote into a folder, in evaluation mode.

    It maps (input_ids, attention_mask) to the outputs of the task's head. A language model maps to the logits of the
    next token, and its `.encoder` is the model with transformers' or PEFT's own `generate`.

    Raises:
        hpml_bench.errors.UserError: the folder has no such model, or its base model isn't available.

    """
    from hpml_bench.training.saving import load_trained as load

    return load(Path(folder))
