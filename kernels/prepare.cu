// prepare: from y and the energy of each frame to its noise level, scale and presence, and the network's condition.
//
//     sigma^2   = (energy - |y|^2) / (2 M - R)                            the noise that the frame itself shows
//     scale     = sqrt(excess energy of y / sum S^2) / 2                  guidance.signal_scale
//     share     = of the samples' mean in the image                       consensus.share_of
//     width     = of the image's uncertainty                              consensus.width_of
//     presence  = 0 for what noise alone explains ... 1 beyond doubt      guidance.signal_presence
//     y, sigma /= scale
//     condition = V g y  and  r sqrt(1 - (V * V) (S g)),   g = S r^2 / (S^2 r^2 + sigma^2),   for each width r
//
// The condition is the posterior mean of the image under white priors, and its deviation per voxel. The sampler's first
// noise and the network's first input come from guided_step.cu, as row 0 of its table: they are the same arithmetic as
// every later step, and the launch runs beside the encoder's first layers.
//
// Why fast. One block per frame: the numbers of a frame never leave its shared memory, and V is read once, 217 KB of
// L2 for 361 voxels and R = 150. A multiprocessor takes in some 48 bytes per clock (an A100's share of its L2), so the
// floor is 4500 clocks, 2.5 us, for as many frames at once as there are multiprocessors. 1.4 MFLOP a frame.
//
// Checked by tests/test_kernels_shim.py against Calibration.reduce and guidance.Likelihood.
#include "device.cuh"

#ifndef SCALAR
#define SCALAR float  // of the network's tensors: float, Half or BFloat16
#endif

#ifndef WIDTHS
#define WIDTHS 5  // as many as likelihood.py has
#endif

// What likelihood.py calls DETECTION, EMPTY, CERTAIN and SIGNAL_PER_IMAGE; calibration.py's SNR ceiling of 50 dB.
// And consensus.py's LEVEL, LOWEST, HIGHEST, DOUBTFUL, SHARE and LEAST.
struct Thresholds {
    double detection, empty, certain, signal_per_image, quietest;
    double level, lowest, highest, doubtful, share, least;
};

// grid (frames,), shared memory: THREADS double, 2 WIDTHS R float, product_floats(N, 2 WIDTHS)
extern "C" __global__ void __launch_bounds__(THREADS, 1)
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
        float* __restrict__ statistics,  // (7, frames): prepare.STATISTICS
        SCALAR* __restrict__ condition,  // (frames, 2 WIDTHS, N) or (frames, N, 2 WIDTHS)
        int channel_stride, int voxel_stride)
{
    extern __shared__ float4 shared[];
    double* scratch = reinterpret_cast<double*>(shared);
    Row<WIDTHS>* gained = reinterpret_cast<Row<WIDTHS>*>(scratch + THREADS);  // (R,) g y
    float* explained = reinterpret_cast<float*>(gained + rank);               // (R, WIDTHS) S g
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
            gained[j].value[i] = gain * scaled;
            explained[j * WIDTHS + i] = s * gain;
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
        const double unlimited = limit.level * sqrt(noise * sqrt(voxels / power));
        const double consensus = fmin(fmax(unlimited, limit.lowest), limit.highest);  // consensus.level_of
        statistics[5 * frames + frame] = (float)(limit.share * fmax(consensus - limit.doubtful, 0.0));
        statistics[6 * frames + frame] = (float)(limit.least + consensus);
    }

    condition += (size_t)frame * 2 * WIDTHS * voxels;
    const auto write = [&](int voxel, const Row<2 * WIDTHS>& sum) {
        SCALAR* where = condition + (size_t)voxel * voxel_stride;
        for (int i = 0; i < WIDTHS; ++i) {
            const float deviation = widths[i] * sqrtf(fmaxf(1.0f - sum.value[WIDTHS + i], 1e-6f));
            store(where + (size_t)i * channel_stride, sum.value[i]);
            store(where + (size_t)(WIDTHS + i) * channel_stride, deviation);
        }
    };
    product<WIDTHS, WIDTHS>(basis_t, rank, voxels, gained, explained, partial, write);
}
