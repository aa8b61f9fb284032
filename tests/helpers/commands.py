"""`hpml-bench` called in this process."""

from click.testing import CliRunner, Result

from hpml_bench.cli import main


def called(*words: object, status: int | None = 0, width: int | None = None) -> Result:
    """Call the command, on a terminal of this width; return what it gave, after it ended with
    this status, or any.
    """
    done = CliRunner(env={"COLUMNS": str(width)} if width else None).invoke(
        main, [*map(str, words)]
    )
    assert status in {None, done.exit_code}, done.output
    assert status is None or isinstance(done.exception, SystemExit | None), done.exc_info
    return done
