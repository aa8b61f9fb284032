"""Error rates of `hpml-bench check`: by simulation of its rule, and from recorded trials of the
gate itself.

    hpml-bench check --self-test --trials 299 --out trials
    python benchmarks/calibration.py trials trials --pack MACHINE/SESSION.jsonl.gz
    python benchmarks/calibration.py trials MACHINE/*.jsonl.gz --loaded MACHINE/loaded/*.jsonl.gz \
        --out MACHINE/evidence.md

Trials of several folders, each packed into a file of its own, are taken together if hardware,
versions, settings, rules and the gate's own code are the same. Verdicts are made again from the raw
blocks, and have to be those that were recorded; every trial that was started has to be there, but
for those that were broken off, which are counted. The recorded pairs are resampled too. Trials
recorded under benchmarks/competing_load.py are given by --loaded. Exit status 1 where something is
wrong, 2 where there are no trials or they don't belong together.
"""

import gzip
import itertools
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from scipy import stats

from hpml_bench.gate import selftest, verdicts
from hpml_bench.gate.rank_tests import signed_rank_tail
from hpml_bench.gate.records import CheckTrial, Rules, TrialStarted
from hpml_bench.gate.verdicts import rate
from hpml_bench.statistics.intervals import t_quantile
from simulation import percent, table_lines
from simulation.pages import step_down
from simulation.worlds import NOISE, Floats, Random

UNDECIDED, PASS, FAIL = 0, 1, 2
CHUNK = 4096  # simulated trials held in memory at once
SIMULATED, RESAMPLED = 20_000, 10_000  # trials of each row of the two studies
METHODS = 3
SPREADS = (0.01, 0.03)
SLOWDOWNS = (0.0, 0.01, 0.02, 0.03, 0.05)
SPIKES, LARGEST_SPIKE = 0.1, 0.5
"""Share of timed pieces that a made-up spike hits, and how much longer it makes them at most."""
# consecutive pairs of a trial that are drawn together, so that what lasts longer than a pair stays
# in
RUN = 6
FINER = Rules(target=0.02)  # what `--slowdown 2%` asks for
Shape = tuple[int, int, int]
Draw = Callable[[Random, Shape], Floats]  # effects as log ratios, [trials, methods, pairs]
KINDS: Mapping[str, tuple[str, int]] = {
    "normal": ("normal", 1),
    "heavy tails": ("t3", 1),
    "skewed to slow": ("skewed", 1),
    "skewed to fast": ("skewed", -1),
}
"""Name -> noise and its sign."""
_LINE: TypeAdapter[CheckTrial | TrialStarted] = TypeAdapter(CheckTrial | TrialStarted)


class Rates(NamedTuple):
    """Outcomes of simulated trials."""

    failed: int  # trials in which at least one method FAILed
    passed: int  # trials in which every method PASSed
    slipped: int  # trials in which at least one method PASSed
    pairs: float  # process pairs until a trial was settled, on average


def decide(effects: Floats, rules: Rules) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return each trial's and method's status, [trials, methods], and the pairs after which the
    trial was settled.

    The rule of `verdicts.verdicts_at` over many trials at once; effects are [trials, methods,
    pairs] for all looks.
    """
    trials, methods, _ = effects.shape
    status = np.zeros((trials, methods), dtype=np.int8)
    pairs = np.full(trials, rules.looks[-1], dtype=np.int64)
    open_ = np.ones(trials, dtype=bool)
    for size, alpha, beta in zip(
        rules.looks, verdicts.alphas(rules, methods), verdicts.betas(rules), strict=True
    ):
        above, below = (
            effects[..., :size] - math.log1p(rules.null),
            math.log1p(rules.target) - effects[..., :size],
        )
        # the signed-rank statistic: the sum of the ranks of |x| where x is positive
        ranks = [
            (stats.rankdata(np.abs(x), axis=-1, method="ordinal") * (x > 0)).sum(axis=-1)
            for x in (above, below)
        ]
        p_above, p_below = (signed_rank_tail(size)[of] for of in ranks)
        failing = step_down(p_above, np.arange(methods, 0, -1)) <= alpha
        now = np.where(failing, FAIL, np.where(p_below <= beta, PASS, UNDECIDED))
        status = np.where(open_[:, None] & (status == UNDECIDED), now, status).astype(np.int8)
        closing = open_ & ((status == FAIL).any(axis=1) | (status != UNDECIDED).all(axis=1))
        pairs[closing] = size
        open_ &= ~closing
    return status, pairs


def simulate(draw: Draw, rules: Rules, methods: int, trials: int, seed: int = 0) -> Rates:
    """Return the rates at which trials drawn by `draw` end in each way."""
    generator = np.random.default_rng(seed)
    sizes = [min(CHUNK, trials - start) for start in range(0, trials, CHUNK)]
    parts = [decide(draw(generator, (size, methods, rules.looks[-1])), rules) for size in sizes]
    status, pairs = (np.concatenate(of) for of in zip(*parts, strict=True))
    passes = status == PASS
    ends = ((status == FAIL).any(axis=1), passes.all(axis=1), passes.any(axis=1))
    failed, passed, slipped = (int(of.sum()) for of in ends)
    return Rates(failed, passed, slipped, float(pairs.mean()))


def drawing(kind: str, spread: float, slowdown: float, one: bool = False) -> Draw:
    """Return a drawing of log ratios about a slowdown, of all methods or of the first alone."""
    noise, sign = KINDS[kind]

    def draw(generator: Random, shape: Shape) -> Floats:
        values = sign * spread * NOISE[noise](generator, shape)
        values[:, : 1 if one else None] += math.log1p(slowdown)
        return values

    return draw


def rates_row(kind: str, spread: float) -> list[str]:
    """Return the shares of simulated trials that end each way."""
    rules = Rules()
    at = {
        s: simulate(drawing(kind, spread, s), rules, METHODS, SIMULATED)
        for s in (0, 0.01, 0.02, 0.03)
    }
    single = simulate(drawing(kind, spread, rules.target, one=True), rules, METHODS, SIMULATED)
    alone = simulate(drawing(kind, spread, rules.target), rules, 1, SIMULATED)
    shares = [found.failed for found in at.values()] + [single.failed, at[0].passed, alone.passed]
    shown = [percent(share / SIMULATED, 2) for share in shares]
    return [rate(spread), *shown, f"{at[0].pairs:.1f}", f"{at[0.03].pairs:.1f}"]


def print_rates(_: int) -> None:
    columns = (
        "noise",
        "sd between pairs",
        *(f"FAIL at {n} %" for n in range(4)),
        "FAIL at 3 % in one of three",
        "PASS at 0 %",
        "one method's PASS at 3 %",
        "pairs at 0 %",
        "pairs at 3 %",
    )
    rows = ((kind, rates_row(kind, spread)) for kind in KINDS for spread in SPREADS)
    for line in table_lines(columns, rows, left=len(columns)):
        print(line, flush=True)


class Evidence(NamedTuple):
    """Recorded trials, by session and number, and which were started."""

    trials: tuple[CheckTrial, ...] = ()
    started: tuple[TrialStarted, ...] = ()


def load(*paths: Path) -> Evidence:
    """Return the trials of folders that a self-test wrote, and of `.jsonl.gz` packed from such."""
    found: list[CheckTrial | TrialStarted] = []
    for path in paths:
        if path.is_dir():
            found += [*selftest.started(path), *(trial for _, trial in selftest.kept(path))]
        else:
            found += map(
                _LINE.validate_json, gzip.decompress(path.read_bytes()).decode().splitlines()
            )
    trials = [line for line in found if isinstance(line, CheckTrial)]
    started = tuple(line for line in found if isinstance(line, TrialStarted))
    return Evidence(tuple(sorted(trials, key=lambda trial: (trial.session, trial.number))), started)


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
    kinds = [selftest.conditions(trial.report.environment) for trial in trials]
    if any(kind != kinds[0] for kind in kinds):
        return "hardware, versions, settings or the gate's own code differ between them"
    return None


def wrong(evidence: Evidence) -> list[str]:
    """Return a sentence for each thing that must not be: a forged outcome, a trial twice, or one
    that is missing.
    """
    forged = set()
    for trial in evidence.trials:
        again = verdicts.verdicts_at(verdicts.pair_effects(trial.report.blocks), trial.report.rules)
        if verdicts.overall(again) != verdicts.overall(trial.report.verdicts):
            forged.add((trial.session, trial.number))
    ended = Counter((trial.session, trial.number) for trial in evidence.trials)
    last = {session: max(number for of, number in ended if of == session) for session, _ in ended}
    faults = {
        "has blocks that give another outcome": forged,
        "is there more than once": {key for key, times in ended.items() if times > 1},
        "is missing": {(of, number) for of, most in last.items() for number in range(1, most)}
        - ended.keys(),
        "has no line that it was started": ended.keys()
        - {(line.session, line.number) for line in evidence.started},
    }
    return [
        f"trial {number} of session {of} {what}"
        for what, keys in faults.items()
        for of, number in sorted(keys)
    ]


def live(evidence: Evidence) -> str:
    """Return the rates, disturbances and spread of trials, as a list in Markdown."""
    trials = evidence.trials
    _, sentences = selftest.summary(trials, max((trial.slowdown for trial in trials), default=0.0))
    blocks = [block for trial in trials for block in trial.report.blocks]
    busy, waited = (
        statistics.fmean(block.load for block in blocks),
        sum(sum(block.waited) for block in blocks),
    )
    sentences += [
        f"Trials started: {len(evidence.started)} in {len({trial.session for trial in trials})} "
        f"session(s), of which {len(evidence.started) - len(trials)} were broken off.",
        f"Blocks: {len(blocks)}, of which {sum(block.disturbed is not None for block in blocks)} "
        "were disturbed and don't count.",
        f"Processes of others that ran meanwhile, on average: {busy:.2g}; share of the time in "
        "which a side waited for its core: "
        f"{percent(waited / sum(sum(block.waited) + sum(block.seconds) for block in blocks), 2)}.",
    ]
    slowed = [trial for trial in trials if trial.slowdown]
    known, named = [trial.injected for trial in slowed if trial.injected], []
    for method in known[0] if known else ():
        found = [of[method] for of in known if method in of]
        middle, *ends = (
            percent(of, 2) for of in (statistics.median(found), min(found), max(found))
        )
        named.append(f"{method} {middle} ({' to '.join(ends)})")
    if known:
        sentences.append(
            "Slowdown injected, the delay's time over the other side's step time, median and "
            f"range of {len(known)} of {len(slowed)} slowed trials: {', '.join(named)}."
        )
    elif slowed:
        sentences.append(f"Slowdown injected: not recorded in these {len(slowed)} slowed trials.")
    used = [trial.report.pairs for trial in trials]
    sentences.append(
        f"Process pairs of a trial: {statistics.fmean(used):.1f} on average, {max(used)} at most."
    )
    pairs = np.asarray(stats.trim_mean(pairs_of(trials).ratios, 0.25, axis=-1))
    if len(pairs) > 1:
        names = next(trial for trial in trials if not trial.slowdown).report.methods
        spread = pairs.std(axis=0, ddof=1)
        half = t_quantile(0.975, len(pairs) - 1) * spread / math.sqrt(len(pairs))
        spreads = [f"{name} {percent(sd, 2)}" for name, sd in zip(names, spread, strict=True)]
        means = zip(names, pairs.mean(axis=0), half, strict=True)
        bias = ", ".join(f"{name} {100 * mean:+.3f} % ± {percent(h, 3)}" for name, mean, h in means)
        sentences.append(f"Standard deviation between A/A pairs: {', '.join(spreads)}.")
        sentences.append(f"Mean of A/A pairs, with its 95 % interval: {bias}.")
    return "\n".join(f"- {sentence}" for sentence in sentences)


class Pairs(NamedTuple):
    """The A/A pairs that can be resampled."""

    ratios: Floats  # log ratios, [pairs, methods, blocks], a trial's pairs in their order
    starts: NDArray[np.int64]  # places from which `RUN` pairs are of one trial
    left_out: int  # pairs in which some method lacks blocks, having been disturbed


def pairs_of(trials: Iterable[CheckTrial]) -> Pairs:
    """Return all whole A/A pairs: those in which every method has as many undisturbed blocks as
    is usual.
    """
    rows: list[tuple[int, list[list[float]]]] = []
    for index, trial in enumerate(trials):
        for pair in range(0 if trial.slowdown else trial.report.pairs):
            found = [
                block
                for block in trial.report.blocks
                if block.pair == pair and block.disturbed is None
            ]
            by_method = (
                [b for b in found if b.method == method] for method in trial.report.methods
            )
            rows.append((index, [[*map(verdicts.log_ratio, blocks)] for blocks in by_method]))
    usual = statistics.mode(len(values) for _, row in rows for values in row) if rows else 0
    whole = [
        (index, row) for index, row in rows if usual and all(len(values) == usual for values in row)
    ]
    of = [index for index, _ in whole]
    starts = [start for start in range(len(of) - RUN + 1) if of[start] == of[start + RUN - 1]]
    kept = np.array([row for _, row in whole]) if whole else np.empty((0, 1, 1))
    return Pairs(kept, np.array(starts, dtype=np.int64), len(rows) - len(whole))


def resampling(pairs: Pairs, effect: float, spikes: float = 0.0, one: bool = False) -> Draw:
    """Return a drawing of trials from recorded pairs, `RUN` consecutive ones at a time, with
    replacement.

    `effect` is added to all methods, or to `one` of each trial drawn by lot. `spikes`: chance of
    each of a block's four pieces to be made longer, by up to `LARGEST_SPIKE`, as other work does
    that goes unnoticed.
    """

    def draw(generator: Random, shape: Shape) -> Floats:
        trials, methods, count = shape
        starts = generator.choice(pairs.starts, (trials, math.ceil(count / RUN)))
        places = (starts[..., None] + np.arange(RUN)).reshape(trials, -1)[:, :count]
        chosen = pairs.ratios[places]  # [trials, pairs, methods, blocks]
        if spikes:
            for side in (1, -1, 1, -1):
                hit = generator.random(chosen.shape) < spikes
                chosen = chosen + side / 2 * hit * np.log1p(
                    generator.uniform(0, LARGEST_SPIKE, chosen.shape)
                )
        slowed = (
            generator.integers(0, methods, (trials, 1)) == np.arange(methods)
            if one
            else np.ones((1, methods))
        )
        effects = np.swapaxes(stats.trim_mean(chosen, 0.25, axis=-1), 1, 2)
        return np.asarray(effects + (slowed * math.log1p(effect))[..., None])

    return draw


def study(named: Mapping[str, tuple[Pairs, float]]) -> Iterator[str]:
    """Yield a table of how resampled trials end, a row for each rule, noise and slowdown."""

    def rows() -> Iterator[tuple[str, list[str]]]:
        every = itertools.product((Rules(), FINER), named.items(), SLOWDOWNS)
        for rules, (noise, (pairs, spikes)), slowdown in every:
            draws = [resampling(pairs, slowdown, spikes, one) for one in (False, True)]
            everywhere, once = (
                simulate(draw, rules, pairs.ratios.shape[1], RESAMPLED) for draw in draws
            )
            shown = [
                percent(n / RESAMPLED, 2)
                for n in (everywhere.failed, once.failed, everywhere.passed)
            ]
            limits = f"{rate(rules.null)} / {rate(rules.target)}"
            yield limits, [noise, rate(slowdown), *shown, f"{everywhere.pairs:.1f}"]

    columns = (
        "let through / must not pass",
        "noise",
        "slowdown",
        "FAIL, all methods slowed",
        "FAIL, one slowed",
        "PASS",
        "pairs needed",
    )
    return table_lines(columns, rows(), left=len(columns))


def render(evidence: Evidence, loaded: Evidence) -> str:
    parts = ["## Live trials", live(evidence)]
    if loaded.trials:
        parts += ["## Live trials under a competing load", live(loaded)]
    pairs, under_load = pairs_of(evidence.trials), pairs_of(loaded.trials)
    if not len(pairs.starts):
        return "\n\n".join([*parts, "Too few whole A/A pairs to resample."]) + "\n"
    named = {"as recorded": (pairs, 0.0), "with spikes": (pairs, SPIKES)}
    of_load = ""
    if len(under_load.starts):
        named["under load"] = (under_load, 0.0)
        of_load = (
            f"Under load: drawn from {len(under_load.ratios)} pairs recorded beside the competing "
            f"load ({under_load.left_out} left out), and nothing made up. "
        )
    explained = (
        f"Each row: {RESAMPLED:,} trials drawn with replacement from {len(pairs.ratios)} recorded "
        f"A/A pairs, {RUN} consecutive ones at a time and all methods of a pair together, with a "
        f"slowdown added to every method, or to one by lot. {pairs.left_out} further pairs, in "
        "which some blocks were disturbed, are left out. With spikes: each timed piece is made up "
        f"to {rate(LARGEST_SPIKE)} longer with a chance of {rate(SPIKES)}, on either side. "
        f"{of_load}Resampling tells what the rule does with noise such as was recorded; it knows "
        "the tails no better than the recorded pairs do, and the bounds above stay the claim."
    )
    return "\n\n".join([*parts, "## Resampling", explained, "\n".join(study(named))]) + "\n"


def report(
    trials: Sequence[Path], under_load: Sequence[Path], packed: Path | None, out: Path | None
) -> int:
    """Print the rates of recorded trials, and write them; or pack the trials into one file.
    Return an exit status.
    """
    evidence, loaded = load(*trials), load(*under_load)
    if not evidence.trials:
        print(f"{', '.join(map(str, trials))}: no trials here", file=sys.stderr)
        return 2
    if reason := mixed((*evidence.trials, *loaded.trials)):
        print(f"these trials can't be taken together: {reason}", file=sys.stderr)
        return 2
    if packed:
        pack(evidence, packed)
        return 0
    text, faults = render(evidence, loaded), wrong(evidence) + wrong(loaded)
    print(text, end="")
    if out:
        out.write_text(text, encoding="utf-8")
    print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
    return 1 if faults else 0
