"""What has no noise is counted exactly, and real slowdowns of our own loop are caught and named
by it.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from residents import asked, copy

import hpml_bench
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import global_batches
from hpml_bench.gate.sides import Installation, ResidentProcess
from hpml_bench.gate.verdicts import compare_counts
from hpml_bench.gate.workload import waits
from hpml_bench.plugins.rows import Rows

STEP = "torch.autograd.backward([term for term, _ in terms], begin)\n"
ADDED = {
    "host_syncs_per_step": "[float(p.grad.sum()) for p in self.parameters if p.grad is not None]\n",
    "collectives_per_step": "torch.distributed.all_reduce(loss.detach().clone())\n",
}
RECOMPUTED = (
    "with torch.no_grad():\n            self.model.encoder(input_ids=batch.input_ids)\n        "
)
"""What slows a step down, behind the backward pass by the count that fails, and before it."""
EXPECTED = {
    "host_syncs_per_step": "_local_scalar_dense in hpml_bench.training.trainer",
    "collectives_per_step": "c10d::allreduce_ in ",
    "flops_per_step": "aten.addmm +",
    "padded_token_share": "batch ",
}


def counts(installation: Installation, *methods: str) -> dict[str, dict[str, Any]]:
    """Return what a new resident of an installation counts of each method."""
    request = asked(*methods)
    settings = request.settings.model_dump(mode="json")
    specs = [method.model_dump(mode="json") for method in request.methods]
    with ResidentProcess(installation) as resident:
        prepared = resident.call("prepare", settings=settings)
        resident.call("load", settings=settings, prepared=prepared, methods=specs)
        return {method: resident.call("counts", method=method) for method in methods}


@pytest.fixture(scope="module")
def reference() -> dict[str, dict[str, Any]]:
    return counts(Installation("installed", sys.executable), "head", "lora")


def test_flops_are_those_counted_by_hand(reference: dict[str, Any]) -> None:
    """Of `head`: a forward pass through GPT-2's blocks over B x L tokens, then forward and
    weight gradient of it.
    """
    # A block multiplies matrices of 12 d^2 weights with each token, and has two products of L x L x
    # d for attention.
    config = json.loads(
        (Path(hpml_bench.__path__[0]) / "assets" / "newswire-gpt2" / "config.json").read_text()
    )
    width, layers, batch, classes = config["n_embd"], config["n_layer"], 16, 4
    rows = Rows(Path(prepare(asked().settings).data) / "train", pad_id=1)
    first = next(global_batches(rows.lengths, batch, 1, seed=0))
    length = int(rows.lengths[first].max())
    blocks = layers * (24 * batch * length * width**2 + 4 * batch * length**2 * width)
    assert reference["head"]["flops_per_step"]["value"] == blocks + 2 * (
        2 * batch * width * classes
    )


def test_counts_of_lora(reference: dict[str, Any]) -> None:
    """Rank 8 at every linear layer, and the head, reduced once by one collective in four bytes;
    no division; memory.
    """
    # The gradient begins at one over the number of targets: a division and its derivative would be
    # two operators more.
    width, layers, rank = 128, 4, 8
    linears = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    expected = layers * sum(rank * (rows + columns) for rows, columns in linears) + 4 * width + 4
    lora = reference["lora"]
    assert lora["trainable_parameters"]["value"] == expected
    assert lora["collective_bytes_per_step"]["value"] == 4 * expected
    assert lora["collectives_per_step"]["value"] == 1
    parts = lora["operators_per_step"]["parts"]
    assert any(part.startswith("aten::full_like in hpml_bench.training.trainer") for part in parts)
    assert not [part for part in parts if part.startswith("aten::div")]
    assert 0 <= lora["padded_token_share"]["value"] < 0.5
    assert lora["tensor_memory"]["value"] > reference["head"]["tensor_memory"]["value"] > 0


def test_slowdowns_of_our_own_loop_are_told_apart(
    reference: dict[str, Any], tmp_path: Path
) -> None:
    """A needless item(), an extra all-reduce, a part computed again and full padding: each fails
    its own count.
    """
    # A comment beside them changes nothing: what is trained is equal. Nor has another process any
    # noise.
    again, _ = compare_counts(
        "lora", reference["lora"], counts(Installation("again", sys.executable), "lora")["lora"]
    )
    assert [count.name for count in again if count.reference != count.candidate] == []
    assert len(again) == 8
    added = "".join(f"        {line}" for line in (*ADDED.values(), "# a remark\n"))
    padded = "ids = np.full((len(indices), int(lengths.max()))", "ids = np.full((len(indices), 64)"
    trainer = STEP, RECOMPUTED + STEP + added
    changed = counts(
        copy(tmp_path, **{"training/trainer": trainer, "plugins/rows": padded}), "lora"
    )["lora"]
    found, judged = compare_counts("lora", reference["lora"], changed)
    wrong = {verdict.metric for verdict in judged if verdict.status == "FAIL"}
    failed = {count.name: count for count in found if count.name in wrong}
    for metric, part in EXPECTED.items():
        assert any(part in named for named in failed[metric].grew), failed[metric].grew
    assert "trainable_parameters" not in failed


def on(device: str) -> Any:
    return SimpleNamespace(device=torch.device(device))


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "expected"),
    [
        ("aten::_to_copy", (on("cuda:0"),), {"device": torch.device("cpu")}, True),
        (
            "aten::_to_copy",
            (on("cuda:0"),),
            {"device": torch.device("cpu"), "non_blocking": True},
            False,
        ),
        ("aten::_to_copy", (on("cuda:0"),), {"dtype": torch.float64}, False),
        ("aten::_to_copy", (on("cpu"),), {"device": torch.device("cuda", 0)}, False),
        ("aten::_to_copy", (on("cpu"),), {"device": None}, False),
        ("aten::copy_", (on("cpu"), on("cuda:0")), {}, True),
        ("aten::copy_", (on("cpu"), on("cuda:0"), True), {}, False),
        ("aten::copy_", (on("cuda:0"), on("cuda:0")), {}, False),
        ("aten::add", (on("cuda:0"), on("cuda:0")), {}, False),
    ],
)
def test_the_host_waits_for_what_it_copies_from_a_device(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: bool
) -> None:
    """Unless the copy is asked not to block; a copy to a device or within one needs no wait."""
    assert waits(name, args, kwargs) is expected
