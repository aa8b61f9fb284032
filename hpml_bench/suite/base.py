"""Base class of all frozen values."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from hpml_bench.system.text import sanitize

Line = Annotated[str, AfterValidator(sanitize)]
"""One line of text without control characters, sanitised when it is set, so that it can be shown as it is."""


class Frozen(BaseModel):
    """An immutable value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
