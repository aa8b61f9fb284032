"""What the gate's recorded trials say: rates with exact bounds, and a resampling study over the recorded pairs.

    hpml-bench check --self-test --trials 299 --out trials
    python benchmarks/check_evidence.py trials --pack reports/reference/check/trials.jsonl.gz
    python benchmarks/check_evidence.py reports/reference/check/trials.jsonl.gz [--loaded FILE] [--write FILE.md]

Verdicts are made again from the raw blocks, and have to be those that were recorded. Trials recorded while
benchmarks/competing_load.py ran are given by --loaded.
"""

from __future__ import annotations

import argparse
import gzip
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hpml_bench.gate import selftest, simulation, verdicts
from hpml_bench.gate.ranks import Floats
from hpml_bench.gate.records import Rules, Trial
from hpml_bench.gate.sentences import rate
from hpml_bench.records import Table
from hpml_bench.report.export import markdown_table
from hpml_bench.report.tables import Cell, table

RESAMPLED = 10_000
"""Trials drawn for each row of the study."""
SLOWDOWNS = (0.0, 0.01, 0.02, 0.03, 0.05)
FINER = Rules(target=0.02)
"""What `--slowdown 2%` asks for."""
SPIKES = 0.1
"""Share of timed pieces that a made-up spike hits."""
LARGEST_SPIKE = 0.5
"""A spike makes a piece up to this much longer."""


def load(path: Path) -> list[Trial]:
    """Return the trials of a folder of `trial-*.json`, or of a `.jsonl.gz` packed from one, by their numbers."""
    if path.is_dir():
        texts: Iterable[str] = [file.read_text(encoding="utf-8") for file in sorted(path.glob("trial-*.json"))]
    else:
        texts = gzip.decompress(path.read_bytes()).decode().splitlines()
    return sorted((Trial.model_validate_json(text) for text in texts), key=lambda trial: trial.number)


def pack(trials: Iterable[Trial], path: Path) -> None:
    """Write trials as one compressed file, the same bytes every time."""
    text = "".join(trial.model_dump_json() + "\n" for trial in trials)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def disagreeing(trials: Iterable[Trial]) -> list[int]:
    """Return the numbers of trials whose blocks give another outcome than the recorded one."""
    found = []
    for trial in trials:
        receipt = trial.receipt
        again = verdicts.final(verdicts.pair_effects(receipt.blocks), receipt.rules)
        if verdicts.overall(again) != verdicts.overall(receipt.verdicts):
            found.append(trial.number)
    return found


def blocks_of(trials: Iterable[Trial]) -> Floats:
    """Return the log ratios of all whole A/A pairs, [pairs, methods, blocks].

    A pair counts where every method has as many undisturbed blocks as is usual.
    """
    rows = []
    for trial in trials:
        if trial.slowdown:
            continue
        for pair in range(trial.receipt.pairs):
            ratios: dict[str, list[float]] = {method: [] for method in trial.receipt.methods}
            for block in trial.receipt.blocks:
                if block.pair == pair and block.tainted is None:
                    ratios[block.method].append(verdicts.log_ratio(block))
            rows.append([*ratios.values()])
    usual = statistics.mode(len(values) for row in rows for values in row) if rows else 0
    whole = [row for row in rows if usual and all(len(values) == usual for values in row)]
    return np.array(whole) if whole else np.empty((0, 1, 1))


def middle(ratios: Floats) -> Floats:
    """Return what `verdicts.middle` does, over the last axis."""
    cut = ratios.shape[-1] // 4
    kept: Floats = np.sort(ratios, axis=-1)[..., cut : ratios.shape[-1] - cut].mean(axis=-1)
    return kept


def resampling(blocks: Floats, effect: float, spikes: float = 0.0) -> simulation.Draw:
    """Return a drawing of trials from recorded pairs, whole, with replacement, a slowdown added to every method.

    With `spikes`, each of a block's four pieces is made longer with this chance, by up to `LARGEST_SPIKE`: what a
    burst of other work does that goes unnoticed.
    """

    def draw(generator: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
        trials, _, count = shape
        chosen = blocks[generator.integers(0, len(blocks), (trials, count))]  # [trials, pairs, methods, blocks]
        if spikes:
            for side in (1, -1, 1, -1):
                hit = generator.random(chosen.shape) < spikes
                chosen = chosen + side / 2 * hit * np.log1p(generator.uniform(0, LARGEST_SPIKE, chosen.shape))
        return np.swapaxes(middle(chosen), 1, 2) + math.log1p(effect)

    return draw


def study(named: dict[str, tuple[Floats, float]], rules: Sequence[Rules]) -> Table:
    """Return how resampled trials end, a row for each noise, rule and slowdown."""
    rows: list[list[Cell]] = []
    for rule in rules:
        for noise, (blocks, spikes) in named.items():
            for slowdown in SLOWDOWNS:
                draw = resampling(blocks, slowdown, spikes)
                found = simulation.simulate(draw, rule, blocks.shape[1], RESAMPLED)
                shares = [found.failed / found.trials, found.passed / found.trials]
                shown = [f"{share:.2%}".replace("%", " %") for share in shares]
                rows.append(
                    [f"{rate(rule.null)} / {rate(rule.target)}", noise, rate(slowdown), *shown, f"{found.pairs:.1f}"]
                )
    columns = ("let through / must not pass", "noise", "slowdown", "FAIL", "PASS", "pairs needed")
    return table("resampled", "Resampled trials", columns, rows)


def report(trials: Sequence[Trial], loaded: Sequence[Trial] = ()) -> str:
    """Return what trials say, in Markdown."""
    parts = ["## Live trials", _live(trials)]
    if loaded:
        parts += ["## Live trials under a competing load", _live(loaded)]
    blocks = blocks_of(trials)
    if len(blocks) < 2:
        return "\n\n".join([*parts, "Too few whole A/A pairs to resample."]) + "\n"
    named = {"as recorded": (blocks, 0.0), "with spikes": (blocks, SPIKES)}
    under_load = blocks_of(loaded)
    if len(under_load) > 1:
        named["under load"] = (under_load, 0.0)
    return (
        "\n\n".join([*parts, "## Resampling", _explained(len(blocks)), markdown_table(study(named, [Rules(), FINER]))])
        + "\n"
    )


def _live(trials: Sequence[Trial]) -> str:
    summary = selftest.summarise(trials)
    slowdown = max((trial.slowdown for trial in trials), default=0.0)
    sentences = list(summary.sentences(slowdown))
    blocks = [block for trial in trials for block in trial.receipt.blocks]
    disturbed = sum(block.tainted is not None for block in blocks)
    sentences.append(f"Blocks: {len(blocks)}, of which {disturbed} were disturbed and don't count.")
    sentences += _put_in(trials)
    used = [trial.receipt.pairs for trial in trials]
    if used:
        sentences.append(f"Process pairs of a trial: {statistics.fmean(used):.1f} on average, {max(used)} at most.")
    pairs = middle(blocks_of(trials))
    if len(pairs) > 1:
        names = next(trial for trial in trials if not trial.slowdown).receipt.methods
        spread = ", ".join(
            f"{name} {sd:.2%}".replace("%", " %") for name, sd in zip(names, pairs.std(axis=0, ddof=1), strict=True)
        )
        bias = ", ".join(
            f"{name} {mean:+.2%}".replace("%", " %") for name, mean in zip(names, pairs.mean(axis=0), strict=True)
        )
        sentences += [f"Standard deviation between A/A pairs: {spread}.", f"Mean of A/A pairs: {bias}."]
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _put_in(trials: Iterable[Trial]) -> list[str]:
    """Return a sentence on the slowdown really put into the slowed trials, where it was recorded."""
    slowed = [trial for trial in trials if trial.slowdown]
    known = [trial for trial in slowed if trial.put_in]
    if not known:
        return [f"Slowdown really put in: not recorded in these {len(slowed)} slowed trials."] if slowed else []
    shares = {method: [trial.put_in[method] for trial in known if method in trial.put_in] for method in known[0].put_in}
    named = [
        f"{method} {statistics.median(found):.2%} ({min(found):.2%} to {max(found):.2%})".replace("%", " %")
        for method, found in shares.items()
    ]
    return [
        "Slowdown really put in, the delay's time over the other side's step time, median and range of "
        f"{len(known)} of {len(slowed)} slowed trials: {', '.join(named)}."
    ]


def _explained(pairs: int) -> str:
    return (
        f"Each row: {RESAMPLED:,} trials drawn with replacement from {pairs} recorded A/A pairs, all methods of a "
        "pair together, with a slowdown added to every method. With spikes: each timed piece is made up to "
        f"{rate(LARGEST_SPIKE)} longer with a chance of {rate(SPIKES)}, on either side. Resampling tells what the rule "
        "does with noise such as was recorded; it knows the tails no better than the recorded pairs do, and the "
        "bounds above stay the claim."
    )


def main() -> int:
    """Print the report; pack or write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=Path)
    parser.add_argument("--loaded", type=Path, help="trials recorded under a competing load")
    parser.add_argument("--pack", type=Path, help="write the trials as one .jsonl.gz and stop")
    parser.add_argument("--write", type=Path, help="write the report here too")
    options = parser.parse_args()
    trials = load(options.trials)
    if not trials:
        print(f"{options.trials}: no trials here", file=sys.stderr)
        return 2
    if options.pack:
        pack(trials, options.pack)
        return 0
    loaded = load(options.loaded) if options.loaded else []
    wrong = disagreeing([*trials, *loaded])
    text = report(trials, loaded)
    print(text, end="")
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    if wrong:
        print(f"trials {wrong}: their blocks give another outcome than was recorded", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
