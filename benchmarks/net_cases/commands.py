"""Calls of commands that don't train: lists, previews, plans, dry runs, suites, and all helps."""

import json
import shutil
from pathlib import Path

from net_cases import Case

LISTED = (
    "suites",
    "methods",
    "optimizers",
    "tasks",
    "datasets",
    "scorers",
    "metrics",
    "probes",
    "trackers",
    "engines",
    "clusters",
)
COMMANDS = (
    "",
    "baseline",
    "baseline save",
    "check",
    "compare",
    "doctor",
    "fit",
    "init",
    "list",
    "plan",
    "preview",
    "report",
    "run",
    "run-all",
    "score",
    "status",
    "stop",
    "tune",
    "verify",
    "work",
)
PACKAGED = ("quickstart", "chat", "regression", "tagging")
"""Suites whose model and data lie in the package."""
NEWS = [
    {"headline": f"Team {number} wins the {word} cup", "topic": topic, "source": f"s{number % 5}"}
    for number in range(60)
    for word, topic in (("winter", "sport"), ("market", "money"))
]
PROFILE = """engine: slurm
parallel: 4
nodes: 1
cpus_per_node: 2
time: 01:00:00
options: {sbatch: {partition: short}}
"""


def write_inputs(folder: Path, reference: Path) -> None:
    for name in ("quickstart", "regression"):
        shutil.copytree(reference / name, folder / "reports" / name)


def cases() -> list[Case]:
    lines = "".join(f"{json.dumps(row)}\n" for row in NEWS)
    table = "text,label\n" + "".join(f"row {number} is read,{number / 7}\n" for number in range(80))
    pairs = [{"prompt": f"What is {n} + 1?", "completion": f"{n + 1}"} for n in range(80)]
    model = "--model embedded:newswire-gpt2"
    detected = ("accuracy=2pp", "train_seconds=5%", "peak_memory_mb=3%", "samples_per_second=10%")
    return [
        Case("list", tuple(f"list {kind}" for kind in LISTED)),
        Case("version", ("--version",)),
        *(
            Case(
                f"preview-{name}",
                (
                    f"preview {name}",
                    f"preview {name} --rows 2 --split test --ids --set max_length=12",
                ),
            )
            for name in PACKAGED
        ),
        Case(
            "plan",
            tuple(f"plan quickstart --detect {size}" for size in detected),
            copies=("reports",),
        ),
        Case(
            "init-classes",
            (
                f"init {model} --data news.jsonl --label topic --out made.yaml",
                "preview made.yaml",
                f"init {model} --data news.jsonl",
            ),
            {"news.jsonl": lines},
        ),
        Case(
            "init-numbers",
            (f"init {model} --data rows.csv --task regression", f"init {model} --data rows.csv"),
            {"rows.csv": table},
        ),
        Case(
            "init-texts",
            (f"init {model} --data pairs.json --out made.yaml", "preview made.yaml"),
            {"pairs.json": json.dumps(pairs)},
        ),
        Case(
            "run-all-by-hand",
            (
                "run-all quickstart --on manual --seeds 2 --out planned --wandb off",
                "status planned/quickstart",
                "stop planned/quickstart",
                "run-all quickstart --on manual --seeds 2 --out planned --wandb off --dry-run",
                "work planned/quickstart/plan.json --unit 9",
            ),
        ),
        Case(
            "run-all-dry",
            (
                "run-all quickstart --on cluster.yaml --dry-run --out dry",
                "run-all quickstart --on cluster.yaml --dry-run --out dry --nproc 4 --until costs",
                "run-all chat --on manual --dry-run --out dry --methods lora,full --set steps=10",
            ),
            {"cluster.yaml": PROFILE},
        ),
        Case("fit", ("fit quickstart --memory 24GB --device cpu --methods lora,full",)),
    ]


def helps() -> list[Case]:
    named = {command.replace(" ", "-") or "all": command for command in COMMANDS}
    return [Case(name, (f"{command} --help",)) for name, command in named.items()]
