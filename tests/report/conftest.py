"""What tests of reports share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.without_charts import without_charts


@pytest.fixture(scope="module")
def no_drawing() -> Iterator[None]:
    """Leave the charts out."""
    with without_charts():
        yield
