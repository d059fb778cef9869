// prepare: noise, scale and presence of each frame, and estimates from its signals alone.
//
//     sigma^2   = (energy - |y|^2) / (2 M - R)                            noise, estimated from the frame itself
//     scale     = sqrt(excess energy of y / sum S^2) / 2                  likelihood.signal_scale
//     presence  = 0 if noise alone explains the frame ... 1 beyond doubt  likelihood.signal_presence
//     y, sigma /= scale
//     condition = V g y  and  r sqrt(1 - (V * V) (S g)),   g = S r^2 / (S^2 r^2 + sigma^2),   for each width r
//
// The condition is the posterior mean of the image under white priors, and the posterior deviation of each voxel. For
// volumes, this kernel writes g y and S g, and white.cu computes the condition.
//
// Performance: One thread block per frame keeps the frame's numbers in shared memory and reads V once, 217 KB from the
// L2 cache for 361 voxels and R = 150. A multiprocessor receives some 48 bytes per clock (an A100's share of its L2
// bandwidth), so the lower bound is 4500 clocks, 2.5 us, for as many frames at once as there are multiprocessors. A
// frame takes 1.4 MFLOP.
//
// Tested against Calibration.reduce and likelihood.Likelihood by tests/test_kernels_shim.py.
#include "device.cuh"

#ifndef WIDTHS
#define WIDTHS 5  // number of widths in likelihood.py
#endif

// Threads of a block. An image of 19 x 19 voxels uses two of them per voxel, 722 of 768. The launch bounds
// (PREPARE_THREADS, 1) allow one block per multiprocessor and up to 80 registers per thread. Without them the compiler
// would limit registers to 40, to make room for a second block, and spill.
constexpr int PREPARE_THREADS = 768, SUMS = 2 * WIDTHS;

// DETECTION, EMPTY, CERTAIN and SIGNAL_PER_IMAGE of likelihood.py; the SNR ceiling of reduction.py, 50 dB, as a ratio
// of energies.
struct Thresholds {
    double detection, empty, certain, signal_per_image, quietest;
};

// Products of V with `gained`, and of V * V with `explained`, by one thread block: V^T (rows, columns) in global memory
// is read once for all widths, by coalesced reads.
//
// Each column belongs to one thread, or to several that share its rows. In the latter case `partial` holds the sums of
// all but the first of them, (columns, SUMS) floats each; see `prepare.partial_floats`. The order of summation depends
// only on the number of rows and columns. `finish(column, sums)` is called once per column.
template <class Finish>
__device__ inline void product(const float* __restrict__ matrix, int rows, int columns, const Row<WIDTHS>* gained,
                               const float* explained, float* partial, Finish finish) {
    const int shares = max(1, (int)blockDim.x / columns);
    const int share = shares > 1 ? threadIdx.x / columns : 0;
    for (int start = 0; start < columns; start += blockDim.x) {  // once, unless the image has more voxels than threads
        const int column = start + threadIdx.x - share * columns;
        const bool busy = share < shares && column < columns;
        Row<SUMS> sum = {};
        if (busy) {
#pragma unroll 8  // as many loads in flight as registers allow
            for (int row = share; row < rows; row += shares) {
                const float element = matrix[(size_t)row * columns + column];
                const Row<WIDTHS> input = gained[row];
#pragma unroll
                for (int i = 0; i < WIDTHS; ++i) sum.value[i] += element * input.value[i];
#pragma unroll
                for (int i = 0; i < WIDTHS; ++i)
                    sum.value[WIDTHS + i] += element * element * explained[row * WIDTHS + i];
            }
        }
        if (shares > 1) {
            if (busy && share > 0)
                for (int i = 0; i < SUMS; ++i) partial[((share - 1) * columns + column) * SUMS + i] = sum.value[i];
            __syncthreads();
            if (share == 0)
                for (int other = 0; other < shares - 1; ++other)
                    for (int i = 0; i < SUMS; ++i) sum.value[i] += partial[(other * columns + column) * SUMS + i];
        }
        if (busy && share == 0) finish(column, sum);
    }
}

// grid (frames,), shared memory: PREPARE_THREADS double and, if `factors` is null, SUMS R float and
// `prepare.partial_floats`
extern "C" __global__ void __launch_bounds__(PREPARE_THREADS, 1)
prepare(const double* __restrict__ reduced,        // (frames, R): y from reduce.cu
        const double* __restrict__ energy,         // (frames,)
        const float* __restrict__ singular,        // (R,)
        const float* __restrict__ basis_t,         // (R, N)
        const float* __restrict__ mean_explained,  // (R,): mean of V^2 over the voxels
        const float* __restrict__ widths,          // (WIDTHS,)
        const Thresholds* __restrict__ thresholds,
        double power,                    // sum of S^2
        int num_rows, int rank, int voxels,
        float* __restrict__ y,           // (frames, R), scaled to images of root-mean-square one
        float* __restrict__ statistics,  // (5, frames): prepare.STATISTICS
        float* __restrict__ condition,   // (frames, SUMS, N)
        float* __restrict__ factors)     // (frames, R, SUMS): g y and S g for white.cu; null: compute condition here
{
    extern __shared__ float4 shared[];
    double* scratch = reinterpret_cast<double*>(shared);
    Row<WIDTHS>* gained = reinterpret_cast<Row<WIDTHS>*>(scratch + PREPARE_THREADS);  // (R,) g y
    float* explained = reinterpret_cast<float*>(gained + rank);                       // (R, WIDTHS) S g
    float* partial = explained + WIDTHS * rank;
    const int frame = blockIdx.x, frames = gridDim.x;
    reduced += (size_t)frame * rank;
    y += (size_t)frame * rank;

    double inside = 0.0;
    for (int j = threadIdx.x; j < rank; j += blockDim.x) inside += reduced[j] * reduced[j];
    inside = block_sum(inside, scratch);

    // Every thread computes the same few scalars, which is cheaper than sharing them.
    const Thresholds limit = *thresholds;
    const double whole = energy[frame], total = 2.0 * num_rows;
    const double variance = fmax((whole - inside) / (total - rank), whole / total * limit.quietest);
    const float level = (float)sqrt(variance);
    const double unit_energy = sqrt(2.0 * rank), level2 = (double)level * level;
    const double excess = (inside - rank * level2) / (unit_energy * (level2 > 0.0 ? level2 : 1.0));
    const float scale =
        (float)(sqrt(fmax(excess, limit.detection) * unit_energy * level2 / power) / limit.signal_per_image);
    // A frame of zeros has no scale: its signals stay zero, and so does its image.
    const float unit = scale > 0.0f ? scale : 1.0f;
    const float noise = scale > 0.0f ? level / unit : 1.0f;

    double floor2 = 0.0;
    for (int j = threadIdx.x; j < rank; j += blockDim.x) {
        const float s = singular[j], scaled = (float)reduced[j] / unit, own_gain = s / (s * s + noise * noise);
        y[j] = scaled;
        for (int i = 0; i < WIDTHS; ++i) {
            const float signal = widths[i] * s, gain = widths[i] * signal / (signal * signal + noise * noise);
            if (factors) {
                float* row = factors + ((size_t)frame * rank + j) * SUMS;
                row[i] = gain * scaled, row[WIDTHS + i] = s * gain;
            } else {
                gained[j].value[i] = gain * scaled;
                explained[j * WIDTHS + i] = s * gain;
            }
        }
        floor2 += (double)(own_gain * noise) * (own_gain * noise) * mean_explained[j];
    }
    floor2 = block_sum(floor2, scratch);  // its barriers also make the loop's writes visible to all threads
    if (threadIdx.x == 0) {
        const double presence = (excess - limit.empty) / (limit.certain - limit.empty);
        const double signal = fmax(whole - total * variance, 0.0);
        statistics[frame] = noise;
        statistics[frames + frame] = scale;
        statistics[2 * frames + frame] = (float)fmin(fmax(presence, 0.0), 1.0);
        statistics[3 * frames + frame] = (float)(10.0 * log10(whole > 0.0 ? signal / (total * variance) : 0.0));
        statistics[4 * frames + frame] = (float)sqrt(floor2) * scale;
    }

    if (factors) return;
    condition += (size_t)frame * SUMS * voxels;
    const auto write = [&](int voxel, const Row<SUMS>& sum) {
        for (int i = 0; i < WIDTHS; ++i) {
            const float deviation = widths[i] * sqrtf(fmaxf(1.0f - sum.value[WIDTHS + i], 1e-6f));
            condition[(size_t)i * voxels + voxel] = sum.value[i];
            condition[(size_t)(WIDTHS + i) * voxels + voxel] = deviation;
        }
    };
    product(basis_t, rank, voxels, gained, explained, partial, write);
}
