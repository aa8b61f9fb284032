"""PEFT's method comparison as a suite: its folders `experiments/METHOD/NAME`, each experiment one
method.

The suite is the packaged `metamath` with these methods. What an experiment changes beside its
adapter, rate and optimizer would be a setting of all methods.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpml_bench.starter.entries import flow
from hpml_bench.suite import registry
from hpml_bench.suite.suite import suites_folder
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_json
from hpml_bench.system.text import sanitize

BASE = "metamath"
ADAPTER, TRAINING, DEFAULTS = (
    "adapter_config.json",
    "training_params.json",
    "default_training_params.json",
)
FULL = "full-finetuning"  # folder of the experiments that have no adapter
PARAMETERS: dict[str, Any] = {
    "model_id": "meta-llama/Llama-3.2-3B",
    "max_seq_length": 768,
    "batch_size": 4,
    "max_steps": 5000,
    "grad_norm_clip": 1.0,
    "lr_scheduler": "cosine",
    "dtype": "bfloat16",
    "use_amp": False,
    "query_template": "Question: {query} Think step by step.\nAnswer:",
    "autocast_adapter_dtype": True,
    "optimizer_type": "AdamW",
    "optimizer_kwargs": {"lr": 1e-4, "weight_decay": 0.1},
}
"""Its training parameters where it has no file of defaults: those of the packaged suite."""
HARMLESS = frozenset(
    {"batch_size_eval", "eval_steps", "seed", "use_gc", "compile", "attn_implementation"}
)
"""Parameters that don't change what is learnt and answered."""
OWN = ("optimizer_type", "optimizer_kwargs")
OPTIMIZERS = {"AdamW": None, "lora+": "lora_plus"}
ARGUMENTS = {"loraplus_lr_ratio": "ratio", "loraplus_lr_embedding": "embedding_lr"}
DECAY = 0.01
"""AdamW's weight decay in torch, which holds where an experiment names none: its arguments
replace the defaults.
"""


def suite_of(folder: Path) -> tuple[str, list[str]]:
    """Return the suite of a folder of experiments, or of one that holds `experiments/`, and
    lines on the others.
    """
    folder = folder / "experiments" if (folder / "experiments").is_dir() else folder
    places = sorted(
        {path.parent for name in (ADAPTER, TRAINING) for path in folder.glob(f"*/*/{name}")}
    )
    if not places:
        raise UserError(
            f"{folder}: no experiments here (looked for */*/{ADAPTER} and */*/{TRAINING})"
        )
    defaults = PARAMETERS | (read_json(folder.parent / DEFAULTS) or {})
    methods: dict[str, Any] = {}
    model = defaults["model_id"].rpartition("/")[2]
    others = [key for key in PARAMETERS if key not in OWN and defaults[key] != PARAMETERS[key]]
    otherwise = {
        f"all ({key})": sanitize(f"{PARAMETERS[key]} here, {defaults[key]} there") for key in others
    }
    unsaid: dict[str, str] = {}
    for place in places:
        name = sanitize(f"{place.parent.name}/{place.name}")
        try:
            own = re.sub(rf"^{re.escape(model)}-", "", place.name, flags=re.IGNORECASE)
            key = re.sub(r"[^A-Za-z0-9_.+-]", "-", f"{place.parent.name}-{own}").lstrip("-_.+")[:64]
            methods[key], remark = _entry(place, defaults)
            otherwise |= {name: remark} if remark else {}
        except ValueError as error:
            unsaid[name] = sanitize(str(error).partition(" (allowed")[0])
    if not methods:
        raise UserError(
            f"{folder}: no experiment can be said; of the first: {next(iter(unsaid.values()))}"
        )
    lines = [f"{len(methods)} of {len(places)} experiments are methods here"]
    lines += [f"left out: {name}: {why}" for name, why in unsaid.items()]
    lines += [f"differs: {name}: {remark}" for name, remark in otherwise.items()]
    entries = [f"  {name}: {flow(entry)}" for name, entry in methods.items()]
    about = [f"# {line}" for line in ("Made by hpml-bench init --from-peft.", *lines)]
    settings = (
        (suites_folder() / f"{BASE}.yaml").read_text(encoding="utf-8").partition("methods:\n")[0]
    )
    return "\n".join([*about, settings + "methods:", *entries, ""]), lines


def _entry(place: Path, defaults: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return an experiment as an entry of a suite's methods, and what differs there; a
    ValueError says why not.
    """
    adapter, given = (read_json(place / name) for name in (ADAPTER, TRAINING))
    if adapter is None and (place.parent.name != FULL or (place / ADAPTER).exists()):
        raise ValueError(f"{ADAPTER} is missing or no object of JSON")
    if given is None and (place / TRAINING).exists():
        raise ValueError(f"{TRAINING} is no object of JSON")
    given = given or {}
    for key, value in given.items():
        if key not in {*HARMLESS, *OWN} and (value or None) != (defaults.get(key) or None):
            raise ValueError(
                f"{key} is {value}, not {defaults.get(key)}, which would be a setting of all "
                f"methods"
            )
    optimizer, arguments = (given.get(key, defaults[key]) for key in OWN)
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"there is no optimizer {optimizer} here")
    if more := arguments.keys() - {"lr", "weight_decay", *ARGUMENTS}:
        raise ValueError(
            f"{', '.join(sorted(more))}: arguments of its optimizer that a method can't set here"
        )
    entry: dict[str, Any] = (
        {"method": "full"}
        if adapter is None
        else {"method": "peft", "options": registry.plugin("methods", "peft").options_of(adapter)}
    )
    entry["lr"] = arguments["lr"]
    if OPTIMIZERS[optimizer]:
        options = {
            ours: arguments[theirs] for theirs, ours in ARGUMENTS.items() if theirs in arguments
        }
        entry["optimizer"] = {"name": OPTIMIZERS[optimizer], "options": options}
    theirs, ours = (
        arguments.get("weight_decay", DECAY),
        PARAMETERS["optimizer_kwargs"]["weight_decay"],
    )
    return entry, "" if theirs == ours else f"weight decay is {ours:g} here, {theirs:g} there"
