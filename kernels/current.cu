// current: the current image of a volume, which a network block combines with the signals.
//
//     image = base + d_before * head(active)          from the outputs of the block before; zero for the first block
//     image = x_t + share (image - x_t)               if there is a noisy image x_t
//
// For planes, every thread block of project.cu recomputes the whole image. For 19 x 19 x 19 voxels that would be a
// million multiply-adds each, so here the image is computed once and stored.
//
// Performance: Each thread computes one voxel with 144 multiply-adds, from features that its neighbours read as well.
// 19 x 19 x 19 voxels are 54 thread blocks, which read 0.5 MB from the L2 cache, a fiftieth of V at rank 1000. The time
// is that of a launch.
//
// Tested against PyTorch by tests/test_volume_kernels.py.
#include "device.cuh"
#include "head.cuh"

constexpr int CURRENT_THREADS = 128, WIDTH = 16;

// grid (ceil(N / CURRENT_THREADS), frames)
extern "C" __global__ void __launch_bounds__(CURRENT_THREADS)
current(const float* __restrict__ statistics,  // (5, frames): row 1 is the scale
        const float* __restrict__ deviation,   // (frames, K, N)
        const float* __restrict__ active,      // (frames, N, 16)
        const float* __restrict__ weights,     // (9, 16): head of the block before
        const float* __restrict__ bias,        // (1,)
        const float* __restrict__ share,       // (frames, K)
        const float* __restrict__ noisy,       // (frames, N) in the unit of the calibration, or null
        const float* __restrict__ base,        // (frames, N)
        int block, int blocks, int voxels,
        int rows, int columns, int apart, int per_row, int per_column,  // members of Slices, of the block before
        float* __restrict__ mean)              // (frames, N): the image
{
    const int n = blockIdx.x * CURRENT_THREADS + threadIdx.x, frame = blockIdx.y;
    if (n >= voxels) return;
    const Slices slices = {rows, columns, apart, per_row, per_column};
    const size_t at = (size_t)frame * voxels + n;
    float value = 0.0f;
    if (block) {
        const float d = deviation[((size_t)frame * blocks + block - 1) * voxels + n];
        value = base[at] + d * head(active + (size_t)frame * voxels * WIDTH, weights, bias[0], n, slices);
    }
    if (noisy) {
        const float scale = statistics[gridDim.y + frame], x = noisy[at] / (scale > 0.0f ? scale : 1.0f);
        value = x + share[(size_t)frame * blocks + block] * (value - x);
    }
    mean[at] = value;
}
