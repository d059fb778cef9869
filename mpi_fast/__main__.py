"""``python -m mpi_fast``: the command line, for systems where its script is not on the path."""

from mpi_fast.cli import main

main()
