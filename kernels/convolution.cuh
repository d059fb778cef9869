// Convolutions on tensor cores, from shared memory: implicit matrix products with float16 factors and float32 sums.
//
// A tile of an image is in shared memory with its channels last, in pairs of float16. Its pitch (in pairs) is 4 times
// an odd number, so that the eight pixels of a fragment are in different banks. A row of the left matrix is a pixel,
// and 16 of its columns are 16 channels of one tap, so the pixels under the taps are never copied into a matrix
// (im2col). Weights are stored in the order in which lanes read them (`weights.pack`): 8 bytes per lane, 256 per warp,
// in one read.
#pragma once
#include "device.cuh"

// Rounds to float16 by bit arithmetic: for GPUs without an instruction for it, and for tests on CPUs.
__device__ inline unsigned short half_bits(float value) {
    const unsigned sign = (__float_as_uint(value) >> 16) & 0x8000u, bits = __float_as_uint(value) & 0x7fffffffu;
    unsigned half;
    if (bits >= 0x47800000u)  // 65536 and above, infinity, NaN
        half = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
    else if (bits < 0x38800000u)  // below 2^-14: adding 0.5 rounds to a multiple of 2^-24, found in the lowest bits
        half = __float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000u;
    else  // changes the bias of the exponent by 112, and rounds to nearest even
        half = (bits - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    return (unsigned short)(sign | half);
}

__device__ inline unsigned pair_of(float low, float high) {  // two float16, rounded to nearest
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return half_bits(low) | (unsigned)half_bits(high) << 16;
#endif
}

#ifdef __CUDACC__
// d += a b for matrices of 16 x 16 and 16 x 8, by one warp; on Turing in two halves.
__device__ inline void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int half = 0; half < 2; ++half)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}
#endif

// A convolution by one thread block, 3 x 3 (SIDE 3) or 1 x 1 (SIDE 1), without padding: pixels outside of the image are
// zeros in the tile. `in` has `width` pixels in a row, with GROUPS * 16 channels. There are rows x columns outputs,
// with stride STRIDE and 8 * TILES channels, of which a warp computes 16 pixels x 8 * SHARE channels at a time.
// `finish(row, column, channel, v0, v1)` receives channels `channel` and `channel + 1` of one output.
template <int GROUPS, int TILES, int SHARE, int SIDE, int STRIDE, class Finish>
__device__ inline void convolve(const unsigned* in, int pitch, int width, int rows, int columns,
                                const uint2* __restrict__ weights, Finish finish) {
    static_assert(TILES % SHARE == 0, "SHARE must divide TILES");
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int count = rows * columns, parts = (count + 15) / 16;
    for (int part = warp; part < parts * (TILES / SHARE); part += warps) {
        const int first = part / (TILES / SHARE) * 16 + lane / 4, tile = part % (TILES / SHARE) * SHARE;
        const unsigned* pixel[2];
        for (int i = 0; i < 2; ++i) {
            const int output = min(first + 8 * i, count - 1);  // surplus outputs repeat the last one and are discarded
            pixel[i] = in + ((output / columns) * STRIDE * width + (output % columns) * STRIDE) * pitch + lane % 4;
        }
        float sum[SHARE][4] = {};
        const uint2* weight = weights + tile * 32 + lane;
#pragma unroll
        for (int tap = 0; tap < SIDE * SIDE; ++tap) {
            const int at = (tap / SIDE * width + tap % SIDE) * pitch;
#pragma unroll
            for (int group = 0; group < GROUPS; ++group) {
                const int from = at + group * 8;
                const unsigned a[4] = {pixel[0][from], pixel[1][from], pixel[0][from + 4], pixel[1][from + 4]};
#pragma unroll
                for (int n = 0; n < SHARE; ++n) {
                    const uint2 w = weight[n * 32];
                    const unsigned b[2] = {w.x, w.y};
                    mma_16x8x16(sum[n], a, b);
                }
                weight += TILES * 32;
            }
        }
        for (int i = 0; i < 2; ++i) {
            const int output = first + 8 * i;
            if (output < count)
                for (int n = 0; n < SHARE; ++n)
                    finish(output / columns, output % columns, (tile + n) * 8 + lane % 4 * 2, sum[n][2 * i],
                           sum[n][2 * i + 1]);
        }
    }
}
