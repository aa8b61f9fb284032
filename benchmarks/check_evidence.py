r"""Evidence of the gate's recorded trials: rates with exact bounds, and a resampling study over the recorded pairs.

    hpml-bench check --self-test --trials 299 --out trials
    python benchmarks/check_evidence.py trials --pack MACHINE/SESSION.jsonl.gz
    python benchmarks/check_evidence.py MACHINE/*.jsonl.gz --loaded MACHINE/loaded/*.jsonl.gz \
        --write MACHINE/evidence.md

Trials of several folders, each packed into a file of its own, are taken together if hardware, versions, settings,
rules and the gate's own code are the same. Verdicts are made again from the raw blocks, and have to be those that were
recorded; every trial that was started has to be there, but for those that were broken off, which are counted. Trials
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

from check_resampling import LARGEST_SPIKE, RESAMPLED, RUN, SPIKES, Pairs, middle, pairs_of, study
from pydantic import TypeAdapter

from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.decide.rates import summarise
from hpml_bench.gate.decide.sentences import rate
from hpml_bench.gate.records import CheckTrial, Rules, TrialStarted
from hpml_bench.gate.trials import TrialFolder, conditions
from hpml_bench.report.export import markdown_table
from hpml_bench.statistics.intervals import t_quantile

FINER = Rules(target=0.02)
"""What `--slowdown 2%` asks for."""
_LINE: TypeAdapter[CheckTrial | TrialStarted] = TypeAdapter(CheckTrial | TrialStarted)


@dataclass(frozen=True)
class Evidence:
    """What was recorded: the trials by session and number, and which were started."""

    trials: tuple[CheckTrial, ...] = ()
    started: tuple[TrialStarted, ...] = ()

    @property
    def broken_off(self) -> int:
        """How often a trial was started that has no outcome, or has it from another start."""
        return len(self.started) - len(self.trials)


def load(*paths: Path) -> Evidence:
    """Return the trials of folders that a self-test wrote, and of `.jsonl.gz` packed from such."""
    found: list[CheckTrial | TrialStarted] = []
    for path in paths:
        if path.is_dir():
            folder = TrialFolder(path)
            found += [*folder.started(), *(trial for _, trial in folder.trials())]
        else:
            found += map(_LINE.validate_json, gzip.decompress(path.read_bytes()).decode().splitlines())
    trials = (line for line in found if isinstance(line, CheckTrial))
    return Evidence(
        tuple(sorted(trials, key=lambda trial: (trial.session, trial.number))),
        tuple(line for line in found if isinstance(line, TrialStarted)),
    )


def pack(evidence: Evidence, path: Path) -> None:
    """Write trials as one compressed file, the same bytes every time."""
    text = "".join(line.model_dump_json() + "\n" for line in (*evidence.trials, *evidence.started))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def mixed(trials: Sequence[CheckTrial]) -> str | None:
    """Return why these trials can't be taken together; None where they can."""
    if len({trial.slowdown for trial in trials if trial.slowdown}) > 1:
        return "their slowdowns differ"
    if len({(trial.report.rules, trial.report.methods) for trial in trials}) > 1:
        return "their rules or methods differ"
    kinds = [conditions(trial.report.environment) for trial in trials]
    if any(kind != kinds[0] for kind in kinds):
        return "hardware, versions, settings or the gate's own code differ between them"
    return None


def wrong(evidence: Evidence) -> list[str]:
    """Return a sentence for each thing that must not be: a forged outcome, a trial twice, or one that is missing."""
    forged = [
        f"trial {t.number} of session {t.session}: its blocks give another outcome" for t in disagreeing(evidence)
    ]
    ended = Counter((trial.session, trial.number) for trial in evidence.trials)
    started = {(line.session, line.number) for line in evidence.started}
    last = {session: max(number for of, number in ended if of == session) for session, _ in ended}
    lost = {(session, number) for session, most in last.items() for number in range(1, most)} - ended.keys()
    found = {
        "is there more than once": {key for key, times in ended.items() if times > 1},
        "is missing": lost,
        "has no line that it was started": ended.keys() - started,
    }
    return forged + [
        f"trial {number} of session {session} {what}"
        for what, keys in found.items()
        for session, number in sorted(keys)
    ]


def disagreeing(evidence: Evidence) -> list[CheckTrial]:
    """Return the trials whose blocks give another outcome than the recorded one."""
    found = []
    for trial in evidence.trials:
        report = trial.report
        again = verdicts.final(verdicts.pair_effects(report.blocks), report.rules)
        if verdicts.overall(again) != verdicts.overall(report.verdicts):
            found.append(trial)
    return found


def render(evidence: Evidence, loaded: Evidence = Evidence()) -> str:
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
    sentences = list(summarise(trials).sentences(slowdown))
    sessions = len({trial.session for trial in trials})
    sentences.append(
        f"Trials started: {len(evidence.started)} in {sessions} session(s), of which {evidence.broken_off} were broken "
        "off."
    )
    blocks = [block for trial in trials for block in trial.report.blocks]
    disturbed = sum(block.disturbed is not None for block in blocks)
    sentences.append(f"Blocks: {len(blocks)}, of which {disturbed} were disturbed and don't count.")
    if blocks:
        busy, waited = statistics.fmean(block.load for block in blocks), sum(sum(block.waited) for block in blocks)
        share = _percent(waited / sum(sum(block.waited) + sum(block.seconds) for block in blocks))
        sentences.append(
            f"Processes of others that ran meanwhile, on average: {busy:.2g}; share of the time in which a side waited "
            f"for its core: {share}."
        )
    sentences += _injected(trials)
    used = [trial.report.pairs for trial in trials]
    if used:
        sentences.append(f"Process pairs of a trial: {statistics.fmean(used):.1f} on average, {max(used)} at most.")
    return "\n".join(f"- {sentence}" for sentence in [*sentences, *_spread(trials)])


def _spread(trials: Sequence[CheckTrial]) -> list[str]:
    """Return sentences on the standard deviation and the mean of A/A pairs."""
    pairs = middle(pairs_of(trials).ratios)
    if len(pairs) < 2:
        return []
    names = next(trial for trial in trials if not trial.slowdown).report.methods
    spread = pairs.std(axis=0, ddof=1)
    half = t_quantile(0.975, len(pairs) - 1) * spread / math.sqrt(len(pairs))
    sds = ", ".join(f"{name} {_percent(sd)}" for name, sd in zip(names, spread, strict=True))
    means = zip(names, pairs.mean(axis=0), half, strict=True)
    bias = ", ".join(f"{name} {_percent(mean, '+.3%')} ± {_percent(h, '.3%')}" for name, mean, h in means)
    return [f"Standard deviation between A/A pairs: {sds}.", f"Mean of A/A pairs, with its 95 % interval: {bias}."]


def _percent(share: float, spec: str = ".2%") -> str:
    return f"{share:{spec}}".replace("%", " %")


def _injected(trials: Iterable[CheckTrial]) -> list[str]:
    """Return a sentence on the slowdown injected into the slowed trials, where it was recorded."""
    slowed = [trial for trial in trials if trial.slowdown]
    known = [trial for trial in slowed if trial.injected]
    if not known:
        return [f"Slowdown injected: not recorded in these {len(slowed)} slowed trials."] if slowed else []
    shares = {
        method: [trial.injected[method] for trial in known if method in trial.injected] for method in known[0].injected
    }
    named = [
        f"{method} {statistics.median(found):.2%} ({min(found):.2%} to {max(found):.2%})".replace("%", " %")
        for method, found in shares.items()
    ]
    return [
        "Slowdown injected, the delay's time over the other side's step time, median and range of "
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
    text = render(evidence, loaded)
    print(text, end="")
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
