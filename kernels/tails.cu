// tails: quantiles of the errors of a volume, from the sums of features that image.cu computed.
//
//     quantiles = exp(T mean(active))                     of the errors relative to the deviation, two for each frame
//
// Performance: One warp per frame adds 54 sums per channel at 19 x 19 x 19 voxels, always in the same order. The time
// is that of a launch.
//
// Tested against PyTorch by tests/test_volume_kernels.py.
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
