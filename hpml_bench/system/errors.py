"""Errors with a meaning of their own: a user's mistake, a method that can't run with a model, divergence."""


class UserError(Exception):
    """A mistake the user can fix: one sentence with what, where and what to do. Ends with status 2, no traceback."""

    def __init__(self, sentence: object) -> None:
        """Keep it as one line: quoted text may have line breaks."""
        super().__init__(" ".join(str(sentence).splitlines()))


class Unsupported(Exception):  # noqa: N818 - a result, shown as a row of the report
    """A method can't run with this model: the reason, in one sentence. The run is recorded as `unsupported`."""


class Diverged(Exception):  # noqa: N818
    """The training loss became NaN or infinite; raised on all ranks at the same step."""
