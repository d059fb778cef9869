"""Child processes of a test. They are forked, which takes no time for imports, and killed when their test ends."""

import os
import resource
import signal
import sys
import time
import traceback

import h5py

from mpi_fast.cli import app


class Child:
    """A process that does some work and ends with its result as the exit code.

    Parameters
    ----------
    work : callable
        Returns an exit code.
    limit : int, optional
        Largest file that it can write, to simulate a full disk.
    stdout : int, optional
        File descriptor of its output, which `said` then does not return.
    """

    living: "list[Child]" = []  # noqa: RUF012 (emptied by the fixture)

    def __init__(self, work, *, limit=None, stdout=None):
        self._out, out = os.pipe()
        self._error, error = os.pipe()
        self.pid, self.returncode = os.fork(), None
        if not self.pid:
            code = 70
            try:
                os.dup2(out if stdout is None else stdout, 1)
                os.dup2(error, 2)
                sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
                os.environ["COLUMNS"] = "200"
                # The program that started the tests may ignore some of them, as nohup does.
                for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                if limit is not None:
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                code = work() or 0
                sys.stdout.flush()
                h5py.h5.close()  # HDF5 crashes here if it could not close a file
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(out)
        os.close(error)
        self.living.append(self)

    def wait_for(self, condition):
        """Wait until a condition is true; fails if the child ends before."""
        deadline = time.monotonic() + 120
        while not condition():
            assert not os.waitpid(self.pid, os.WNOHANG)[0], "the child ended"
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def send(self, number):
        os.kill(self.pid, number)

    def said(self):
        """Wait for the end; return the exit code, which is negative for signals, and the output."""
        pipes = [os.fdopen(pipe, closefd=False) for pipe in (self._out, self._error)]
        texts = [pipe.read() for pipe in pipes]
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode, *texts

    def end(self):
        if self.returncode is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        os.close(self._out)
        os.close(self._error)


def command(*arguments):
    """Work that runs ``mpi-fast``."""

    def work():
        try:
            app([str(argument) for argument in arguments], prog_name="mpi-fast")
        except SystemExit as end:
            return end.code
        return 0

    return work
