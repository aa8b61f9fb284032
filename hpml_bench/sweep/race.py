"""Rounds of a sweep that ends when its question is answered: who is in the race, with how many
seeds, why it ends.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hpml_bench.judge.judged import JudgedRuns
from hpml_bench.judge.verdicts import race_end
from hpml_bench.records.load import headlines, load_records
from hpml_bench.records.numbers import sentence_list
from hpml_bench.records.run import FINAL
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite, Until, alike
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import count_of


@dataclass(frozen=True)
class Standing:
    """State of a race."""

    until: Until  # the looks that count: those that its first run declares
    # number, from 1, of the round under way or next; of the last one where the race has ended
    number: int
    staying: tuple[str, ...]  # methods in the race
    done: int = 0  # seeds of the last complete round
    left: tuple[str, ...] = ()  # methods that have left, in order
    end: str = ""  # why the race has ended, as a sentence without its end; empty while it goes on
    stuck: str = "its runs aren't all done; the same command goes on from here"
    """Why its round isn't complete once it was run, as the end of a sentence."""

    @property
    def seeds(self) -> int:
        """Seeds of each method that is in the race, in its round."""
        return self.until.rounds[self.number - 1]

    def __str__(self) -> str:
        place = f"round {self.number} of {len(self.until.rounds)}, {self.seeds} seeds"
        if self.left:
            have = "has" if len(self.left) == 1 else "have"
            place += f"; {sentence_list(self.left)} {have} left"
        return f"{place}: {self.end or sentence_list(self.staying)}"


def standing(results: JudgedRuns | None, until: Until, methods: tuple[str, ...]) -> Standing:
    """Return how a race of these methods stands; before any run has ended, one that declares
    `until`.
    """
    if results is None or results.race is None:
        return Standing(until, 1, methods)
    until = results.race.until  # that of the first run counts
    verdicts = results.verdicts
    end = race_end(verdicts)
    rounds_done = len(verdicts.rounds)
    scored = verdicts.scores.means
    left = tuple(name for one in verdicts.rounds for name in one.left)
    # a method without a score after the first round has failed: it can't be best
    in_race = [name for name in methods if name in scored or not rounds_done]
    current = Standing(
        until,
        number=rounds_done if end else rounds_done + 1,
        staying=tuple(name for name in in_race if name not in left),
        done=verdicts.rounds[-1].seeds if rounds_done else 0,
        left=left,
        end=end,
    )
    all_runs_ended = verdicts.scores.complete(current.staying, current.seeds)
    if end or not all_runs_ended:
        return current
    # every run of the round has ended, and yet no look could be taken
    if len(scored) < 2:
        return replace(current, stuck="a race takes two methods with scores")
    no_variation = f"no two methods have scores of {until.rounds[0]} seeds that vary over seeds"
    return replace(current, stuck=verdicts.why or no_variation)


def measured(folder: Path) -> JudgedRuns | None:
    """Return the judged runs in a folder; None where no record can be compared yet."""
    if next(headlines(folder), None) is None:
        # before any run has ended there is nothing to select or to judge
        return None
    with suppress(UserError):
        judged = JudgedRuns.load(folder)
        return judged if judged.compared else None
    return None


def due(results: JudgedRuns, suite: Suite) -> list[RunSpec]:
    """Return the runs that a race has made, or needs for its round."""
    current = standing(results, suite.until or Until(), tuple(suite.methods))
    seeds_of = dict.fromkeys(suite.methods, current.until.rounds[0])
    seeds_of |= results.verdicts.raced  # of those that left: the seeds of their last round
    seeds_of |= dict.fromkeys(current.staying, current.seeds)
    planned = suite.runs(seeds=range(max(seeds_of.values())))
    return [spec for spec in planned if spec.seed < seeds_of[spec.method.name]]


def rounds(
    request: SweepRequest, say: Callable[[str], object], ahead: Profile | None = None
) -> Iterator[SweepRequest]:
    """Yield the request of each round until the race has ended, and say how it stands before each
    and at the end.

    Slots of the profile `ahead` that a round would leave idle get runs of the next one, which no
    look before it uses. A round whose runs could not all be done is the last. A suite without
    `until` has one round, of all its runs. Raises UserError if the runs in the folder were begun
    under another declaration, or methods are chosen.
    """
    suite, until = request.suite, request.suite.until
    if until is None:
        yield _with_looks(request)
        return
    if request.methods is not None:
        raise UserError(
            "--methods goes without --until, which is about all methods of a suite; write one "
            "with fewer"
        )
    began = time.monotonic()  # the hours of a race count from here, over all its rounds
    methods = tuple(suite.methods)
    earlier = None if request.fresh else measured(request.folder)
    _check_declaration(earlier, until, request.folder)

    current = standing(earlier, until, methods)
    last_round = 0
    # a round that could not be completed comes back with the same number: it is the last
    while not current.end and current.number > last_round:
        say(str(current))
        round_request = _request_of_round(request, current, until, ahead)
        if request.fresh and last_round == 0:
            # naming no methods makes the request whole, so that the whole folder is set aside
            round_request = replace(round_request, methods=None, fresh=True)
        yield replace(round_request, began=began)
        last_round = current.number
        current = standing(measured(request.folder), until, methods)

    if current.end:
        say(str(current))
    else:
        say(f"round {current.number} of {len(until.rounds)} is the last: {current.stuck}")


def _check_declaration(earlier: JudgedRuns | None, until: Until, folder: Path) -> None:
    """Raise UserError if runs in the folder were begun under other rounds than `until`.

    The level of each look was fixed before the first of them. Looks that are declared once results
    are known could turn chance into verdicts.
    """
    if earlier is None or (earlier.race is not None and earlier.race.until == until):
        return
    if earlier.race is None:
        declared = "no rounds"
    else:
        declared = f"rounds of {', '.join(map(str, earlier.race.until.rounds))} seeds"
    raise UserError(
        f"{folder}: its first run declares {declared}, and looks count as declared; go on with "
        "the same --until and --max-seeds, or begin anew with --fresh"
    )


def _request_of_round(
    request: SweepRequest, current: Standing, until: Until, ahead: Profile | None
) -> SweepRequest:
    """Return the request for the runs of a round, and for those that fill idle slots of `ahead`."""
    suite = request.suite
    # a method that answers alike with every seed has its only run in the first round
    methods = tuple(
        name
        for name in current.staying
        if current.done == 0 or not alike(suite.settings, suite.method(name))
    )
    seeds = range(current.done, current.seeds)
    most_runs = None
    if ahead is not None and current.number < len(until.rounds):
        runs = len(suite.runs(methods, seeds))
        runs_per_job = len(methods) if ahead.unit == "seed" else 1
        idle_slots = -(runs // runs_per_job) % ahead.parallel
        most_runs = runs + idle_slots * runs_per_job
        seeds = range(current.done, until.rounds[current.number])
    return replace(
        request, methods=methods, seeds=tuple(seeds), most=most_runs, fresh=False, began=None
    )


def _with_looks(request: SweepRequest) -> SweepRequest:
    """Return a request with the number of looks that the first run in its folder declares; a
    UserError at another.
    """
    starts_anew = request.fresh and request.whole
    records = () if starts_anew else load_records(request.folder).records
    if not records:
        return request
    by_start = sorted(records, key=lambda record: record.started)
    first = next((record.declared for record in by_start if record.declared), None)
    declared = first.looks if first else None
    requested = request.suite.looks
    if requested == declared:
        return request
    if requested is not None:
        before = count_of(declared, "look") if declared else "no looks"
        raise UserError(
            f"{request.folder}: its first run declares {before}, and looks count as declared; go "
            "on without --looks or begin anew with --fresh"
        )
    return replace(request, suite=request.suite.model_copy(update={"looks": declared}))


def span(request: SweepRequest, until: Until) -> str:
    """Return the least and the most runs of a race, and hours at the pace of the recorded runs,
    in a few words.
    """
    suite = request.suite
    least_runs = len(suite.runs(seeds=range(until.rounds[0])))
    most_runs = len(suite.runs(seeds=range(until.rounds[-1])))
    runs = f"{_range(str(least_runs), str(most_runs))} runs"
    seconds = [run.wall_seconds for run in headlines(request.folder) if run.status in FINAL]
    if not seconds:
        return runs
    total = sum(seconds)
    least_hours = least_runs * total / len(seconds) / 3600
    most_hours = most_runs * total / len(seconds) / 3600
    hours = _range(f"{least_hours:.2g}", f"{most_hours:.2g}")
    return f"{runs}, {hours} hours of runs"


def _range(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"
