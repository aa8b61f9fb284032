"""GSM8K, strictly: the number after `#### ` (lm-evaluation-harness's task gsm8k, filter
strict-match).
"""

import re

from hpml_bench.plugins.scorer import LmEvalGsm8k


class Gsm8kStrict(LmEvalGsm8k):
    """The first number behind a mark, as text."""

    title = "exact match, strict"
    definition = (
        "Share of the test rows whose answer's first number after '#### ' is written as the one "
        "asked for, commas, dollar signs and a full stop at the end apart: extracted and compared "
        "as by lm-evaluation-harness's gsm8k, strict-match. Where an answer ends, and examples "
        "before the question, are the suite's."
    )
    pattern = re.compile(r"#### (-?[0-9.,]+)")
    place = 0
