"""What has no noise is counted exactly, and real slowdowns of our own loop are caught and named by it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from residents import asked, copy

import hpml_bench
from hpml_bench.data.prepare import prepare
from hpml_bench.data.prepared import global_batches
from hpml_bench.gate.decide.count_diff import compare, grew, judge, one_sided
from hpml_bench.gate.measure.sides import Installation, ResidentProcess
from hpml_bench.gate.records import MethodCount
from hpml_bench.plugins.rows import Rows

INSTALLED = Installation("installed", sys.executable)
TRAINER = "training/trainer"
STEP = "torch.autograd.backward(roots, begin)\n"


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
    """What the installed version counts."""
    return counts(INSTALLED, "head", "lora")


def failures(reference: dict[str, Any], installation: Installation) -> dict[str, MethodCount]:
    """Return the counts of lora in which an installation fails against the installed version."""
    found = compare("lora", reference["lora"], counts(installation, "lora")["lora"])
    failed = {verdict.metric for verdict in judge(found) if verdict.status == "FAIL"}
    return {count.name: count for count in found if count.name in failed}


def test_flops_are_those_counted_by_hand(reference: dict[str, Any]) -> None:
    """Of `head`: a forward pass through GPT-2's blocks over B x L tokens, then forward and weight gradient of the head.

    A block multiplies matrices of 12 d^2 weights with each token, and has two products of L x L x d for attention.
    """
    config = json.loads((Path(hpml_bench.__path__[0]) / "assets" / "newswire-gpt2" / "config.json").read_text())
    width, layers, batch, classes = config["n_embd"], config["n_layer"], 16, 4
    rows = Rows(Path(prepare(asked().settings).data) / "train", pad_id=1)
    first = next(global_batches(rows.lengths, batch, 1, seed=0))
    length = int(rows.lengths[first].max())
    blocks = layers * (24 * batch * length * width**2 + 4 * batch * length**2 * width)
    assert reference["head"]["flops_per_step"]["value"] == blocks + 2 * (2 * batch * width * classes)


def test_parameters_and_their_bytes_are_lora_s(reference: dict[str, Any]) -> None:
    """Rank 8 at every linear layer, and the head: each is reduced once a step, by one collective, in four bytes."""
    width, layers, rank = 128, 4, 8
    linears = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    expected = layers * sum(rank * (rows + columns) for rows, columns in linears) + 4 * width + 4
    assert reference["lora"]["trainable_parameters"]["value"] == expected
    assert reference["lora"]["collective_bytes_per_step"]["value"] == 4 * expected
    assert reference["lora"]["collectives_per_step"]["value"] == 1


def test_dividing_the_loss_takes_no_operator(reference: dict[str, Any]) -> None:
    """The gradient begins at one over the number of targets: a division and its derivative would be two more a step."""
    parts = reference["lora"]["operators_per_step"]["parts"]
    assert any(part.startswith("aten::full_like in hpml_bench.training.trainer") for part in parts)
    assert not [part for part in parts if part.startswith("aten::div")]


def test_padding_is_a_share_and_memory_holds_the_activations(reference: dict[str, Any]) -> None:
    """Padding lies between none and half; a step of lora holds more than one that trains the head alone."""
    assert 0 <= reference["lora"]["padded_token_share"]["value"] < 0.5
    assert reference["lora"]["tensor_memory"]["value"] > reference["head"]["tensor_memory"]["value"] > 0


SLOWDOWNS = {
    "item": (
        {TRAINER: (STEP, STEP + "        [float(p.grad.sum()) for p in self.parameters if p.grad is not None]\n")}
    ),
    "padding": (
        {"plugins/rows": ("ids = np.full((len(indices), int(lengths.max()))", "ids = np.full((len(indices), 64)")}
    ),
    "all_reduce": ({TRAINER: (STEP, STEP + "        torch.distributed.all_reduce(loss.detach().clone())\n")}),
    "recomputed": (
        {
            TRAINER: (
                STEP,
                "with torch.no_grad():\n            self.model.encoder(input_ids=batch.input_ids)\n        " + STEP,
            )
        }
    ),
}
EXPECTED = {
    "item": ("host_syncs_per_step", "_local_scalar_dense in hpml_bench.training.trainer"),
    "padding": ("padded_token_share", "batch "),
    "all_reduce": ("collectives_per_step", "c10d::allreduce_ in "),
    "recomputed": ("flops_per_step", "aten.addmm +"),
}


@pytest.mark.wheel
@pytest.mark.parametrize("name", SLOWDOWNS)
def test_a_slowdown_of_our_own_loop_is_caught_and_named(name: str, reference: dict[str, Any], tmp_path: Path) -> None:
    """A needless item(), padding to the maximum, an extra all-reduce, a part computed again: each fails a count."""
    failed = failures(reference, copy(tmp_path, **SLOWDOWNS[name]))
    metric, part = EXPECTED[name]
    assert metric in failed
    assert any(part in named for named in failed[metric].grew), failed[metric].grew
    assert "trainable_parameters" not in failed


def test_slowdowns_of_our_own_loop_are_told_apart(reference: dict[str, Any], tmp_path: Path) -> None:
    """A needless item(), an extra all-reduce and a part computed again, all in one step: each fails its own count."""
    again, step, names = *SLOWDOWNS["recomputed"][TRAINER][1].split(STEP), ("item", "all_reduce", "recomputed")
    added = "".join(SLOWDOWNS[name][TRAINER][1].removeprefix(STEP) for name in names[:2])
    failed = failures(reference, copy(tmp_path, **{TRAINER: (STEP, again + STEP + step + added)}))
    for metric, part in (EXPECTED[name] for name in names):
        assert any(part in named for named in failed[metric].grew), failed[metric].grew
    assert not failed.keys() & {"trainable_parameters", "padded_token_share"}


def test_a_comment_changes_no_count(reference: dict[str, Any], tmp_path: Path) -> None:
    """Nothing fails, nothing is even different, where only a comment was added: the counts have no noise."""
    commented = copy(tmp_path, **{TRAINER: (STEP, STEP + "        # a remark\n")})
    found = compare("lora", reference["lora"], counts(commented, "lora")["lora"])
    assert [count.name for count in found if count.reference != count.candidate] == []
    assert len(found) == 8


def test_what_grew_is_named_largest_first() -> None:
    """New parts and grown ones, not those that shrank."""
    assert grew({"a": 1, "b": 5, "c": 9}, {"a": 3, "b": 4, "c": 9, "d": 7}) == ("d +7", "a +2")


def test_parts_are_named_only_where_the_whole_grew() -> None:
    """A renamed function moves parts, not the sum: nothing grew."""
    quantity = {"title": "t", "unit": "u", "value": 2, "tolerance": 0}
    (count,) = compare("m", {"n": {**quantity, "parts": {"old": 2}}}, {"n": {**quantity, "parts": {"new": 2}}})
    assert count.grew == ()


def test_a_candidate_cannot_let_itself_through() -> None:
    """Of two tolerances the smaller holds, and a count that only one side has is told apart by name."""
    before, after = ({"title": "n", "unit": "", "value": v, "tolerance": t, "parts": {}} for v, t in ((1, 0), (9, 10)))
    (count,) = compare("m", {"n": before, "old": before}, {"n": after, "new": after})
    assert count.tolerance == 0
    assert judge([count])[0].status == "FAIL"
    found = one_sided("m", {"n": before, "old": before}, {"n": after, "new": after})
    assert [(verdict.metric, verdict.status, verdict.detail) for verdict in found] == [
        ("new", "INCOMPARABLE", "only the candidate counts new"),
        ("old", "INCOMPARABLE", "only the reference counts old"),
    ]
