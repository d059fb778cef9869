// tails: how the errors of a volume are spread, from the features that image.cu summed up by parts.
//
//     quantiles = exp(T mean(active))                     of the errors next to the deviation, one pair for each frame
//
// Why fast. A warp for each frame adds 54 sums a channel at 19 x 19 x 19 voxels, always in the same order: this kernel
// costs its launch.
//
// Checked by tests/test_volume_kernels.py against PyTorch.
#include "device.cuh"
#include "tails.cuh"

constexpr int TAILS_THREADS = 32, WIDTH = 16;

// grid (frames, 1), shared memory WIDTH floats
extern "C" __global__ void __launch_bounds__(TAILS_THREADS)
tails(const float* __restrict__ pooled,  // (frames, parts, 16)
      const float* __restrict__ weight,  // (2, 16)
      const float* __restrict__ bias,    // (2,)
      int parts, int voxels,
      float* __restrict__ quantiles)     // (frames, 2)
{
    extern __shared__ float4 shared[];
    float* average = reinterpret_cast<float*>(shared);  // (WIDTH,)
    const int frame = blockIdx.x, thread = threadIdx.x;
    if (thread < WIDTH) {
        float sum = 0.0f;
#pragma unroll 8
        for (int part = 0; part < parts; ++part) sum += pooled[((size_t)frame * parts + part) * WIDTH + thread];
        average[thread] = sum / voxels;
    }
    __syncthreads();
    if (thread < LEVELS) quantiles[frame * LEVELS + thread] = quantile(weight, bias, average, WIDTH, thread);
}
