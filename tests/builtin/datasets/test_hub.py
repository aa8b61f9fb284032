"""Hub datasets: read from a local hub layout, without network and without code of theirs."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from helpers.fake_hub import COMMIT, cached
from helpers.tiny import settings
from hpml_bench.builtin.datasets import hub
from hpml_bench.plugins.dataset import LoadedData
from hpml_bench.suite.suite import load_suite
from hpml_bench.system.errors import UserError

CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
- config_name: other
  data_files:
  - {split: train, path: other/train-*}
---
A card.
"""


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPML_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Lay out a dataset with class names as the hub's cache does; return its snapshot folder."""
    from datasets import ClassLabel, Dataset, Features, Value

    folder = cached(tmp_path / "hub", "datasets--o--news")
    (folder / "data").mkdir()
    (folder / "other").mkdir()
    (folder / "README.md").write_text(CARD)
    features = Features({"text": Value("string"), "label": ClassLabel(names=["World", "Sports"])})
    for name, rows in (("data/train-0", 12), ("data/test-0", 4), ("other/train-0", 6)):
        content = {
            "text": [f"{name} {i}" for i in range(rows)],
            "label": [i % 2 for i in range(rows)],
        }
        Dataset.from_dict(content, features=features).to_parquet(folder / f"{name}.parquet")
    return folder


def load(dataset: str = "hub:o/news", samples: int | None = None, **options: Any) -> LoadedData:
    given = {"config": "default"} | options
    asked = settings(test_samples=samples)
    return hub.HubDataset(hub.HubDataset.Options(dataset=dataset, **given)).load(asked, "class")


def test_a_cached_dataset_needs_no_network(repository: Path) -> None:
    """Splits and class names come from the repository, and the commit is noted; `path:` reads a
    copy the same.

    A validation split is taken where one is named; without a test split its rows leave the training
    rows.
    """
    data = load()
    assert (len(data.train), len(data.test), data.validation) == (12, 4, None)
    assert data.label_names == ("World", "Sports")
    assert data.train[1] == {"text": "data/train-0 1", "label": 1}
    assert data.notes["dataset"] == f"hub:o/news, commit {COMMIT}"
    assert load(f"path:{repository}").train[:] == data.train[:]
    assert len(load(validation="test").validation or ()) == 4
    data = load(config="other", test=None, samples=2)
    assert (len(data.train), len(data.test)) == (4, 2)
    assert data.notes["test"] == "2 rows split off hub:o/news train, as no test rows were given"
    assert not set(data.train["text"]) & set(data.test["text"])


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"test": "dev"}, "no split 'dev'; there is train, test"),
        ({"config": "third"}, "third"),
        ({"text": "body"}, "no text column 'body'"),
        ({"dataset": "hub:o/absent"}, "HF_HUB_OFFLINE is set.*path:FOLDER.*quickstart"),
        ({"dataset": "hub:news"}, "write hub:OWNER/NAME"),
    ],
)
def test_a_mistake_is_named(options: dict[str, Any], says: str) -> None:
    """One sentence with the dataset and what there is."""
    with pytest.raises(UserError, match=says) as raised:
        load(**options)
    assert "\n" not in str(raised.value)


def test_json_lines_are_read_and_code_is_not_run(tmp_path: Path) -> None:
    """As parquet and csv are, a split a file; a folder with a script and no data is refused."""
    (tmp_path / "news.py").write_text("raise SystemExit")
    with pytest.raises(UserError, match="holds no parquet, csv or jsonl"):
        load(f"path:{tmp_path}")
    for split, rows in (("train", 6), ("test", 3)):
        lines = [json.dumps({"text": f"{split} {row}", "label": row % 2}) for row in range(rows)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    data = load(f"path:{tmp_path}")
    assert data.train["text"][:] == [f"train {row}" for row in range(6)]
    assert data.test["text"][:] == ["test 0", "test 1", "test 2"]


def test_the_documents_suite_writes_out_every_setting() -> None:
    """Nothing of the document's setting is left to a default that could change."""
    import yaml

    from hpml_bench.suite.settings import Settings
    from hpml_bench.suite.suite import suites_folder

    suite = load_suite("document")
    written = yaml.safe_load((suites_folder() / "document.yaml").read_text())["settings"]
    assert set(written) == set(Settings.model_fields)
    assert set(written["dataset"]["options"]) >= set(hub.HubDataset.Options.model_fields) - {
        "label_names",
        "separator",
    }
    assert len({run.method.lr for run in suite.runs()}) == 1
