// white: estimates of a volume from its signals alone, under white priors.
//
//     condition = V g y  and  r sqrt(1 - (V * V) (S g)),   g = S r^2 / (S^2 r^2 + sigma^2),   for each width r
//
// For planes, prepare.cu computes this, in one thread block per frame. For 19 x 19 x 19 voxels at rank 1000, a single
// multiprocessor would take 0.3 ms to read V.
//
// Performance: V^T is read once for all ten sums, in whole cache lines, by one thread block for each 32 voxels: 27 MB,
// 8 us from an H100's memory, once per frame.
//
// Tested against likelihood.Likelihood by tests/test_kernels_shim.py.
#include "voxel_sums.cuh"

#ifndef WIDTHS
#define WIDTHS 5  // number of widths in likelihood.py
#endif

// grid (ceil(N / SUMS_VOXELS), frames), shared memory: see `voxel_sums.sums_shared`
extern "C" __global__ void __launch_bounds__(SUMS_THREADS)
white(const float* __restrict__ basis_t,             // (R, N)
      const Row<2 * WIDTHS>* __restrict__ factors,   // (frames, R): g y and S g for each width, from prepare.cu
      const float* __restrict__ widths,              // (WIDTHS,)
      int rank, int voxels,
      float* __restrict__ condition)                 // (frames, 2 * WIDTHS, N)
{
    extern __shared__ float4 shared[];
    const Row<2 * WIDTHS>* of_frame[1] = {factors + (size_t)blockIdx.y * rank};
    condition += (size_t)blockIdx.y * 2 * WIDTHS * voxels;
    const auto write = [&](int, int i, int voxel, float sum) {
        if (i >= WIDTHS) sum = widths[i - WIDTHS] * sqrtf(fmaxf(1.0f - sum, 1e-6f));
        condition[(size_t)i * voxels + voxel] = sum;
    };
    voxel_sums<1, WIDTHS, WIDTHS>(basis_t, rank, voxels, blockIdx.x * SUMS_VOXELS, of_frame,
                                  reinterpret_cast<float*>(shared), write);
}
