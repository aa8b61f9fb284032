"""Launcher: a new process group for each run; its outcome, from files and exit codes of the
ranks, and its record.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpml_bench.launch import fork_server
from hpml_bench.launch.watchdog import Watchdog
from hpml_bench.records.files import OUTCOME
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.run import Outcome, RunError, RunRecord, Status, protocol_id
from hpml_bench.system import cgroups, descriptors, environment, errors, network, processes
from hpml_bench.system.errors import UserError, lost_peer
from hpml_bench.system.files import read_model
from hpml_bench.system.redaction import redacted_error
from hpml_bench.system.signals import Stop, stoppable
from hpml_bench.system.text import utc_now
from hpml_bench.training.request import RunRequest

RunRanks = Callable[
    [RunRequest, Stop], Outcome
]  # runs all ranks of a run until they have ended; returns the outcome
End = tuple[Status, RunError]  # how ranks ended otherwise than well, and why


@dataclass(frozen=True)
class Nodes:
    """The nodes of a run as its launcher on one of them knows them; by default this machine
    alone.
    """

    count: int = 1
    # number of this node, from 0; it has the ranks `number * ranks` to `(number + 1) * ranks - 1`
    number: int = 0
    host: str = network.LOOPBACK  # address of the store by which the nodes meet
    port: int = 0  # 0: the store is this process's own, on a port that the kernel picks

    def ranks(self, world_size: int) -> range:
        each = world_size // self.count
        return range(self.number * each, (self.number + 1) * each)


ALONE = Nodes()


def here(request: RunRequest, stop: Stop) -> Outcome:
    """Run all ranks on this machine; UserError if they couldn't connect to each other, or may not
    open enough files.
    """
    if problem := network.no_loopback():
        raise UserError(f"{problem}, by which the ranks of a run meet; {network.LOOPBACK_ADVICE}")
    descriptors.allow(request.spec.settings.world_size or 1)
    return outcome_of(request.folder, watched(request, stop))


def run(request: RunRequest, run_ranks: RunRanks = here) -> RunRecord:
    """Execute one run in a process group of its own and commit its record, whatever happens to the
    ranks.

    The record of an unfinished run is `interrupted` after a signal to stop. Raises OSError if the
    folder can't be written to; UserError as of `here`.
    """
    folder = RunFolder(request.folder)
    folder.begin()
    fork_server.start_fork_server()  # a server that died before must not count as this run's
    started, began = utc_now(), time.monotonic()
    with stoppable() as stop, stop.deferred():
        ended = run_ranks(request, stop)
        return folder.commit(record_of(request, ended, started, time.monotonic() - began))


def watched(
    request: RunRequest,
    stop: Stop,
    nodes: Nodes = ALONE,
    beats: Path | None = None,
    late: Callable[[], object] = lambda: None,
) -> End | None:
    """Run this node's ranks under a watchdog, which gets `beats` and `late`; return how they
    ended, None if well.
    """
    beats = beats or request.folder
    failed: tuple[int, int] | None = None
    broken: RunError | None = None
    server, kills = processes.fork_server(), cgroups.oom_kills()
    with Watchdog(request.folder, request.limits, stop, beats, late) as watch:
        try:
            failed = _launch(request, beats, nodes)
        except (
            Exception
        ) as error:  # raised by the launcher itself: the sweep goes on, and the record says why
            broken = RunError(
                kind=type(error).__name__, message=str(error), traceback=traceback.format_exc()
            )
    if watch.verdict or not (failed or broken):
        return watch.verdict
    ranks, oom_kill = (
        nodes.ranks(request.spec.settings.world_size or 1),
        cgroups.oom_kills() > kills,
    )
    return cause(
        request.folder,
        failed,
        broken,
        ranks,
        server=server,
        peak_mb=watch.peak_mb,
        oom_kill=oom_kill,
    )


def _launch(request: RunRequest, beats: Path, nodes: Nodes) -> tuple[int, int] | None:
    """Run this node's ranks until all have ended or one failed; return number and exit status of
    that one.
    """
    launched = time.monotonic()
    from hpml_bench.launch import meeting

    store = meeting.store(nodes.host, nodes.port)
    world, threads = request.spec.settings.world_size or 1, str(request.spec.settings.threads or 1)
    ranks = nodes.ranks(world)
    os.environ["OMP_NUM_THREADS"] = (
        threads  # a run without an outcome has the environment of this process
    )
    of_all = {
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": len(ranks),
        "GROUP_WORLD_SIZE": nodes.count,
        "GROUP_RANK": nodes.number,
        "MASTER_ADDR": nodes.host,
        "MASTER_PORT": store.port,
        "OMP_NUM_THREADS": threads,
        # the store is not rank 0's; NCCL's watchdog ends a rank whose peer is gone, as under
        # torchrun
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
    }
    text, forks = request.model_dump_json(), list[tuple[object, ...]]()
    for local, rank in enumerate(ranks):
        variables = of_all | {"RANK": rank, "LOCAL_RANK": local}
        forks.append(
            (text, str(beats), launched, {name: str(value) for name, value in variables.items()})
        )
    failed = fork_server.run(fork_server.start_rank, *forks)
    return None if failed is None else (ranks[failed[0]], failed[1])


def outcome_of(folder: Path, end: End | None) -> Outcome:
    """Return the outcome that the ranks wrote, unless a limit had ended them before; without one
    how they ended.
    """
    written = read_model(folder / OUTCOME, Outcome)
    if written is not None and (end is None or end[0] != "timeout"):
        return written
    return ended_as(*(end or cause(folder)))


def ended_as(status: Status, error: RunError) -> Outcome:
    return Outcome(status=status, error=error, environment=environment.of_run())


def record_of(request: RunRequest, outcome: Outcome, started: str, seconds: float) -> RunRecord:
    """Return the record of a run that ended: `invalid` where a self-check failed; its error by
    `redacted_error`.
    """
    if any(not check.passed for check in outcome.checks) and outcome.status == "ok":
        outcome = outcome.model_copy(update={"status": "invalid"})
    if outcome.error is not None:
        error = RunError.model_validate(redacted_error(outcome.error.model_dump()))
        outcome = outcome.model_copy(update={"error": error})
    spec, prepared, place = request.spec, request.prepared, request.place
    return RunRecord(
        **dict(outcome),
        run_id=spec.run_id,
        spec=spec,
        protocol_id=protocol_id(spec.settings, prepared.digests),
        digests=prepared.digests,
        label_names=prepared.label_names,
        notes=prepared.notes,
        order=place.in_sweep,
        place=place.in_seed,
        declared=place.declared,
        earlier_attempts=request.earlier_attempts,
        started=started,
        seconds=seconds,
    )


def cause(
    folder: Path,
    failed: tuple[int, int] | None = None,
    broken: RunError | None = None,
    ranks: Container[int] | None = None,
    *,
    server: int | None = None,
    peak_mb: Mapping[int, float] | None = None,
    oom_kill: bool = False,
) -> End:
    """Return the first cause; errors of other ranks that follow from it don't count.

    `failed`: number and exit status of the rank that was seen to fail first; `broken`: error of the
    launcher itself; `server`: the fork server's number as they began; `peak_mb`: rank -> highest
    memory observed; `oom_kill`: whether the kernel killed a process for lack of memory meanwhile.
    With several nodes only the errors of `ranks`, one node's, are compared: the clocks of nodes
    differ. A rank's own error comes before that of a rank that lost a peer, in whatever order they
    ended. A killed rank leaves no error: it is the one that was seen to end first, since ranks that
    lost a peer wait a moment.
    """
    if server is not None and processes.identify(server) is None:
        how = " by the kernel for lack of memory" if oom_kill else ""
        ended = RunError(
            kind="ForkServer", message=f"the fork server was ended{how}, and the ranks with it"
        )
        return "oom_host" if oom_kill else "killed", ended
    if broken is not None:
        return "failed", broken
    if failed is None:
        without = RunError(
            kind="NoOutcome", message="the ranks ended without an outcome; see their logs"
        )
        error = _first_error(folder, ranks)
        return (
            (errors.status_of(error.kind, error.message), error) if error else ("failed", without)
        )
    rank, status = failed
    own_error = read_model(folder / f"error-rank{rank}.json", RunError)
    if own_error is None and status < 0:
        names = {
            number.value: number.name for number in signal.Signals
        }  # real-time signals have none
        name, peak = names.get(-status, f"signal {-status}"), (peak_mb or {}).get(rank)
        out_of_memory = oom_kill and name == "SIGKILL"
        message = (
            f"rank {rank} was ended by {'the kernel for lack of memory' if out_of_memory else name}"
        )
        message += "" if peak is None else f"; its memory had reached {peak:,.0f} MB"
        message += "" if out_of_memory else errors.hint(message)
        return "oom_host" if out_of_memory else "killed", RunError(
            kind=name, message=message, rank=rank
        )
    error = (
        own_error if own_error and not lost_peer(own_error.message) else _first_error(folder, ranks)
    )
    if error is not None:
        return errors.status_of(error.kind, error.message), error
    return "failed", RunError(
        kind="Exit", message=f"rank {rank} ended with status {status}", rank=rank
    )


def _first_error(folder: Path, ranks: Container[int] | None) -> RunError | None:
    """Return the error of the rank that failed first by itself; only if there is none, of one
    that lost a peer.
    """
    files = sorted(folder.glob("error-rank*.json"), key=lambda path: path.stat().st_mtime_ns)
    readable = [error for path in files if (error := read_model(path, RunError))]
    errors = [error for error in readable if ranks is None or error.rank in ranks]
    return min(errors, key=lambda error: lost_peer(error.message), default=None)
