// guided_step: everything between two evaluations of the network, for all samples of all frames, in one launch.
//
//     D      =  D0 + h (D0 - x)                                          D0 from the network, or x reflected at it
//     D      <- D + V c1,          c1 = g1 (y - S V^T D)                 the step towards the signals (denoiser.py)
//     x      <- a x + b D + c saved + d z + i D0                         the solver's update, fresh noise z
//     saved  <- e x + f D + g saved                                      what a second-order solver remembers
//     m      =  k x + V c2,        c2 = g2 (y - S V^T k x)               the network's next input: x_t and the signals
//     r      =  spread sqrt(1 - (V * V) (S g2))                          ... and its deviation per voxel
//
// with x on the right the old one, except in m. The letters, k, spread, and how g1 is formed are one row of a table in
// device memory (table.py writes it): DPM-Solver++(2M), Heun, Euler-Maruyama and predictor-corrector differ in the
// numbers only, so another sampler, schedule or strength needs neither compilation nor a new capture of the graph.
//   Row 0 makes x = sigma_max z from nothing, or keeps the x that consensus starts from. The last row makes x = D and no
//   further input.
//   The steps towards consensus (consensus.py) are rows with h = kept, x <- D + ratio kept (x - D0); only they have h
//   and i. Their noise level follows the frame's own, and so does what is kept; their spreads are in units of the level.
//   At every step the network gets its input in another of the grid's symmetries (symmetry.py), and gives its output in
//   the same.
//
// Why fast. Done one after the other these are four products with V. But V^T V = 1, so V^T x_new follows from V^T D and
// V^T u, u = a x + c saved + d z + i D0:
//
//     V^T x_new = V^T u + b (V^T D + c1)
//
// and both products of a kind run together: V is read twice instead of five times, and a block has four barriers. A
// block takes one to four samples of a frame and holds D and u in shared memory (11.5 KB for four of 361 voxels); state
// is float32, noise costs no memory. For 361 voxels and R = 150, a sample is 4 x 54 k multiply-adds and 11.6 KB of
// state and network tensors; the two reads of V, 434 KB from L2, dominate: at 48 bytes per clock and multiprocessor
// 9000 clocks, 5 us, whatever the number of frames until every multiprocessor has a block. Fewer samples per block
// spread one frame over more multiprocessors; four of them quarter the reads of V in a large batch.
//
// Checked by tests/test_kernels_shim.py: against the NumPy denoiser and samplers in double precision, for every sampler,
// type and layout; tests/test_kernel_loop.py: a whole reconstruction, sample for sample.
#include "device.cuh"

#ifndef SCALAR
#define SCALAR float  // of the network's tensors: float, Half or BFloat16
#endif
#ifndef SAMPLES
#define SAMPLES 1  // of one frame, per block
#endif

struct Step {  // table.STEP in table.py
    float x_from_x, x_from_denoised, x_from_saved, x_from_noise, x_from_raw;
    float saved_from_x, saved_from_denoised, saved_from_saved;
    float reflection;
    float guide_spread, guide_strength, guide_uniform;  // uniform: all directions get the gain of the most curved one
    float sigma, shrink, spread;                        // of the next evaluation; spread is 0 after the last
    float sees;                                         // 1 if it is given the signals, 0 if not
    float level_factor, level_lowest, level_highest;    // of the frame's level; 0 where the row has the numbers
    float level_doubtful, level_widening;               // of guide_spread: consensus.widening_of
    float level_noisy, level_damping;                   // of what is kept: consensus.kept_of; 0 keeps all
    unsigned draw;
    unsigned came, goes;                                // the symmetry of D0, and that of the next input
};

// Where a symmetry shows a voxel: symmetry.symmetries.
__device__ inline int shown_at(int voxel, unsigned symmetry, int columns, int voxels) {
    if (symmetry == 0) return voxel;
    const int rows = voxels / columns;
    int row = voxel / columns, column = voxel - row * columns;
    if (symmetry & 1) row = rows - 1 - row;
    if (symmetry & 2) column = columns - 1 - column;
    return symmetry & 4 ? column * rows + row : row * columns + column;
}

// grid (ceil(samples / SAMPLES), frames), shared memory (2 SAMPLES) (N + R) + R float and product_floats
extern "C" __global__ void __launch_bounds__(THREADS, 1)
guided_step(const Step* __restrict__ table, int number, unsigned long long seed,
            int samples, int voxels, int columns, int rank,
            float noise_unit,                     // sqrt(N / sum S^2)
            const float* __restrict__ basis,      // (N, R)
            const float* __restrict__ basis_t,    // (R, N)
            const float* __restrict__ singular,   // (R,)
            const float* __restrict__ y,          // (frames, R)
            const float* __restrict__ noise,      // (frames,)
            const SCALAR* __restrict__ denoised,  // (frames, samples, N): the network's output
            float* __restrict__ x,                // (frames, samples, N)
            float* __restrict__ saved,            // (frames, samples, N)
            SCALAR* __restrict__ image,           // (frames, samples, 3, N) or (frames, samples, N, 3): its next input
            int channel_stride, int voxel_stride,
            float* __restrict__ sigma)            // (frames, samples)
{
    extern __shared__ float4 shared[];
    Row<2 * SAMPLES>* pair = reinterpret_cast<Row<2 * SAMPLES>*>(shared);  // (N,) D and u of each sample
    Row<2 * SAMPLES>* change = pair + voxels;                              // (R,) c1 and c2
    float* explained = reinterpret_cast<float*>(change + rank);            // (R,) S g2
    float* partial = explained + rank;
    Step step = table[number];
    const int frame = blockIdx.y, first = blockIdx.x * SAMPLES, count = min(SAMPLES, samples - first);
    const size_t image_of = (size_t)frame * samples + first;  // counted over all frames
    if (step.level_factor != 0.0f) {  // consensus.level_of, guidance.tweedie
        const float level = step.level_factor * sqrtf(noise[frame] * noise_unit);
        step.sigma = fminf(fmaxf(level, step.level_lowest), step.level_highest);
        step.shrink = 1.0f / (1.0f + step.sigma * step.sigma);
        step.spread *= step.sigma * sqrtf(step.shrink);
        step.guide_spread *= step.sigma * (1.0f + step.level_widening * fmaxf(step.sigma - step.level_doubtful, 0.0f));
        const float kept = 1.0f - step.level_damping * fmaxf(step.sigma - step.level_noisy, 0.0f);
        step.reflection *= kept;
        step.x_from_x *= kept;
        step.x_from_raw *= kept;
    }
    const bool saves = step.saved_from_x != 0.0f || step.saved_from_denoised != 0.0f || step.saved_from_saved != 0.0f;
    const bool has_x = step.x_from_x != 0.0f || step.reflection != 0.0f;
    const bool has_denoised =
        step.x_from_denoised != 0.0f || step.x_from_raw != 0.0f || step.saved_from_denoised != 0.0f;

    // 1. D and u, four voxels to a thread, as Philox serves them. What has no part in a step is not read: at the start
    //    there is nothing in those buffers.
    const int blocks = (voxels + 3) / 4, half = (samples + 1) / 2;
    for (int i = threadIdx.x; i < SAMPLES * blocks; i += blockDim.x) {
        const int s = i / blocks, block = i - s * blocks, sample = first + s;
        Four z = {};
        if (step.x_from_noise != 0.0f && s < count) {
            const bool mirrored = sample >= half;  // the second half of the samples gets the noise of the first, negated
            z = normals(seed, mirrored ? sample - half : sample, step.draw, block);
            const float gain = mirrored ? -step.x_from_noise : step.x_from_noise;
            for (int lane = 0; lane < 4; ++lane) z.value[lane] *= gain;
        }
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) {
            const int voxel = 4 * block + lane;
            if (voxel >= voxels) break;
            float d = 0.0f, u = 0.0f;
            if (s < count) {
                const size_t at = (image_of + s) * voxels + voxel;
                const float old = has_x ? x[at] : 0.0f;
                if (has_denoised)
                    d = load(denoised[(image_of + s) * voxels + shown_at(voxel, step.came, columns, voxels)]);
                u = step.x_from_x * old + step.x_from_raw * d;
                if (step.x_from_saved != 0.0f) u += step.x_from_saved * saved[at];
                u += z.value[lane];
                d += step.reflection * (d - old);
            }
            pair[voxel].value[2 * s] = d;
            pair[voxel].value[2 * s + 1] = u;
        }
    }
    __syncthreads();

    // 2. V^T D and V^T u, and what the signals make of them: a thread owns a direction.
    const float level = noise[frame], steepest = singular[0];
    product<2 * SAMPLES, 0>(basis, voxels, rank, pair, nullptr, partial, [&](int j, const Row<2 * SAMPLES>& sum) {
        const float s = singular[j], measured = y[(size_t)frame * rank + j];
        const float curved = step.guide_spread * (step.guide_uniform != 0.0f ? steepest : s), seen = step.sees * step.spread * s;
        const float guide =
            step.guide_strength * step.guide_spread * (step.guide_spread * s) / (curved * curved + level * level);
        const float gain = step.spread * seen / (seen * seen + level * level);
        explained[j] = s * gain;
        for (int i = 0; i < SAMPLES; ++i) {
            const float inside = sum.value[2 * i], c1 = guide * (measured - s * inside);
            const float updated = sum.value[2 * i + 1] + step.x_from_denoised * (inside + c1);
            change[j].value[2 * i] = c1;
            change[j].value[2 * i + 1] = gain * (measured - s * (step.shrink * updated));
        }
    });
    __syncthreads();

    // 3. V c1, V c2 and the deviation: a thread owns a voxel.
    product<2 * SAMPLES, 1>(
        basis_t, rank, voxels, change, explained, partial, [&](int voxel, const Row<2 * SAMPLES + 1>& sum) {
            const float deviation = step.spread * sqrtf(fmaxf(1.0f - sum.value[2 * SAMPLES], 1e-6f));
            const Row<2 * SAMPLES> before = pair[voxel];
#pragma unroll
            for (int i = 0; i < SAMPLES; ++i) {
                if (i >= count) break;
                const size_t at = (image_of + i) * voxels + voxel;
                const float d = before.value[2 * i] + sum.value[2 * i];
                const float updated = before.value[2 * i + 1] + step.x_from_denoised * d;
                if (saves) {
                    float kept = step.saved_from_denoised * d;
                    if (step.saved_from_x != 0.0f) kept += step.saved_from_x * x[at];
                    if (step.saved_from_saved != 0.0f) kept += step.saved_from_saved * saved[at];
                    saved[at] = kept;
                }
                x[at] = updated;
                if (step.spread != 0.0f) {
                    const int shown = shown_at(voxel, step.goes, columns, voxels);
                    SCALAR* where = image + (image_of + i) * 3 * voxels + (size_t)shown * voxel_stride;
                    store(where, step.shrink * updated + sum.value[2 * i + 1]);
                    store(where + channel_stride, deviation);
                    store(where + 2 * channel_stride, updated);
                }
            }
        });
    if ((int)threadIdx.x < count && step.spread != 0.0f) sigma[image_of + threadIdx.x] = step.sigma;
}
