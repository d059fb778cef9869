// refine: a frame's image as the noisy one that the next evaluation is shown.
//
//     x_t       = image
//     precision = scale^2 / mean(deviation^2)        1 / sigma_t^2 of an image that has these errors; 0 if it has none
//
// Why fast. A block of threads for each frame: 2.9 KB in, 1.4 KB out, and one sum; this kernel costs its launch.
//
// Checked by tests/test_network_kernels.py against PyTorch.
#include "device.cuh"

constexpr int REFINE_THREADS = 256;

// grid (frames,), shared memory REFINE_THREADS doubles
extern "C" __global__ void __launch_bounds__(REFINE_THREADS)
refine(const float* __restrict__ statistics,  // (5, frames): the scale is the second
       const float* __restrict__ mean,        // (frames, N)
       const float* __restrict__ deviation,   // (frames, N)
       int voxels,
       float* __restrict__ noisy,             // (frames, N)
       float* __restrict__ precision)         // (frames,)
{
    extern __shared__ float4 shared[];
    double* scratch = reinterpret_cast<double*>(shared);
    const int frame = blockIdx.x;
    const size_t image = (size_t)frame * voxels;
    double sum = 0.0;
    for (int n = threadIdx.x; n < voxels; n += REFINE_THREADS) {
        const float d = deviation[image + n];
        sum += (double)d * d;
        noisy[image + n] = mean[image + n];
    }
    sum = block_sum(sum, scratch);
    const double scale = statistics[gridDim.x + frame];
    if (threadIdx.x == 0) precision[frame] = sum != 0.0 ? (float)(scale * scale * voxels / sum) : 0.0f;
}
