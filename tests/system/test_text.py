"""Texts of docstrings as messages show them."""

from hpml_bench.system.text import summary_of


def test_a_summary_is_the_first_paragraph() -> None:
    """As one line, however it is wrapped; empty where there is none."""

    def documented() -> None: ...

    documented.__doc__ = "Return what a reader\n    sees first.\n\n    The rest is left out."

    def silent() -> None: ...

    assert summary_of(documented) == "Return what a reader sees first."
    assert summary_of(silent) == ""
