// changes: change of a volume's image by the data-consistency step, for both spreads.
//
//     changes = V gained          for each of the spreads r_k and 4 r_k, with which residual.cu computed the gains
//
// Performance: For planes, fine.cu computes this for the pixels of its tiles and their margins. For 19 x 19 x 19 voxels
// and rank 1000, tiles of 10 x 10 pixels with margins would read V 1.7 times (25 x 25 pixels instead of 19 x 19): 48
// MB, in pieces of 13 pixels. In yz slices, whose columns are not adjacent in memory, eight bytes would be transferred
// for each byte in use: 380 MB. This kernel reads V^T once, in whole cache lines: 27 MB, which take 8 us from an H100's
// memory or 3 us from its L2 cache, at the cost of one more launch, 1.3 us. With residual.cu that is 55 MB for each of
// the network's 28 blocks, or 3.1 GB for two evaluations: 0.9 ms at the memory's 3.35 TB/s. With FRAMES = 4, each
// element that is read serves four frames.
//
// Tested against PyTorch by tests/test_volume_kernels.py.
#include "voxel_sums.cuh"

#ifndef FRAMES
#define FRAMES 1
#endif

constexpr int VIEWS = 2;

// grid (ceil(N / SUMS_VOXELS), ceil(frames / FRAMES)), shared memory: see `voxel_sums.sums_shared`
extern "C" __global__ void __launch_bounds__(SUMS_THREADS)
changes(const float* __restrict__ basis_t,      // (R, N)
        const Row<2>* __restrict__ gained,      // (frames, R)
        int frames, int rank, int voxels,
        float* __restrict__ changed)            // (frames, VIEWS, N)
{
    extern __shared__ float4 shared[];
    const int first_frame = blockIdx.y * FRAMES;
    const Row<VIEWS>* factors[FRAMES];
    for (int f = 0; f < FRAMES; ++f) factors[f] = gained + (size_t)min(first_frame + f, frames - 1) * rank;
    const auto write = [&](int f, int view, int voxel, float sum) {
        const int frame = first_frame + f;
        if (frame < frames) changed[((size_t)frame * VIEWS + view) * voxels + voxel] = sum;
    };
    voxel_sums<FRAMES, VIEWS, 0>(basis_t, rank, voxels, blockIdx.x * SUMS_VOXELS, factors,
                                 reinterpret_cast<float*>(shared), write);
}
