"""`hpml-bench score`: systems that a suite didn't train, beside its runs; a server's answers
beside those of a run.
"""

import json
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from safetensors.torch import load_file, save_file

from helpers.cli_process import Command
from helpers.commands import called
from helpers.fake_server import serving
from hpml_bench.records.load import load_record, load_records
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.select.selection import Selection
from hpml_bench.verify.verify import verify

ROWS = 40
SET = (
    "steps=40",
    f"test_samples={ROWS}",
    "train_samples=256",
    "world_size=1",
    "latency_samples=0",
    "task.options={scorer: exact, max_new_tokens: 8}",
)
SETTINGS = [word for setting in SET for word in ("--set", setting)]


def score(out: Path, *systems: str, more: tuple[str, ...] = (), status: int = 0) -> Result:
    given = [word for one in systems for word in ("--system", one)]
    return called("score", "chat", "--out", out, *SETTINGS, *more, *given, status=status)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs of the base model and of LoRA on the embedded chat, which keep
    what was trained.
    """
    out = tmp_path_factory.mktemp("recorded")
    options = (
        "--methods",
        "none,lora",
        "--seeds",
        "1",
        "--keep",
        "--wandb",
        "off",
        "--out",
        str(out),
    )
    called("run-all", "chat", *options, *SETTINGS)
    return out


@pytest.fixture
def out(recorded: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return shutil.copytree(recorded, tmp_path / "out")


def run_of(out: Path, method: str) -> tuple[RunRecord, Path]:
    record = next(r for r in load_records(out / "chat").records if r.spec.method.name == method)
    return record, out / "chat" / record.run_id


def answers_of(out: Path, method: str) -> Callable[[dict[str, Any]], str]:
    """Return a server's function that gives the answers of a recorded run."""
    texts = read_predictions(run_of(out, method)[1]).texts
    told = dict(zip(texts.question, texts.answer, strict=True))
    return lambda asked: told[asked["messages"][-1]["content"]]


def scored(out: Path, name: str, seed: int = 0) -> RunRecord:
    return load_record(next((out / "scored" / f"seed{seed}" / "chat").glob(f"{name}-s*/run.json")))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_systems_stand_beside_the_runs(out: Path) -> None:
    """An adapter, a served model and the base score as their runs did; the suite's own folder
    stays as it was.
    """
    (record, folder), before = run_of(out, "lora"), content(out / "chat")
    adapter = out.parent / "adapter"
    adapter.mkdir()
    for file in folder.glob("kept/adapter_*"):
        shutil.copy(file, adapter)
    with serving(answers_of(out, "lora")) as served:
        done = score(
            out, f"theirs={adapter}", f"theirs={folder / 'kept'}", f"there={served.url},as=lora-s0"
        )
    assert len(served.asked) == ROWS
    found = {name: scored(out, name) for name in ("theirs", "there")}
    assert {one.metrics["test_score"] for one in found.values()} == {record.metrics["test_score"]}
    assert {one.protocol_id for one in found.values()} == {record.protocol_id}
    assert found["theirs"].metrics["test_loss"] == pytest.approx(
        record.metrics["test_loss"], rel=1e-5
    )
    assert scored(out, "theirs", 1).metrics["test_score"] == record.metrics["test_score"]
    assert f"there as lora-s0: all {ROWS} answers are equal." in done.output
    page = (out / "scored" / "chat" / "report.md").read_text()
    assert all(f"| {name} |" in page for name in ("theirs", "there", "lora", "none"))
    assert "there as lora-s0: all 40 answers are equal" in page
    assert content(out / "chat") == before
    called("compare", out / "chat", *out.glob("scored/seed*/chat"), "--out", out / "later")
    assert "all 40 answers are equal" in (out / "later" / "report.md").read_text(), (
        "it is recorded beside the run"
    )


def test_a_method_that_trains_nothing_has_nothing_to_save(tmp_path: Path) -> None:
    """`run none --save` is refused before the run."""
    done = called(
        "run", "none", "chat", "--save", tmp_path / "saved", "--out", tmp_path, *SETTINGS, status=2
    )
    assert "none trains nothing" in done.output
    assert not (tmp_path / "chat").exists()


def test_a_served_run_tells_no_loss(out: Path) -> None:
    """Its record has the scores alone and says what the server is; checks of the folder read it."""
    with serving(answers_of(out, "lora")) as served:
        score(out, f"there={served.url}")
    record = scored(out, "there")
    assert set(record.metrics) == {"test_score", "test_cut_answers", "trainable_parameters"}
    assert record.environment["server"] == {
        "url": served.url,
        "model": "small",
        "api": "chat",
        "says": {"id": "small", "owned_by": "a test"},
    }
    folder = out / "scored" / "seed0" / "chat"
    assert Selection.load(folder).left_out.excluded == ()
    assert {check.name for check in verify(folder).checks if check.state == "failed"} <= {
        "private paths"
    }


def test_keys_are_in_no_file(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key goes into the request's header, also where the server repeats it in an error."""
    monkeypatch.setenv("THEIR_KEY", "a-key-of-many-letters")
    with serving(lambda _: (401, {"error": "a-key-of-many-letters is no key"})) as served:
        done = score(out, f"there={served.url},key=THEIR_KEY", status=1)
    assert served.headers[0]["Authorization"] == "Bearer a-key-of-many-letters"
    assert "HTTP 401" in str(scored(out, "there").error)
    assert "a-key-of-many-letters" not in done.output
    assert not any(b"a-key-of-many-letters" in file for file in content(out).values())
    monkeypatch.delenv("THEIR_KEY")
    assert (
        "the variable THEIR_KEY is empty"
        in score(out, f"there={served.url},key=THEIR_KEY", status=2).output
    )


def test_a_server_that_ends_is_asked_the_rest_later(out: Path) -> None:
    """The run fails with a sentence; the next call asks the rows that have no answer."""
    right, count = answers_of(out, "lora"), iter(range(10**6))
    with serving(
        lambda asked: right(asked) if next(count) < 15 else (400, {"error": "out of memory"})
    ) as served:
        score(out, f"there={served.url},as=lora-s0", more=("--concurrency", "1"), status=1)
        error = scored(out, "there").error
        assert error.message.startswith(
            f"row 15: {served.url}/chat/completions: HTTP 400 Bad Request"
        )
        count = iter([0] * 10**3)
        score(out, f"there={served.url}")
    assert len(served.asked) == ROWS + 1
    assert (
        scored(out, "there").metrics["test_score"] == run_of(out, "lora")[0].metrics["test_score"]
    )


def test_killed(out: Path) -> None:
    """All rows but those in flight have their answers, a torn last line left out, and the next
    call asks the rest.
    """
    right, count, killed = answers_of(out, "lora"), iter(range(ROWS)), threading.Event()

    def held(asked: dict[str, Any]) -> str:
        if next(count, ROWS) >= 10:
            killed.wait()
        return right(asked)

    class Score(Command):
        does = ("score",)

    def answers() -> list[str]:
        return [
            line
            for file in out.glob("scored/seed0/chat/*.answers.jsonl")
            for line in file.read_text().split("\n")
        ]

    with serving(held) as served:
        system = ("--system", f"there={served.url}", "--concurrency", "2")
        command = Score(Path("chat"), out, *SETTINGS, *system)
        command.until(lambda: len(answers()) == 1 + 10 + 1 and len(served.asked) == 12)
        command.process.send_signal(signal.SIGKILL)
        command.process.wait()
        killed.set()
        for file in out.glob("scored/seed0/chat/*.answers.jsonl"):
            with file.open("a") as end:
                end.write('{"row": 39, "te')
        score(out, f"there={served.url}")
    assert len(served.asked) == ROWS + 2
    assert (
        scored(out, "there").metrics["test_score"] == run_of(out, "lora")[0].metrics["test_score"]
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own, base, _: base, "adapter not applied"),
        (lambda own, base, _: own[:3], "cuts them short"),
        (lambda own, base, _: own + own, "doesn't stop at the end token"),
        (lambda own, base, times: own if times % 2 else f"{own}x", "it samples"),
    ],
)
def test_the_cause_of_other_answers_is_named(
    change: Callable[[str, str, int], str], said: str, out: Path
) -> None:
    """By trial of the run's own model, by the texts, or by asking again."""
    own, base, times = answers_of(out, "lora"), answers_of(out, "none"), iter(range(10**6))
    with serving(lambda asked: change(own(asked), base(asked), next(times))) as served:
        done = score(out, f"there={served.url},as=lora-s0", more=("--concurrency", "1"))
    told = done.output.split("there as lora-s0: ")[1]
    assert said in told or (
        said == "adapter not applied" and "the base model without what was trained" in told
    )


@pytest.mark.parametrize(
    ("system", "more", "said"),
    [
        ("lora=/tmp", (), "the suite has a method of this name"),
        ("theirs=/tmp,as=lora-s0", (), "as are for servers"),
        ("theirs", (), "write NAME=WHERE"),
        (
            "theirs=http://127.0.0.1:9/v1#small,as=lora-s9",
            (),
            "no run lora-s9 that ended well; there are",
        ),
        ("theirs=nowhere", (), "nowhere: there is no such folder or file"),
        (
            "theirs=http://127.0.0.1:9/v1#small,keys=NAME",
            (),
            "keys is unknown; known are as, api, key",
        ),
        ("theirs=http://user:word@127.0.0.1/v1", (), "keep the login out of the address"),
        (
            "theirs=/tmp",
            ("--set", "max_length=90"),
            "another protocol: now max_length 90 instead of 96",
        ),
    ],
)
def test_what_is_refused(system: str, more: tuple[str, ...], said: str, recorded: Path) -> None:
    """In a sentence, before anything is run."""
    done = score(recorded, system, more=more, status=2)
    assert said in done.output
    assert not (recorded / "scored").exists()


def test_a_folder_that_does_not_fit_is_a_record(out: Path) -> None:
    """The run fails with the sentence of what is wrong, and the others are scored."""
    (out.parent / "empty").mkdir()
    score(
        out, f"theirs={out.parent / 'empty'}", f"ours={run_of(out, 'lora')[1] / 'kept'}", status=1
    )
    assert "config.json is missing" in str(scored(out, "theirs").error)
    assert scored(out, "ours").status == "ok"


def test_a_name_means_one_system(out: Path) -> None:
    """Its run on another folder is set aside; an adapter whose base isn't here is scored with a
    remark.
    """
    kept, adapter = run_of(out, "lora")[1] / "kept", out.parent / "adapter"
    adapter.mkdir()
    for file in kept.glob("adapter_*"):
        shutil.copy(file, adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "someone/base"})
    )
    score(out, f"theirs={kept}")
    done = score(out, f"theirs={adapter}")
    assert len(list((out / "scored/seed0/chat/set-aside").iterdir())) == 1
    assert (
        "theirs: its adapter names someone/base as its base model, which isn't here to be compared"
        in done.output
    )
    assert scored(out, "theirs").spec.method.options["path"] == str(adapter)
    score(out, f"ours={kept}")
    page = (out / "scored" / "chat" / "report.md").read_text()
    assert "| theirs |" in page
    assert "theirs: its adapter names someone/base as its base model" in page


def test_a_name_with_fewer_systems_than_before_is_refused(out: Path) -> None:
    """Those of the earlier call would be seeds of another system; named again they are scored."""
    kept, copy = run_of(out, "lora")[1] / "kept", out.parent / "copy"
    shutil.copytree(kept, copy)
    score(out, f"theirs={kept}", f"theirs={copy}")
    done = score(out, f"theirs={copy}", status=2)
    said = " ".join(done.output.split())
    assert "--system theirs: an earlier call named 2 or more systems so, its seeds" in said
    assert "and this one 1; name all of them, or give another name" in said
    assert scored(out, "theirs", 1).spec.method.options["path"] == str(copy)
    score(out, f"others={copy}")
    score(out, f"theirs={copy}", f"theirs={kept}")
    assert scored(out, "theirs", 1).spec.method.options["path"] == str(kept)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged_are_refused(value: float, out: Path) -> None:
    """An adapter's or a saved run's: a sentence names the tensor, and there is no score of 0."""
    kept, folder = run_of(out, "lora")[1] / "kept", out.parent / "theirs"
    shutil.copytree(kept, folder)
    for part in (folder, *folder.rglob("*.safetensors")):
        if part.is_file():
            tensors = load_file(part)
            name = max(tensors)
            tensors[name][(0,) * tensors[name].dim()] = value
            save_file(tensors, part)
    adapter = out.parent / "adapter"
    adapter.mkdir()
    for file in folder.glob("adapter_*"):
        shutil.copy(file, adapter)
    score(out, f"theirs={adapter}", f"saved={folder}", status=1)
    for system in ("theirs", "saved"):
        record = scored(out, system)
        assert record.status == "failed"
        assert "are NaN or infinite" in str(record.error)


def test_a_run_that_kept_nothing_is_not_claimed(out: Path) -> None:
    """Causes are found by trials of what it trained: told before the server is asked."""
    shutil.rmtree(run_of(out, "lora")[1] / "kept")
    done = score(out, "theirs=http://127.0.0.1:9/v1#small,as=lora-s0", status=2)
    assert "what lora-s0 trained wasn't kept; do the run by run-all --keep" in " ".join(
        done.output.split()
    )


def test_only_answers_can_be_served(tmp_path: Path) -> None:
    """A server gives no classes."""
    with serving(lambda _: "x") as served:
        few = ("--set", "test_samples=40", "--set", "train_samples=64")
        called(
            "score",
            "quickstart",
            "--out",
            tmp_path,
            *few,
            "--system",
            f"there={served.url}",
            status=1,
        )
    assert "it takes a scorer of answers" in json.dumps(
        load_record(next(tmp_path.glob("scored/seed0/*/there-s0-*/run.json"))).model_dump(
            mode="json"
        )
    )
    assert not served.asked
