// current: the image of a volume so far.
//
//     image = base + d_before * head(active)          of the block before; nothing before the first
//     image = x_t + share (image - x_t)                where there is a noisy image x_t
//
// Of a plane every block of project.cu makes the whole image again; 19 x 19 x 19 voxels would be a million multiply-adds
// for each of them, so that here the image is made once and written.
//
// Why fast. A thread owns a voxel: 144 multiply-adds, of features that its neighbours read, too. 19 x 19 x 19 voxels are
// 54 blocks of threads, 0.5 MB from the L2 cache, some ten times less than V: this kernel costs its launch.
//
// Checked by tests/test_volume_kernels.py against PyTorch.
#include "device.cuh"
#include "head.cuh"

constexpr int CURRENT_THREADS = 128, WIDTH = 16;

// grid (ceil(N / CURRENT_THREADS), frames)
extern "C" __global__ void __launch_bounds__(CURRENT_THREADS)
current(const float* __restrict__ statistics,  // (5, frames): the scale is the second
        const float* __restrict__ deviation,   // (frames, K, N)
        const float* __restrict__ active,      // (frames, N, 16)
        const float* __restrict__ weights,     // (9, 16) of the head of the block before
        const float* __restrict__ bias,        // (1,)
        const float* __restrict__ share,       // (frames, K)
        const float* __restrict__ noisy,       // (frames, N) in the unit of the calibration, or null
        const float* __restrict__ base,        // (frames, N)
        int block, int blocks, int voxels,
        int rows, int columns, int apart, int per_row, int per_column,  // slices of the block before
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
