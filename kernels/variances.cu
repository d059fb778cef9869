// variances: posterior deviation of each voxel of a volume, for every network block.
//
//     d = r_k sqrt(1 - sum_j V^2 S g)                 S g of each network block from plan.cu
//
// For planes, plan.cu computes this, in one thread block for each network block. For 19 x 19 x 19 voxels at rank 1000,
// a single multiprocessor would take 0.3 ms to read V.
//
// Performance: V^T is read once for GROUP network blocks, which are all 28 of the trained network: 27 MB, 8 us from an
// H100's memory. With 28 multiply-adds for each element that is 0.4 GFLOP, 12 us at half of its rate, once per
// evaluation.
//
// Tested against PyTorch by tests/test_volume_kernels.py.
#include "voxel_sums.cuh"

constexpr int GROUP = 28;  // as in combine_volumes.py

// grid (ceil(N / SUMS_VOXELS) * ceil(K / GROUP), frames), shared memory: see `voxel_sums.sums_shared`
extern "C" __global__ void __launch_bounds__(SUMS_THREADS)
variances(const float* __restrict__ basis_t,    // (R, N)
          const Row<GROUP>* __restrict__ explained,  // (frames, ceil(K / GROUP), R)
          const float* __restrict__ spread,     // (frames, K)
          int blocks, int rank, int voxels,
          float* __restrict__ deviation)        // (frames, K, N)
{
    extern __shared__ float4 shared[];
    const int parts = (voxels + SUMS_VOXELS - 1) / SUMS_VOXELS, groups = (blocks + GROUP - 1) / GROUP;
    const int group = blockIdx.x / parts, part = blockIdx.x % parts, frame = blockIdx.y;
    const Row<GROUP>* of_group[1] = {explained + ((size_t)frame * groups + group) * rank};
    const auto write = [&](int, int i, int voxel, float sum) {
        const size_t block = (size_t)frame * blocks + group * GROUP + i;
        if (group * GROUP + i < blocks)
            deviation[block * voxels + voxel] = spread[block] * sqrtf(fmaxf(1.0f - sum, 1e-6f));
    };
    voxel_sums<1, 0, GROUP>(basis_t, rank, voxels, part * SUMS_VOXELS, of_group, reinterpret_cast<float*>(shared),
                            write);
}
