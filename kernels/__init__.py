"""CUDA kernels of the sampler's own arithmetic, their launchers, and a NumPy reference beside each.

Four kernels around the network's evaluations, all of which one CUDA graph can hold (`loop.Loop`):

    reduce -> prepare -> encoder -> guided_step -> [network -> guided_step] * evaluations    the samples
           -> finish -> guided_step -> [network -> guided_step] * consensus -> finish        the image

By default, with 5 evaluations and 16 steps of consensus, these are 27 launches of their own.

Importing this package, or any of its modules, needs neither a GPU nor CuPy.
"""
