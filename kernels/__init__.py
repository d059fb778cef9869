"""CUDA kernels that reconstruct frames, their launchers, and references to test them against.

`posterior.PosteriorLoop` reconstructs frames, and `sampling.PosteriorSampler` draws posterior samples. The launches of
a reconstruction, or of one evaluation for samples, form one CUDA graph:

    reduce -> prepare -> plan -> [project -> fine (-> coarse)] for each block -> image      a plane
           -> refine -> plan -> ... -> image                                                each further evaluation
    plan -> ... -> image -> update                                                          each step of a sampler

For volumes, prepare, plan, project and image consist of several launches each; see `combine_volumes.VolumeCombination`.

Importing this package, or any of its modules, needs neither a GPU nor CuPy.
"""
