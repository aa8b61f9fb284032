"""What logits at the learnt places alone save, by the size of the vocabulary: memory and time against all logits.

    python benchmarks/vocabulary.py [ROUNDS]

LoRA in fp32 on SmolLM2-135M's shape with vocabularies of 50,000 and 250,000 tokens, in turns, a process each.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from speed import language

SIZES = (50_000, 250_000)


def main() -> None:
    """Print a line of JSON a vocabulary: medians of the rounds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    for size in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            language.save(folder, size)
            pairs = [(language.run("ours_fp32", folder), language.run("all_logits", folder)) for _ in range(rounds)]
        rates = [(a["samples"] / a["seconds"], b["samples"] / b["seconds"]) for a, b in pairs]
        found = {
            "vocabulary": size,
            "samples/s, learnt places over all": statistics.median(a / b for a, b in rates),
            "MB less at the peak": statistics.median(b["peak_mb"] - a["peak_mb"] for a, b in pairs),
            "peak_mb": statistics.median(a["peak_mb"] for a, _ in pairs),
            "peak_mb_all": statistics.median(b["peak_mb"] for _, b in pairs),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
