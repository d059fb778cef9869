// refine: the image of a frame as the noisy image of the next evaluation of the network.
//
//     x_t       = image
//     precision = scale^2 / mean(deviation^2)        1 / sigma_t^2 of an image with these errors; 0 if all are zero
//
// Performance: One thread block per frame reads 2.9 KB, writes 1.4 KB and computes one sum, for 361 voxels. The time is
// that of a launch.
//
// Tested against PyTorch by tests/test_network_kernels.py.
#include "device.cuh"

constexpr int REFINE_THREADS = 256;

// grid (frames,), shared memory REFINE_THREADS doubles
extern "C" __global__ void __launch_bounds__(REFINE_THREADS)
refine(const float* __restrict__ statistics,  // (5, frames): row 1 is the scale
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
