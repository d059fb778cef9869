// image: image and uncertainty from the output of the last network block, in the unit of the calibration.
//
//     image     = max(base + d head_0(active), 0) * presence * scale
//     deviation = d exp(4 tanh(head_1(active) / 4)) * scale
//     quantiles = exp(T mean(active))                     of the errors relative to the deviation, two for each frame
//
// For volumes, each thread block sums the features of its own voxels, and tails.cu computes the quantiles from these
// sums.
//
// Performance: Each thread computes one voxel, and the first thread block of a frame averages its features. For 361
// voxels a frame reads 23 KB and writes 3 KB, so the time is that of a launch.
//
// Tested against PyTorch by tests/test_network_kernels.py.
#include "device.cuh"
#include "head.cuh"
#include "tails.cuh"

constexpr int IMAGE_THREADS = 128, WIDTH = 16;

// grid (ceil(N / IMAGE_THREADS), frames), shared memory IMAGE_THREADS + WIDTH floats
extern "C" __global__ void __launch_bounds__(IMAGE_THREADS)
image(const float* __restrict__ statistics,  // (5, frames), see prepare.cu
      const float* __restrict__ deviation,   // (frames, K, N)
      const float* __restrict__ base,        // (frames, N)
      const float* __restrict__ active,      // (frames, N, 16)
      const float* __restrict__ weights,     // (2, 9, 16)
      const float* __restrict__ bias,        // (2,)
      const float* __restrict__ tails,       // (2, 16)
      const float* __restrict__ tails_bias,  // (2,)
      int blocks, int voxels,
      int rows, int columns, int apart, int per_row, int per_column,  // members of Slices, of the last block
      float* __restrict__ mean,              // (frames, N)
      float* __restrict__ std,               // (frames, N)
      float* __restrict__ quantiles,         // (frames, 2); not written if `pooled` is given
      float* __restrict__ pooled)            // (frames, thread blocks, 16): sums of features; null for planes
{
    extern __shared__ float4 shared[];
    float* part = reinterpret_cast<float*>(shared);  // (IMAGE_THREADS,)
    float* average = part + IMAGE_THREADS;           // (WIDTH,)
    const int frame = blockIdx.y, frames = gridDim.y, thread = threadIdx.x, first = blockIdx.x * IMAGE_THREADS;
    const int n = first + thread;
    const Slices slices = {rows, columns, apart, per_row, per_column};
    active += (size_t)frame * voxels * WIDTH;
    if (n < voxels) {
        const float scale = statistics[frames + frame], presence = statistics[2 * frames + frame];
        const float d = deviation[((size_t)frame * blocks + blocks - 1) * voxels + n];
        const size_t at = (size_t)frame * voxels + n;
        const float value = base[at] + d * head(active, weights, bias[0], n, slices);
        const float error = head(active, weights + 9 * WIDTH, bias[1], n, slices);
        mean[at] = (value < 0.0f ? 0.0f : value) * (presence * scale);  // unlike fmaxf, keeps a NaN
        std[at] = d * expf(4.0f * tanhf(0.25f * error)) * scale;
    }
    if (blockIdx.x && !pooled) return;
    const int last = pooled ? min(first + IMAGE_THREADS, voxels) : voxels;
    float sum = 0.0f;
    for (int i = first * WIDTH + thread; i < last * WIDTH; i += IMAGE_THREADS) sum += active[i];  // all of one channel
    part[thread] = sum;
    __syncthreads();
    if (thread < WIDTH) {
        sum = 0.0f;
        for (int other = thread; other < IMAGE_THREADS; other += WIDTH) sum += part[other];
        average[thread] = sum / voxels;
        if (pooled) pooled[((size_t)frame * gridDim.x + blockIdx.x) * WIDTH + thread] = sum;
    }
    if (pooled) return;
    __syncthreads();
    if (thread < LEVELS) quantiles[frame * LEVELS + thread] = quantile(tails, tails_bias, average, WIDTH, thread);
}
