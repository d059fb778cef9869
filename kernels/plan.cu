// plan: the quantities of a frame that do not depend on its image, as `PosteriorNetwork._plan` and `Conditioner`.
//
//     known      = logarithms of the relative noise, of the precision of the noisy image (0 if there is none), and of
//                  the factors by which the signals reduce the deviation of white images of five widths, grid mean
//     hidden     = silu(E2 silu(E1 known))
//     spread     = r_k, deviation of the image that a network block combines with the signals
//     share      = share of the current image in it, the rest being the noisy image; 1 if there is none
//     d          = r_k sqrt(1 - sum_j V^2 S g)         posterior deviation of each voxel
//     modulation = M hidden                            gain and shift of every residual block
//
// For volumes, this kernel writes S g, and variances.cu computes the deviations.
//
// There is a thread block for each network block and frame. So all network blocks are planned in parallel, and nothing
// of this is left for the sequence of blocks that follows.
//
// Performance: Each thread block reads V once (217 KB at rank 150, 2.4 us at 48 bytes per clock) and 22 KB of weights;
// all thread blocks of a frame run at the same time.
//
// Tested against PyTorch by tests/test_network_kernels.py.
#include "device.cuh"

constexpr int WIDTHS = 5, KNOWN = 2 + WIDTHS, HIDDEN = 64, PLAN_THREADS = 512;
constexpr int GROUP = 28;  // network blocks in a row of the input of variances.cu

// One row of a dense layer.
__device__ inline float dense(const float* __restrict__ weights, float bias, const float* in, int count) {
    float sum = bias;
    for (int i = 0; i < count; ++i) sum += weights[i] * in[i];
    return sum;
}

// grid (K, frames), shared memory: see `combine.plan_shared`
extern "C" __global__ void __launch_bounds__(PLAN_THREADS, 1)
plan(const float* __restrict__ statistics,   // (5, frames), see prepare.cu
     const float* __restrict__ condition,    // (frames, 10, N): see prepare.cu
     const float* __restrict__ widths,       // (5,)
     const float* __restrict__ precision,    // (frames,), or null if there are no noisy images
     const float* __restrict__ singular,     // (R,)
     const float* __restrict__ basis_t,      // (R, N)
     const float* __restrict__ embed1, const float* __restrict__ embed1_bias,          // (64, 7), (64,)
     const float* __restrict__ embed2, const float* __restrict__ embed2_bias,          // (64, 64), (64,)
     const float* __restrict__ spread_weight, const float* __restrict__ spread_bias,   // (K, 64), (K,)
     const float* __restrict__ modulate, const float* __restrict__ modulate_bias,      // (C, 64), (C,)
     const int* __restrict__ offsets,        // (K + 1,): first of the C modulations of each block
     double power, int rank, int voxels,
     float* __restrict__ spread,             // (frames, K)
     float* __restrict__ share,              // (frames, K)
     float* __restrict__ deviation,          // (frames, K, N)
     float* __restrict__ modulation,         // (frames, C)
     float* __restrict__ explained_out)      // (frames, ceil(K / GROUP), R, GROUP): S g; null: compute deviations here
{
    extern __shared__ float4 shared[];
    double* scratch = reinterpret_cast<double*>(shared);           // (PLAN_THREADS,)
    float* known = reinterpret_cast<float*>(scratch + PLAN_THREADS);    // (8,)
    float* first = known + 8;                                      // (HIDDEN,)
    float* hidden = first + HIDDEN;                                // (HIDDEN,)
    float* explained = hidden + HIDDEN;                            // (R,)
    const int block = blockIdx.x, blocks = gridDim.x, frame = blockIdx.y, thread = threadIdx.x;

    const float noise = statistics[frame], precise = precision ? precision[frame] : 0.0f;
    const float relative = fminf(fmaxf(noise * sqrtf((float)(voxels / fmax(power, 1e-12))), 1e-4f), 1e3f);
    condition += ((size_t)frame * 2 + 1) * WIDTHS * voxels;  // deviations under white priors
    for (int w = 0; w < WIDTHS; ++w) {
        double sum = 0.0;
        for (int n = thread; n < voxels; n += PLAN_THREADS) sum += logf(condition[(size_t)w * voxels + n] / widths[w]);
        sum = block_sum(sum, scratch);
        if (thread == 0) known[2 + w] = (float)(sum / voxels);
    }
    if (thread == 0) known[0] = 0.5f * logf(relative), known[1] = 0.5f * log1pf(precise);
    __syncthreads();
    if (thread < HIDDEN) first[thread] = silu(dense(embed1 + thread * KNOWN, embed1_bias[thread], known, KNOWN));
    __syncthreads();
    if (thread < HIDDEN) hidden[thread] = silu(dense(embed2 + thread * HIDDEN, embed2_bias[thread], first, HIDDEN));
    __syncthreads();
    for (int c = offsets[block] + thread; c < offsets[block + 1]; c += PLAN_THREADS)
        modulation[(size_t)frame * offsets[blocks] + c] =
            dense(modulate + (size_t)c * HIDDEN, modulate_bias[c], hidden, HIDDEN);

    // Every thread computes this, because 64 products take less time than a barrier. Before the first block, only the
    // root-mean-square of an image, one, is known.
    const float learned = dense(spread_weight + block * HIDDEN, spread_bias[block], hidden, HIDDEN);
    const float factor = expf(fminf(fmaxf(learned, -6.0f), 6.0f));
    const float certainty = block ? (4.0f / fminf(relative, 4.0f) + precise) / (factor * factor) : 1.0f;
    const float r = 1.0f / sqrtf(certainty + precise);
    if (thread == 0) {
        spread[(size_t)frame * blocks + block] = r;
        share[(size_t)frame * blocks + block] = certainty / (certainty + precise);
    }
    const auto explains = [&](int j) {
        const float strength = r * singular[j];
        return strength * strength / (strength * strength + noise * noise);
    };
    if (explained_out) {
        const int groups = (blocks + GROUP - 1) / GROUP, column = block % GROUP;
        float* row = explained_out + ((size_t)frame * groups + block / GROUP) * rank * GROUP;
        const int end = block == blocks - 1 ? GROUP : column + 1;  // the last network block fills its group with zeros
        for (int j = thread; j < rank; j += PLAN_THREADS)
            for (int c = column; c < end; ++c) row[(size_t)j * GROUP + c] = c == column ? explains(j) : 0.0f;
        return;
    }
    for (int j = thread; j < rank; j += PLAN_THREADS) explained[j] = explains(j);
    __syncthreads();
    deviation += ((size_t)frame * blocks + block) * voxels;
    for (int n = thread; n < voxels; n += PLAN_THREADS) {
        float sum = 0.0f;
#pragma unroll 16
        for (int j = 0; j < rank; ++j) {
            const float element = basis_t[(size_t)j * voxels + n];
            sum += element * element * explained[j];
        }
        deviation[n] = r * sqrtf(fmaxf(1.0f - sum, 1e-6f));
    }
}
