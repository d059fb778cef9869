// project: the current image of a plane, which a network block combines with the signals, and its residual.
//
//     image    = base + d_before * head(active)                      from the block before; zero for the first block
//     image    = x_t + share (image - x_t)                           if there is a noisy image x_t
//     residual = y - S V^T image
//
// A thread block computes COLUMNS components of the residual, and for them recomputes the whole image: 144
// multiply-adds per voxel take less time than waiting for the result of another thread block. Volumes are too large for
// this; they use current.cu and residual.cu instead.
//
// Performance: V is read once, in parts of COLUMNS columns for each thread block: 12 KB at 361 voxels, 0.1 us. The time
// is that of a launch and the latency of two sums.
//
// Tested against PyTorch by tests/test_network_kernels.py.
#include "device.cuh"
#include "head.cuh"

constexpr int COLUMNS = 8, PROJECT_THREADS = 256, SHARES = PROJECT_THREADS / COLUMNS, WIDTH = 16;

// grid (ceil(R / COLUMNS), frames), shared memory N + PROJECT_THREADS floats
extern "C" __global__ void __launch_bounds__(PROJECT_THREADS, 4)
project(const float* __restrict__ statistics,  // (5, frames): row 1 is the scale
        const float* __restrict__ y,           // (frames, R)
        const float* __restrict__ singular,    // (R,)
        const float* __restrict__ basis,       // (N, R)
        const float* __restrict__ deviation,   // (frames, K, N)
        const float* __restrict__ active,      // (frames, N, 16)
        const float* __restrict__ weights,     // (9, 16): head of the block before
        const float* __restrict__ bias,        // (1,)
        const float* __restrict__ share,       // (frames, K)
        const float* __restrict__ noisy,       // (frames, N) in the unit of the calibration, or null
        const float* __restrict__ base,        // (frames, N)
        int block, int blocks, int rank, int rows, int columns,
        float* __restrict__ mean,              // (frames, N): the image
        float* __restrict__ residual)          // (frames, R)
{
    extern __shared__ float4 shared[];
    const int voxels = rows * columns, frame = blockIdx.y, thread = threadIdx.x;
    const Slices plane = {rows, columns, 0, columns, 1};
    float* image = reinterpret_cast<float*>(shared);  // (N,)
    float* partial = image + voxels;                  // (SHARES, COLUMNS)
    const float* d = deviation + ((size_t)frame * blocks + block) * voxels;
    const float scale = statistics[gridDim.y + frame], unit = scale > 0.0f ? scale : 1.0f;
    const float part = share[(size_t)frame * blocks + block];
    active += (size_t)frame * voxels * WIDTH;
    base += (size_t)frame * voxels;
    for (int n = thread; n < voxels; n += PROJECT_THREADS) {
        float value = block ? base[n] + d[n - voxels] * head(active, weights, bias[0], n, plane) : 0.0f;
        if (noisy) {
            const float x = noisy[(size_t)frame * voxels + n] / unit;
            value = x + part * (value - x);
        }
        image[n] = value;
        if (blockIdx.x == 0) mean[(size_t)frame * voxels + n] = value;
    }
    __syncthreads();
    const int column = blockIdx.x * COLUMNS + thread % COLUMNS;
    float sum = 0.0f;
    if (column < rank)
        for (int n = thread / COLUMNS; n < voxels; n += SHARES) sum += basis[(size_t)n * rank + column] * image[n];
    partial[thread] = sum;
    __syncthreads();
    if (thread < COLUMNS && column < rank) {
        sum = 0.0f;
        for (int other = 0; other < SHARES; ++other) sum += partial[other * COLUMNS + thread];
        residual[(size_t)frame * rank + column] = y[(size_t)frame * rank + column] - singular[column] * sum;
    }
}
