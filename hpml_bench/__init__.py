"""hpml-bench compares fine-tuning methods under one protocol.

    import hpml_bench

    if __name__ == "__main__":  # ranks are processes that import this script
        hpml_bench.run_suite("quickstart", out="reports")
        frame = hpml_bench.load_results("reports/quickstart")

    verdicts = hpml_bench.compare(frame)  # of any scores: columns system, row, score; without torch

Functions import what they need when they are called: `import hpml_bench` costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare", "load_results", "load_trained", "predict", "run_suite"]


def run_suite(  # noqa: PLR0913 - the options of `run-all`
    suite: str = "quickstart",
    *,
    out: str | Path = "reports",
    seeds: int | None = None,
    until: Literal["decided", "costs"] | None = None,
    max_seeds: int | None = None,
    looks: int | None = None,
    prior: Sequence[str | Path] = (),
    methods: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    fresh: bool = False,
    keep: bool = False,
    allow_commands: bool = False,
    quiet: bool = True,
    report: bool = True,
) -> pd.DataFrame:
    """Run a suite's missing runs, write the report, and return the results as `load_results` does.

    Ranks are processes of their own, which import the calling script: call this under `if __name__
    == "__main__":`.

    Args:
        suite: a packaged suite's name or the path of a YAML file.
        out: results go to `<out>/<suite's name>`.
        seeds: number of seeds; the suite's own where None.
        until: add seeds in rounds until it is decided which method scores best, or how costs differ
            too.
        max_seeds: with `until`, seeds at which it ends at the latest; those of the suite's rounds,
            or 20, where None.
        looks: declare, before the first run, so many looks as seeds are added; each has the same
            share of the 5 %.
        prior: results folders of earlier suites with the same methods, whose variance over seeds
            this one's is estimated with, from its first run on.
        methods: names of methods; the suite's own where None.
        settings: settings to override, by (dotted) name.
        fresh: remove earlier results first.
        keep: keep each run's trained parts in its folder `kept`, which `load_trained` reads.
        allow_commands: let the suite's methods run the commands that it names.
        quiet: print nothing.
        report: write report.html, report.md and report.json.

    Raises:
        hpml_bench.system.errors.UserError: the suite or a setting is invalid, or a source isn't
            available.

    """
    from rich.console import Console

    from hpml_bench.suite.suite import load_suite
    from hpml_bench.sweep.local import run_sweep
    from hpml_bench.sweep.prior import with_prior
    from hpml_bench.sweep.race import rounds
    from hpml_bench.sweep.request import SweepRequest

    loaded = load_suite(suite, seeds=seeds, settings=settings).asked(until, max_seeds, seeds, looks)
    chosen, console = None if methods is None else tuple(methods), Console(quiet=quiet)
    request = SweepRequest(
        loaded, Path(out), chosen, fresh=fresh, keep=keep, allow_commands=allow_commands
    )
    for part in rounds(with_prior(request, [Path(folder) for folder in prior]), console.print):
        if run_sweep(part, console).ending.how == "interrupted":
            raise KeyboardInterrupt
    if report:
        from hpml_bench.page.render import write_report

        write_report(request.folder)
    return load_results(request.folder)


def compare(  # noqa: PLR0913 - the options of `compare`
    frame: pd.DataFrame,
    *,
    score: str | None = None,
    margin: float | None = None,
    better: Literal["higher", "lower"] = "higher",
    bounds: tuple[float, float] | None = None,
    shared: bool = False,
    independent: bool = False,
    largest_difference: float | None = None,
    look: int = 1,
    looks: int | None = None,
) -> pd.DataFrame:
    """Return which systems can be told apart by their scores: a row per pair, and data set.

    All pairs of a data set are one family: at most 5 % of such calls hold a false verdict, if rows
    are drawn at random, noise over seeds is near normal, and their number was fixed before. What
    the frame has chooses the test. Three seeds or more that every two systems share, and rows: a
    two-way analysis of variance over seeds and rows, and the paired t test over seeds. Rows alone:
    McNemar's exact test (1947) where all are one of two values; else Student's t over differences
    of rows, or of groups linearised as a ratio (Cochran 1977, ch. 9A), with guards against rare
    rows (Rao 1948). No rows: means within `bounds`, unpaired, after Agresti and Caffo (2000) and
    Fisher's exact test, if errors are said to be `independent`. docs/methodology.md has formulas
    and simulated rates.

    `margin`, `bounds`, `largest_difference` and `looks` are declarations: they count only if they
    were made before the scores were first compared. Nothing here remembers them, as the command's
    list of looks does.

    Args:
        frame: a line per row and run with the columns `system`, `row`, `score`, and optionally
            `seed`, `group` (rows that depend on each other), `dataset`; or a line per run with
            `system`, `score`, `rows` (their number). Ids are text or numbers, scores finite numbers
            or booleans. All other numeric columns are costs of runs, which share the family where
            three seeds are shared, and are not returned.
        score: column of the score, if not `score`.
        margin: difference of scores that counts as none, in the score's unit; pairs may then be
            `equivalent` (Schuirmann 1987).
        better: which scores are better.
        bounds: least and largest score that a row can have; without it the range of the scores seen
            is taken.
        shared: compare the rows that all systems have, instead of refusing unequal rows; a verdict
            must also hold for all rows, whatever scores within the range the missing ones would
            have.
        independent: the systems' errors are independent, so that means without rows may be tested.
        largest_difference: largest plausible difference of one row's real scores between two
            systems, declared before the scores were seen; it takes the place of the range in the
            guards against rare rows.
        look: how many times, with this one, these systems were tested; each may err, and later ones
            have less of 5 %.
        looks: how many times they will be tested in all, declared before the first; each has an
            equal share of 5 %. Where None, a look has two thirds of what the earlier ones left.

    Returns:
        Columns `dataset`; `a`, `b` (systems); `difference` (mean score of a less that of b, in the
        score's unit) with the interval `low`, `high` at the level of its test (without 0 just where
        they differ); `p` and, adjusted, `p_adjusted` (below 0.05 is a verdict); `verdict`
        (`different`, `equivalent`, `undecided`, `untested`); `better` (the better system, or None);
        `scope` (what the verdict holds for); `need` (of undecided pairs, seeds or rows that would
        decide with a chance of 80 % if the difference is as measured); `rows` and `seeds` (compared
        rows, shared seeds); `skewed` (whether few rows carry a verdict, or noise looks skewed,
        where tests claim too much).
        NaN or NA where there is none.

    Raises:
        hpml_bench.system.errors.UserError: the frame can't be compared: one sentence that names the
            line.

    """
    from hpml_bench.comparison.assemble import verdicts_of

    return verdicts_of(
        frame,
        score=score,
        margin=margin,
        better=better,
        bounds=bounds,
        shared=shared,
        independent=independent,
        largest_difference=largest_difference,
        look=look,
        looks=looks,
    )


def load_results(folder: str | Path) -> pd.DataFrame:
    """Return the runs of a results folder, one row each: identity, status, and a column per
    metric.
    """
    from hpml_bench.page.export import load_results as load

    return load(Path(folder))


def load_trained(folder: str | Path) -> Any:
    """Return the model that `hpml-bench run --save` wrote into a folder, in evaluation mode.

    It maps (input_ids, attention_mask) to the outputs of the task's head. A language model maps to
    the logits of the next token, and its `.encoder` is the model with transformers' or PEFT's own
    `generate`.

    Raises:
        hpml_bench.system.errors.UserError: the folder has no such model, or its base model isn't
            available.

    """
    from hpml_bench.training.saving import load_saved

    return load_saved(Path(folder)).model


def predict(folder: str | Path, texts: Sequence[str | tuple[str, str]]) -> list[Any]:
    """Return the answers of a run that `hpml-bench run --save` wrote to texts or pairs, prepared as
    those of the run.

    A class's name for each text, a number, or the words with their tags, [(word, tag), ...]. A
    language model is loaded by transformers' own pipeline("text-generation"), which has the saved
    chat template.

    Raises:
        hpml_bench.system.errors.UserError: as `load_trained`, or the run's task answers no bare
            texts.

    """
    from hpml_bench.training.saved_model import predict as answers

    return answers(Path(folder), texts)
