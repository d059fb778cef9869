// finish: samples of the posterior -> image and uncertainty, in the unit of the calibration.
//
//     middle    = mean of the samples, or, after consensus, agreed + share (mean - agreed)      consensus.settle
//     image     = max(middle, 0) * presence * scale
//     deviation = r * scale, or, after consensus, width * sqrt(r (r + max(middle, 0))) * scale
//
// with r the root-mean-square deviation of the samples from the middle. Each of the three is written where it has
// somewhere to go, and only there. With consensus there are two launches: one for the mean of the samples
// before it, one for image and deviation after it.
//
// Mirrored samples have, to first order, their true mean, so the deviation divides by their number.
//
// Why fast. A thread owns a voxel of a frame; neighbours read neighbours. Every sample is read twice (a deviation from
// squares would cancel), the second time from the cache: 11.6 KB a frame for eight samples of 361 voxels, and 2.9 KB
// written. 64 frames are 0.9 MB, 0.2 us of an H200's memory: this kernel costs its launch.
//
// Checked by tests/test_kernels_shim.py against NumPy.
#include "device.cuh"

constexpr int FINISH_THREADS = 128;

// grid (ceil(N / FINISH_THREADS), frames)
extern "C" __global__ void __launch_bounds__(FINISH_THREADS)
finish(const float* __restrict__ x,           // (frames, samples, N)
       const float* __restrict__ statistics,  // (7, frames), see prepare.cu
       int samples, int voxels,
       const float* __restrict__ agreed,      // (frames, N), or null for the mean of the samples
       float* __restrict__ mean,              // (frames, N): the middle; or null, as the next two
       float* __restrict__ image,             // (frames, N)
       float* __restrict__ deviation)         // (frames, N)
{
    const int frame = blockIdx.y, frames = gridDim.y, voxel = blockIdx.x * FINISH_THREADS + threadIdx.x;
    if (voxel >= voxels) return;
    const float scale = statistics[frames + frame], presence = statistics[2 * frames + frame];
    x += (size_t)frame * samples * voxels + voxel;

    const size_t at = (size_t)frame * voxels + voxel;
    float middle = 0.0f, square = 0.0f;
    for (int s = 0; s < samples; ++s) middle += x[(size_t)s * voxels];
    middle /= samples;
    if (agreed) {
        const float share = statistics[5 * frames + frame];
        middle = agreed[at] + share * (middle - agreed[at]);
    }
    for (int s = 0; deviation && s < samples; ++s) {
        const float apart = x[(size_t)s * voxels] - middle;
        square += apart * apart;
    }
    if (mean) mean[at] = middle;
    const float positive = middle < 0.0f ? 0.0f : middle;  // unlike fmaxf, keeps a NaN
    if (image) image[at] = positive * (presence * scale);
    if (deviation) {
        const float apart = sqrtf(square / samples);
        deviation[at] =
            (agreed ? statistics[6 * frames + frame] * sqrtf(apart * (apart + positive)) : apart) * scale;
    }
}
