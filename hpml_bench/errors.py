"""What can go wrong in words: a user's mistake, and a method that can't run with a model."""


class UserError(Exception):
    """A mistake the user can mend: one sentence with what, where and what to do. Ends with status 2, no traceback."""

    def __init__(self, sentence: object) -> None:
        """Keep it as one line: what it quotes of others may hold line ends."""
        super().__init__(" ".join(str(sentence).splitlines()))


class Unsupported(Exception):  # noqa: N818 - it is a finding, shown as a row of the report
    """A method can't run with this model: the reason, in one sentence. The run is recorded as `unsupported`."""


class Diverged(Exception):  # noqa: N818
    """The training loss became NaN or infinite; raised on all ranks at the same step."""
