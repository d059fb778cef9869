"""Export of trained networks: ``python -m mpi_fast.export model.pt`` makes a bundle that needs no torch to run."""
