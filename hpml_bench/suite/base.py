"""Base class of all frozen values."""

from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from hpml_bench.system.text import sanitize

Line = Annotated[str, AfterValidator(sanitize)]
"""One line of text without control characters, sanitised when it is set, so that it can be shown
as it is.
"""


class Frozen(BaseModel):
    """An immutable value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Growing(Frozen):
    """A model whose later fields are left out where they are None, so that it is written as
    before they existed.
    """

    later: ClassVar[tuple[str, ...]]

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        for name in self.later:
            if getattr(self, name) is None:
                dumped.pop(name, None)
        return dumped
