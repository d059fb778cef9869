"""CUDA kernels of the network and of all around it, their launchers, and what is known of both.

A frame is `posterior.PosteriorLoop`, posterior samples are `sampling.PosteriorSampler`; one CUDA graph holds either:

    reduce -> prepare -> plan -> [project -> fine (-> coarse)] for each block -> image      a plane
           -> refine -> plan -> ... -> image                                                each further evaluation
    plan -> ... -> image -> update                                                          each step of a sampler

Of volumes, prepare, plan, project and image are several launches each, see `volumes.VolumeCombination`.

Importing this package, or any of its modules, needs neither a GPU nor CuPy.
"""
