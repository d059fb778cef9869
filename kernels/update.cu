// update: one step of a sampler between two evaluations of the network, for posterior samples.
//
//     x     = a x + b D + c saved + d scale z        the solver's update, with new normal noise z
//     saved = e x + f D + g saved                    image that a second-order solver keeps
//     precision = 1 / sigma_t^2                      of the new x
//
// On the right-hand side, x is the old image. These coefficients define a solver completely (solvers.py):
// DPM-Solver++(2M), Heun, Euler-Maruyama and predictor-corrector differ only in them. x is the noisy image of the next
// evaluation, in the unit of the calibration. Arrays whose coefficients are zero are not read, because before the first
// step their content is undefined.
//
// Performance: Each thread computes four voxels, as many as Philox gives normals at once; the noise takes no memory.
// For 361 voxels 5.8 KB are read and written, so the time is that of a launch.
//
// Tested against samplers.py by tests/test_device_samples.py.
#include "device.cuh"

constexpr int UPDATE_THREADS = 128;

struct Four {
    float value[4];
};

// Standard normals of voxels 4 block to 4 block + 3, by Philox4x32-10 and Box-Muller as defined by mpi_fast/philox.py.
// They take some 100 integer operations for four numbers and no memory, and are the same on every device and for every
// batch.
__device__ inline Four normals(unsigned long long seed, unsigned sample, unsigned draw, unsigned block) {
    unsigned c0 = block, c1 = draw, c2 = sample, c3 = 0;
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const unsigned high2 = __umulhi(0xCD9E8D57u, c2), low2 = 0xCD9E8D57u * c2;
        c0 = high2 ^ c1 ^ k0;
        c1 = low2;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const float radius0 = sqrtf(-2.0f * logf((float)((c0 >> 8) + 1u) * 0x1p-24f));
    const float radius1 = sqrtf(-2.0f * logf((float)((c2 >> 8) + 1u) * 0x1p-24f));
    Four normal;
    float sine, cosine;
    sincospif(2.0f * ((float)(c1 >> 8) * 0x1p-24f), &sine, &cosine);
    normal.value[0] = radius0 * cosine;
    normal.value[1] = radius0 * sine;
    sincospif(2.0f * ((float)(c3 >> 8) * 0x1p-24f), &sine, &cosine);
    normal.value[2] = radius1 * cosine;
    normal.value[3] = radius1 * sine;
    return normal;
}

// grid (ceil(N / 4 / UPDATE_THREADS), images)
extern "C" __global__ void __launch_bounds__(UPDATE_THREADS)
update(const float* __restrict__ statistics,  // (5, images): row 1 is the scale
       const float* __restrict__ denoised,    // (images, N): D
       float* __restrict__ x,                 // (images, N)
       float* __restrict__ saved,             // (images, N)
       float* __restrict__ precision,         // (images,)
       unsigned long long seed,
       unsigned first, unsigned samples,      // image i is sample (first + i) % samples of its frame
       unsigned draw, int voxels,
       float x_from_x, float x_from_denoised, float x_from_saved, float x_from_noise,
       float saved_from_x, float saved_from_denoised, float saved_from_saved,
       float next_precision)
{
    const int image = blockIdx.y, block = blockIdx.x * UPDATE_THREADS + threadIdx.x;
    if (block == 0) precision[image] = next_precision;
    if (4 * block >= voxels) return;
    Four z = {};
    if (x_from_noise != 0.0f) {
        z = normals(seed, (first + image) % samples, draw, block);
        const float gain = x_from_noise * statistics[gridDim.y + image];
        for (int lane = 0; lane < 4; ++lane) z.value[lane] *= gain;
    }
    const bool has_x = x_from_x != 0.0f || saved_from_x != 0.0f;
    const bool has_denoised = x_from_denoised != 0.0f || saved_from_denoised != 0.0f;
    const bool has_saved = x_from_saved != 0.0f || saved_from_saved != 0.0f;
    const bool saves = saved_from_x != 0.0f || saved_from_denoised != 0.0f || saved_from_saved != 0.0f;
    for (int lane = 0; lane < 4 && 4 * block + lane < voxels; ++lane) {
        const size_t at = (size_t)image * voxels + 4 * block + lane;
        const float old = has_x ? x[at] : 0.0f, d = has_denoised ? denoised[at] : 0.0f;
        const float kept = has_saved ? saved[at] : 0.0f;
        x[at] = x_from_x * old + x_from_denoised * d + x_from_saved * kept + z.value[lane];
        if (saves) saved[at] = saved_from_x * old + saved_from_denoised * d + saved_from_saved * kept;
    }
}
