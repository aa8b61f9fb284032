"""Model card of a saved run: its training, its figures, and how to load the model."""

from pathlib import Path

from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.task import make_task
from hpml_bench.records.numbers import number, with_unit
from hpml_bench.records.run import RunRecord
from hpml_bench.system.text import sanitize

SHOWN = (
    "quality",
    "language",
    "forgetting",
    "merging",
    "parameters",
    "time",
)  # groups of metrics on a card
ENCODER = "encoder"
PIPELINE = (
    "from hpml_bench import predict",
    (
        'predict("FOLDER", ["a text", "another"])  # as the run answers: names of classes, '
        "numbers, or words with tags"
    ),
    "from transformers import pipeline",
    (
        'answer = pipeline("{}", model="FOLDER", trust_remote_code=True)  # FOLDER/saved_model.py '
        "imports hpml_bench"
    ),
)
ALONE = "# the encoder alone, without the trained head:"
LOADS = {
    "adapter_config.json": (
        "from peft import PeftModel",
        (
            'model = PeftModel.from_pretrained(base_model, "FOLDER")  # the base model as '
            "transformers loads it"
        ),
    ),
    "config.json": (
        "from transformers import AutoModel",
        'model = AutoModel.from_pretrained("FOLDER")  # AutoModelForCausalLM of a language model',
    ),
}
"""Python that loads a model with transformers or PEFT, by the file that shows its format."""


def write_card(record: RunRecord, folder: Path) -> None:
    """Write README.md beside a saved model: its training, how it is loaded, and its figures."""
    spec, settings = record.spec, record.spec.settings
    pipeline = make_task(settings.task).pipeline
    parts = f"FOLDER/{ENCODER}" if pipeline else "FOLDER"
    files = [file for file in LOADS if Path(parts.replace("FOLDER", str(folder)), file).exists()]
    loads = [line.replace("FOLDER", parts) for file in files for line in LOADS[file]]
    if pipeline:
        loads = [*(line.format(*pipeline) for line in PIPELINE), *(loads and [ALONE, *loads])]
    options = ", ".join(f"{key}={value}" for key, value in spec.method.options.items()) or "none"
    stored = make_method(spec.method).quantization or settings.quantization
    base = "" if stored is None else f", the base model's linear layers stored in {stored.name}"
    figures = []
    for metric in (metric for metric in record.definitions if metric.group in SHOWN):
        if (value := record.metrics.get(metric.name)) is not None:
            scale, unit = (100, "%") if metric.format.endswith("%") else (1, sanitize(metric.unit))
            shown = with_unit(number(scale * value, metric.format), unit)
            figures.append(
                f"| {sanitize(metric.title)} | {shown} | {sanitize(metric.definition)} |"
            )
    lines = [
        f"# {sanitize(spec.method.name)} on {sanitize(settings.backbone.partition('#')[0])}",
        "",
        f"Trained by `hpml-bench run {sanitize(spec.method.name)} {sanitize(spec.suite)} --seed "
        f"{spec.seed}`: method {sanitize(spec.method.method)} (options: {sanitize(options)}), "
        f"learning rate {spec.method.lr:g}, optimizer "
        f"{sanitize((spec.method.optimizer or settings.optimizer).name)}, task "
        f"{sanitize(settings.task.name)}, data set {sanitize(settings.dataset.name)}{base}, "
        f"protocol {sanitize(record.protocol_id or 'unknown')}.",
        "",
        "## Load",
        "```python",
        *loads,
        "from hpml_bench import load_trained",
        'model = load_trained("FOLDER")  # with its head, if the task has one',
        "```",
        "",
        "## Figures of this run (one seed)",
        "| | | |",
        "|---|---|---|",
        *figures,
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
