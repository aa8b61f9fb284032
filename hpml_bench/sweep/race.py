"""Rounds of a sweep that ends when its question is answered: who is in the race, with how many
seeds, why it ends.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hpml_bench.records.load import headlines, load_records
from hpml_bench.records.run import FINAL
from hpml_bench.report.judge import race_end
from hpml_bench.report.numbers import count_of, sentence_list
from hpml_bench.report.results import Results
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import Suite, Until, alike
from hpml_bench.sweep.plan import SweepRequest
from hpml_bench.system.errors import UserError


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
        gone = (
            f"; {sentence_list(self.left)} {'has' if len(self.left) == 1 else 'have'} left"
            if self.left
            else ""
        )
        place = f"round {self.number} of {len(self.until.rounds)}, {self.seeds} seeds{gone}"
        return f"{place}: {self.end or sentence_list(self.staying)}"


def standing(results: Results | None, until: Until, methods: tuple[str, ...]) -> Standing:
    """Return how a race of these methods stands; before any run has ended, one that declares
    `until`.
    """
    if results is None or results.race is None:
        return Standing(until, 1, methods)
    found, until, end = results.verdicts, results.race.until, race_end(results.verdicts)
    left = tuple(name for one in found.rounds for name in one.left)
    # a method without a score after the first round has failed: it can't be best
    there = [name for name in methods if name in found.scores.means or not found.rounds]
    number, done = len(found.rounds) + (not end), found.rounds[-1].seeds if found.rounds else 0
    now = Standing(until, number, tuple(n for n in there if n not in left), done, left, end)
    if end or not found.scores.complete(now.staying, now.seeds):
        return now
    few = "a race takes two methods with scores"
    alike = (
        found.why or f"no two methods have scores of {until.rounds[0]} seeds that vary over seeds"
    )
    return replace(now, stuck=few if len(found.scores.means) < 2 else alike)


def measured(folder: Path) -> Results | None:
    """Return the results in a folder; None where no record can be compared yet."""
    with suppress(UserError):
        results = Results.load(folder)
        return results if results.compared else None
    return None


def due(results: Results, suite: Suite) -> list[RunSpec]:
    """Return the runs that a race has made, or needs for its round."""
    now = standing(results, suite.until or Until(), tuple(suite.methods))
    first, last = (
        dict.fromkeys(suite.methods, now.until.rounds[0]),
        dict.fromkeys(now.staying, now.seeds),
    )
    most = first | results.verdicts.raced | last
    return [
        spec
        for spec in suite.runs(seeds=range(max(most.values())))
        if spec.seed < most[spec.method.name]
    ]


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
    suite, until, before = request.suite, request.suite.until, 0
    if until is None:
        yield _with_looks(request)
        return
    if request.methods is not None:
        raise UserError(
            "--methods goes without --until, which is about all methods of a suite; write one "
            "with fewer"
        )
    methods, began = tuple(suite.methods), time.monotonic()
    results = None if request.fresh else measured(request.folder)
    if results and (results.race is None or results.race.until != until):
        looks = (
            f"rounds of {', '.join(map(str, results.race.until.rounds))} seeds"
            if results.race
            else "no rounds"
        )
        raise UserError(
            f"{request.folder}: its first run declares {looks}, and looks count as declared; go on "
            "with the same --until and --max-seeds, or begin anew with --fresh"
        )
    now = standing(results, until, methods)
    while not now.end and now.number > before:
        say(str(now))
        before, fresh = now.number, request.fresh and not before
        asked = tuple(
            name
            for name in now.staying
            if not (now.done and alike(suite.settings, suite.method(name)))
        )
        seeds, most = range(now.done, now.seeds), None
        if ahead and now.number < len(until.rounds):
            unit = len(asked) if ahead.unit == "seed" else 1
            runs = len(suite.runs(asked, seeds))
            seeds, most = (
                range(now.done, until.rounds[now.number]),
                runs + -(runs // unit) % ahead.parallel * unit,
            )
        yield replace(
            request,
            methods=None if fresh else asked,
            seeds=tuple(seeds),
            most=most,
            fresh=fresh,
            began=began,
        )
        now = standing(measured(request.folder), until, methods)
    say(
        str(now)
        if now.end
        else f"round {now.number} of {len(until.rounds)} is the last: {now.stuck}"
    )


def _with_looks(request: SweepRequest) -> SweepRequest:
    """Return a request with the number of looks that the first run in its folder declares; a
    UserError at another.
    """
    records = () if request.fresh and request.whole else load_records(request.folder).records
    if not records:
        return request
    began = [
        record.declared
        for record in sorted(records, key=lambda record: record.started)
        if record.declared
    ]
    declared, given = began[0].looks if began else None, request.suite.looks
    if given not in {None, declared}:
        before = count_of(declared, "look") if declared else "no looks"
        raise UserError(
            f"{request.folder}: its first run declares {before}, and looks count as declared; go "
            "on without --looks or begin anew with --fresh"
        )
    return (
        request
        if given == declared
        else replace(request, suite=request.suite.model_copy(update={"looks": declared}))
    )


def span(request: SweepRequest, until: Until) -> str:
    """Return the least and the most runs of a race, and hours at the pace of the recorded runs,
    in a few words.
    """
    ends = [
        len(request.suite.runs(seeds=range(seeds))) for seeds in (until.rounds[0], until.rounds[-1])
    ]
    seconds = [of.wall_seconds for of in headlines(request.folder) if of.status in FINAL]
    hours = [f"{n * sum(seconds) / len(seconds) / 3600:.2g}" for n in ends if seconds]
    least, most = (" to ".join(dict.fromkeys(map(str, of))) for of in (ends, hours))
    return f"{least} runs" + (f", {most} hours of runs" if hours else "")
