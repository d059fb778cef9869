// changes: what the signals change in an image of a volume.
//
//     changes = V gained                              for both of the spreads under which residual.cu gained
//
// Why fast. Of a plane, fine.cu computes this for the pixels of its tiles and of their margins. In a volume that would
// read V 1.7 times at tiles of 10 x 10 (25 x 25 pixels of margins and all, for 19 x 19), and where columns are not
// neighbours in memory, as in yz slices, eight bytes for each that is used: 48 MB in 13-pixel pieces at 19 x 19 x 19 voxels
// and rank 1000, or 380 MB. Here V^T is read once, in whole lines: 27 MB, 8 us from an H100's memory, 3 us from its L2
// cache, for one launch more, 1.3 us. With residual.cu that is 55 MB for each of the network's 28 blocks, 3.1 GB for two
// evaluations, of which 0.9 ms at the memory's 3.35 TB/s. With FRAMES = 4 an element serves four frames.
//
// Checked by tests/test_volume_kernels.py against PyTorch.
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
