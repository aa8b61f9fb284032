"""AdamW with moments of 8 bits, by bitsandbytes (Dettmers et al. 2022, arXiv:2110.02861)."""

from typing import Any
from unittest import mock

from pydantic import Field

from hpml_bench.plugins.method import can_quantise
from hpml_bench.plugins.optimizer import Groups, Optimizer, TorchOptimizer
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError
from hpml_bench.system.packages import install_extras


class AdamW8bit(Optimizer):
    """AdamW with both moments quantised in blocks of 256 values: 2 bytes per parameter instead
    of 8.
    """

    title = "AdamW, 8 bits"

    class Options(Frozen):
        """Choice of moments that are quantised."""

        min_8bit_size: int = Field(default=4096, ge=0)
        """Parameters of fewer values keep their moments in 32 bits."""

    def check(self, settings: Settings) -> None:
        if not can_quantise():
            raise UserError(
                f"the optimizer adamw_8bit needs one more package: {install_extras('quant')}, or "
                f"take another"
            )

    def make(self, groups: Groups, settings: Settings) -> TorchOptimizer:
        """Return bitsandbytes' optimizer without its wait after every parameter, which only
        paged states need.
        """
        from bitsandbytes.optim import AdamW8bit as Waiting
        from bitsandbytes.optim import optimizer as library

        class Made(Waiting):  # type: ignore[misc]
            def step(self, closure: Any = None) -> Any:
                with mock.patch.object(library, "sync_gpu", create=True):
                    return super().step(closure)

        made: TorchOptimizer = Made(
            groups,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            min_8bit_size=self.options.min_8bit_size,
        )
        return made
