r"""What the gate's recorded trials say: rates with exact bounds, and a resampling study over the recorded pairs.

    hpml-bench check --self-test --trials 299 --out trials
    python benchmarks/check_evidence.py trials --pack MACHINE/SESSION.jsonl.gz
    python benchmarks/check_evidence.py MACHINE/*.jsonl.gz --loaded MACHINE/loaded/*.jsonl.gz \
        --write MACHINE/evidence.md

Trials of several folders, each packed into a file of its own, are taken together if hardware, versions, settings,
rules and the gate's own code are the same. Verdicts are made again from the raw blocks, and have to be those that were
recorded; every trial that was begun has to be there, but for those that were broken off, which are counted. Trials
recorded under benchmarks/competing_load.py are given by --loaded. Exit status 1 where something is wrong, 2 where
there are no trials or they don't belong together.
"""

from __future__ import annotations

import argparse
import gzip
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from hpml_bench.gate import selftest, simulation
from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.decide.rank_tests import Floats
from hpml_bench.gate.records import Begun, Rules, Trial
from hpml_bench.gate.render.sentences import rate
from hpml_bench.report.blocks import Table
from hpml_bench.report.export import markdown_table
from hpml_bench.report.tables import Cell, table
from hpml_bench.statistics.intervals import t_quantile

RESAMPLED = 10_000
"""Trials drawn for each row of the study."""
SLOWDOWNS = (0.0, 0.01, 0.02, 0.03, 0.05)
FINER = Rules(target=0.02)
"""What `--slowdown 2%` asks for."""
SPIKES = 0.1
"""Share of timed pieces that a made-up spike hits."""
LARGEST_SPIKE = 0.5
"""A spike makes a piece up to this much longer."""
RUN = 6
"""Consecutive pairs of a trial that are drawn together, so that what lasts longer than a pair stays in."""
_LINE: TypeAdapter[Trial | Begun] = TypeAdapter(Trial | Begun)


@dataclass(frozen=True)
class Evidence:
    """What was recorded: the trials by session and number, and which were begun."""

    trials: tuple[Trial, ...] = ()
    begun: tuple[Begun, ...] = ()

    @property
    def broken_off(self) -> int:
        """How often a trial was begun that has no outcome, or has it from another beginning."""
        return len(self.begun) - len(self.trials)


def load(*paths: Path) -> Evidence:
    """Return the trials of folders that a self-test wrote, and of `.jsonl.gz` packed from such."""
    found: list[Trial | Begun] = []
    for path in paths:
        if path.is_dir():
            texts = [file.read_text(encoding="utf-8") for file in sorted(path.glob("trial-*.json"))]
            found += selftest.begun(path)
        else:
            texts = gzip.decompress(path.read_bytes()).decode().splitlines()
        found += map(_LINE.validate_json, texts)
    trials = (line for line in found if isinstance(line, Trial))
    return Evidence(
        tuple(sorted(trials, key=lambda trial: (trial.session, trial.number))),
        tuple(line for line in found if isinstance(line, Begun)),
    )


def pack(evidence: Evidence, path: Path) -> None:
    """Write trials as one compressed file, the same bytes every time."""
    text = "".join(line.model_dump_json() + "\n" for line in (*evidence.trials, *evidence.begun))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def mixed(trials: Sequence[Trial]) -> str | None:
    """Return why these trials can't be taken together; None where they can."""
    if len({trial.slowdown for trial in trials if trial.slowdown}) > 1:
        return "their slowdowns differ"
    if len({(trial.receipt.rules, trial.receipt.methods) for trial in trials}) > 1:
        return "their rules or methods differ"
    kinds = [selftest.conditions(trial.receipt.environment) for trial in trials]
    if any(kind != kinds[0] for kind in kinds):
        return "hardware, versions, settings or the gate's own code differ between them"
    return None


def wrong(evidence: Evidence) -> list[str]:
    """Return a sentence for each thing that must not be: a forged outcome, a trial twice, or one that is missing."""
    forged = [
        f"trial {t.number} of session {t.session}: its blocks give another outcome" for t in disagreeing(evidence)
    ]
    ended = Counter((trial.session, trial.number) for trial in evidence.trials)
    began = {(line.session, line.number) for line in evidence.begun}
    last = {session: max(number for of, number in ended if of == session) for session, _ in ended}
    lost = {(session, number) for session, most in last.items() for number in range(1, most)} - ended.keys()
    found = {
        "is there more than once": {key for key, times in ended.items() if times > 1},
        "is missing": lost,
        "has no line that it was begun": ended.keys() - began,
    }
    return forged + [
        f"trial {number} of session {session} {what}"
        for what, keys in found.items()
        for session, number in sorted(keys)
    ]


def disagreeing(evidence: Evidence) -> list[Trial]:
    """Return the trials whose blocks give another outcome than the recorded one."""
    found = []
    for trial in evidence.trials:
        receipt = trial.receipt
        again = verdicts.final(verdicts.pair_effects(receipt.blocks), receipt.rules)
        if verdicts.overall(again) != verdicts.overall(receipt.verdicts):
            found.append(trial)
    return found


@dataclass(frozen=True)
class Pairs:
    """The A/A pairs that can be resampled."""

    ratios: Floats
    """Log ratios, [pairs, methods, blocks], a trial's pairs in their order."""
    starts: NDArray[np.int64]
    """Places from which `RUN` pairs are of one trial."""
    left_out: int
    """Pairs in which some method lacks blocks, having been disturbed."""


def pairs_of(trials: Iterable[Trial]) -> Pairs:
    """Return all whole A/A pairs: those in which every method has as many undisturbed blocks as is usual."""
    rows: list[tuple[int, list[list[float]]]] = []
    for index, trial in enumerate(trials):
        if trial.slowdown:
            continue
        for pair in range(trial.receipt.pairs):
            ratios: dict[str, list[float]] = {method: [] for method in trial.receipt.methods}
            for block in trial.receipt.blocks:
                if block.pair == pair and block.tainted is None:
                    ratios[block.method].append(verdicts.log_ratio(block))
            rows.append((index, [*ratios.values()]))
    usual = statistics.mode(len(values) for _, row in rows for values in row) if rows else 0
    whole = [(index, row) for index, row in rows if usual and all(len(values) == usual for values in row)]
    of = [index for index, _ in whole]
    starts = [start for start in range(len(of) - RUN + 1) if of[start] == of[start + RUN - 1]]
    kept = np.array([row for _, row in whole]) if whole else np.empty((0, 1, 1))
    return Pairs(kept, np.array(starts, dtype=np.int64), len(rows) - len(whole))


def middle(ratios: Floats) -> Floats:
    """Return what `verdicts.middle` does, over the last axis."""
    cut = ratios.shape[-1] // 4
    kept: Floats = np.sort(ratios, axis=-1)[..., cut : ratios.shape[-1] - cut].mean(axis=-1)
    return kept


def resampling(pairs: Pairs, effect: float, spikes: float = 0.0, one: bool = False) -> simulation.Draw:
    """Return a drawing of trials from recorded pairs, `RUN` consecutive ones at a time, with replacement.

    Args:
        pairs: what is drawn from, all methods of a pair together.
        effect: slowdown that is added.
        spikes: chance of each of a block's four pieces to be made longer, by up to `LARGEST_SPIKE`: what other work
            does that goes unnoticed.
        one: to one method of each trial only, drawn by lot; else to all.

    """

    def draw(generator: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
        trials, methods, count = shape
        starts = generator.choice(pairs.starts, (trials, math.ceil(count / RUN)))
        places = (starts[..., None] + np.arange(RUN)).reshape(trials, -1)[:, :count]
        chosen = pairs.ratios[places]  # [trials, pairs, methods, blocks]
        if spikes:
            for side in (1, -1, 1, -1):
                hit = generator.random(chosen.shape) < spikes
                chosen = chosen + side / 2 * hit * np.log1p(generator.uniform(0, LARGEST_SPIKE, chosen.shape))
        slowed = generator.integers(0, methods, (trials, 1)) == np.arange(methods) if one else np.ones((1, methods))
        return np.swapaxes(middle(chosen), 1, 2) + (slowed * math.log1p(effect))[..., None]

    return draw


def study(named: dict[str, tuple[Pairs, float]], rules: Sequence[Rules]) -> Table:
    """Return how resampled trials end, a row for each noise, rule and slowdown."""
    rows: list[list[Cell]] = []
    for rule in rules:
        for noise, (pairs, spikes) in named.items():
            methods = pairs.ratios.shape[1]
            for slowdown in SLOWDOWNS:
                everywhere, once = (
                    simulation.simulate(resampling(pairs, slowdown, spikes, one), rule, methods, RESAMPLED)
                    for one in (False, True)
                )
                shares = [everywhere.failed, once.failed, everywhere.passed]
                shown = [f"{share / RESAMPLED:.2%}".replace("%", " %") for share in shares]
                limits = f"{rate(rule.null)} / {rate(rule.target)}"
                rows.append([limits, noise, rate(slowdown), *shown, f"{everywhere.pairs:.1f}"])
    columns = (
        "let through / must not pass", "noise", "slowdown", "FAIL, all methods slowed", "FAIL, one slowed", "PASS",
        "pairs needed",
    )  # fmt: skip
    return table("resampled", "Resampled trials", columns, rows)


def report(evidence: Evidence, loaded: Evidence = Evidence()) -> str:
    """Return what trials say, in Markdown."""
    parts = ["## Live trials", _live(evidence)]
    if loaded.trials:
        parts += ["## Live trials under a competing load", _live(loaded)]
    pairs = pairs_of(evidence.trials)
    if not len(pairs.starts):
        return "\n\n".join([*parts, "Too few whole A/A pairs to resample."]) + "\n"
    named = {"as recorded": (pairs, 0.0), "with spikes": (pairs, SPIKES)}
    under_load = pairs_of(loaded.trials)
    if len(under_load.starts):
        named["under load"] = (under_load, 0.0)
    table_of_rates = markdown_table(study(named, [Rules(), FINER]))
    return "\n\n".join([*parts, "## Resampling", _explained(pairs, under_load), table_of_rates]) + "\n"


def _live(evidence: Evidence) -> str:
    trials = evidence.trials
    slowdown = max((trial.slowdown for trial in trials), default=0.0)
    sentences = list(selftest.summarise(trials).sentences(slowdown))
    sessions = len({trial.session for trial in trials})
    sentences.append(
        f"Trials begun: {len(evidence.begun)} in {sessions} session(s), of which {evidence.broken_off} were broken off."
    )
    blocks = [block for trial in trials for block in trial.receipt.blocks]
    disturbed = sum(block.tainted is not None for block in blocks)
    sentences.append(f"Blocks: {len(blocks)}, of which {disturbed} were disturbed and don't count.")
    if blocks:
        busy, waited = statistics.fmean(block.load for block in blocks), sum(sum(block.waited) for block in blocks)
        share = _percent(waited / sum(sum(block.waited) + sum(block.seconds) for block in blocks))
        sentences.append(
            f"Processes of others that ran meanwhile, on average: {busy:.2g}; share of the time in which a side waited "
            f"for its core: {share}."
        )
    sentences += _put_in(trials)
    used = [trial.receipt.pairs for trial in trials]
    if used:
        sentences.append(f"Process pairs of a trial: {statistics.fmean(used):.1f} on average, {max(used)} at most.")
    return "\n".join(f"- {sentence}" for sentence in [*sentences, *_spread(trials)])


def _spread(trials: Sequence[Trial]) -> list[str]:
    """Return sentences on the standard deviation and the mean of A/A pairs."""
    pairs = middle(pairs_of(trials).ratios)
    if len(pairs) < 2:
        return []
    names = next(trial for trial in trials if not trial.slowdown).receipt.methods
    spread = pairs.std(axis=0, ddof=1)
    half = t_quantile(0.975, len(pairs) - 1) * spread / math.sqrt(len(pairs))
    sds = ", ".join(f"{name} {_percent(sd)}" for name, sd in zip(names, spread, strict=True))
    means = zip(names, pairs.mean(axis=0), half, strict=True)
    bias = ", ".join(f"{name} {_percent(mean, '+.3%')} ± {_percent(h, '.3%')}" for name, mean, h in means)
    return [f"Standard deviation between A/A pairs: {sds}.", f"Mean of A/A pairs, with its 95 % interval: {bias}."]


def _percent(share: float, spec: str = ".2%") -> str:
    return f"{share:{spec}}".replace("%", " %")


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


def _explained(pairs: Pairs, under_load: Pairs) -> str:
    count = len(pairs.ratios)
    loaded = (
        f"Under load: drawn from {len(under_load.ratios)} pairs recorded beside the competing load "
        f"({under_load.left_out} left out), and nothing made up. "
        if len(under_load.starts)
        else ""
    )
    return (
        f"Each row: {RESAMPLED:,} trials drawn with replacement from {count} recorded A/A pairs, {RUN} consecutive "
        "ones at a time and all methods of a pair together, with a slowdown added to every method, or to one by lot. "
        f"{pairs.left_out} further pairs, in which some blocks were disturbed, are left out. With spikes: each timed "
        f"piece is made up to {rate(LARGEST_SPIKE)} longer with a chance of {rate(SPIKES)}, on either side. {loaded}"
        "Resampling tells what the rule does with noise such as was recorded; it knows the tails no better than the "
        "recorded pairs do, and the bounds above stay the claim."
    )


def main() -> int:
    """Print the report; pack or write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=Path, nargs="+")
    parser.add_argument("--loaded", type=Path, nargs="+", default=[], help="trials recorded under a competing load")
    parser.add_argument("--pack", type=Path, help="write the trials as one .jsonl.gz and stop")
    parser.add_argument("--write", type=Path, help="write the report here too")
    options = parser.parse_args()
    evidence, loaded = load(*options.trials), load(*options.loaded)
    if not evidence.trials:
        print(f"{', '.join(map(str, options.trials))}: no trials here", file=sys.stderr)
        return 2
    if reason := mixed((*evidence.trials, *loaded.trials)):
        print(f"these trials can't be taken together: {reason}", file=sys.stderr)
        return 2
    if options.pack:
        pack(evidence, options.pack)
        return 0
    faults = wrong(evidence) + wrong(loaded)
    text = report(evidence, loaded)
    print(text, end="")
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
