"""Host memory of loading a language model in half precision: measured on SmolLM2-135M, computed for 8 ranks of an 8B.

    python benchmarks/loading.py

Measured in a fresh process: the peak of resident memory while the backbone is loaded and looked at, above what the
process held before, against the bytes of the safetensors file. On a GPU, weights are copied from the mapped file to the
card, and ranks share the file's pages; there it is computed: the file once, and the libraries in every rank.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LIMIT = 1.2
"""Peak over the bytes of the file that is allowed."""
RANKS, PARAMETERS = 8, 8.03e9
LIBRARIES = 2.0
"""GB that a rank's process holds beside the weights, libraries of CUDA included: an estimate, not measured here."""


def store(folder: Path) -> None:
    """Write the model once as bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    from hpml_bench.data.sources import resolve_model
    from hpml_bench.suite.suite import load_suite

    source = resolve_model(load_suite("faq").settings.backbone).folder_or_file
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(folder)


def peak(folder: Path, weights: str) -> dict[str, float]:
    """Load it here; return the MB of the file, and those at the peak above what was held before."""
    from hpml_bench.builtin.probes.memory import host_held_mb, host_peak_mb, reset_host_peak
    from hpml_bench.suite.settings import Settings
    from hpml_bench.training.model import load_backbone

    settings = Settings.model_validate({
        "backbone": f"path:{folder}", "dataset": "text_files", "task": "causal_lm", "steps": 1, "device": "cpu",
        "weights": weights,
    })  # fmt: skip
    before = host_held_mb()
    reset_host_peak()
    model = load_backbone(folder, settings, "language_model")
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
    return {"stored_mb": stored, "peak_mb": host_peak_mb() - before, "parameters": model.num_parameters()}


def main() -> int:
    """Print the figures as JSON; 1 if the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "TYPE"), help=argparse.SUPPRESS)
    child = parser.parse_args().child
    if child:
        print(json.dumps(peak(Path(child[0]), child[1])))
        return 0
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        store(Path(name))
        for weights in ("bfloat16", "float32"):
            command = [sys.executable, __file__, "--child", name, weights]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            found[weights] = json.loads(line)
            found[weights]["peak_over_stored"] = found[weights]["peak_mb"] / found[weights]["stored_mb"]
    file = 2 * PARAMETERS / 1e9
    found["computed"] = {"ranks": RANKS, "file_gb": file, "host_gb": file + RANKS * LIBRARIES}
    print(json.dumps(found, indent=1))
    return int(found["bfloat16"]["peak_over_stored"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
