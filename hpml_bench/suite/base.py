"""Base class of all frozen values."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from hpml_bench.system.text import sanitize

Line = Annotated[str, AfterValidator(sanitize)]
"""Text in one line without control characters: sanitised where it enters, so that no one who shows it need do so."""


class Frozen(BaseModel):
    """An immutable value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
