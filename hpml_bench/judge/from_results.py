"""Answer of a results folder: the verdicts on its selected runs, and what the runs say beside
them.
"""

from collections.abc import Iterator
from dataclasses import replace

from hpml_bench.judge.caveats import beside_guess, other_settings, under_trained
from hpml_bench.judge.judged import once
from hpml_bench.judge.results import Results
from hpml_bench.judge.scores import SuiteFacts
from hpml_bench.judge.summarize import lent_in_words, plain, score_scale, summarize
from hpml_bench.judge.summary import Failure, Guess, Method, PageSummary, Setup
from hpml_bench.plugins.dataset import FEWER
from hpml_bench.records.numbers import option_list
from hpml_bench.records.run import FAILED
from hpml_bench.records.tuning import find
from hpml_bench.select.comparability import is_base, untrained
from hpml_bench.system.environment import Environment
from hpml_bench.system.text import count_of, sanitize


@once
def answer_of(results: Results) -> PageSummary:
    """Return the answer of the compared runs; sections share it, so it is built once."""
    found = results.verdicts
    return summarize(replace(found, scores=replace(found.scores, facts=facts_of(results))))


def facts_of(results: Results) -> SuiteFacts:
    settings, hosts = results.reference.spec.settings, results.hosts
    guessed, (scale, _) = None, score_scale(results.aligned)
    if guess := results.guess:
        below = tuple(method for method, how in beside_guess(results).items() if how == "not")
        none_beats = below and len(below) == len(results.methods)
        score = plain(scale * float(guess.scores.mean())) if none_beats else None
        guessed = Guess(text=guess.sentence, value=scale * guess.chance, below=below, score=score)
    methods = {}
    for name, runs in ((name, results.runs(name)) for name in results.methods):
        own, base = tuple(_settings(results, name)), all(map(is_base, runs))
        kind = runs[0].spec.method.method
        methods[name] = Method(
            name=name, kind=kind, base=base, seeds=len(runs), settings=own, values={}
        )
    return SuiteFacts(
        suite=results.suite,
        description=results.description,
        model=settings.backbone.partition("#")[0],
        data=settings.dataset.name,
        setup=Setup(
            budget=f"{settings.steps:,} steps" if settings.steps else f"{settings.epochs:g} epochs",
            device=_device(results),
            # hosts whose costs count: by name, by number where there are several; empty where none
            # is known
            host=hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts" if hosts else "",
            rates=_rates(results),
            memory=(
                f"memory: peak "
                f"{'on one GPU' if str(settings.device).startswith('cuda') else 'of one process'}"
            ),
            lent=str(results.prior) if lent_in_words(results.verdicts) else None,
        ),
        methods=methods,
        under={method: len(seeds) for method, seeds in under_trained(results).items()},
        guess=guessed,
        # interrupted and unsupported runs say nothing about a method
        failures=tuple(
            Failure(method=record.spec.method.name, seed=record.spec.seed, status=record.status)
            for record in results.left_out.unfinished
            if record.status in FAILED
        ),
        untried=tuple(dict.fromkeys((*results.absent, *results.unrun))),
    )


def _settings(results: Results, name: str) -> Iterator[tuple[str, str]]:
    spec, record = results.runs(name)[0].spec.method, find(results.folder, results.suite)
    yield "Kind", spec.method
    trials = [len(tuned.trials) for tuned in record.methods if tuned.name == name] if record else []
    tuned = f", tuned in {count_of(trials[0], 'trial')}" if trials and trials[0] else ""
    yield "Learning rate", f"{spec.lr:g}{tuned}"
    if spec.optimizer is not None:
        yield "Optimizer", spec.optimizer.name
    yield "Options", option_list(spec.options) or "none"


def _device(results: Results) -> str:
    settings, hardware = (
        results.reference.spec.settings,
        Environment.read(results.reference.environment).hardware,
    )
    ranks = settings.world_size or 1
    if str(settings.device).startswith("cuda"):
        cards = [
            sanitize(str(card.get("name", "GPU")), 40) for card in hardware.get("gpus", []) if card
        ]
        name = cards[0] if cards else "GPU"
        return name if ranks == 1 else f"{ranks} x {name}"
    processor = sanitize(str(hardware.get("cpu", "")), 40)
    count = "1 CPU process" if ranks == 1 else f"{ranks} CPU processes"
    return f"{count} on {processor}" if processor else count


def _rates(results: Results) -> str:
    record = find(results.folder, results.suite)
    if record is None:
        return "tuning of learning rates not recorded"
    rated = {tuned.name for tuned in record.methods if tuned.trials}
    counts = sorted({len(tuned.trials) for tuned in record.methods if tuned.trials})
    if not counts:
        return "learning rates not tuned"
    if lacking := [
        m for m in results.methods if m not in rated and not all(map(untrained, results.runs(m)))
    ]:
        who = f"s of {len(lacking)} methods" if len(lacking) > 1 else f" of {sanitize(lacking[0])}"
        return f"learning rate{who} not tuned"
    others = " in other settings" if other_settings(results, record) else ""
    if len(counts) > 1:
        return f"learning rates tuned unequally{others}, {counts[0]} to {counts[-1]} trials"
    return f"learning rates tuned{others or ' alike'}, {counts[0]} trials each"


def facts(results: Results) -> dict[str, str]:
    settings = results.reference.spec.settings
    budget = f"{settings.steps} steps" if settings.steps else f"{settings.epochs} epochs"
    fewer = FEWER in results.reference.notes
    rows = "all" if fewer or settings.train_samples is None else f"{settings.train_samples:,}"
    left = results.left_out
    others = {
        "on other ranks": len(results.scaled_runs),
        "with other checkpointing": len(results.checkpointed),
        "set apart": left.excluded_runs,
        "not ok": len(left.unfinished),
        "unreadable": len(left.problems),
        "without a record": max(0, results.never_run - len(left.problems)),
    }
    known = {
        "Model": settings.backbone.partition("#")[0],
        "Task": settings.task.name,
        "Data": settings.dataset.name,
        "Budget": f"{budget} of {settings.global_batch} from {rows} training rows",
        "Device": f"{settings.world_size or '?'} x {settings.device}, {settings.precision}",
        "Methods": str(len(results.methods)),
        "Seeds": str(len(results.seeds)),
        "Runs": ", ".join(
            [
                f"{len(results.compared)} compared",
                *(f"{n} {what}" for what, n in others.items() if n),
            ]
        ),
        "Protocol": results.reference.protocol_id or "not known",
    }
    return {key: sanitize(value, 120) for key, value in known.items()}
