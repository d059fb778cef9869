"""Calls of the command line that must succeed, or fail with one clear line."""

from typer.testing import CliRunner

from mpi_fast.cli import app

QUICK = "--evaluations", "1", "--threads", "1"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def fail(*arguments, code=2):
    """Run a command that must fail with one line on stderr, and return this line."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def reconstruct(files, *arguments, fails=False):
    command = "reconstruct", files / "measurement.mdf", "--calibration", files / "scanner.h5", *QUICK, *arguments
    return fail(*command) if fails else succeed(*command)
