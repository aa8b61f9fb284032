"""Small random GPT-2, Llama and BERT, from the script that tries all PEFT types on them."""

import importlib
import sys
from pathlib import Path

from hpml_bench.config.settings import DatasetSpec, MethodSpec, Settings
from hpml_bench.registry import get
from hpml_bench.training.model import Classifier, build_classifier

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
support_table = importlib.import_module("support_table")


def settings(**changes: object) -> Settings:
    """Return settings that fit the small backbones."""
    return Settings(**{"backbone": "path:", "dataset": DatasetSpec(name="t"), "steps": 3, "max_length": 12} | changes)


def build(folder: Path, method: str, seed: int = 0, options: dict | None = None, **changes: object) -> Classifier:
    """Build a classifier of four classes with a method's defaults, or some options."""
    module = get("methods", method)
    spec = MethodSpec(name=method, method=method, options=module.Options(**options or {}).model_dump(), lr=module.lr)
    return build_classifier(folder, settings(**changes), spec, 4, seed)
