"""Completeness: what a page must not leave out."""

from __future__ import annotations

import re

from audit.page import Audit, Table
from audit.runs import BESIDE
from audit.sentences import SENTENCES, elsewhere
from audit.study import TIME, Study
from audit.takeaways import lacking_metrics, no_better_than_guessing, under_trained
from audit.words import metric_in


def check_all_said(audit: Audit, lines: list[tuple[str, str]], study: Study) -> None:
    """Check that the takeaways leave out nothing that they must say."""
    takeaways = [text for section, text in lines if section == "Key takeaways"]
    if len(study.methods) < 2:
        return
    expected = {
        "Not shown to be better than that": bool(no_better_than_guessing(study)),
        "The Pareto front over": study.ranked
        and any(study.place(name, study.metrics)[0] in {"on", "off"} for name in study.methods),
        "Under-trained:": bool(under_trained(study)),
        "Costs are of": bool(elsewhere(study)),
        "had neighbours": bool(study.beside),
        "Methods are not ranked by costs": not study.ranked,
        "one family of": study.tested > 0,
        "No method is called better": study.tested == 0,
        "Of uncertain level": any(pair.erratic and (pair.better or pair.equivalent) for pair in study.pairs.values()),
    }
    for words, wanted in expected.items():
        said = any(words in text for text in takeaways)
        audit.check("Key takeaways", "said", words, ("said", str(said), str(wanted)))
    lacking_in = [text.partition(":")[0] for text in takeaways if text.startswith("Methods lack seeds in")]
    said_of = sorted(metric_in(study, name) for text in lacking_in for name in re.split(r" in |, | and ", text)[1:])
    audit.check("Key takeaways", "said", "lack seeds", ("in", str(said_of), str(sorted(lacking_metrics(study)))))
    leads = sum(re.match(SENTENCES[0][0], text) is not None for text in takeaways)
    tested = {pair.metric for pair in study.pairs.values() if pair.n >= 3}
    audit.check("Key takeaways", "said", "leaders", ("number", str(leads), len(tested)))


def check_all_shown(audit: Audit, tables: list[Table], study: Study) -> None:
    """Check that no table is missing that must be there, and that all other runs are listed."""
    captions = [table.caption for table in tables]
    for words, metric in (
        (re.escape(study.title), study.score),
        ("training time", TIME),
        ("peak memory", study.memory),
    ):
        wanted = len(study.compared) > len(study.methods) and any(
            p.n for p in study.pairs.values() if p.metric == metric
        )
        shown = any(re.match(rf"Pairs by {words}.*\)$", caption) for caption in captions)
        audit.check("Which differences are real", "tables", words, ("shown", str(shown), str(wanted)))
    counts = {"Runs set apart": 0, "Runs that did not end well": 0}
    for table in tables:
        for words in counts:
            if table.caption.startswith(words):
                place = table.header.index("Runs") if "Runs" in table.header else -1
                counts[words] += sum(int(row[place]) if place >= 0 else 1 for row in table.rows)
    section, ended = "Failures and runs set apart", sum(run.record["status"] == "ok" for run in study.runs)
    listed_apart = sum(why not in BESIDE for why in study.apart.values())
    audit.check(section, "runs", "set apart", ("number", str(counts["Runs set apart"]), listed_apart))
    audit.check(
        section, "runs", "not ok", ("number", str(counts["Runs that did not end well"]), len(study.runs) - ended)
    )
