"""Claims: one job holds a unit, and two that break a dead job's claim at once don't break each
other's; neighbours.
"""

import errno
import json
import os
import re
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest

from helpers import made_records
from hpml_bench.builtin.engines.manual import Manual
from hpml_bench.records import jobs
from hpml_bench.records.folder import SharedResults
from hpml_bench.records.jobs import (
    RUNNING,
    Job,
    claims,
    ended_here,
    holder,
    left_attempts,
    refuse_if_worked_on,
)
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.profile import Profile
from hpml_bench.sweep.claims import Claim, claimed, discard, holders
from hpml_bench.sweep.job import Neighbours
from hpml_bench.system import processes
from hpml_bench.system.errors import UserError


class Knowing(Manual):
    """An engine that knows which jobs are dead."""

    gone: tuple[str, ...] = ()

    def dead(self, owner: Job) -> bool:
        return owner.job in self.gone


def engine(*gone: str) -> Knowing:
    made = Knowing(Profile(engine="manual"))
    made.gone = gone
    return made


def job(name: str, restart: int = 0) -> Job:
    return Job(
        engine="x",
        job=name,
        restart=restart,
        unit=0,
        host="n1",
        pid=1,
        began="2026-01-01T00:00:00Z",
    )


def held(folder: Path) -> list[str]:
    return [owner.name for owner in claims(folder)]


def test_a_unit_is_held_by_one(tmp_path: Path) -> None:
    """Until it is given up; a dead job's claim is broken, and one's own is taken back by another
    start.

    A claim without a readable name, as a full disk may leave it, is nobody's.
    """
    with claimed(tmp_path, job("a"), engine()) as claim:
        assert claim.held
        with (
            pytest.raises(UserError, match="unit 0 is held by job a on n1"),
            claimed(tmp_path, job("b"), engine()),
        ):
            pass
        with claimed(tmp_path, job("a", 1), engine()):
            assert not claim.held, "it was begun anew"
        assert held(tmp_path) == []
    for gone, name in ("a", None), (None, "{"):
        claim = Claim(tmp_path, job("a"))
        assert claim.take()
        if name is not None:
            (claim.path / "owner.json").write_text(name)
        with claimed(tmp_path, job("b"), engine(*filter(None, [gone]))):
            assert held(tmp_path) == ["b.0"]
        assert list((tmp_path / "claims").iterdir()) == []


@pytest.mark.parametrize("looked_at", [None, job("a")], ids=["unreadable", "an earlier start"])
def test_a_claim_that_was_replaced_since_is_put_back(looked_at: Job | None, tmp_path: Path) -> None:
    """Whether the one that was looked at couldn't be read, or was of an earlier start of the
    same job.
    """
    claim = Claim(tmp_path, job("a", 1))
    assert claim.take()
    (path,) = (tmp_path / "claims").iterdir()
    discard(path, looked_at)
    assert held(tmp_path) == ["a.1"]
    discard(path, job("a", 1))
    assert held(tmp_path) == []


def test_the_claim_of_one_who_came_between_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two see a dead job's claim; the first breaks it and holds the unit, the second is refused."""
    Claim(tmp_path, job("dead")).take()
    looked: list[Job | None] = []

    def slow(path: Path) -> Job | None:
        found = holder(path)
        if not looked:  # after the second one's look the first is quicker
            looked.append(found)
            discard(path, found)
            assert Claim(tmp_path, job("first")).take()
        return found

    monkeypatch.setattr("hpml_bench.sweep.claims.holder", slow)
    with (
        pytest.raises(UserError, match="held by job first"),
        claimed(tmp_path, job("second"), engine("dead")),
    ):
        pass
    assert [owner.job for owner in looked] == ["dead"]
    assert held(tmp_path) == ["first.0"]


def test_release_leaves_the_claim_of_a_later_start(tmp_path: Path) -> None:
    """Of the same job, begun anew elsewhere."""
    first, second = Claim(tmp_path, job("a")), Claim(tmp_path, job("a", 1))
    first.take()
    discard(first.path, job("a"))
    second.take()
    first.release()
    assert held(tmp_path) == ["a.1"]


def here(name: str, alive: bool) -> Job:
    own = processes.identity(os.getpid())
    process = own if alive else f"{own.rpartition(':')[0]}:1"
    return job(name).model_copy(
        update={"host": socket.gethostname(), "pid": os.getpid(), "process": process}
    )


def test_a_second_process_of_a_job_is_no_restart_of_it(tmp_path: Path) -> None:
    """Two steps of one allocation have its name: the second is refused while the first lives,
    wherever that is.
    """
    for first, other in (
        (here("a", alive=True), here("a", alive=True)),
        (job("a"), here("a", alive=True)),
    ):
        Claim(tmp_path, first).take()
        with (
            pytest.raises(UserError, match="unit 0 is held by job a on "),
            claimed(tmp_path, other, engine()),
        ):
            pass
        discard(tmp_path / "claims" / "0", first)
    Claim(tmp_path, here("a", alive=False)).take()
    with claimed(tmp_path, here("a", alive=True), engine()) as claim:
        assert claim.held
        discard(claim.path, here("a", alive=False))
        assert claim.held, "two that saw the dead one: the second one's look is old"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_claim_that_cant_be_read_is_somebodys(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A colleague's, made with umask 077, or on a disk that fails: no job takes the unit, and no
    sweep the folder.
    """
    assert Claim(tmp_path, job("a")).take()
    record, read = tmp_path / "claims/0/owner.json", jobs.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "owner.json":
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    told = f"{record}: {os.strerror(number)}, so it isn't known whether a job works there"
    monkeypatch.setattr(jobs, "read_bytes", failing)
    with pytest.raises(UserError, match=re.escape(told)), claimed(tmp_path, job("b"), engine("a")):
        pass
    for look in (refuse_if_worked_on, claims, left_attempts):
        with pytest.raises(UserError, match=re.escape(told)):
            look(tmp_path)
    monkeypatch.setattr(jobs, "read_bytes", read)
    assert held(tmp_path) == ["a.0"]


def test_a_job_of_this_host_has_ended_where_another_process_has_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also after a reboot; of a job whose record doesn't say which process it was, the number
    alone is known.
    """
    monkeypatch.setattr(processes, "home", lambda: "machine:4026531836")
    own = processes.identity(os.getpid())
    here = job("a").model_copy(
        update={"host": socket.gethostname(), "pid": os.getpid(), "process": own}
    )
    home, boot, began = own.rsplit(":", 2)
    assert not ended_here(here)
    assert not ended_here(here.model_copy(update={"process": None}))
    assert ended_here(here.model_copy(update={"process": f"{home}:{boot}:{int(began) - 1}"}))
    assert ended_here(here.model_copy(update={"process": f"{home}:another:{began}"}))
    monkeypatch.setattr(processes, "home", lambda: ":4026531836")
    nameless = f":4026531836:another:{began}"
    assert not ended_here(here.model_copy(update={"process": nameless})), (
        "a machine without an id: it may be another"
    )
    assert ended_here(here.model_copy(update={"process": f":4026531836:{boot}:1"}))
    elsewhere = f"another-machine:4026531836:{boot}:1"
    assert not ended_here(here.model_copy(update={"process": elsewhere})), (
        "a container with the same name"
    )
    assert not ended_here(
        here.model_copy(update={"process": f"{home}:another:1", "host": "elsewhere"})
    )


def test_claims_of_dead_jobs_are_removed(tmp_path: Path) -> None:
    """And the owners of the others returned."""
    Claim(tmp_path, job("a")).take()
    Claim(tmp_path, job("b").model_copy(update={"unit": 1})).take()
    assert [owner.job for owner in holders(tmp_path, engine("a"), release=True)] == ["b"]
    assert held(tmp_path) == ["b.0"]


# Neighbours of a run are the runs of other jobs on any of its hosts while it ran


HERE = socket.gethostname()
RECORDS = made_records.sweep(("lora", "full", "head"), 1)


def under_way(folder: Path, record: RunRecord, *hosts: str) -> Neighbours:
    places = {"unit": RECORDS.index(record), "host": hosts[0], "pid": os.getpid()}
    own = job(record.spec.method.name).model_copy(update=places)
    Claim(folder, own).take()
    return Neighbours(SharedResults(folder, own), record.spec, hosts)


def told(folder: Path, run: Neighbours, record: RunRecord, do: bool = True) -> tuple[str, ...]:
    """Return the neighbours in a run's record; `do`: the run isn't done yet."""
    with run if do else nullcontext():
        pass
    SharedResults(folder, run._results.job).begin(record.spec).path.mkdir()
    return run.commit(record).neighbours


def test_runs_over_nodes_see_those_on_each_node(tmp_path: Path) -> None:
    """Whoever came first, and also where one is named with its domain; a run elsewhere is none."""
    both, second, third = RECORDS
    over, beside = under_way(tmp_path, both, HERE, "n2.cluster"), under_way(tmp_path, second, "n2")
    elsewhere = under_way(tmp_path, third, "n3")
    with over, beside, elsewhere:
        pass
    assert told(tmp_path, over, both, do=False) == (second.spec.run_id,)
    assert told(tmp_path, beside, second, do=False) == (both.spec.run_id,)
    assert told(tmp_path, elsewhere, third, do=False) == ()


@pytest.mark.parametrize(
    "where", ["gone", "a later process has its number", "its job holds no unit"]
)
def test_a_run_whose_process_was_killed_is_no_neighbour(where: str, tmp_path: Path) -> None:
    """Its file is removed: here for the process, elsewhere for the claim."""
    first, killed, _ = RECORDS
    (tmp_path / RUNNING).mkdir()
    left = tmp_path / RUNNING / "killed.json"
    pid = 2**22 + 1 if where == "gone" else os.getpid()  # above the kernel's largest
    host = "n2" if where == "its job holds no unit" else HERE
    home = processes.home()
    owner = job("k").model_copy(
        update={"host": host, "pid": pid, "process": f"{home}:{processes.boot()}:3"}
    )
    left.write_text(
        json.dumps({"run": killed.spec.run_id, "hosts": ["n2", HERE], "owner": owner.model_dump()})
    )
    assert told(tmp_path, under_way(tmp_path, first, HERE), first) == ()
    assert not left.exists()


@pytest.mark.parametrize("content", ["{}", "[]", '{"run": 3}', '{"run": "x", "hosts": 7}', "x"])
def test_a_run_of_another_shape_is_no_neighbour(content: str, tmp_path: Path) -> None:
    """As whoever writes to the folder may leave it."""
    (tmp_path / RUNNING).mkdir()
    (tmp_path / RUNNING / "x.json").write_text(content)
    assert told(tmp_path, under_way(tmp_path, RECORDS[0], HERE), RECORDS[0]) == ()


def test_a_run_that_began_on_another_host_is_seen_by_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is not to be seen from here; while its job holds a unit it is under way."""
    first, second, third = RECORDS
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "n2")
        over = under_way(tmp_path, first, "n2", HERE)
        over.__enter__()
    assert told(tmp_path, under_way(tmp_path, second, HERE), second) == (first.spec.run_id,)
    Claim(tmp_path, over._results.job).release()
    assert told(tmp_path, under_way(tmp_path, third, HERE), third) == ()
