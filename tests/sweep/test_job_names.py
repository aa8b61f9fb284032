"""Which job a submission became is the engine's to say: the core reads nothing into names."""

from pathlib import Path

from hpml_bench.builtin.engines.manual import Manual
from hpml_bench.plugins.engine import Engine, JobBatch
from hpml_bench.records.jobs import Job, JobPlan, Unit, UnitRun, write_job
from hpml_bench.records.plan import UNLIMITED
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.watch import Watcher

NOTE = Job(engine="x", job="j", restart=0, unit=0, host="n1", pid=1, began="2026-01-01T00:00:00Z")
PROFILE = Profile(engine="manual")


class Hyphens(Manual):
    """An engine of names with hyphens, as Kubernetes has them, whose list is a minute old."""

    lag = 60.0


class Pods(Hyphens):
    """Whose jobs have a number behind the name of their submission."""

    def same_job(self, name: str, job: Job) -> bool:
        return job.job.rpartition("-")[0] == name


def watcher(folder: Path, engine: Engine) -> Watcher:
    """Return a watcher of a sweep of one unit, submitted a moment ago as hpml-quick."""
    unit = Unit(tasks=(UnitRun(method="lora", seed=0),))
    suite = load_suite("quickstart")
    plan = JobPlan(id="hpml-1", suite=suite, profile=PROFILE, units=(unit,), limits=UNLIMITED)
    watch = Watcher(folder, plan, engine, print)
    watch.submitted(JobBatch(plan, folder, (0,), ()), "hpml-quick")
    return watch


def without_job(folder: Path, engine: Engine, job: str) -> set[int]:
    """Return the units without a job, once `job` has noted its end on unit 0."""
    watch = watcher(folder, engine)
    assert watch.without_job([0], ()) == set(), "it may be there, though the list lacks it"
    write_job(folder, NOTE.model_copy(update={"job": job, "ended": "2026-01-01T00:01:00Z"}))
    return watch.without_job([0], ())


def test_a_job_is_known_by_the_whole_name_of_its_submission(tmp_path: Path) -> None:
    """Its unit is free as soon as it has noted its end, whatever signs are in the name."""
    assert without_job(tmp_path, Hyphens(PROFILE), "hpml-quick") == {0}


def test_a_job_of_a_longer_name_is_another(tmp_path: Path) -> None:
    """Its end says nothing of the job that was submitted."""
    assert without_job(tmp_path, Hyphens(PROFILE), "hpml-quick-0") == set()


def test_an_engine_says_which_names_are_its_jobs(tmp_path: Path) -> None:
    """Such as those of the pods of a submission."""
    assert without_job(tmp_path, Pods(PROFILE), "hpml-quick-0") == {0}
