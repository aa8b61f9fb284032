"""`hpml-bench fit`: from config.json alone to a table or JSON, with advice that holds."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from helpers import control_groups, tiny
from helpers.commands import called
from helpers.nvml import Machine, card
from hpml_bench.cli import main
from hpml_bench.fit import limits, predict
from hpml_bench.fit.limits import COMMAND, SHARED, THRESHOLD, read_bytes
from hpml_bench.fit.predict import too_large
from hpml_bench.fit.trace import Footprint
from hpml_bench.launch import preparation
from hpml_bench.suite.devices import resolve_suite
from hpml_bench.suite.settings import Settings
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep import local
from hpml_bench.system import environment
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.training.products import Products, shape_of

CONFIGS = (
    Path(__file__).parents[1] / "files" / "configs"
)  # config.json of published models, without weights
KEYS = {
    "method",
    "fits",
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "buckets",
    "loading",
    "step",
    "evaluation",
    "generation",
    "peak",
    "largest_micro_batch",
    "advice",
}


def fit(*words: str | Path, status: int = 0) -> Result:
    return called("fit", *words, status=status)


def needs(*words: str | Path) -> dict[str, dict[str, Any]]:
    return {need["method"]: need for need in json.loads(fit(*words, "--json").stdout)}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of one rank with a model's folder of which the weights are removed."""
    path = tiny.local_suite(tmp_path_factory.mktemp("fit"), world_size=1, global_batch=8)
    (path.parent / "model" / "model.safetensors").unlink()
    return path


def test_the_command_needs_no_weights(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints a table of the suite's methods, as wide as the terminal, and ends with 0 where
    all fit.
    """
    monkeypatch.setattr("hpml_bench.page.terminal.WIDE", 80)
    done = fit(suite)
    assert re.search(r"^lora +yes", done.stdout, re.MULTILINE)
    assert re.search(r"^head +yes", done.stdout, re.MULTILINE)
    table, _, rest = done.stdout.partition("Left out for width: ")
    assert max(map(len, table.splitlines())) <= 80
    assert "--json has all" in rest
    assert "taken to have" not in done.stdout, "the rows are there"


def test_class_weights_take_no_memory(suite: Path) -> None:
    """The loss is traced with them, whatever the classes are called."""
    weights = ("--set", "task.options.class_weights={red: 5}")
    plain, weighted = (needs(suite, "--methods", "full", *words)["full"] for words in ((), weights))
    assert weighted["step"] == pytest.approx(plain["step"], rel=0.01)


def test_json_has_bytes_that_add_up(suite: Path) -> None:
    """Parts are numbers of bytes, and those of the step's peak add up to it."""
    found = needs(suite, "--methods", "lora,full")
    assert list(found) == ["lora", "full"]
    for need in found.values():
        assert set(need) == KEYS
        parts = ("weights", "gradients", "optimizer", "activations", "logits")
        assert sum(need[part] for part in parts) == need["step"]
        assert need["largest_micro_batch"] == 8
        assert need["fits"] is True
        assert need["advice"] == ""
        assert need["peak"] > max(
            need["loading"], need["step"], need["evaluation"], need["generation"]
        )
    assert (
        found["full"]["optimizer"]
        >= 2 * found["full"]["gradients"]
        > 2 * found["lora"]["gradients"]
        > 0
    )


@pytest.mark.parametrize(
    ("used", "processes", "free"),
    [
        (1e9, (), 79e9),
        (50e9, ((1, 50_000_000_000),), 30e9),
        (50e9, ((os.getpid(), 49_000_000_000), (1, None)), 79e9),
    ],
)
def test_a_rank_may_take_what_is_free_on_its_card(
    used: float,
    processes: tuple[tuple[int, int | None], ...],
    free: float,
    suite: Path,
    install_cards: Machine,
) -> None:
    """Other processes keep theirs, and this one's own counts as free; where much isn't free, both
    sizes are told.
    """
    install_cards(card("GPU-a", total=80e9, used=used, processes=processes))
    limit = limits.limit_of(tiny.settings(device="cuda", world_size=1), None)
    assert limit.most == free
    loaded = load_suite(str(suite), settings={"device": "cuda"})
    found = predict.predict(loaded, methods=["head"], advised=False)
    clause = "30 GB of a card's 80 GB are free" if free == 30e9 else ""
    assert (found.limit.most, found.occupied) == (free, clause)
    assert ("are free" in found.here) is bool(clause)
    given = predict.predict(loaded, 24 * 10**9, methods=["head"], advised=False)
    assert (given.limit.most, given.occupied) == (24e9, "")
    # as `run-all` asks where it has read what is free
    assert too_large(loaded.model_dump_json(), ["head"], limits.machine(found.settings)) is None
    warning = too_large(loaded.model_dump_json(), ["head"], 10**6) or ""
    assert ("are free" in warning) is bool(clause)


def test_a_card_that_is_in_use_is_told(suite: Path, install_cards: Machine) -> None:
    """In a sentence of `fit`."""
    install_cards(card("GPU-a", total=80e9, used=50e9))
    done = fit(suite, "--methods", "head", "--device", "cuda")
    assert "Memory of a rank: 30 GB, of which" in done.stdout
    assert "Other processes use the GPU: 30 GB of a card's 80 GB are free." in done.stdout


def test_a_method_that_does_not_fit_gets_advice_that_does(suite: Path) -> None:
    """Status 1, one sentence with options; with these options it fits."""
    words = [suite, "--methods", "full", "--set", "dropout=0", "--set", "eval_batch=2"]
    peaks = [needs(*words, *more)["full"]["peak"] for more in ((), ("--set", "micro_batch=1"))]
    words += ["--memory", str(sum(peaks) // 2 + COMMAND - SHARED)]
    done = fit(*words, status=1)
    sentence = next(line for line in done.stdout.splitlines() if line.startswith("full: "))
    options = re.findall(r"--set \S+", sentence)
    assert "--set micro_batch=" in sentence
    fit(*words, *" ".join(options).split())


def test_advice_names_the_package_that_is_missing(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing helps and 4-bit weights could not be tried."""
    monkeypatch.setattr("hpml_bench.plugins.method.find_spec", lambda _: None)
    monkeypatch.setattr("hpml_bench.fit.predict.advise", lambda *_: None)
    words = (suite, "--methods", "full")
    short = needs(*words)["full"]["peak"] + COMMAND - SHARED - 10**5
    done = fit(*words, "--memory", str(short), status=1)
    assert "4-bit weights were not tried: pip install 'bitsandbytes" in " ".join(
        done.stdout.split()
    )


def test_memory_that_a_cpu_keeps_is_told_where_it_is_too_much(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that fits by its tensors alone gets the variable that ends it, and none where
    that is set.
    """
    words = (str(suite), "--methods", "lora")
    memory = str(needs(*words)["lora"]["peak"] + COMMAND - SHARED)
    need = needs(*words, "--memory", memory)["lora"]
    assert need["fits"] is True
    assert need["advice"].startswith(f"fits with {THRESHOLD}=65536 in the environment; ")
    monkeypatch.setenv(THRESHOLD, "65536")
    assert needs(*words, "--memory", memory)["lora"]["advice"] == ""


@pytest.mark.parametrize(("seconds", "precision"), [(0.5, "bf16"), (0.99, "fp32")])
def test_the_precision_left_open_is_the_one_that_a_run_measures(
    seconds: float, precision: str, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU with both, `auto` is the type of the faster products, as in a sweep; fp32 without
    such instructions.
    """
    monkeypatch.setattr("hpml_bench.system.environment.has_bf16", lambda _device: True)
    products = Products(shape=(8, 8, 8), threads=1, fp32_seconds=1.0, bf16_seconds=seconds)
    timed = []
    monkeypatch.setattr(
        "hpml_bench.training.products.measure", lambda *of: timed.append(of) or products
    )
    words = (suite, "--methods", "full", "--set", "threads=null", "--set")
    shown = fit(*words, "precision=auto")
    assert f"cpu, {precision}, micro-batch" in shown.stdout
    assert needs(*words, "precision=auto") == needs(*words, f"precision={precision}")
    config = json.loads((suite.parent / "model" / "config.json").read_text())
    assert set(timed) == {
        (shape_of(config, 8 * load_suite(suite).settings.max_length), environment.cores())
    }
    monkeypatch.setattr("hpml_bench.system.environment.has_bf16", lambda _device: False)
    assert "cpu, fp32, micro-batch" in fit(*words, "precision=auto").stdout


@pytest.mark.parametrize(
    ("quantised", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, "stored quantised by gptq ("),
        ({"quant_method": "fp8"}, "stored quantised by fp8 ("),
        ({"bits": 8}, "stored quantised ("),
    ],
)
def test_quantised_weights_are_not_taken_for_floats(
    quantised: dict[str, Any], said: str, suite: Path, tmp_path: Path
) -> None:
    """A checkpoint of GPTQ, FP8 or another kind is refused by name, and `run-all` warns of no size
    of floats.
    """
    model = shutil.copytree(suite.parent / "model", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = quantised
    (model / "config.json").unlink()
    (tmp_path / "blob").write_text(json.dumps(config))
    (model / "config.json").symlink_to(tmp_path / "blob")  # as in the hub's cache
    done = fit(suite, "--set", f"backbone=path:{model}", status=2)
    assert said in done.output
    assert "quantization_config in config.json), and their memory isn't predicted" in done.output
    loaded = load_suite(str(suite), settings={"backbone": f"path:{model}"})
    assert too_large(loaded.model_dump_json(), ["head"], 10**6) is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_below_that_of_the_processes_is_told(device: str, suite: Path) -> None:
    """With what they take, and no advice on settings, of which none could help; a little more is
    for tensors.
    """
    words = (suite, "--methods", "head", "--device", device)
    said = " ".join(fit(*words, "--memory", "50MB", status=1).stdout.split())
    taken = re.search(
        r"Memory of a rank: none for tensors, as the processes alone take (\d+) MB", said
    )
    assert taken
    assert f"head: the processes alone take {taken[1]} MB, before any tensor; give more" in said
    assert "micro-batch, checkpointing" not in said
    settled = limits.fill_in_devices(load_suite(str(suite)).settings, 10**9)
    settings = settled.model_copy(update={"device": device})
    alone = limits.memory_of_processes(settings)
    assert limits.limit_of(settings, alone).tensors == pytest.approx(0, abs=1)
    fit(*words, "--memory", str(alone + 10**7))


@pytest.mark.parametrize("width", ["-32", "1e999", "100000000000"])
def test_strange_models_are_told(
    width: str, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no product can be timed, the sentence is that of the model."""
    monkeypatch.setattr("hpml_bench.system.environment.has_bf16", lambda _device: True)
    shutil.copytree(suite.parent / "model", tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(re.sub(r'"n_embd": \d+', f'"n_embd": {width}', config.read_text()))
    words = ("--set", f"backbone=path:{tmp_path / 'model'}", "--set", "precision=auto")
    done = CliRunner().invoke(main, ["fit", str(suite), "--methods", "full", *words])
    assert width in config.read_text()
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code in {1, 2}


def test_rows_that_cannot_be_read_are_taken_as_long(suite: Path, tmp_path: Path) -> None:
    """Every text then has max_length tokens, and the output says why."""
    (tmp_path / "model").mkdir()
    shutil.copy(suite.parent / "model" / "config.json", tmp_path / "model")
    done = fit(shutil.copy(suite, tmp_path), "--methods", "lora")
    assert "Every text is taken to have 16 tokens: " in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--memory", "much"), "--memory 'much': write a size such as 24GB or 80GiB"),
        (("--device", "cuda"), "give a card's memory, as --memory 24GB"),
        (("--ranks", "3"), "is not a multiple of the 3 ranks"),
        (("--methods", "nothing"), "has no method 'nothing'"),
    ],
)
def test_a_mistake_is_told(
    suite: Path, words: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2, and what to do."""
    monkeypatch.setattr("hpml_bench.system.gpus.visible_gpus", lambda: ())
    done = fit(suite, *words, status=2)
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ("lora", "--set", "quantization=int8"),
            "its memory can't be predicted in int8; that in nf4 can",
        ),
        (("peft:EVA",), "it starts from a decomposition of values, which isn't traced"),
        (("peft:SHIRA",), "it can't be built on tensors without values: PEFT: The SHiRA indices"),
    ],
)
def test_what_cannot_be_predicted_is_said_so(words: tuple[str, ...], why: str, suite: Path) -> None:
    """No number stands where none is known, but a sentence; status 1."""
    done = fit(suite, "--methods", *words, "--json", status=1)
    (need,) = json.loads(done.stdout)
    assert need["advice"].startswith(f"not predicted: {why}")
    assert need["fits"] is need["peak"] is need["step"] is None


def made_up(settings: Settings) -> Footprint:
    """Return a footprint that grows with the micro-batch, less with checkpointing, and with
    evaluation batches.
    """
    size = settings.micro_batch if isinstance(settings.micro_batch, int) else settings.global_batch
    weights = 100 if settings.quantization is None else 60
    step = (
        weights + size * (4 if settings.gradient_checkpointing else 10) * settings.max_length // 32
    )
    return Footprint(weights, 0, 0, 0, 0, step, weights, weights + settings.eval_batch, 0)


def trains_weights(settings: Settings) -> Footprint:
    """Return the same of a method that can't run with quantised weights."""
    if settings.quantization is not None:
        raise Unsupported("it trains weights")
    return made_up(settings)


@pytest.mark.parametrize(
    ("trace", "most", "installed", "changed"),
    [
        (made_up, 180, True, "micro_batch=4 eval_batch=64"),
        (made_up, 179, True, "micro_batch=2 eval_batch=64"),
        (made_up, 145, True, "micro_batch=2 eval_batch=32"),
        (made_up, 108, True, "micro_batch=1 gradient_checkpointing=true eval_batch=8"),
        (
            made_up,
            107,
            True,
            "micro_batch=4 gradient_checkpointing=true quantization=nf4 eval_batch=32",
        ),
        (
            made_up,
            64,
            True,
            "micro_batch=1 gradient_checkpointing=true quantization=nf4 max_length=32 eval_batch=4",
        ),
        (
            trains_weights,
            107,
            True,
            "micro_batch=1 gradient_checkpointing=true max_length=32 eval_batch=4",
        ),
        (
            made_up,
            107,
            False,
            "micro_batch=1 gradient_checkpointing=true max_length=32 eval_batch=4",
        ),
        (made_up, 63, True, None),
    ],
)
def test_the_cheapest_changes_come_first(
    trace: predict.Trace,
    most: int,
    installed: bool,
    changed: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Micro-batch and evaluation batch, then checkpointing, then 4 bits where that is possible,
    then shorter texts.
    """
    monkeypatch.setattr(
        "hpml_bench.plugins.method.find_spec", lambda name: name if installed else None
    )
    settings = tiny.settings(global_batch=8, world_size=1, max_length=64, eval_batch=128)
    found = predict.advise(settings, trace, lambda _: most)
    assert (found is None) == (changed is None)
    if found is not None and changed is not None:
        assert trace(found).peak <= most
        told = predict.differences(settings, found)
        assert sorted(told) == sorted(f"--set {change}" for change in changed.split())


@pytest.mark.parametrize(
    ("share", "precision", "last"),
    [
        (0.5, "bf16", "sharding=fsdp"),
        (0.5, "fp16", "quantization=nf4"),
        (1.2, "bf16", "quantization=nf4"),
    ],
)
def test_sharding_that_helps_is_named(
    share: float, precision: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 4-bit weights, which can't be sharded; where it takes more, or fp16 refuses it,
    those alone.
    """
    monkeypatch.setattr("hpml_bench.plugins.method.find_spec", lambda name: name)

    def trace(settings: Settings) -> Footprint:
        if settings.sharding != "none" and settings.quantization is not None:
            raise Unsupported("quantised weights can't be sharded")
        found, less = (
            made_up(settings),
            0 if settings.sharding == "none" else round((1 - share) * 100),
        )
        parts = ("weights", "step", "loading", "evaluation")
        return replace(found, **{name: getattr(found, name) - less for name in parts})

    sizes = {"global_batch": 8, "world_size": 2, "max_length": 32, "eval_batch": 4}
    settings = tiny.settings(**sizes, precision=precision, device="cuda")
    found = predict.advise(settings, trace, lambda _: 80)
    assert found is not None
    changed = ("gradient_checkpointing=true", "micro_batch=2", last)
    assert sorted(predict.differences(settings, found)) == sorted(
        f"--set {part}" for part in changed
    )


@pytest.mark.parametrize(("loading", "most"), [(100, 99), (400, 399)])
def test_nothing_is_traced_that_no_change_can_help(loading: int, most: int) -> None:
    """Where too much is held without any batch, or loaded, texts and micro-batches aren't
    shortened one by one.
    """
    traced: list[Settings] = []

    def trace(settings: Settings) -> Footprint:
        traced.append(settings)
        return replace(trains_weights(settings), loading=loading)

    settings = tiny.settings(global_batch=64, world_size=1, max_length=512, eval_batch=128)
    assert predict.advise(settings, trace, lambda _: most) is None
    assert predict.largest_micro_batch(settings, trace, most) is None
    assert len({each.model_dump_json() for each in traced}) <= 2


def test_fewer_ranks_are_tried_where_they_share_the_memory() -> None:
    """Last, on a CPU: each rank may then take more."""
    settings = tiny.settings(global_batch=8, world_size=2, max_length=32, eval_batch=1)
    found = predict.advise(
        settings, trains_weights, lambda changed: 200 // (changed.world_size or 1)
    )
    assert "--set world_size=1" in predict.differences(settings, found)


@pytest.mark.fit
@pytest.mark.serial
@pytest.mark.parametrize("name", ["llama-3.2-3b", "llama-3.1-8b"])
def test_a_large_model_takes_a_minute_and_4_gb(name: str, tmp_path: Path) -> None:
    """The usual methods of a published configuration with advice for 24 GB: seconds of the
    processor, and memory.
    """
    suite = {
        "settings": {
            "backbone": f"path:{CONFIGS / name}",
            "dataset": "metamath",
            "steps": 100,
            "global_batch": 4,
            "task": {"name": "causal_lm", "options": {"template": "plain", "scorer": "exact"}},
            "eval_batch": 8,
            "world_size": 1,
            "precision": "bf16",
            "weights": "bfloat16",
            "max_length": 768,
        },
        "methods": {name: {} for name in ("lora", "full", "prompt_tuning", "adapter", "none")},
    }
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(suite))
    words = ["fit", str(tmp_path / "large.yaml"), "--memory", "24GB", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "hpml_bench", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime < 60
    assert used.ru_maxrss < 4e6, "in kB"
    found = {need["method"]: need for need in json.loads(done.stdout)}
    parameters = {"llama-3.2-3b": 3_212_749_824, "llama-3.1-8b": 8_030_261_248}[name]
    assert found["lora"]["weights"] == pytest.approx(2 * parameters, rel=0.02), (
        "bfloat16, and LoRA's own in float32"
    )
    assert found["full"]["advice"].startswith("no smaller micro-batch")
    assert found["lora"]["fits"] or found["lora"]["advice"].startswith("fits in ")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * 10**9),
        ("1.5 gib", 3 * 2**29),
        (" 80 GiB ", 80 * 2**30),
        ("0GB", None),
        ("-1GB", None),
        ("24GX", None),
        ("much", None),
        ("24,5GB", None),
        ("1,000MB", None),
        ("24-GB", None),
        ("12 GB of 24", None),
        ("24", None),
        ("25769803776", 24 * 2**30),
    ],
)
def test_sizes_are_read_in_both_kinds_of_units(text: str, size: int | None) -> None:
    """Decimal and binary, in any case; what isn't one size as a whole is refused, and not read
    in part.
    """
    if size is None:
        with pytest.raises(UserError, match="write a size"):
            read_bytes(text)
    else:
        assert read_bytes(text) == size


# `run-all` warns before a sweep that won't fit, as fast as before where there is no doubt; what
# `fit` advises fits

ASSETS = Path(limits.__file__).parents[1] / "assets"


def lacking(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (limits, local):
        monkeypatch.setattr(module, "machine", lambda _: memory)


@pytest.mark.parametrize("name", ["quickstart", "regression", "tagging", "chat"])
def test_embedded_suites_raise_no_doubt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of 4 GB nothing is predicted for them, which would delay their first run."""
    lacking(4 * 10**9, monkeypatch)
    suite = resolve_suite(load_suite(name, settings={"device": "cpu"}))
    folder = ASSETS / suite.settings.backbone.removeprefix("embedded:")
    assert not limits.in_doubt(suite.settings, folder)
    monkeypatch.setattr(preparation, "predicted_memory", lambda *_: pytest.fail("predicted"))
    assert local._too_large(suite, suite.runs(), folder) is None


def test_a_sweep_that_will_not_fit_begins_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names methods, their peaks, the memory there is and a command that works, before the
    first run begins.
    """
    lacking(800_000_000, monkeypatch)
    suite = str(tiny.local_suite(tmp_path))
    words = [
        "run-all",
        suite,
        "--seeds",
        "1",
        "--nproc",
        "1",
        "--out",
        str(tmp_path / "out"),
        "--wandb",
        "off",
    ]
    monkeypatch.setattr(
        local.Execution, "execute", lambda *_: (_ for _ in ()).throw(UserError("the first run"))
    )
    done = CliRunner().invoke(main, words)
    assert done.output.rstrip().endswith("the first run")
    said = " ".join(done.output.split())
    warning = re.search(r"memory won't be enough for (.*): there are (.*) for each rank; ", said)
    process = 88 if limits._torch_has_cuda() else 50
    assert sorted(warning[1].split(", ")) == sorted(
        re.findall(rf"(?:lora|head) \({process}\d MB\)", warning[1])
    )
    assert warning[1].count("lora") == warning[1].count("head") == 1
    assert warning[2] == "490 MB", "what the command leaves, and what the rank shares with it"
    file = tmp_path / "out" / "colours" / "suite.json"
    assert f"hpml-bench fit {file}" in done.output.replace("\n", "")
    again = called("fit", file, "--memory", "800MB", status=1)
    assert re.search(rf"^lora +no +{process}\d MB", again.stdout, re.MULTILINE)


def test_memory_for_a_sweep_gives_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the quick estimate raises a doubt that the prediction doesn't share."""
    more = 2 * limits.WITH_CUDA - limits.WITH_CUDA_PRIVATE if limits._torch_has_cuda() else 0
    lacking(1_090_000_000 + more, monkeypatch)
    suite = resolve_suite(
        load_suite(str(tiny.local_suite(tmp_path)), settings={"global_batch": 512})
    )
    runs = suite.runs(seeds=[0])
    assert limits.in_doubt(suite.settings, tmp_path / "model")
    assert local._too_large(suite, runs, tmp_path / "model") is None


def test_what_cannot_be_predicted_gives_no_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a strange model nor a prediction that fails ends a sweep, or prints anything."""
    suite = load_suite(str(tiny.local_suite(tmp_path)))
    assert local._too_large(suite, suite.runs(), tmp_path / "none") is None
    assert too_large("{}", ["lora"], 1) is None
    assert capfd.readouterr() == ("", "")


# Under a limit

LIMIT = 1_500_000_000
WORDS = 500  # words of a text: their activations are nearly all of a step's memory


def under(group: Path | None, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of hpml-bench in a control group, or in none of its own."""

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    line = [sys.executable, "-m", "hpml_bench", *words]
    return subprocess.run(
        line,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        preexec_fn=enter,
        env=os.environ | variables,
    )


@pytest.mark.disks
@pytest.mark.serial
def test_advice_ends_a_lack_of_memory(tmp_path: Path) -> None:
    """The command and its ranks share the limit; fit knows it from the control group, as from
    --memory.
    """
    from transformers import GPT2Config, GPT2Model

    suite = str(
        tiny.local_suite(
            tmp_path,
            world_size=1,
            global_batch=32,
            eval_batch=8,
            max_length=WORDS,
            steps=2,
            warmup_steps=0,
            dropout=0.1,
            latency_samples=0,
            validation_samples=8,
            test_samples=8,
        )
    )
    shape = {
        "n_positions": 512,
        "n_embd": 128,
        "n_layer": 4,
        "n_head": 4,
    }  # whose batch takes over twice the limit
    GPT2Model(GPT2Config(vocab_size=tiny.VOCABULARY, **shape)).save_pretrained(tmp_path / "model")
    rows = [
        f"{tiny.COLOURS[row % 3]},w{row % 3} " + " ".join(["w7"] * (WORDS - 2)) for row in range(60)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["label,text", *rows]) + "\n")
    out = tmp_path / "out"
    words = [
        "run-all",
        suite,
        "--methods",
        "lora",
        "--seeds",
        "1",
        "--out",
        str(out),
        "--wandb",
        "off",
    ]
    with control_groups.limited(LIMIT) as group:
        done = under(group, *words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert tiny.records(out)["lora", 0].status == "oom_host", done.stdout
        assert "memory won't be enough for lora" in " ".join(done.stdout.split())
        advised = under(group, "fit", suite, "--methods", "lora", "--json")
        (need,) = json.loads(advised.stdout)
        outside = under(None, "fit", suite, "--methods", "lora", "--memory", str(LIMIT), "--json")
        assert json.loads(outside.stdout) == [need]
        assert need["fits"] is False
        options = re.findall(r"--set (\S+)", need["advice"])
        assert any(option.startswith("micro_batch=") for option in options)
        changes = [word for option in options for word in ("--set", option)]
        assert f" and {THRESHOLD}=65536 in the environment" in need["advice"]
        done = under(group, *words, "--fresh", *changes, **{THRESHOLD: "65536"})
        assert done.returncode == 0, done.stdout + done.stderr
        assert tiny.records(out)["lora", 0].status == "ok"
        assert "memory won't" not in done.stdout
