"""Saved runs: what is written loads with PEFT, with transformers and by our own function, with
the same logits.
"""

import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    pipeline,
)

from helpers import language_models, tiny
from helpers.commands import called
from helpers.language_models import logits, prepared
from hpml_bench import load_trained, predict
from hpml_bench.cli import main
from hpml_bench.data.prepare import prepare
from hpml_bench.launch import launcher
from hpml_bench.page import model_card
from hpml_bench.plugins.decoding import Decoding, Generator
from hpml_bench.plugins.method import make_method
from hpml_bench.plugins.rows import Batch, Rows
from hpml_bench.plugins.task import make_task
from hpml_bench.plugins.tokenizer import Encoder, load_tokenizer
from hpml_bench.records.files import KEPT
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import load_record, load_records
from hpml_bench.records.predictions import read_predictions
from hpml_bench.system.errors import UserError
from hpml_bench.training.generation import generate
from hpml_bench.training.model import build_model
from hpml_bench.training.saving import TYPES, safetensors_bytes, save_trained
from hpml_bench.verify.verify import verify

METHODS = ("full", "lora", "prompt_tuning", "adapter", "peft")


def saved(
    folder: Path, method: str, to: Path, options: dict[str, Any] | None = None
) -> torch.Tensor:
    """Train a language model for a few steps, save it, and return its logits."""
    model, made, _, spec = language_models.trained(folder, method, options)
    save_trained(model, made, spec, prepared(folder), to)
    return logits(model)


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["GPT-2", "Gemma 2"])
def test_a_saved_run_loads_as_it_was(
    kind: str, method: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Bit for bit the same logits, unlike the base model's: by our function, transformers, PEFT,
    and as a system.

    Also where gradients are off: full fine-tuning and PEFT's types are built by trying a backward
    pass.
    """
    expected = saved(model_folders[kind], method, tmp_path)
    if method == "full":
        assert_close(
            language_models.logits_of(AutoModelForCausalLM.from_pretrained(tmp_path)), expected
        )
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["use_cache"] is True, "training switches it off"
        types = {str(weight.dtype) for weight in load_file(tmp_path / "model.safetensors").values()}
        assert types == {f"torch.{config['dtype']}"}
    elif method != "adapter":
        base = AutoModelForCausalLM.from_pretrained(model_folders[kind])
        assert_close(language_models.logits_of(PeftModel.from_pretrained(base, tmp_path)), expected)
        assert not (tmp_path / "model.safetensors").exists()
    with torch.no_grad():
        model = load_trained(tmp_path)
    assert not any(part.training for part in model.modules())
    assert torch.equal(logits(model), expected)
    system = language_models.trained(model_folders[kind], "trained", {"path": str(tmp_path)})[0]
    assert torch.equal(logits(system), expected)
    assert (
        logits(language_models.trained(model_folders[kind], "none")[0]) - expected
    ).abs().max() > 0.1


@pytest.mark.parametrize("method", ["none", "adapter"])
def test_what_no_class_loads_is_not_saved_whole(
    method: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """A frozen model is there already, and one with adapters inside would lose them."""
    expected = saved(model_folders["Llama"], method, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "run_spec.json",
        "trained.safetensors",
    ]
    assert torch.equal(logits(load_trained(tmp_path)), expected)


def test_a_method_may_save_its_encoder_itself(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Then the harness adds nothing but what was trained."""
    model, _, _, spec = language_models.trained(model_folders["Llama"], "full")
    own = SimpleNamespace(save=lambda _, folder: (folder / "own").write_text("all of it") > 0)
    save_trained(model, own, spec, prepared(model_folders["Llama"]), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "own",
        "run_spec.json",
        "trained.safetensors",
    ]
    assert torch.equal(logits(load_trained(tmp_path)), logits(model))


@pytest.mark.parametrize(
    ("kind", "told"), [("EVA", "PeftModel.from_pretrained"), ("CORDA", "another method")]
)
def test_a_start_from_data_is_not_rebuilt(
    kind: str, told: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """One sentence instead of another model; PEFT loads EVA's files, whose ranks are in their
    configuration.
    """
    if kind == "CORDA":
        pytest.importorskip("attr")
    folder = model_folders["Llama"]
    spec = language_models.spec_of(folder, "peft", {"type": kind, "r": 2})
    method, task = make_method(spec.method), make_task(spec.settings.task)
    model = build_model(folder, spec, method, task)
    ids, mask, labels = language_models.texts()
    method.before_train(model.encoder, iter([Batch(ids, mask, labels, int(mask.sum()))]), 1)
    save_trained(model, method, spec, prepared(folder), tmp_path)
    with pytest.raises(UserError, match=told) as raised:
        load_trained(tmp_path)
    assert "\n" not in str(raised.value)
    if kind == "EVA":
        base = AutoModelForCausalLM.from_pretrained(folder)
        assert_close(
            language_models.logits_of(PeftModel.from_pretrained(base, tmp_path)),
            logits(model.eval()),
        )


def test_a_folder_without_a_saved_run_is_refused(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """One sentence each: nothing there, a damaged file, a tensor that the model doesn't have,
    another shape.
    """
    with pytest.raises(UserError, match="holds no model that"):
        load_trained(tmp_path / "nowhere")
    saved(model_folders["Llama"], "lora", tmp_path / "lora")
    (tmp_path / "lora" / "trained.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="holds no model that"):
        load_trained(tmp_path / "lora")
    for name, other in (("shape", {"r": 4}), ("target", {"target": ["v_proj"]})):
        saved(model_folders["Llama"], "lora", tmp_path / name, {"target": ["q_proj"]})
        facts = json.loads((tmp_path / name / "run_spec.json").read_text())
        facts["spec"]["method"]["options"] |= other
        (tmp_path / name / "run_spec.json").write_text(json.dumps(facts))
        with pytest.raises(UserError, match=r"no such parameter encoder\..*q_proj"):
            load_trained(tmp_path / name)


TEMPLATE = (
    "{% for m in messages %}{{ {'system': 'w1 ', 'user': 'w2 ', 'assistant': 'w3 ' if brief else "
    "'w4 '}[m.role] }}{{ m.content }} <end> {% endfor %}{% if add_generation_prompt %}{{ 'w3 ' if "
    "brief else 'w4 ' }}{% endif %}"
)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_plain_transformers_answers_as_the_run_did(
    method: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """By the saved tokenizer's template, with options and system prompt of the suite, model and
    end tokens.
    """
    folder = model_folders["bare"]
    options = {
        "template": TEMPLATE,
        "template_options": {"brief": True},
        "system": "w9",
        "scorer": "exact",
    }
    model, made, task, spec = language_models.trained(
        folder, method, task={"name": "causal_lm", "options": options}
    )
    encoder = Encoder(load_tokenizer(folder), 100, None, "path:model")
    found = task.conversations(encoder).example(["user", "assistant"], ["w5 w6", "w7"])  # type: ignore[attr-defined]
    prompt = list(found.ids[: found.prompt])
    ready = prepared(folder, stop_ids=task.stop_ids(encoder))
    save_trained(model, made, spec, ready, tmp_path)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    turns = [{"role": "user", "content": "w5 w6"}]
    ids = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert ids["input_ids"][0].tolist() == prompt
    own = [{"role": "system", "content": "w8"}, *turns]
    assert tokenizer.apply_chat_template(own, tokenize=False, brief=False).startswith(
        "w1 w8 <end> w2 w5 w6 <end>"
    )
    base = AutoModelForCausalLM.from_pretrained(tmp_path if method == "full" else folder)
    loaded: Any = base if method == "full" else PeftModel.from_pretrained(base, tmp_path)
    ends = GenerationConfig.from_pretrained(tmp_path).eos_token_id
    assert ends == list(ready.stop_ids)
    how = Generator(Decoding(12), ready.stop_ids, str, pad_id=1, batch=1, seed=0)
    (answer,) = generate(model, [prompt], how, torch.device("cpu"), [0])
    told = loaded.eval().generate(
        **ids, do_sample=False, max_new_tokens=12, eos_token_id=ends, pad_token_id=1
    )
    assert told[0, len(prompt) :].tolist() == answer.tokens


def test_an_adapter_names_its_base_model_as_the_hub_does(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """With its commit, in place of a folder of this machine."""
    model, made, _, spec = language_models.trained(model_folders["Llama"], "lora", steps=0)
    of_hub = spec.settings.model_copy(update={"backbone": "hub:owner/name@main"})
    ready = prepared(
        model_folders["Llama"], digests=tiny.DIGESTS.model_copy(update={"revision": "abc"})
    )
    save_trained(model, made, spec.model_copy(update={"settings": of_hub}), ready, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/name", "abc")


def test_a_whole_encoder_loads_without_its_pooler(tmp_path: Path) -> None:
    """BERT, of which nothing reads the pooler and none is saved: transformers loads all else."""
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    config = AutoConfig.for_model("bert", vocab_size=language_models.VOCABULARY, **shape)
    AutoModel.from_config(config).save_pretrained(tmp_path / "bert")
    spec = tiny.spec("full", backbone=f"path:{tmp_path / 'bert'}")
    made = make_method(spec.method)
    model = build_model(
        tmp_path / "bert", spec, made, make_task(spec.settings.task, tuple("abc"))
    ).eval()
    save_trained(
        model, made, spec, prepared(tmp_path / "bert", label_names=tuple("abc")), tmp_path / "saved"
    )
    ids, mask, _ = language_models.texts()
    with torch.no_grad():
        parts = (AutoModel.from_pretrained(tmp_path / "saved" / "encoder").eval(), model.encoder)
        assert_close(*(part(input_ids=ids, attention_mask=mask)[0] for part in parts))


@pytest.mark.parametrize(
    ("task", "method", "pipe"),
    [
        ("sequence_classification", "lora", "text-classification"),
        ("regression", "adapter", "text-classification"),
        ("token_classification", "full", "token-classification"),
    ],
)
def test_a_saved_classifier_answers_as_the_run_did(
    task: str, method: str, pipe: str, tmp_path: Path
) -> None:
    """`predict` and transformers' pipeline give the recorded predictions; transformers or PEFT
    load the encoder.
    """
    settings = tiny.task_settings(tmp_path, task, rows=120, steps=4, max_length=8, world_size=1)
    record, saved = tiny.run_and_save(tmp_path, method, settings), tmp_path / "saved"
    stored = read_predictions(tmp_path / "out" / "words" / record.run_id)
    ready = prepare(record.spec.settings)
    test, tokenizer = Rows(Path(ready.data) / "test", 0), AutoTokenizer.from_pretrained(str(saved))
    texts = [tokenizer.decode(test.tokens(int(index))[:-1]) for index in stored.index]
    texts = [
        f"{text} w7 w8" if len(text.split()) == 7 and task != "token_classification" else text
        for text in texts
    ]
    answers = predict(saved, texts)
    for wrong, said in (
        ("a text", "give a list"),
        ([None], "None is no text"),
        ([3], "3 is no text"),
        ([("a",)], "no pair"),
    ):
        with pytest.raises(UserError, match=said):
            predict(saved, wrong)
    with pytest.raises(ValueError, match="trust_remote_code"):
        pipeline(pipe, model=str(saved), trust_remote_code=False)
    found = pipeline(pipe, model=str(saved), trust_remote_code=True)
    if task == "token_classification":
        tags = [[ready.label_names[tag] for tag in row] for row in stored.prediction]
        assert [[tag for _, tag in row] for row in answers] == tags
        assert [[(token["word"], token["entity"]) for token in row] for row in found(texts)] == [
            [pair for pair in row if pair[1] != "O"] for row in answers
        ]
    elif task == "regression":
        assert answers == pytest.approx(stored.prediction, rel=1e-5)
        assert [row["score"] for row in found(texts)] == pytest.approx(answers, rel=1e-5)
    else:
        assert answers == [ready.label_names[index] for index in stored.prediction]
        assert [row["label"] for row in found(texts)] == answers
        assert len(set(answers)) > 1
    assert (saved / "encoder" / "config.json").exists() == (method == "full")
    if method != "adapter":  # which no class of others loads
        ids, mask, _ = language_models.texts()
        base = AutoModel.from_pretrained(
            saved / "encoder" if method == "full" else tmp_path / "model"
        )
        theirs = base if method == "full" else PeftModel.from_pretrained(base, saved / "encoder")
        with torch.no_grad():
            parts = (theirs.eval(), load_trained(saved).encoder)
            assert_close(*(part(input_ids=ids, attention_mask=mask)[0] for part in parts))
    card = (saved / "README.md").read_text()
    assert f'pipeline("{pipe}", model="FOLDER", trust_remote_code=True)' in card


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `hpml-bench run lora SUITE --save saved`, and of what it recorded."""
    folder = tmp_path_factory.mktemp("command")
    tiny.run_and_save(folder, "lora", tiny.task_settings(folder, "causal_lm", world_size=2))
    return folder


def test_the_command_saves_what_it_evaluated(by_command: Path) -> None:
    """The loaded model gives the losses of the recorded predictions, and PEFT loads the adapter."""
    (path,) = by_command.glob("out/words/*/run.json")
    record, stored = load_record(path), read_predictions(path.parent)
    model = load_trained(by_command / "saved")
    test = Rows(Path(prepare(record.spec.settings).data) / "test", 0)
    batch = test.batch(stored.index)
    task = make_task(record.spec.settings.task)
    with torch.no_grad():
        losses = task.row_losses(
            model(batch.input_ids, batch.attention_mask, batch.labels), batch.labels
        )
    assert_close(losses, torch.tensor(stored.loss))
    base = AutoModelForCausalLM.from_pretrained(by_command / "model")
    peft = PeftModel.from_pretrained(base, by_command / "saved").eval()
    with torch.no_grad():
        everywhere = peft(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[
            :, :-1
        ]
    assert_close(task.row_losses(everywhere[batch.labels[:, 1:] != -100], batch.labels), losses)


def test_the_command_writes_a_card(by_command: Path, tmp_path: Path) -> None:
    """What was trained and how, its figures as recorded, and lines that load it; a whole model
    by its file.
    """
    (path,) = by_command.glob("out/words/*/run.json")
    record, card = load_record(path), (by_command / "saved" / "README.md").read_text()
    assert card.startswith("# lora on path:")
    assert "`hpml-bench run lora words --seed 0`" in card
    assert 'PeftModel.from_pretrained(base_model, "FOLDER")' in card
    assert 'load_trained("FOLDER")' in card
    assert "AutoModel.from_pretrained" not in card
    score, loss = record.metrics["test_score"], record.metrics["test_loss"]
    assert score is not None
    assert f"| exact match | {100 * score:.1f} % | " in card
    assert f"| test loss | {loss:.3f} nats/token | " in card
    assert "| test perplexity |" in card or "| perplexity |" in card
    (tmp_path / "config.json").write_text("{}")
    model_card.write_card(record, tmp_path)
    whole = (tmp_path / "README.md").read_text()
    assert 'AutoModel.from_pretrained("FOLDER")' in whole
    assert "PeftModel" not in whole


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder but its card; of PEFT's configuration, which has a set in any
    order, the name.
    """
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    files.pop("README.md", None)
    return files | {name: b"" for name in files if name == "adapter_config.json"}


@pytest.fixture(scope="module")
def kept(by_command: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `hpml-bench run-all SUITE --keep`, here and as a job."""
    out = tmp_path_factory.mktemp("kept")
    command = ["run-all", str(by_command / "words.yaml"), "--keep", "--wandb", "off", "--out"]
    for more in ([str(out / "here")], [str(out / "jobs"), "--parallel", "1"]):
        called(*command, *more)
    return out


@pytest.mark.parametrize("place", ["here", "jobs"])
def test_a_sweep_keeps_what_run_saves(place: str, kept: Path, by_command: Path) -> None:
    """The same files but the card; the record names them, they load, and `verify` finds nothing
    wrong with them.
    """
    (path,) = kept.glob(f"{place}/words/*/run.json")
    there = contents(path.parent / "kept")
    assert there == contents(by_command / "saved")
    assert sorted(load_record(path).kept) == sorted(there)
    load_trained(path.parent / "kept")
    assert [
        one
        for one in verify(path.parents[1]).checks
        if one.state == "failed" and "kept" in one.finding
    ] == []


def test_kept_parts_need_no_run(
    kept: Path, by_command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a card as of `run --save`; where they were changed or removed, the run is done again."""
    out = Path(shutil.copytree(kept / "here", tmp_path / "out"))
    command = [
        "run",
        "lora",
        str(by_command / "words.yaml"),
        "--wandb",
        "off",
        "--out",
        str(out),
        "--save",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(launcher, "run", lambda *_: pytest.fail("it was trained again"))
        called(*command, tmp_path / "one")
    expected = contents(by_command / "saved")
    assert contents(tmp_path / "one") == expected
    assert (tmp_path / "one" / "README.md").read_text().startswith("# lora on path:")
    (path,) = out.glob("words/*/run.json")
    (path.parent / "kept" / "trained.safetensors").write_bytes(b"other")
    assert "kept/trained.safetensors: is not the file that was recorded" in str(
        verify(path.parents[1]).checks
    )
    done = called(*command, tmp_path / "two", "--keep")
    assert "is kept as set-aside/" in (said := " ".join(done.output.split()))
    assert "the run is done again" in said
    assert contents(tmp_path / "two") == expected
    assert (tmp_path / "two" / "README.md").exists()
    assert RunFolder(path.parent).keeps
    shutil.rmtree(path.parent / "kept")
    assert KEPT not in str(
        [check for check in verify(path.parents[1]).checks if check.state != "ok"]
    )
    assert load_records(path.parents[1]).problems == ()


def test_where_nothing_is_saved(by_command: Path, tmp_path: Path) -> None:
    """By a run that fails, or to a folder with something in it: there no run begins, and the
    user's files stay.
    """
    suite, out = str(by_command / "words.yaml"), str(tmp_path / "out")
    command = ["run", "lora", suite, "--wandb", "off", "--out", out, "--save"]
    done = called(*command, by_command / "saved", status=2)
    assert "not empty" in done.output
    assert not (tmp_path / "out").exists()
    assert (
        CliRunner().invoke(main, [*command, str(tmp_path / "saved"), "--timeout", "0.01"]).exit_code
        != 0
    )
    assert not (tmp_path / "saved").exists()


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40)
SHAPES = st.lists(st.integers(0, 12), max_size=3)
KINDS = st.sampled_from([*TYPES])


@given(st.dictionaries(NAMES, st.tuples(SHAPES, KINDS), max_size=8))
def test_the_size_of_a_file_is_known_before_it_is_written(
    kinds: dict[str, tuple[list[int], torch.dtype]],
) -> None:
    """Of any names, shapes and types, none included, to the byte."""
    tensors = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in kinds.items()}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "file"
        save_file(tensors, path)
        assert safetensors_bytes(tensors.items()) == path.stat().st_size


def test_what_is_saved_is_equal_in_equal_runs(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Modules' names lie in one order, whatever that of their set; all files have equal modes."""
    modules = ["mlp.c_proj", "attn.c_attn", "mlp.c_fc", "attn.c_proj"]
    saved(model_folders["GPT-2"], "peft", tmp_path, {"type": "LORA", "target_modules": modules})
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["target_modules"] == sorted(written["target_modules"])
    assert len(written["target_modules"]) == len(modules)
    modes = {file.stat().st_mode for file in tmp_path.rglob("*") if file.is_file()}
    assert len(modes) == 1
