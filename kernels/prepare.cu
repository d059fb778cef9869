// prepare: from y and the energy of each frame to its noise level, scale and presence, and what its signals alone say.
//
//     sigma^2   = (energy - |y|^2) / (2 M - R)                            the noise that the frame itself shows
//     scale     = sqrt(excess energy of y / sum S^2) / 2                  likelihood.signal_scale
//     presence  = 0 for what noise alone explains ... 1 beyond doubt      likelihood.signal_presence
//     y, sigma /= scale
//     condition = V g y  and  r sqrt(1 - (V * V) (S g)),   g = S r^2 / (S^2 r^2 + sigma^2),   for each width r
//
// The condition is the posterior mean of the image under white priors, and its deviation per voxel.
//
// Of a volume the condition is left to white.cu, which is given g y and S g.
//
// Why fast. One block per frame: the numbers of a frame never leave its shared memory, and V is read once, 217 KB of
// L2 for 361 voxels and R = 150. A multiprocessor takes in some 48 bytes per clock (an A100's share of its L2), so the
// floor is 4500 clocks, 2.5 us, for as many frames at once as there are multiprocessors. 1.4 MFLOP a frame.
//
// Checked by tests/test_kernels_shim.py against Calibration.reduce and likelihood.Likelihood.
#include "device.cuh"

#ifndef WIDTHS
#define WIDTHS 5  // as many as likelihood.py has
#endif

// Threads of a block. An image of 19 x 19 voxels takes two of them per voxel, 722 of 768. The kernel is bound to
// (PREPARE_THREADS, 1): one block per multiprocessor, up to 80 registers for each thread. Left to itself the compiler
// squeezes them to 40 for a second block, and spills.
constexpr int PREPARE_THREADS = 768, SUMS = 2 * WIDTHS;

// What likelihood.py calls DETECTION, EMPTY, CERTAIN and SIGNAL_PER_IMAGE; reduction.py's SNR ceiling of 50 dB.
struct Thresholds {
    double detection, empty, certain, signal_per_image, quietest;
};

// V gained, and after it the sums of V * V times `explained`, by one block: V^T (rows, columns) in global memory is read
// once, coalesced, for all widths.
//
// Threads own columns. Where there are several threads per column they share its rows, and `partial`, (columns, SUMS)
// floats for each thread but the first, collects what they found; `prepare.partial_floats` says how many. The order of
// summation depends on rows and columns alone. `finish(column, sums)` runs once per column.
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
#pragma unroll 8  // loads in flight, as far as registers go
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

// grid (frames,), shared memory: PREPARE_THREADS double and, unless the condition is left to others, SUMS R float and
// `prepare.partial_floats`
extern "C" __global__ void __launch_bounds__(PREPARE_THREADS, 1)
prepare(const double* __restrict__ reduced,        // (frames, R): y as reduce.cu leaves it
        const double* __restrict__ energy,         // (frames,)
        const float* __restrict__ singular,        // (R,)
        const float* __restrict__ basis_t,         // (R, N)
        const float* __restrict__ mean_explained,  // (R,) mean of V^2 over the voxels
        const float* __restrict__ widths,          // (WIDTHS,)
        const Thresholds* __restrict__ thresholds,
        double power,                    // sum of S^2
        int num_rows, int rank, int voxels,
        float* __restrict__ y,           // (frames, R), for images of root-mean-square one
        float* __restrict__ statistics,  // (5, frames): prepare.STATISTICS
        float* __restrict__ condition,   // (frames, SUMS, N)
        float* __restrict__ factors)     // (frames, R, SUMS): g y and S g for white.cu, or null: the condition is made here
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

    // Every thread computes the same few scalars: cheaper than to share them.
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
    floor2 = block_sum(floor2, scratch);  // its barriers also publish what the loop wrote
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
