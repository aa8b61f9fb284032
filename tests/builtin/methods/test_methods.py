from enum import Enum
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import peft as library
import pytest
import support_table
import torch
from packaging.version import Version
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2Model

from helpers.classifiers import assemble, build, installed
from hpml_bench.builtin.methods import adapter, peft
from hpml_bench.suite import registry
from hpml_bench.suite.registry import validate_options
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.training import causal_lm
from hpml_bench.training.trial import unused_parameters

INSTALLED = Version(version("peft"))
ALIASES = {"KASA": "0.21", "MICA": "0.20", "MONTECLORA": "0.20", "VELORA": "0.20"}
"""Options of LORA that 0.18 lacks -> version of PEFT that brought them."""
LATER = {kind for kind, since in (peft.SINCE | ALIASES).items() if Version(since) > INSTALLED}
"""Types of the committed table that came after the installed PEFT."""
GONE = {"BONE"} if Version("0.19") > INSTALLED else set()
"""Types of the installed PEFT that went before the table was made."""
METHODS = registry.names("methods")
TRAINING = [name for name in METHODS if registry.plugin("methods", name).trains and installed(name)]
BACKBONES = support_table.BACKBONES
ALWAYS_TRIED = {"IA3", "OFT"}
"""Types that are tried with each call of the tests; the others in the environment of the tables."""


@pytest.fixture(scope="module")
def language_models(tmp_path_factory):
    return support_table.save_language_models(tmp_path_factory.mktemp("language_models"))


def trained(module):
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


def committed_rows():
    lines = support_table.TABLE.read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines
        if line.startswith("| ")
    ]
    return {row[0]: row[1:] for row in rows[1:]}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", TRAINING)
def test_method_trains_alone_and_padding_changes_nothing(backbone_folders, name, backbone):
    """The loss falls, gradients reach all that is trained, nothing else moves, and padding moves
    no logit.
    """
    finding = support_table.attempt(backbone_folders[backbone], name, {})
    assert not finding.reason
    assert (finding.parameters == 0) == (name == "head")


@pytest.mark.parametrize("name", [name for name in TRAINING if name != "head"])
def test_method_trains_language_models_and_answers_the_same_beside_others(language_models, name):
    """Gradients, padding, generation token by token and answers side by side are as they should be.

    With the shape of a sliding window and capped logits; the tables' environment tries types with
    every shape.
    """
    finding = support_table.attempt_whole(language_models["Gemma 2"], name, {})
    assert (finding.reason, finding.merges) == ("", name in {"lora", "peft"})


def test_all_methods_start_from_the_same_head(backbone_folders):
    """At one seed the head's first weights are bit for bit the same, whatever the method drew
    before.
    """
    heads = [build(backbone_folders["GPT-2"], name).head.weight for name in TRAINING]
    assert all(torch.equal(head, heads[0]) for head in heads)


@pytest.mark.parametrize(("placement", "count"), [("pfeiffer", 894_528), ("houlsby", 1_789_056)])
def test_adapter_has_the_published_number_of_parameters(placement, count):
    """GPT-2 124M at reduction 16: 12 blocks of 2 x 768 x 48 + 48 + 768, once or twice;
    normalising adds none.
    """
    for layer_norm in (False, True):
        with torch.device("meta"):
            backbone = GPT2Model(GPT2Config())
        built = adapter.Adapter(
            adapter.Adapter.Options(placement=placement, layer_norm=layer_norm)
        ).build(backbone)
        assert trained(built) == count


@pytest.mark.parametrize("backbone", BACKBONES)
def test_adapter_adds_nothing_at_first(backbone_folders, backbone):
    """The up-projection starts at zero, so that training starts from the pretrained function."""
    ids, mask, _ = support_table.batch()
    options = {"placement": "houlsby", "size": 3, "activation": "gelu", "layer_norm": True}
    plain = build(backbone_folders[backbone], "head")
    adapted = build(backbone_folders[backbone], "adapter", options=options)
    assert trained(adapted.encoder) == 2 * 2 * (2 * 64 * 3 + 3 + 64)
    assert torch.equal(plain.eval()(ids, mask), adapted.eval()(ids, mask))


def test_adapter_says_where_it_does_not_fit():
    """Blocks of an unknown kind are a reason, not a crash."""
    backbone = torch.nn.Sequential(torch.nn.Linear(2, 2))
    backbone.config = SimpleNamespace(model_type="other")
    with pytest.raises(Unsupported, match="blocks of other"):
        adapter.Adapter(adapter.Adapter.Options()).build(backbone)


def test_lora_reaches_every_linear_layer_and_merges(backbone_folders):
    """`all-linear` finds GPT-2's Conv1D too: r x (in + out) for 64-192, 64-64, 64-256 and 256-64,
    in two blocks.

    After training, folding it into the weights changes no logit by more than 1e-4.
    """
    assert trained(build(backbone_folders["GPT-2"], "lora").encoder) == 2 * 8 * (
        256 + 128 + 320 + 320
    )
    assert trained(build(backbone_folders["BERT"], "lora").encoder) == 2 * 8 * (4 * 128 + 2 * 192)
    assert support_table.attempt(backbone_folders["GPT-2"], "lora", {}).merges
    assert support_table.attempt(
        backbone_folders["BERT"], "lora", {"r": 2, "target": ["query", "value"]}
    ).merges


def test_prompt_starts_from_the_vocabulary(backbone_folders):
    """Every virtual token starts as the embedding of some token."""
    encoder = build(backbone_folders["GPT-2"], "prompt_tuning", options={"tokens": 5}).encoder
    prompt, words = (
        encoder.prompt_encoder["default"].embedding.weight,
        encoder.get_base_model().wte.weight,
    )
    assert prompt.shape == (5, 64)
    assert all((words == token).all(1).any() for token in prompt)


# PEFT by name


def test_table_lists_every_type_of_peft():
    """The committed table has the types of the installed PEFT, all and no others, and a reason for
    each that can't.

    Each type is there from the version on that is said to have brought it, and not before.
    """
    rows, there = committed_rows(), {kind.value for kind in library.PeftType}
    assert set(rows) - LATER == there - GONE | set(peft.ALIASES) - LATER
    assert there & set(peft.SINCE) == {
        kind for kind, since in peft.SINCE.items() if Version(since) <= INSTALLED
    }
    assert all(bool(row[-1]) == (row[:4] != ["yes"] * 4) for row in rows.values())


NEEDS = {"ADAMSS": "sklearn", "CORDA": "attr"}  # packages of types that PEFT does not install


def rows_to_try() -> list[Any]:
    """Return the committed table's types; those that README's test command leaves out are
    marked.
    """
    kinds = [kind for kind in committed_rows() if kind not in LATER]
    return [
        kind if kind in ALWAYS_TRIED else pytest.param(kind, marks=pytest.mark.tables)
        for kind in kinds
    ]


@pytest.mark.parametrize("kind", rows_to_try())
def test_table_says_what_trying_shows(backbone_folders, kind):
    """Trying a type on GPT-2 and BERT gives what the committed table says."""
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
    row = committed_rows()[kind]
    for column, backbone in ((0, "GPT-2"), (2, "BERT")):
        reason = support_table.attempt(backbone_folders[backbone], "peft", {"type": kind}).reason
        assert ("no" if reason else "yes") == row[column], reason


@pytest.mark.parametrize("kind", rows_to_try())
def test_table_says_with_which_language_models_a_type_runs(language_models, kind):
    """Trying a type on all four shapes gives the column on causal language models: 40 s for all
    types.
    """
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
    tried = {
        name: support_table.attempt_whole(path, "peft", {"type": kind})
        for name, path in language_models.items()
    }
    assert support_table.causal_lm_cell(tried) == committed_rows()[kind][3], tried


@pytest.mark.tables
@pytest.mark.parametrize("kind", ["SHADOW", "PREFIX_TUNING", "CARTRIDGE"])
def test_types_that_read_the_whole_text_anew_still_must(language_models, monkeypatch, kind):
    """With a cache all the same, generation's logits are wrong: when this fails, let the type
    have its cache.
    """
    if kind in LATER:
        pytest.skip("came with a later PEFT")
    monkeypatch.setattr(causal_lm, "_caches", lambda encoder: True)
    assert (
        "token by token"
        in support_table.attempt_whole(language_models["Gemma 2"], "peft", {"type": kind}).reason
    )


@pytest.mark.tables
@pytest.mark.skipif("LILY" in LATER, reason="came with PEFT 0.19")
def test_refused_types_still_deserve_it(backbone_folders, monkeypatch):
    """Without its refusal Lily runs, and padding changes its logits: when this fails, take the
    refusal out.
    """
    monkeypatch.setattr(peft, "REFUSED", {})
    assert (
        "padding changes"
        in support_table.attempt(backbone_folders["BERT"], "peft", {"type": "LILY"}).reason
    )


def test_boft_compiles_nothing(backbone_folders, monkeypatch):
    """PEFT would build an extension for CUDA in every rank, and train another model where that
    fails.
    """
    from torch.utils import cpp_extension

    monkeypatch.setattr(cpp_extension, "load", lambda **_: pytest.fail("compiled"))
    monkeypatch.setattr("peft.tuners.boft.layer._FBD_CUDA", None)
    encoder = build(backbone_folders["GPT-2"], "peft", options={"type": "BOFT"}).encoder
    assert any(
        name.endswith("boft_R.default")
        for name, weight in encoder.named_parameters()
        if weight.requires_grad
    )
    with pytest.raises(Unsupported, match="factors above 1 need an extension"):
        build(
            backbone_folders["GPT-2"],
            "peft",
            options={"type": "BOFT", "boft_n_butterfly_factor": 2},
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "NOTHING"}, "PEFT has no type NOTHING .*LORA"),
        ({"type": "ia3", "rank": 4}, "rank is not an option of IA3 .*feedforward_modules"),
    ],
)
def test_unknown_type_or_option_names_what_is_allowed(options, message):
    """A user's slip is one sentence with the allowed names."""
    with pytest.raises(UserError, match=message):
        validate_options("methods", "peft", options, "suite")


@pytest.mark.parametrize("kind", peft.SINCE)
def test_a_type_of_a_later_version_is_told_as_such(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence names the installed version, the version that brought the type, and the types
    that there are.
    """
    old = {
        member.name: member.value for member in library.PeftType if member.value not in peft.SINCE
    }
    monkeypatch.setattr(library, "PeftType", Enum("PeftType", old))
    monkeypatch.setattr(library, "__version__", "0.18.0")
    sentence = (
        rf"^suite: .*PEFT 0.18.0 has no type {kind}, which came with PEFT {peft.SINCE[kind]} "
        rf"\(allowed: .*LORA"
    )
    with pytest.raises(UserError, match=sentence):
        validate_options("methods", "peft", {"type": kind.lower()}, "suite")


def test_options_reach_peft(backbone_folders):
    """PEFT's own options are passed on, mappings as its dataclasses, in any case of the type's
    name.
    """
    options = {"type": "Dora", "r": 3, "eva_config": {"rho": 1.5}}
    config = build(backbone_folders["BERT"], "peft", options=options).encoder.active_peft_config
    assert (config.r, config.use_dora, config.eva_config.rho) == (3, True, 1.5)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "peft",
            {"type": "LORA", "init_lora_weights": "lora_ga"},
            Unsupported,
            "LoRA-GA",
        ),  # PEFT would start as usual
        (
            "peft",
            {"type": "LORA", "alora_invocation_tokens": [5, 6]},
            Unsupported,
            "aLoRA",
        ),  # PEFT would train nothing
        pytest.param(
            "peft",
            {"type": "ADAMSS", "use_asa": True},
            Unsupported,
            "DDP",
            marks=pytest.mark.skipif("ADAMSS" in LATER, reason="came with PEFT 0.19"),
        ),
        (
            "peft",
            {"type": "VBLORA", "vector_length": 7},
            Unsupported,
            "divisible",
        ),  # in PEFT's own words
        ("lora", {"target": ["nowhere"]}, UserError, r"method lora: .*nowhere"),
    ],
)
def test_options_without_a_valid_result_are_refused(
    backbone_folders, name, options, error, message
):
    """What would run, but as something else or not on several ranks, and what PEFT refuses, is so
    from the start.

    A target that matches nothing is the user's mistake.
    """
    with pytest.raises(error, match=message):
        build(backbone_folders["BERT"], name, options=options)


def step(model, method, optimizer, index):
    """Take one training step as the trainer does."""
    ids, mask, labels = support_table.batch()
    loss = cross_entropy(model(ids, mask), labels)
    (loss + (method.auxiliary_loss(model.encoder) or 0)).backward()
    optimizer.step()
    method.after_step(model.encoder, index)
    optimizer.zero_grad()


def test_adalora_reaches_its_target_rank(backbone_folders):
    """Told how long training is, AdaLoRA ends with half of its rank-one updates: target_r of
    init_r in the mean.
    """
    options = {"type": "ADALORA", "init_r": 4, "target_r": 2}
    model, method = assemble(backbone_folders["GPT-2"], "peft", options=options)
    method.before_train(model.encoder, iter([]), 12)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for index in range(1, 13):
        step(model, method, optimizer, index)
    values = torch.cat([p.flatten() for n, p in model.named_parameters() if "lora_E" in n])
    assert len(values) == 8 * 4
    assert (values != 0).sum() == 8 * 2


def test_adalora_adds_its_distance_from_orthogonality(backbone_folders):
    """Zero for orthonormal factors; the weight times sqrt(r) when all factors are zero."""
    options = {"type": "ADALORA", "init_r": 4, "orth_reg_weight": 0.5}
    model, method = assemble(backbone_folders["GPT-2"], "peft", options=options)
    factors = [p for n, p in model.named_parameters() if "lora_A" in n or "lora_B" in n]
    for factor in factors:
        torch.nn.init.orthogonal_(factor)
    assert method.auxiliary_loss(model.encoder).item() == pytest.approx(0, abs=1e-5)
    for factor in factors:
        torch.nn.init.zeros_(factor)
    assert method.auxiliary_loss(model.encoder).item() == pytest.approx(0.5 * 2)


@pytest.mark.parametrize("kind", ["EVA", "CORDA"])
def test_data_driven_start_keeps_the_function_and_ignores_padding(backbone_folders, kind):
    """The start depends on the texts, not on their padding, and leaves the backbone's function
    as it was.
    """
    if kind == "CORDA":
        pytest.importorskip("attr")
    ids, mask, labels = support_table.batch()
    wide = [
        torch.nn.functional.pad(part, (0, 3), value=value) for part, value in ((ids, 1), (mask, 0))
    ]
    plain = build(backbone_folders["BERT"], "head").eval()(ids, mask)
    starts = []
    for texts, real in ((ids, mask), wide):
        model, method = assemble(backbone_folders["BERT"], "peft", options={"type": kind, "r": 2})
        before = {n: p.clone() for n, p in model.named_parameters() if "lora_A" in n}
        batches = [
            SimpleNamespace(input_ids=texts, attention_mask=real, labels=labels, more={})
        ] * 2
        method.before_train(model.encoder, iter(batches), 10)
        assert torch.allclose(model.eval()(ids, mask), plain, atol=1e-5)
        assert unused_parameters(model) == []
        after = {n: p for n, p in model.named_parameters() if "lora_A" in n}
        assert not any(n in before and p.equal(before[n]) for n, p in after.items())
        starts.append(after)
    assert starts[0].keys() == starts[1].keys()
    for name, start in starts[0].items():  # up to the sign and noise of a randomised decomposition
        assert torch.allclose(start.abs(), starts[1][name].abs(), atol=1e-2), name


def test_eva_starts_in_float32_in_half_precision_too(backbone_folders, monkeypatch):
    """Its decompositions run outside the training's autocast, in which CUDA gives QR a bfloat16
    that it refuses.
    """
    kinds = []
    factorize = torch.linalg.qr
    monkeypatch.setattr(
        torch.linalg, "qr", lambda matrix: kinds.append(matrix.dtype) or factorize(matrix)
    )
    model, method = assemble(backbone_folders["GPT-2"], "peft", options={"type": "EVA", "r": 2})
    ids, mask, labels = support_table.batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batches = [SimpleNamespace(input_ids=ids, attention_mask=mask, labels=labels, more={})] * 2
        method.before_train(model.encoder, iter(batches), 10)
    assert kinds
    assert set(kinds) <= {torch.float32, torch.float64}
