// fine: data-consistency step of a network block and its convolutions at full resolution, in one launch.
//
//     changes  = V g residual,   g = S r^2 / (S^2 r^2 + sigma^2)      for r = r_k, 4 r_k; for volumes by changes.cu
//     base     = mean + changes for r_k
//     injected = mean, asinh(changes / d), log(d / r) / 2; in the first block also the estimates from the signals alone
//     x        = inject(injected) + features                          features of the block before
//     h        = first(silu(x)) (1 + gain) + shift
//     out      = x + second(silu(h)),   active = silu(out)
//
// A thread block computes TILE x TILE pixels of one image, and recomputes a margin of three pixels, which belongs to
// its neighbours. This saves three launches, and for 10 x 10 pixels the three convolutions compute 440 pixels instead
// of 300. For few frames, tiles of 5 x 5 pixels take half as many operations again, on four times as many
// multiprocessors. The factors of convolutions are float16; sums, and all values that are passed on, are float32.
// Results do not depend on the size of the tiles.
//
// Performance: 19 x 19 pixels are four tiles, each with 13 + 9 + 7 fragments of 16 pixels for each of nine taps. That
// is 1.1 M multiply-adds on tensor cores, so the time of a single image is that of launch and latency. The 14 KB of
// weights stay in the L1 cache. A tile of 5 x 5 pixels reads the rows of V of 121 pixels: 72 KB at rank 150, 0.8 us at
// 48 bytes per clock. A volume of 19 x 19 x 19 voxels has 76 tiles of 10 x 10 pixels, a single round of an H100's
// multiprocessors; its changes are computed by changes.cu, which explains why.
//
// Tested against PyTorch by tests/test_network_kernels.py.
#include "convolution.cuh"
#include "slices.cuh"

#ifndef TILE
#define TILE 10
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
#define FINE_BOUNDS __launch_bounds__(FINE_THREADS, 3)  // as many as fit into shared memory; more would spill registers
#else
#define FINE_BOUNDS __launch_bounds__(FINE_THREADS)
#endif

constexpr int WIDTH = 16, PITCH = 12, FINE_THREADS = 256, VIEWS = 2, CONDITION = 10;

// grid (slices * tiles, frames), shared memory: see `tiles.fine_shared`
extern "C" __global__ void FINE_BOUNDS
fine(const float* __restrict__ statistics,    // (5, frames): row 0 is the noise
     const float* __restrict__ changes,       // (frames, VIEWS, N), or null: computed from the next three arrays
     const float* __restrict__ residual,      // (frames, R)
     const float* __restrict__ singular,      // (R,)
     const float* __restrict__ basis_t,       // (R, N)
     const float* __restrict__ spread,        // (frames, K)
     const float* __restrict__ deviation,     // (frames, K, N)
     const float* __restrict__ condition,     // (frames, 10, N), see prepare.cu
     const float* __restrict__ widths,        // (5,)
     const float* __restrict__ mean,          // (frames, N)
     const float* __restrict__ features,      // (frames, N, 16); not read by the first block
     const uint2* __restrict__ weights,       // packed, of three convolutions, 9 x 2 x 32 each
     const float* __restrict__ bias,          // (3, 16)
     const float* __restrict__ modulation,    // (frames, pitch): gain and shift of this block, from `offset` on
     int pitch, int offset, int block, int blocks, int rank, int voxels,  // rank is 0 if changes are given
     int rows, int columns, int apart, int per_row, int per_column,       // members of Slices
     float* __restrict__ base,                // (frames, N)
     float* __restrict__ out,                 // (frames, N, 16)
     float* __restrict__ active)              // (frames, N, 16), or null
{
    extern __shared__ float4 shared[];
    constexpr int IN = TILE + 6, X = TILE + 4, H = TILE + 2, PIXELS = IN * IN;
    static_assert(PIXELS <= FINE_THREADS, "each thread computes at most one pixel of the tile and its margin");
    unsigned* given = reinterpret_cast<unsigned*>(shared);           // (IN, IN, PITCH); later h
    unsigned* x = given + PIXELS * PITCH;                            // (X, X, PITCH)
    float* kept = reinterpret_cast<float*>(x + X * X * PITCH);       // (TILE, TILE, WIDTH)
    Row<VIEWS>* gained = reinterpret_cast<Row<VIEWS>*>(kept + TILE * TILE * WIDTH);  // (R,)
    const Slices slices = {rows, columns, apart, per_row, per_column};
    const Tile tile = tile_of(blockIdx.x, TILE, rows, columns, apart);
    const int top = tile.top, left = tile.left, frame = blockIdx.y, thread = threadIdx.x;
    const size_t slice = (size_t)frame * voxels + tile.first;
    const float* gain = modulation + (size_t)frame * pitch + offset;
    const auto at = [&](int row, int column) { return slice + slices.offset(row, column); };

    const float noise = statistics[frame], r = spread[(size_t)frame * blocks + block];
    for (int j = thread; j < rank; j += FINE_THREADS) {
        const float s = singular[j], left_over = residual[(size_t)frame * rank + j];
        for (int v = 0; v < VIEWS; ++v) {
            const float wide = v ? 4.0f * r : r, strength = wide * s;
            gained[j].value[v] = wide * strength / (strength * strength + noise * noise) * left_over;
        }
    }
    __syncthreads();
    if (thread < PIXELS) {
        const int row = top - 3 + thread / IN, column = left - 3 + thread % IN;
        unsigned* to = given + thread * PITCH;
        for (int i = 0; i < WIDTH / 2; ++i) to[i] = 0;
        if (slices.holds(row, column)) {
            const int n = tile.first + slices.offset(row, column);
            float changed[VIEWS] = {};
#pragma unroll 8
            for (int j = 0; j < rank; ++j) {
                const float element = basis_t[(size_t)j * voxels + n];
                for (int v = 0; v < VIEWS; ++v) changed[v] += element * gained[j].value[v];
            }
            if (changes)
                for (int v = 0; v < VIEWS; ++v) changed[v] = changes[((size_t)frame * VIEWS + v) * voxels + n];
            const float m = mean[at(row, column)], d = deviation[((size_t)frame * blocks + block) * voxels + n];
            to[0] = pair_of(m, asinhf(changed[0] / d));
            to[1] = pair_of(asinhf(changed[1] / d), 0.5f * logf(d / r));
            if (block == 0) {  // five means, and the logarithms of five deviations
                const float* white = condition + (size_t)frame * CONDITION * voxels + n;
                float shown[CONDITION];
                for (int w = 0; w < CONDITION / 2; ++w) {
                    shown[w] = white[(size_t)w * voxels] / sqrtf(widths[w]);
                    shown[CONDITION / 2 + w] = 0.5f * logf(white[(size_t)(CONDITION / 2 + w) * voxels] / widths[w]);
                }
                for (int i = 0; i < CONDITION / 2; ++i) to[2 + i] = pair_of(shown[2 * i], shown[2 * i + 1]);
            }
            const bool mine = row >= top && row < top + TILE && column >= left && column < left + TILE;
            if (mine) base[at(row, column)] = m + changed[0];
        }
    }
    __syncthreads();
    convolve<1, 2, 2, 3, 1>(given, PITCH, IN, X, X, weights, [&](int r, int c, int channel, float v0, float v1) {
        const int row = top - 2 + r, column = left - 2 + c;
        unsigned pair = 0;
        if (slices.holds(row, column)) {
            v0 += bias[channel], v1 += bias[channel + 1];
            if (block) {
                const float* before = features + at(row, column) * WIDTH + channel;
                v0 += before[0], v1 += before[1];
            }
            pair = pair_of(silu(v0), silu(v1));
            if (r >= 2 && r < TILE + 2 && c >= 2 && c < TILE + 2) {
                float* mine = kept + ((r - 2) * TILE + c - 2) * WIDTH + channel;
                mine[0] = v0, mine[1] = v1;
            }
        }
        x[(r * X + c) * PITCH + channel / 2] = pair;
    });
    __syncthreads();
    unsigned* h = given;
    convolve<1, 2, 2, 3, 1>(x, PITCH, X, H, H, weights + 576, [&](int r, int c, int channel, float v0, float v1) {
        unsigned pair = 0;
        if (slices.holds(top - 1 + r, left - 1 + c)) {
            v0 = (v0 + bias[WIDTH + channel]) * (1.0f + gain[channel]) + gain[WIDTH + channel];
            v1 = (v1 + bias[WIDTH + channel + 1]) * (1.0f + gain[channel + 1]) + gain[WIDTH + channel + 1];
            pair = pair_of(silu(v0), silu(v1));
        }
        h[(r * H + c) * PITCH + channel / 2] = pair;
    });
    __syncthreads();
    weights += 1152;
    convolve<1, 2, 2, 3, 1>(h, PITCH, H, TILE, TILE, weights, [&](int r, int c, int channel, float v0, float v1) {
        if (!slices.holds(top + r, left + c)) return;
        const float* mine = kept + (r * TILE + c) * WIDTH + channel;
        const size_t where = at(top + r, left + c) * WIDTH + channel;
        v0 += mine[0] + bias[2 * WIDTH + channel], v1 += mine[1] + bias[2 * WIDTH + channel + 1];
        out[where] = v0, out[where + 1] = v1;
        if (active) active[where] = silu(v0), active[where + 1] = silu(v1);
    });
}
