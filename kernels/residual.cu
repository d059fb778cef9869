// residual: residual of a volume's image, multiplied by the gains of the data-consistency step.
//
//     residual = y - S V^T image
//     gained   = g residual,   g = S r^2 / (S^2 r^2 + sigma^2)        for r = r_k and r = 4 r_k
//
// A thread block computes RANKS components of up to FRAMES frames. Its threads share the voxels, and their 256 sums are
// added in a fixed order: 16 groups of 16, then the sums of the groups.
//
// Performance: This is one of two launches for each network block that read V^T, once and in whole cache lines: 27 MB
// at 19 x 19 x 19 voxels and rank 1000, by 125 thread blocks, 8 us from an H100's memory at 3.35 TB/s, 3 us from its L2
// cache. Each thread block also reads the image, an eighth as much. With FRAMES = 4, each element serves four frames.
// Only V^T is stored, without V, so that it can stay in the L2 cache.
//
// Tested against PyTorch by tests/test_volume_kernels.py.
#include "device.cuh"

#ifndef FRAMES
#define FRAMES 1
#endif

constexpr int RANKS = 8, RESIDUAL_THREADS = 256, PARTS = 16, VIEWS = 2, SUMS = RANKS * FRAMES;
constexpr int PITCH = RESIDUAL_THREADS + PARTS;  // so that a warp reads two sums from different banks

// grid (ceil(R / RANKS), ceil(frames / FRAMES)), shared memory: see `combine_volumes.residual_shared`
extern "C" __global__ void __launch_bounds__(RESIDUAL_THREADS)
residual(const float* __restrict__ statistics,  // (5, frames): row 0 is the noise
         const float* __restrict__ y,           // (frames, R)
         const float* __restrict__ singular,    // (R,)
         const float* __restrict__ basis_t,     // (R, N)
         const float* __restrict__ spread,      // (frames, K)
         const float* __restrict__ mean,        // (frames, N): the image
         int block, int blocks, int frames, int rank, int voxels,
         float* __restrict__ gained)            // (frames, R, VIEWS)
{
    extern __shared__ float4 shared[];
    float* of_threads = reinterpret_cast<float*>(shared);  // (SUMS, PITCH)
    float* of_parts = of_threads + SUMS * PITCH;           // (SUMS, PARTS)
    const int thread = threadIdx.x, first = blockIdx.x * RANKS, first_frame = blockIdx.y * FRAMES;
    size_t row[RANKS], image[FRAMES];  // limited to the last row and frame; surplus results are discarded
    for (int i = 0; i < RANKS; ++i) row[i] = (size_t)min(first + i, rank - 1) * voxels;
    for (int f = 0; f < FRAMES; ++f) image[f] = (size_t)min(first_frame + f, frames - 1) * voxels;
    float sum[RANKS][FRAMES] = {};
#pragma unroll 2
    for (int n = thread; n < voxels; n += RESIDUAL_THREADS) {
        float x[FRAMES];
#pragma unroll
        for (int f = 0; f < FRAMES; ++f) x[f] = mean[image[f] + n];
#pragma unroll
        for (int i = 0; i < RANKS; ++i) {
            const float element = basis_t[row[i] + n];
#pragma unroll
            for (int f = 0; f < FRAMES; ++f) sum[i][f] += element * x[f];
        }
    }
#pragma unroll
    for (int i = 0; i < RANKS; ++i)
#pragma unroll
        for (int f = 0; f < FRAMES; ++f) of_threads[(i * FRAMES + f) * PITCH + thread] = sum[i][f];
    __syncthreads();
    for (int which = thread; which < SUMS * PARTS; which += RESIDUAL_THREADS) {
        const float* from = of_threads + which / PARTS * PITCH + which % PARTS;
        float total = 0.0f;
        for (int i = 0; i < RESIDUAL_THREADS / PARTS; ++i) total += from[i * PARTS];
        of_parts[which] = total;
    }
    __syncthreads();
    const int j = first + thread / FRAMES, frame = first_frame + thread % FRAMES;
    if (thread >= SUMS || j >= rank || frame >= frames) return;
    float total = 0.0f;
    for (int part = 0; part < PARTS; ++part) total += of_parts[thread * PARTS + part];
    const float s = singular[j], noise = statistics[frame], r = spread[(size_t)frame * blocks + block];
    const float left_over = y[(size_t)frame * rank + j] - s * total;
    for (int v = 0; v < VIEWS; ++v) {
        const float wide = v ? 4.0f * r : r, strength = wide * s;
        gained[((size_t)frame * rank + j) * VIEWS + v] =
            wide * strength / (strength * strength + noise * noise) * left_over;
    }
}
