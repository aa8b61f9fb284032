"""Any method of the PEFT library by its type's name, with PEFT's own options
(github.com/huggingface/peft).

PEFT wraps the bare backbone as a feature extractor; pooling and classifying are the harness's, the
same for all. Where PEFT leaves a required choice open, `training.peft.defaults` makes it.
docs/methods-support.md lists which types run.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator

from hpml_bench.plugins.method import Method
from hpml_bench.suite.base import Growing
from hpml_bench.system.errors import Unsupported, of_machine
from hpml_bench.system.packages import silence_bitsandbytes

FORWARD_ONLY = frozenset(
    {"LORA", "IA3", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "LN_TUNING", "VERA"}
)
"""Types known to use frozen weights only in their layers' own forward."""

ALIASES: dict[str, dict[str, Any]] = {
    "DORA": {"use_dora": True},
    "RSLORA": {"use_rslora": True},
    "PISSA": {"init_lora_weights": "pissa"},
    "OLORA": {"init_lora_weights": "olora"},
    "EVA": {"init_lora_weights": "eva"},
    "CORDA": {"init_lora_weights": "corda", "corda_config": {}},
    "KASA": {"kasa_config": {}},
    "MICA": {"init_lora_weights": "mica"},
    "MONTECLORA": {"monteclora_config": {}},
    "VELORA": {"velora_config": {}},
}
"""Well-known variants of LoRA that PEFT has as options of LORA, not as types."""

REFUSED = {
    "LILY": (
        "its router averages over all tokens of a batch, padding too, so that a text's prediction "
        "depends on the texts beside it"
    ),
    **dict.fromkeys(
        ("MULTITASK_PROMPT_TUNING", "POLY"), "it is for several tasks at a time, and a run has one"
    ),
    "XLORA": "it mixes adapters that were trained before, and a run trains fresh ones",
    "lora_ga": (
        "LoRA-GA starts from the gradient of the loss, for which it would need the head as well "
        "as the encoder"
    ),
    "alora_invocation_tokens": (
        "aLoRA acts from the last place of certain tokens in a text, which no token read by "
        "itself shows, and which PEFT looks for in language models only"
    ),
    "boft_n_butterfly_factor": (
        "factors above 1 need an extension for CUDA that PEFT compiles at its first use, which "
        "no run does; without it PEFT takes 1 and says nothing"
    ),
    "use_asa": (
        "AdaMSS's adaptive allocation freezes parameters during training, for whose gradients DDP "
        "would wait"
    ),
}
"""Types and options that PEFT accepts but that give no valid result here -> reason; each found
by trial.
"""

SINCE = {
    **dict.fromkeys(
        ("ADAMSS", "CARTRIDGE", "GRALORA", "LILY", "PEANUT", "PSOFT", "PVERA", "TINYLORA"), "0.19"
    ),
    **dict.fromkeys(("BEFT", "DEFT", "FROD", "GLORA", "HIRA", "UNILORA"), "0.20"),
    **dict.fromkeys(("SHADOW", "SUPERTUNING"), "0.21"),
}
"""Type -> version of PEFT that introduced it, for types newer than 0.18, the oldest supported
version.
"""

PLAIN = frozenset(
    {
        "r",
        "lora_alpha",
        "lora_dropout",
        "use_rslora",
        "bias",
        "lora_bias",
        "target_modules",
        "exclude_modules",
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "fan_in_fan_out",
    }
)
"""Options of LoRA for whose first weights those of the model don't matter."""

FROM_WEIGHTS = frozenset({"pissa", "olora", "corda", "mica"})
"""Initialisations of LoRA that decompose frozen weights, which quantised weights don't allow."""

ADALORA_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""Attributes of its allocator: parameter's name -> importance of each entry, its mean and that
of its deviation.
"""

OWN_LOSSES = ("kasa", "monteclora")
"""Variants of LoRA with a term of the loss: MonteCLoRA came with PEFT 0.20, KaSA with 0.21."""

OF_THE_FILE = frozenset(
    {
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "num_attention_heads",
        "num_layers",
        "num_transformer_submodules",
        "token_dim",
    }
)
"""Keys of an adapter_config.json about the file, or the shape of the model."""
CHOSEN = frozenset(
    {
        "num_virtual_tokens",
        "adapter_len",
        "adapter_layers",
        "block_size",
        "prompt_tuning_init",
        "group_size",
        "r",
        "lora_alpha",
        "vector_length",
        "n_frequency",
    }
)
"""Options that are said although they have PEFT's default: `training.peft.defaults` may have
another for open ones.
"""

CALIBRATION_BATCHES = 8  # number of batches for data-driven initialisations


def config_class(name: str) -> Any:
    silence_bitsandbytes()
    from peft import PeftType, __version__
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    types = [kind.value for kind in PeftType]
    name = name.upper()
    if name not in types and name not in ALIASES:
        allowed = f"(allowed: {', '.join([*types, *ALIASES])})"
        if name in SINCE:
            raise ValueError(
                f"PEFT {__version__} has no type {name}, which came with PEFT {SINCE[name]} "
                f"{allowed}"
            )
        raise ValueError(f"PEFT has no type {name} {allowed}")
    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType("LORA" if name in ALIASES else name)]


class Peft(Method):
    """A `peft.PeftType` on the bare backbone."""

    title = "PEFT"

    class Options(Growing):
        """A type, and any option of PEFT's configuration class for it."""

        model_config = ConfigDict(extra="allow")
        later = ("converted_rank",)

        type: str = Field(default="IA3")
        """Name of a `peft.PeftType`, or one of DORA, RSLORA, PISSA, OLORA, EVA, CORDA, KASA, MICA,
        MONTECLORA, VELORA; in any case."""

        converted_rank: int | None = Field(default=None, ge=1)
        """Rank of the LoRA to which PEFT converts a language model's adapter at the end, and
        which is scored too.
        """

        @model_validator(mode="after")
        def _known(self) -> Self:
            allowed = [
                field.name for field in dataclasses.fields(config_class(self.type)) if field.init
            ]
            for key in self.model_extra or {}:
                if key not in allowed:
                    raise ValueError(
                        f"{key} is not an option of {self.type.upper()} (allowed: "
                        f"{', '.join(allowed)})"
                    )
            return self

    @property
    def converted_rank(self) -> int:
        return self.options.converted_rank or 0

    @property
    def peft_type(self) -> str:
        kind: str = self.options.type.upper()
        return "LORA" if kind in ALIASES else kind

    def build(self, backbone: Any) -> Any:
        from hpml_bench.training.peft import keep_input_type, wrap
        from hpml_bench.training.quantization import is_quantized
        from hpml_bench.training.trial import freeze_unused

        given = self.given
        if self.refusal is not None:
            raise Unsupported(self.refusal)
        if given.get("init_lora_weights") in FROM_WEIGHTS and is_quantized(backbone):
            raise Unsupported(
                "it starts from a decomposition of the backbone's weights, which are quantised"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # hints for the author of a script
                model = wrap(backbone, self.peft_type, given)
                if not self.reads_frozen_weights:
                    keep_input_type(model)
                freeze_unused(
                    model
                )  # one forward pass; nothing reads ShadowPEFT's last state, for example
        except Exception as error:  # types fail in many ways on a model that they don't support
            if of_machine(error):
                raise
            raise Unsupported(
                f"PEFT: {str(error).strip().splitlines()[0] if str(error) else repr(error)}"
            ) from error
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise Unsupported("nothing that it trains has any effect on this model")
        return model

    @classmethod
    def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that an adapter_config.json says; a ValueError where it says what
        isn't run here.

        Left out is what PEFT leaves open or has as its default, unless `training.peft.defaults`
        would choose otherwise.
        """
        kind = str(config.get("peft_type"))
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(config_class(kind))
            if field.init
        }
        said = {
            key: config[key]
            for key in sorted(config.keys() - OF_THE_FILE)
            if config[key] not in (None, {}, [])
        }
        if unknown := said.keys() - defaults.keys():
            raise ValueError(
                f"{kind} has no option {', '.join(sorted(unknown))} in the PEFT that is installed"
            )
        given = {"type": kind} | {
            key: said[key] for key in said if key in CHOSEN or said[key] != defaults[key]
        }
        if "target_modules" in config and "target_modules" in defaults:
            given["target_modules"] = config[
                "target_modules"
            ]  # null too: PEFT's own table, not all linear layers
        if (why := cls(cls.Options.model_validate(given)).refusal) is not None:
            raise ValueError(why)
        return given

    @property
    def refusal(self) -> str | None:
        """Reason why the type, or an option, gives no valid result here."""
        given = self.given
        named = [name for name in ("alora_invocation_tokens", "use_asa") if given.get(name)]
        named += ["boft_n_butterfly_factor"] if given.get("boft_n_butterfly_factor", 1) != 1 else []
        names = (self.options.type.upper(), given.get("init_lora_weights"), *named)
        return next((REFUSED[name] for name in names if name in REFUSED), None)

    @property
    def given(self) -> dict[str, Any]:
        return ALIASES.get(self.options.type.upper(), {}) | (self.options.model_extra or {})

    @property
    def reads_frozen_weights(self) -> bool:
        """True if the type may use frozen weights outside their layers' forward, as DoRA uses
        their norms.
        """
        return bool(self.given.get("use_dora")) or self.peft_type not in FORWARD_ONLY

    @property
    def built_by_shape(self) -> bool:
        """True if the type's first weights are random or constant, as those of plain LoRA are."""
        return not self.reads_frozen_weights and (
            self.peft_type != "LORA" or {*self.given} <= PLAIN
        )

    @property
    def shards(self) -> bool:
        """False for types with an allocator or a loss of their own."""
        return self.peft_type != "ADALORA" and not any(
            self.given.get(f"{kind}_config") for kind in OWN_LOSSES
        )

    def before_train(self, model: Any, batches: Iterable[Any], total_steps: int) -> None:
        """Give AdaLoRA the number of steps, and EVA and CorDA the batches that they start from."""
        from hpml_bench.training.peft import STEPS_UNKNOWN, start_corda, start_eva

        config = model.active_peft_config
        if config.peft_type == "ADALORA" and config.total_step == STEPS_UNKNOWN:
            config.total_step = total_steps
            if (
                config.tinit == config.tfinal == 0
            ):  # warm-up and final fine-tuning at the full and the target rank
                config.tinit, config.tfinal = total_steps // 10, total_steps // 3
        start = getattr(config, "init_lora_weights", None)
        if start in {"eva", "corda"}:
            try:
                (start_eva if start == "eva" else start_corda)(
                    model, list(islice(batches, CALIBRATION_BATCHES))
                )
            except ImportError as error:  # PEFT's CorDA needs a package that PEFT doesn't require
                raise Unsupported(f"PEFT: {error}") from error

    def after_step(self, model: Any, step: int) -> None:
        allocate: Callable[[int], None] | None = getattr(
            model.base_model, "update_and_allocate", None
        )
        if allocate:
            allocate(step)

    def state(self, model: Any) -> dict[str, Any] | None:
        """Return AdaLoRA's averages and masks, which allocate its ranks; other types have no
        state.
        """
        if not hasattr(model.base_model, "update_and_allocate"):
            return {}
        if model.active_peft_config.peft_type != "ADALORA":
            return None
        allocator = model.base_model.rankallocator
        averages = {name: getattr(allocator, name) for name in ADALORA_AVERAGES}
        return averages | {"rank_pattern": model.active_peft_config.rank_pattern}

    def load(self, model: Any, state: dict[str, Any]) -> None:
        if state:
            model.active_peft_config.rank_pattern = state["rank_pattern"]
            for name in ADALORA_AVERAGES:
                values = {key: value.to(model.device) for key, value in state[name].items()}
                setattr(model.base_model.rankallocator, name, values)

    def auxiliary_loss(self, model: Any) -> Any:
        """Return a type's loss term: AdaLoRA's mean Frobenius norm of P P^T - I, KaSA's or
        MonteCLoRA's; or None.
        """
        config = model.active_peft_config
        if config.peft_type == "LORA":
            kinds = [kind for kind in OWN_LOSSES if getattr(config, f"{kind}_config", None)]
            return (
                sum(getattr(model.base_model, f"_get_{kind}_loss")() for kind in kinds)
                if kinds
                else None
            )
        if config.peft_type != "ADALORA":
            return None
        import torch

        named = [
            (name, weight)
            for name, weight in model.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        ]
        with torch.autocast(model.device.type, enabled=False):
            grams = [
                weight @ weight.T if ".lora_A." in name else weight.T @ weight
                for name, weight in named
            ]
            errors = [
                torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams
            ]
        return config.orth_reg_weight * torch.stack(errors).mean()

    def merge(self, model: Any) -> Any:
        try:
            return model.merge_and_unload()
        except (AttributeError, NotImplementedError, ValueError):
            return None  # has no such function, or no place: BEFT's bias in a layer without one
