"""CUDA kernels of the sampler's own arithmetic, their launchers, and a NumPy reference beside each.

Four kernels, five launches around the network's evaluations, all of which one CUDA graph can hold (`loop.Loop`):

    reduce -> prepare -> guided_step -> encoder -> [network -> guided_step] * evaluations -> finish

Importing this package, or any of its modules, needs neither a GPU nor CuPy.
"""
