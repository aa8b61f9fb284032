"""Results folders as sweeps leave them, made by altering records of the committed quickstart.

Ids of altered records are computed here, by the formula that the harness has for them, so that both
versions read the same bytes.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from net_cases import Case

Record = dict[str, Any]
IDENTITY: dict[str, Any] = {
    "backbone": "embedded:newswire-gpt2",
    "train_samples": 512,
    "test_samples": 1000,
    "steps": 100,
    "global_batch": 16,
    "eval_batch": 128,
    "eval_every": 25,
    "world_size": 2,
    "device": "cpu",
    "threads": 1,
    "precision": "fp32",
    "max_length": 64,
    "head_lr": 0.01,
    "validation_samples": 256,
    "tasks": "sequence_classification",
    "datasets": "newswire",
}
"""Settings of quickstart that differ from defaults, of which ids are digests."""
METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {},
    "head": {},
    "adapter": {"placement": "houlsby", "size": 16, "layer_norm": True},
    "prompt_tuning": {"tokens": 16},
}
"""Options of quickstart's methods that differ from defaults."""
TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 60, in start
    execute(spec)
ArithmeticError: <b>no number</b>
"""


def digest(value: Any, length: int) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def with_ids(record: Record, settings: dict[str, Any]) -> Record:
    """Return a record with changed settings, and with the ids that belong to it then."""
    found = copy.deepcopy(record)
    spec = found["spec"]
    spec["settings"] |= settings
    hashed = IDENTITY | {key: value for key, value in settings.items() if key != "dataset"}
    if "dataset" in settings:
        hashed["datasets"] = settings["dataset"]
    method = spec["method"] | {"options": METHOD_OPTIONS[spec["method"]["name"]]}
    whole = {"suite": spec["suite"], "settings": hashed, "method": method, "seed": spec["seed"]}
    name = method["name"].replace("_", "-")
    found["run_id"] = f"{name}-s{spec['seed']}-{digest(whole, 10)}"
    found["protocol_id"] = digest([hashed, found["digests"]], 12)
    return found


@dataclass(frozen=True)
class Run:
    """A run of a results folder: its record, and the folder with its points and predictions."""

    record: Record
    files: Path

    @property
    def method(self) -> str:
        return str(self.record["spec"]["method"]["name"])

    @property
    def seed(self) -> int:
        return int(self.record["spec"]["seed"])

    def changed(self, settings: dict[str, Any] | None = None, **fields: Any) -> "Run":
        """Return the run with other settings and fields; in mappings the given keys change."""
        record = copy.deepcopy(self.record)
        for name, value in fields.items():
            joined = isinstance(value, dict) and isinstance(record.get(name), dict) and value
            record[name] = record[name] | value if joined else value
        return Run(with_ids(record, settings or {}), self.files)

    def failed(self, status: str, message: str, traceback: str | None = None) -> "Run":
        """Return the run as one that ended badly, with nothing measured."""
        error = {"kind": status, "message": message, "rank": 0, "traceback": traceback}
        bad = self.changed(status=status, error=error, consumed=None, checks=[], files={})
        return Run(bad.record | {"metrics": {}, "per_rank": {}}, self.files)

    def write(self, folder: Path) -> Path:
        """Write the run into a results folder and return its own."""
        place = folder / str(self.record["run_id"])
        place.mkdir(parents=True)
        (place / "run.json").write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        if self.record["status"] == "ok":
            for name in self.record["files"]:
                shutil.copy(self.files / name, place / name)
        return place


def runs_of(suite: Path) -> list[Run]:
    """Return the committed runs of quickstart; ValueError where ids aren't computed as theirs."""
    found = []
    for path in sorted(suite.glob("*/run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        run = Run(with_ids(record, {}), path.parent)
        written = (record["run_id"], record["protocol_id"])
        if (run.record["run_id"], run.record["protocol_id"]) != written:
            raise ValueError(f"{path}: its ids are not computed as the harness does; see IDENTITY")
        found.append(run)
    return sorted(found, key=lambda run: (run.seed, run.method))


class Sweeps:
    """Writes results folders of altered runs, named by what they show."""

    def __init__(self, folder: Path, suite: Path) -> None:
        self.folder = folder
        self.runs = runs_of(suite)
        self.suite = json.loads((suite / "suite.json").read_text(encoding="utf-8"))

    def write(self, place_name: str, runs: Iterable[Run], **suite: Any) -> Path:
        """Write a results folder with its suite, of which some fields are given."""
        place = self.folder / place_name
        for run in runs:
            run.write(place)
        declared = self.suite | suite
        (place / "suite.json").write_text(json.dumps(declared, indent=1) + "\n", encoding="utf-8")
        return place

    def few(self, methods: Sequence[str] = ("lora", "full", "head"), seeds: int = 5) -> list[Run]:
        return [run for run in self.runs if run.method in methods and run.seed < seeds]

    def each(self, change: Callable[[Run], Run], **which: Any) -> list[Run]:
        return [change(run) for run in self.few(**which)]


def replace_in_record(place: Path, run: str, text: str, by: str) -> None:
    """Replace a text in the record of the run whose folder has a name of this pattern."""
    (folder,) = place.glob(run)
    record = (folder / "run.json").read_text(encoding="utf-8")
    (folder / "run.json").write_text(record.replace(text, by), encoding="utf-8")


def write_failures(sweeps: Sweeps) -> None:
    """Write runs of every bad end, and records that can't be read or don't fit their files."""
    ends = {
        ("lora", 1): ("failed", "<b>told</b>", TRACEBACK),
        ("lora", 2): ("failed", "told again", TRACEBACK),
        ("full", 1): ("diverged", "the loss is NaN", None),
        ("full", 3): ("timeout", "took over 60 s", None),
        ("head", 2): ("interrupted", "Ctrl-C", None),
        ("adapter", 0): ("unsupported", "needs convolutions", None),
        ("adapter", 1): ("oom_host", "out of memory", None),
        ("adapter", 2): ("oom_cuda", "no memory", None),
        ("adapter", 3): ("killed", "signal 9", None),
        ("adapter", 4): ("invalid", "scores differ", None),
    }
    runs = []
    for run in sweeps.runs:
        end = ends.get((run.method, run.seed))
        runs.append(run.failed(*end) if end else run)
    retried = ["failed: no route", "timeout: took over 60 s"]
    for number, run in enumerate(runs):
        if (run.method, run.seed) == ("full", 4):
            runs[number] = run.changed(earlier_attempts=retried)
    place = sweeps.write("failures", runs)
    (place / "torn").mkdir()
    (place / "torn" / "run.json").write_text("{", encoding="utf-8")
    broken = next(place.glob("head-s3-*"))
    (broken / "points.jsonl").write_text("{}\n", encoding="utf-8")
    replace_in_record(place, "head-s4-*", '"schema_version": 2', '"schema_version": 1')
    replace_in_record(place, "prompt-tuning-s4-*", '"lr": 0.0068', '"lr": 0.007')  # not as its id


def write_hosts(sweeps: Sweeps) -> None:
    """Write runs on several hosts, one with other hardware, and runs beside others."""

    def hosted(run: Run) -> Run:
        host = "n9" if (run.method, run.seed) == ("full", 2) else f"n{run.seed % 2}"
        where = {"engine": "slurm", "job": f"12_{run.seed}", "host": host, "restart": 0}
        environment: dict[str, Any] = {"hosts": [host], "where": where}
        if (run.method, run.seed) == ("head", 1):
            hardware = run.record["environment"]["hardware"]
            cards = {"gpus": [{"name": "NVIDIA H100"}] * 2, "nodes": 2}
            environment |= {
                "kernel": "6.9",
                "fingerprint": "ffff00001111",
                "hardware": hardware | cards,
            }
        beside = ["another"] if (run.method, run.seed) == ("lora", 3) else []
        return run.changed(environment=environment, neighbours=beside)

    sweeps.write("hosts", sweeps.each(hosted))

    def apart(run: Run) -> Run:
        host, pace = {"lora": ("n1", 1.0), "full": ("n2", 1.08), "head": ("n3", 1.0)}[run.method]
        seconds = {"train_seconds": pace * run.record["metrics"]["train_seconds"]}
        return run.changed(environment={"hosts": [host]}, metrics=seconds)

    sweeps.write("a-host-for-each-method", sweeps.each(apart))


def write_jobs(sweeps: Sweeps) -> None:
    """Write runs by jobs of Slurm, and the jobs, of which one was restarted and one failed."""
    runs, jobs = [], []
    for seed in range(5):
        host = f"n{seed % 2 + 1}"
        where = {
            "engine": "slurm",
            "job": f"12_{seed}",
            "restart": 0,
            "unit": seed,
            "host": host,
            "hosts": [host],
            "exclusive": False,
            "call": 1,
        }
        of_job = [run for run in sweeps.few() if run.seed == seed]
        for number, run in enumerate(of_job):
            started = f"2026-01-02T03:{seed:02d}:{10 * number:02d}+00:00"
            environment = {"where": where, "hosts": [host]}
            alone = run.changed(environment=environment, neighbours=[], started=started)
            runs.append(alone)
        ended = {"ended": f"2026-01-02T03:{seed:02d}:50+00:00", "how": "done"}
        job = {
            "engine": "slurm",
            "job": f"12_{seed}",
            "restart": 0,
            "unit": seed,
            "host": host,
            "pid": 9,
            "queued": "2026-01-02T03:00:00+00:00",
            "began": f"2026-01-02T03:{seed:02d}:01+00:00",
        }
        failed = ended | {"how": "failed", "why": "no space left"}
        jobs.append(job | (failed if seed == 3 else ended))
        if seed == 2:
            jobs.append(job | {"restart": 1, "began": "2026-01-02T03:03:01+00:00"})
    place = sweeps.write("jobs", runs)
    (place / "jobs").mkdir()
    for job in jobs:
        name = f"{job['unit']}.{job['job']}.{job['restart']}.json"
        (place / "jobs" / name).write_text(json.dumps(job), encoding="utf-8")


def write_races(sweeps: Sweeps) -> None:
    """Write sweeps with `--until` of either question, whose methods left one after another."""
    left = {"lora": 5, "full": 5, "prompt_tuning": 5, "adapter": 4, "head": 3}
    for question in ("decided", "costs"):
        until = {"question": question, "rounds": [3, 4, 5]}
        done = [run for run in sweeps.runs if run.seed < left[run.method]]
        runs = [run.changed(declared={"until": until}) for run in done]
        sweeps.write(f"race-{question}", runs, until=until)
    until = {"question": "decided", "rounds": [3, 10]}
    open_race = [run.changed(declared={"until": until}) for run in sweeps.few(seeds=3)]
    sweeps.write("race-open", open_race, until=until)


def write_looks(sweeps: Sweeps) -> None:
    """Write seeds that were added after a look, declared looks, and a suite's own margins."""
    margin = {"quality": 0.05, "cost": 0.2}
    added = []
    for run in sweeps.runs:
        seeds = 3 if run.seed < 3 else 5
        added.append(run.changed(declared={"seeds": seeds, "margin": margin}))
    sweeps.write("seeds-added", added, margin=margin)
    declared = [run.changed(declared={"looks": 3}) for run in sweeps.runs]
    sweeps.write("looks-declared", declared, looks=3)
    sweeps.write("undeclared", [run.changed(declared=None) for run in sweeps.few()])


def write_settings(sweeps: Sweeps) -> None:
    """Write runs on other numbers of ranks, with checkpointing, by another budget, and resumed."""
    others = []
    for settings in ({"world_size": 1}, {"world_size": 4}, {"gradient_checkpointing": True}):
        for run in sweeps.few(methods=("lora",), seeds=3):
            slower = {"samples_per_second": 300.0 + run.seed, "peak_memory_mb": 300.0 + run.seed}
            others.append(run.changed(settings, metrics=slower))
    sweeps.write("ranks-and-checkpointing", [*sweeps.few(), *others])
    budget = [run.changed({"train_samples": 256}) for run in sweeps.few(seeds=2)]
    sweeps.write("two-protocols", [*sweeps.few(), *budget])
    segment = {
        "hosts": ["n1"],
        "started": "2026-01-02T03:00:00+00:00",
        "first": 1,
        "last": 50,
        "seconds": 9.0,
    }
    again = segment | {
        "hosts": ["n2"],
        "first": 51,
        "last": 100,
        "warmup_seconds": 0.5,
        "repeated_steps": 3,
        "repeated_seconds": 0.2,
    }

    def resumed(run: Run) -> Run:
        return run.changed(segments=[segment, again]) if run.seed == 1 else run

    sweeps.write("resumed", sweeps.each(resumed))
    gpus = {"gpus": [{"name": "NVIDIA H100"}], "cpu": "Example", "cores": 16, "memory_gb": 99}
    environment = {"hardware": gpus}
    on_cards = [run.changed({"device": "cuda"}, environment=environment) for run in sweeps.few()]
    sweeps.write("on-gpus", on_cards)


def write_few(sweeps: Sweeps) -> None:
    """Write sweeps that are too small for verdicts, and one whose texts try to be obeyed."""
    for seeds in (1, 2, 3):
        sweeps.write(f"seeds-{seeds}", sweeps.few(seeds=seeds))
    sweeps.write("one-method", sweeps.few(methods=("lora",)))
    sweeps.write("nothing-well", [run.failed("failed", "no memory") for run in sweeps.few(seeds=2)])
    bare = sweeps.each(lambda run: Run(run.record | {"files": {}}, run.files))
    sweeps.write("no-predictions", bare)
    hostile = "<script>alert(1)</script>|`x`\x1b[31m\u202e [a](javascript:b) $x$"
    notes = {"rows": hostile, hostile: "x"}
    labels = [hostile, "b", "c", "d"]
    texts = [run.changed(notes=notes, label_names=labels) for run in sweeps.few()]
    sweeps.write("hostile-texts", texts, description=hostile)


def write_suites(sweeps: Sweeps) -> None:
    """Write nine suites of other data, of which two are of the same, to be ranked over."""
    for number in range(9):
        name = f"suite-{number}"
        share = round(0.6 + max(number, 1) / 100, 2)
        dataset = {"name": "newswire", "options": {"p": share}}

        def moved(run: Run, name: str = name, dataset: dict[str, Any] = dataset) -> Run:
            spec = run.record["spec"] | {"suite": name}
            digests = run.record["digests"] | {"data": digest(dataset, 64)}
            return run.changed({"dataset": dataset}, spec=spec, digests=digests)

        settings = sweeps.suite["settings"] | {"dataset": dataset}
        sweeps.write(f"suites/{name}", sweeps.each(moved, seeds=3), name=name, settings=settings)


def write_inputs(folder: Path, reference: Path) -> None:
    sweeps = Sweeps(folder, reference / "quickstart")
    write_failures(sweeps)
    write_hosts(sweeps)
    write_jobs(sweeps)
    write_races(sweeps)
    write_looks(sweeps)
    write_settings(sweeps)
    write_few(sweeps)
    write_suites(sweeps)
    for name in ("quickstart", "minilm", "chat", "regression"):
        shutil.copytree(reference / name, folder / "references" / name)


def cases() -> list[Case]:
    alone = (
        "failures",
        "hosts",
        "a-host-for-each-method",
        "jobs",
        "race-decided",
        "race-costs",
        "race-open",
        "seeds-added",
        "looks-declared",
        "undeclared",
        "ranks-and-checkpointing",
        "two-protocols",
        "resumed",
        "on-gpus",
        "seeds-1",
        "seeds-2",
        "seeds-3",
        "one-method",
        "nothing-well",
        "no-predictions",
        "hostile-texts",
    )
    formats = "--format html,md,csv,tex"
    found = [
        Case(
            name,
            (
                f"report {name} {formats} --out out",
                f"status {name}",
                f"list runs {name}",
                f"verify {name}",
                f"compare {name} --out compared",
            ),
            copies=(name,),
        )
        for name in alone
    ]
    two, nine = "suites/suite-0 suites/suite-2", " ".join(f"suites/suite-{n}" for n in range(9))
    references = "references/quickstart references/minilm references/chat"
    made = "suites/suite-0 suites/suite-1"
    over = {
        "over-two": (f"report {two} {formats} --out out", ("suites",)),
        "over-nine": (f"report {nine} {formats} --out out", ("suites",)),
        "over-a-folder": (f"report suites {formats} --out out", ("suites",)),
        "over-the-same-data": (f"report {made} {formats} --out out", ("suites",)),
        "over-compared": (f"compare {nine} {formats} --out out", ("suites",)),
        "over-references": (f"report {references} {formats} --out out", ("references",)),
        "over-other-tasks": (
            f"report references/chat references/regression {formats} --out out",
            ("references",),
        ),
    }
    found += [Case(name, (call,), copies=copies) for name, (call, copies) in over.items()]
    prior = "run-all quickstart --on manual --dry-run --out made --prior suites/suite-2"
    found.append(Case("prior", (prior,), copies=("suites",)))
    return found
