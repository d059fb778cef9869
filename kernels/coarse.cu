// coarse: correction of the features of a network block at half resolution, in one launch.
//
//     half   = down(silu(features))                                  stride 2, 16 -> 32 channels
//     half  += second(silu(first(silu(half)) (1 + gain) + shift))
//     out    = features + shuffle(up(half)),   active = silu(out)
//
// up is a 1 x 1 convolution to 4 x 16 channels, and shuffle moves these to four pixels: channel 4 w + 2 dy + dx becomes
// channel w of the pixel (2 i + dy, 2 j + dx). A thread block computes TILE x TILE pixels of half resolution, and
// recomputes a margin of two pixels, which belongs to its neighbours. For few frames the tiles are small, so that they
// occupy more multiprocessors. Results do not depend on the size of the tiles.
//
// Performance: 19 x 19 pixels are 10 x 10 pixels of half resolution, four tiles of 1.4 M multiply-adds on tensor cores.
// One takes 2 us on a multiprocessor of an RTX 4090 at its peak, less on data-centre GPUs. The 50 KB of weights come
// from the L2 cache in 0.5 us.
//
// Tested against PyTorch by tests/test_network_kernels.py.
#include "convolution.cuh"
#include "slices.cuh"

#ifndef TILE
#define TILE 5
#endif

constexpr int WIDTH = 16, INNER = 32, PITCH = 12, WIDE = 20, COARSE_THREADS = 256;
constexpr int DOWN = 9 * 4 * 32, INSIDE = 18 * 4 * 32;  // packed weights of down, and of first and second, in uint2

// grid (slices * tiles, frames), shared memory: see `tiles.coarse_shared`
extern "C" __global__ void __launch_bounds__(COARSE_THREADS)
coarse(const float* __restrict__ features,    // (frames, N, 16)
       const uint2* __restrict__ weights,     // packed, of down, first, second and up
       const float* __restrict__ bias,        // (3 * 32 + 64,)
       const float* __restrict__ modulation,  // (frames, pitch): gain and shift of this block, from `offset` on
       int pitch, int offset, int voxels,
       int rows, int columns, int apart, int per_row, int per_column,  // members of Slices
       float* __restrict__ out,               // (frames, N, 16)
       float* __restrict__ active)            // (frames, N, 16)
{
    extern __shared__ float4 shared[];
    constexpr int HALF = TILE + 4, H = TILE + 2, IN = 2 * HALF + 1;
    unsigned* given = reinterpret_cast<unsigned*>(shared);      // (IN, IN, PITCH); later h (H, H, WIDE)
    unsigned* half = given + IN * IN * PITCH;                   // (HALF, HALF, WIDE); later the input of up
    float* kept = reinterpret_cast<float*>(half + HALF * HALF * WIDE);  // (TILE, TILE, INNER)
    const Slices slices = {rows, columns, apart, per_row, per_column};
    const int down = (rows + 1) / 2, along = (columns + 1) / 2;
    const Tile tile = tile_of(blockIdx.x, TILE, down, along, apart);
    const int top = tile.top, left = tile.left;
    const size_t slice = (size_t)blockIdx.y * voxels + tile.first;
    const float* gain = modulation + (size_t)blockIdx.y * pitch + offset;
    const auto inside = [&](int row, int column) { return row >= 0 && row < down && column >= 0 && column < along; };

    for (int i = threadIdx.x; i < IN * IN * (WIDTH / 2); i += COARSE_THREADS) {
        const int pixel = i / (WIDTH / 2), pair = i % (WIDTH / 2);
        const int row = 2 * (top - 2) - 1 + pixel / IN, column = 2 * (left - 2) - 1 + pixel % IN;
        unsigned value = 0;
        if (slices.holds(row, column)) {
            const float* from = features + (slice + slices.offset(row, column)) * WIDTH + 2 * pair;
            value = pair_of(silu(from[0]), silu(from[1]));
        }
        given[pixel * PITCH + pair] = value;
    }
    __syncthreads();
    convolve<1, 4, 2, 3, 2>(given, PITCH, IN, HALF, HALF, weights, [&](int r, int c, int channel, float v0, float v1) {
        unsigned pair = 0;
        if (inside(top - 2 + r, left - 2 + c)) {
            v0 += bias[channel], v1 += bias[channel + 1];
            pair = pair_of(silu(v0), silu(v1));
            if (r >= 2 && r < TILE + 2 && c >= 2 && c < TILE + 2) {
                float* mine = kept + ((r - 2) * TILE + c - 2) * INNER + channel;
                mine[0] = v0, mine[1] = v1;
            }
        }
        half[(r * HALF + c) * WIDE + channel / 2] = pair;
    });
    __syncthreads();
    unsigned* h = given;
    weights += DOWN, bias += INNER;
    convolve<2, 4, 2, 3, 1>(half, WIDE, HALF, H, H, weights, [&](int r, int c, int channel, float v0, float v1) {
        unsigned pair = 0;
        if (inside(top - 1 + r, left - 1 + c)) {
            v0 = (v0 + bias[channel]) * (1.0f + gain[channel]) + gain[INNER + channel];
            v1 = (v1 + bias[channel + 1]) * (1.0f + gain[channel + 1]) + gain[INNER + channel + 1];
            pair = pair_of(silu(v0), silu(v1));
        }
        h[(r * H + c) * WIDE + channel / 2] = pair;
    });
    __syncthreads();
    weights += INSIDE, bias += INNER;
    convolve<2, 4, 2, 3, 1>(h, WIDE, H, TILE, TILE, weights, [&](int r, int c, int channel, float v0, float v1) {
        unsigned pair = 0;
        if (inside(top + r, left + c)) {
            const float* mine = kept + (r * TILE + c) * INNER + channel;
            pair = pair_of(mine[0] + v0 + bias[channel], mine[1] + v1 + bias[channel + 1]);
        }
        half[(r * TILE + c) * WIDE + channel / 2] = pair;
    });
    __syncthreads();
    weights += INSIDE, bias += INNER;
    convolve<2, 8, 4, 1, 1>(half, WIDE, TILE, TILE, TILE, weights, [&](int r, int c, int channel, float v0, float v1) {
        const int row = 2 * (top + r) + channel % 4 / 2, column = 2 * (left + c);
        for (int dx = 0; dx < 2; ++dx) {
            if (row >= rows || column + dx >= columns) continue;
            const size_t where = (slice + slices.offset(row, column + dx)) * WIDTH + channel / 4;
            const float value = features[where] + (dx ? v1 : v0) + bias[channel + dx];
            out[where] = value;
            active[where] = silu(value);
        }
    });
}
