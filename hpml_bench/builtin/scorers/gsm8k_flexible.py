"""GSM8K, flexibly: the last number (lm-evaluation-harness's task gsm8k, filter
flexible-extract).
"""

import re

from hpml_bench.plugins.scorer import LmEvalGsm8k


class Gsm8kFlexible(LmEvalGsm8k):
    """The last number, as text."""

    title = "exact match, flexible"
    definition = (
        "Share of the test rows whose answer's last number is written as the one asked for, "
        "commas, dollar signs and a full stop at the end apart: extracted and compared as by "
        "lm-evaluation-harness's gsm8k, flexible-extract. Where an answer ends, and examples "
        "before the question, are the suite's."
    )
    pattern = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
    place = -1
