"""Size of a comparison (rows, batch, epochs, seeds, methods) by published defaults, and its time
and memory here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hpml_bench.plugins.task import Task
from hpml_bench.starter.entries import Entry
from hpml_bench.starter.kinds import View
from hpml_bench.starter.model import Model
from hpml_bench.suite.devices import default_ranks
from hpml_bench.suite.settings import Settings
from hpml_bench.suite.suite import MethodEntry, Suite
from hpml_bench.system import environment, gpus
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import first_line
from hpml_bench.training.products import FASTER, shape_of, thread_rates

MOST_TRAINING, MOST_TEST, MOST_ANSWERED, VALIDATED = 20_000, 5_000, 500, 50
"""Most rows to train on (as PEFT's method comparison) and to test, to test by generated answers,
and to validate so.
"""
LEAST_STEPS = 8  # fewest steps per epoch for which the recipe's batch is kept
SEEDS = 3
REACHED = 0.4  # share of the measured product's rate that a training reaches, about
STARTING = 6.0  # seconds of a run beside its steps: start of the ranks, loading, writing
EVALUATIONS = 5  # evaluations on the validation rows
FEW = 1000  # training rows below which a recipe has more epochs
LARGE_MODEL = 200e6  # parameters above which the smallest of BERT's three rates is taken
DROPPED = "full"  # the method that is left out where it doesn't fit: it needs by far the most


@dataclass(frozen=True)
class Published:
    """A method with the rate that a publication gives."""

    name: str
    trains: str  # what it trains, in words
    source: str = ""  # where its rate comes from; empty where it has none
    settings: Mapping[str, Any] = field(default_factory=dict)  # of its entry in a suite
    work: float = (
        4  # floating point operations per parameter and token of a training step; 0 for none
    )
    compared: bool = True  # False: offered as a comment


class Recipe(NamedTuple):
    """Published defaults for a kind of model, each number with its source."""

    batch: tuple[int, str]
    epochs: tuple[int, str]
    few_epochs: tuple[int, str]  # epochs where there are fewer than `FEW` training rows
    methods: tuple[Published, ...]


PROMPT_TUNING = Published(
    "prompt_tuning",
    "embeddings before the text",
    "PEFT's guide to prompt-based methods, with AdamW; the paper's 0.3 is for Adafactor (Lester et "
    "al. 2021, arXiv:2104.08691)",
    {"lr": 3e-2, "options": {"tokens": 20}},
    compared=False,
)
IA3 = Published(
    "ia3",
    "factors of keys, values and feed-forward layers",
    "Liu et al. 2022, arXiv:2205.05638, who took it with Adafactor",
    {"method": "peft", "lr": 3e-3, "options": {"type": "IA3"}},
    compared=False,
)
RANK = {"r": 8, "alpha": 16}


def encoder_recipe(parameters: int) -> Recipe:
    """Return the defaults for a model with a new head."""
    lowest, size, lr = (
        ("lowest", "more", 2e-5) if parameters > LARGE_MODEL else ("highest", "less", 5e-5)
    )
    methods = (
        Published("head", "the new output layer alone, with head_lr: the baseline to beat", work=2),
        Published(
            "lora",
            "low-rank updates of all linear layers",
            "LoRA's own script for RoBERTa on MNLI, r and alpha too; it updates queries and values "
            "alone (Hu et al. 2021, arXiv:2106.09685; microsoft/LoRA, roberta_base_mnli.sh)",
            {"lr": 5e-4, "options": RANK},
        ),
        Published(
            "full",
            "every weight",
            f"the {lowest} of BERT's 5e-5, 3e-5 and 2e-5 (Devlin et al. 2019, A.3), as the model "
            f"has {size} than {LARGE_MODEL / 1e6:g}M parameters",
            {"lr": lr},
            work=6,
        ),
        Published(
            "adapter",
            "bottlenecks in frozen blocks",
            "the middle of 3e-5, 3e-4 and 3e-3 (Houlsby et al. 2019, arXiv:1902.00751)",
            {"lr": 3e-4, "options": {"placement": "houlsby"}},
            compared=False,
        ),
        PROMPT_TUNING,
        IA3,
    )
    few = (
        "BERT's 2 to 4 are for larger sets, and small ones need more steps (Zhang et al. 2021, "
        "arXiv:2006.05987; Mosbach et al. 2021, arXiv:2006.04884, who took 20)"
    )
    batch = (32, "the batch of BERT's paper (16 or 32; Devlin et al. 2019, arXiv:1810.04805, A.3)")
    return Recipe(
        batch, (3, "BERT's paper took 2, 3 or 4 (Devlin et al. 2019, A.3)"), (10, few), methods
    )


def language_recipe(parameters: int) -> Recipe:
    """Return the defaults for a language model that learns to answer."""
    lora = {"lr": 1e-4 if parameters > 13e9 else 2e-4, "options": RANK}
    source = (
        "QLoRA, 2e-4 up to 13B parameters and 1e-4 above (Dettmers et al. 2023, arXiv:2305.14314; "
        "qlora.py); r and alpha as LoRA's own script (roberta_base_mnli.sh); QLoRA saw no "
        "difference between r 8 and 256"
    )
    methods = (
        Published("none", "nothing: the base model as it is, for comparison", work=0),
        Published("lora", "low-rank updates of all linear layers", source, lora),
        Published(
            "full",
            "every weight",
            (
                "Llama 2's supervised fine-tuning (Touvron et al. 2023, arXiv:2307.09288, 3.1), "
                "and Stanford Alpaca"
            ),
            {"lr": 2e-5},
            work=6,
        ),
        Published(
            "qlora",
            "as lora does, on weights in 4 bits: less memory. Needs the package bitsandbytes",
            source,
            lora,
            compared=False,
        ),
        Published(
            "few_shot",
            "nothing: four training rows before each prompt, for which max_length must have room",
            settings={"options": {"k": 4}},
            work=0,
            compared=False,
        ),
        PROMPT_TUNING,
        IA3,
    )
    return Recipe(
        (16, "QLoRA's batch up to 13B parameters (Dettmers et al. 2023, arXiv:2305.14314, B.2)"),
        (2, "as Llama 2's supervised fine-tuning (Touvron et al. 2023, arXiv:2307.09288, 3.1)"),
        (3, "3 as Stanford Alpaca (Taori et al. 2023), where Llama 2's fine-tuning took 2"),
        methods,
    )


def choose_budget(
    view: View, task: Task, recipe: Recipe, given: Mapping[str, Any]
) -> tuple[Entry, ...]:
    """Return rows, epochs and batch: the recipe's, less where rows are few, or more than needed."""
    answers = task.decoding is not None
    rows, tests, own = len(view.loaded.train), len(view.loaded.test), view.loaded.validation
    ranks = default_ranks()
    validation = max(1, rows // 10) if own is None else len(own)
    where = "a tenth of the training rows, split off" if own is None else "the validation rows"
    note = f"null is {where}, {100 if answers else 500} at most; for the curves"
    if fewer := answers and validation > VALIDATED:
        note = f"of {validation:,}, as each of them is answered for the curves"
    left = rows - validation if own is None else rows
    batch, batch_why = recipe.batch
    while batch > ranks and left // batch < LEAST_STEPS:
        batch //= 2
    batch = max(ranks, batch - batch % ranks)
    if batch != recipe.batch[0]:
        batch_why = f"{left:,} rows give few steps of {recipe.batch[0]}, {batch_why}"
    epochs, why = recipe.epochs
    if left < FEW:
        epochs, why = recipe.few_epochs
        why = f"there are only {left:,} rows: {why}"
    test = (MOST_TEST, "more would hardly narrow the intervals")
    if answers:
        test = (MOST_ANSWERED, "answering takes most of the time")
    return (
        _samples(
            "train_samples", rows, MOST_TRAINING, "as many as PEFT's method comparison trains on"
        ),
        Entry("validation_samples", VALIDATED if fewer else None, (note,)),
        _samples("test_samples", tests, *test),
        Entry("steps", given["steps"]) if "steps" in given else Entry("epochs", epochs, (why,)),
        Entry("global_batch", batch, (batch_why,)),
    )


def _samples(key: str, rows: int, most: int, reason: str) -> Entry:
    if rows > most:
        return Entry(key, most, (f"drawn from {rows:,}: {reason}; null takes all",))
    return Entry(key, None, ("null is all of them",))


class Work(NamedTuple):
    """Amount of work of one run: tokens read in training, over all epochs, and in evaluations,
    and generated.
    """

    train_tokens: float
    eval_tokens: float
    new_tokens: float


def time_in_words(
    model: Model, methods: tuple[Published, ...], work: Work, batch_tokens: int, seeds: int
) -> str:
    """Return an estimate of the time here, as a sentence for a comment."""
    if gpus.visible_gpus():
        return (
            "Time: not estimated for a GPU. `hpml-bench run lora FILE` does one run; the report "
            "says what it took."
        )
    cores = environment.cores()
    fp32, bf16 = thread_rates(shape_of(model.config, batch_tokens))
    rate = (
        REACHED * cores * (bf16 if bf16 >= FASTER * fp32 and environment.has_bf16("cpu") else fp32)
    )
    each = {method.name: seconds_of(model, method, work, rate) for method in methods}
    total = in_words(seeds * sum(each.values()))
    shown = ", ".join(f"{name} {in_words(value)}" for name, value in each.items())
    return (
        f"Time here, within a factor of three if nothing else runs: {total} for {len(each)} "
        f"methods x {seeds} seeds; one run: {shown}. By operations per token, and a matrix product "
        f"timed just now, for {cores} cores."
    )


def seconds_of(model: Model, method: Published, work: Work, rate: float) -> float:
    """Return the seconds of a run at a rate in operations per second; embeddings are looked up,
    not multiplied.
    """
    multiplied = max(model.parameters - model.vocabulary * model.width, model.parameters // 10)
    operations = method.work * work.train_tokens + 2 * work.eval_tokens + 8 * work.new_tokens
    return STARTING + multiplied * operations / rate


def in_words(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} s"


class Memory(NamedTuple):
    """Predicted memory, and what follows from it."""

    sentence: str  # each method's memory and what there is, or why it can't be predicted
    here: str = ""  # memory that a rank may take, in words
    dropped: tuple[str, ...] = ()  # methods left out, as they don't fit here
    tight: tuple[str, ...] = ()  # others that don't fit


def predict_memory(settings: Settings, methods: Iterable[Published], file: str) -> Memory:
    """Return the memory of the compared methods; on a GPU with one sample at a time, the least
    that `auto` takes.
    """
    from hpml_bench.fit.limits import gigabytes
    from hpml_bench.fit.predict import predict  # some seconds, which mistakes need not wait for

    entries = {method.name: MethodEntry(**method.settings) for method in methods if method.compared}
    settings = settings.model_copy(update={"micro_batch": 1 if gpus.visible_gpus() else None})
    try:
        found = predict(Suite(name="init", settings=settings, methods=entries), advised=False)
    except UserError as error:
        return Memory(f"Memory: not predicted: {first_line(error)}.")
    each = ", ".join(
        f"{of.method} {of.advice if of.peak is None else gigabytes(of.peak)}" for of in found.needs
    )
    part = "one sample at a time" if found.settings.micro_batch == 1 else "the longest batch"
    sentence = (
        f"Memory of a rank, predicted for {part}: {each}. Here: {found.here}. hpml-bench fit "
        f"{file} shows its parts, and what to change where it isn't enough."
    )
    large = [need.method for need in found.needs if need.fits is False]
    dropped = tuple(name for name in large if name == DROPPED)
    return Memory(sentence, found.here, dropped, tuple(name for name in large if name != DROPPED))
