"""Same runs: what two versions of the harness compute, compared bit for bit.

    python benchmarks/same_runs.py --against REV [--speed ROUNDS]

Each way to do runs is taken by both versions: `run-all` of the embedded suites, `--parallel 2`,
`run` under torchrun, `tune`, `work` by hand, and a results folder that the older version began and
this one completes. Run ids, protocol ids, orders of samples, losses, gradient norms, predictions,
counts and notes must be equal, and no recorded run may be done again or set aside. Times, memory
and the environment are not compared. With `--speed` these alone are: both versions train lora and
full in turns, and the ratios of their throughput and memory are printed.
"""

import argparse
import contextlib
import itertools
import json
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from versions import ROOT, Version, checked_out

SUITES = (
    "quickstart",
    "chat",
    "regression",
    "tagging",
)  # suites whose model and data lie in the repository
SMALL = (
    "steps=6",
    "train_samples=96",
    "validation_samples=16",
    "test_samples=32",
    "latency_samples=0",
    "log_every=2",
)
COMPARED = (
    "loss",
    "norm",
    "lr",
    "accuracy",
    "score",
)  # words of the series of points that are compared
VOLATILE = (
    "started",
    "seconds",
    "environment",
    "files",
    "earlier_attempts",
    "checks",
    "neighbours",
)
"""Fields of a record that differ between two runs of one version."""
SPEED = {
    "quickstart": ("quickstart", "steps=60", "test_samples=16"),
    "chat": ("chat", "steps=60", "test_samples=8"),
    "GPT-2": (
        "quickstart",
        "steps=12",
        "test_samples=8",
        "warmup_steps=2",
        "global_batch=8",
        "train_samples=128",
    ),
}
"""Suite and settings of each case of `--speed`; the last is a model as large as GPT-2, with
random weights.
"""


class Trained(Version):
    """A version of the harness that does runs with small budgets."""

    def small(
        self, command: str, suite: str, out: str, *words: str, launcher: tuple[str, ...] = ()
    ) -> str:
        """Call a command on a suite with a small budget."""
        changes = [part for value in SMALL for part in ("--set", value)]
        return self.call(
            *shlex.split(command),
            suite,
            "--out",
            out,
            "--device",
            "cpu",
            *changes,
            *words,
            launcher=launcher,
        )


def all_ways(version: Trained) -> None:
    for suite in SUITES:
        version.small("run-all", suite, "sweeps", "--wandb", "off", "--seeds", "2")
    beside = ("--parallel", "2", "--nproc", "1")
    version.small("run-all", "quickstart", "parallel", "--wandb", "off", "--seeds", "1", *beside)
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    version.small("run lora", "quickstart", "torchrun", "--wandb", "off", launcher=torchrun)
    version.small("tune", "quickstart", "tuning", "--trials", "2", "--methods", "lora,head")
    for unit in planned(version, "work"):
        version.call(*unit)


def planned(version: Trained, out: str) -> list[list[str]]:
    """Plan a sweep by hand; return the words of the command of each unit, as any scheduler would
    call it.
    """
    said = version.small(
        "run-all", "quickstart", out, "--wandb", "off", "--seeds", "2", "--on", "manual"
    )
    return [
        shlex.split(line)[1:] for line in said.splitlines() if line.startswith("hpml-bench work ")
    ]


def computed(room: Path) -> dict[str, Any]:
    """Return what lies below a folder, by path; nothing that is timed."""
    found: dict[str, Any] = {}
    for path in sorted(room.rglob("run.json")):
        record = json.loads(path.read_text())
        timed = {metric["name"] for metric in record["definitions"] if metric["depends_on_machine"]}
        values = {
            name: {key: value for key, value in record[name].items() if key not in timed}
            for name in ("metrics", "per_rank")
        }
        kept = {key: value for key, value in record.items() if key not in VOLATILE} | values
        series = path.with_name("points.jsonl")
        points = map(json.loads, series.read_text().splitlines() if series.exists() else ())
        kept["points"] = [
            point for point in points if any(word in point["metric"] for word in COMPARED)
        ]
        kept["predictions"] = record["files"].get("predictions.parquet")
        found[str(path.parent.relative_to(room))] = kept
    for path in sorted(room.rglob("trials.json")):
        record = json.loads(path.read_text())
        trials = [
            {key: value for key, value in trial.items() if key != "seconds"}
            for method in record["methods"]
            for trial in method["trials"]
        ]
        found[str(path.relative_to(room))] = trials
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return a line for each run that only one version has, and for each field in which two
    differ.
    """
    lines = [f"{name}: made by one version alone" for name in sorted(before.keys() ^ after.keys())]
    for name in sorted(before.keys() & after.keys()):
        one, other = before[name], after[name]
        if isinstance(one, dict):
            lines += [
                f"{name}: {key} differs"
                for key in one.keys() | other.keys()
                if one.get(key) != other.get(key)
            ]
        elif one != other:
            lines.append(f"{name}: differs")
    return lines


def completed(old: Trained, new: Trained) -> list[str]:
    """Let the older version begin a sweep, a tuning and a sweep by jobs in new folders, and this
    one complete them.
    """
    begun = Trained(old.checkout, old.room.parent / "begun")
    goes_on = Trained(new.checkout, begun.room / "again")
    begun.small(
        "run-all", "quickstart", "sweep", "--wandb", "off", "--seeds", "2", "--methods", "head,lora"
    )
    begun.small("tune", "quickstart", "tuning", "--trials", "1", "--methods", "lora,head")
    units = planned(begun, "jobs")
    begun.call(*units[0])
    stamps = {path: path.stat().st_mtime_ns for path in begun.room.rglob("run.json")}
    goes_on.room = begun.room
    goes_on.small("run-all", "quickstart", "sweep", "--wandb", "off", "--seeds", "2")
    goes_on.small("tune", "quickstart", "tuning", "--trials", "2", "--methods", "lora,head")
    planned(goes_on, "jobs")
    goes_on.call(*units[1])
    lines = [
        f"{path.relative_to(begun.room)}: was done again"
        for path, stamp in stamps.items()
        if not path.exists() or path.stat().st_mtime_ns != stamp
    ]
    lines += [
        f"{path.relative_to(begun.room)}: was set aside" for path in begun.room.rglob("set-aside/*")
    ]
    there = {
        name.replace("sweep/", "sweeps/", 1).replace("jobs/", "work/", 1): kept
        for name, kept in computed(begun.room).items()
    }
    common = {name: kept for name, kept in computed(new.room).items() if name in there}
    for run in (*common.values(), *there.values()):
        for key in ("order", "place") if isinstance(run, dict) else ():
            run.pop(key, None)  # two calls do the runs in another order than one
    return lines + differences(common, {name: there[name] for name in common})


def speeds(old: Trained, new: Trained, rounds: int) -> Iterator[str]:
    """Yield a line for each case and method: the median over rounds of new / old, which take
    turns to be first.
    """
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from hpml_bench.data.sources import resolve_model

    large = old.room.parent / "gpt2"  # with random weights and the tokenizer of the embedded one
    tokenizer = AutoTokenizer.from_pretrained(
        resolve_model("embedded:newswire-gpt2").folder_or_file
    )
    tokenizer.save_pretrained(large)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0)
    ).save_pretrained(large)
    ratios: dict[str, list[tuple[float, float]]] = {}
    for number, (name, (suite, *changes)), method in itertools.product(
        range(rounds), SPEED.items(), ("lora", "full")
    ):
        out, found = f"speed-{name}-{method}-{number}", {}
        own = [*changes, "epochs=null", "validation_samples=8", "latency_samples=0"]
        own += [f"backbone=path:{large}"] if name == "GPT-2" else []
        words = [
            "run-all",
            suite,
            "--methods",
            method,
            "--seeds",
            "1",
            "--wandb",
            "off",
            "--out",
            out,
        ]
        for version in (old, new)[:: 1 if number % 2 else -1]:
            version.call(*words, *(word for one in own for word in ("--set", one)))
            (file,) = version.room.glob(f"{out}/{suite}/{method}-*/run.json")
            found[version] = json.loads(file.read_text())["metrics"]
        speed, memory = (
            found[new][of] / found[old][of] for of in ("samples_per_second", "peak_memory_mb")
        )
        ratios.setdefault(f"{name} {method}", []).append((speed, memory))
        print(f"round {number + 1}, {name} {method}: {speed:.3f}, {memory:.3f}", flush=True)
    for case, pairs in ratios.items():
        speeds, memories = zip(*pairs, strict=True)
        yield (
            f"{case}: samples/s {statistics.median(speeds):.3f} ({min(speeds):.3f} to "
            f"{max(speeds):.3f}), "
            f"peak memory {statistics.median(memories):.3f} of the older version's, {rounds} rounds"
        )


def compared(old: Trained, new: Trained) -> tuple[int, list[str]]:
    """Let both versions do all runs; return the number of runs and tunings, and a line for each
    difference.
    """
    for version in (old, new):
        all_ways(version)
        print(f"{version.checkout}: done", flush=True)
    before, after = computed(old.room), computed(new.room)
    return len(before), differences(before, after) + completed(old, new)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", metavar="REV", required=True, help="the older version, a git revision"
    )
    parser.add_argument(
        "--speed", metavar="ROUNDS", type=int, help="compare times and memory, in so many rounds"
    )
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpml-same-")))
        checkout = stack.enter_context(checked_out(given.against, folder / "checkout"))
        old, new = Trained(checkout, folder / "old"), Trained(ROOT, folder / "new")
        if given.speed:
            print(*speeds(old, new, given.speed), sep="\n")
            return
        number, lines = compared(old, new)
    print(*lines, f"{number} runs and tunings, {len(lines)} differences", sep="\n")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
