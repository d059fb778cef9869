// Convolutions on tensor cores, from shared memory: implicit matrix products with float16 factors and float32 sums.
//
// A tile of an image lies in shared memory with its channels last, in pairs of float16, and a pitch (in pairs) that is 4
// modulo 8 times an odd number, so that the eight pixels of a fragment lie in different banks. A row of the left matrix
// is a pixel, a step of 16 in its columns is 16 channels of one tap: no copy is ever made of what the taps see (im2col).
// Weights come in the order in which lanes take them (`weights.pack`): one read of 8 bytes a lane, 256 a warp.
#pragma once
#include "device.cuh"

// Rounded to float16, by bit arithmetic: for GPUs without an instruction for it, and for CPUs, where it is tested.
__device__ inline unsigned short half_bits(float value) {
    const unsigned sign = (__float_as_uint(value) >> 16) & 0x8000u, bits = __float_as_uint(value) & 0x7fffffffu;
    unsigned half;
    if (bits >= 0x47800000u)  // 65536 and above, infinity, NaN
        half = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
    else if (bits < 0x38800000u)  // below 2^-14: adding 0.5 leaves a multiple of 2^-24 in the lowest bits, rounded
        half = __float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000u;
    else  // the exponent's bias changes by 112, then as above
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
// d += a b, of 16 x 16 and 16 x 8 by a warp; on Turing in two halves.
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

// One convolution by a block of threads, 3 x 3 (SIDE 3) or of single pixels (SIDE 1), without padding: what lies outside
// of the image is zero in the tile. `in` has `width` pixels in a row, of GROUPS * 16 channels; there are rows x columns
// outputs, STRIDE apart, of 8 * TILES channels, of which a warp makes 16 pixels x 8 * SHARE channels at a time.
// `finish(row, column, channel, v0, v1)` gets channels `channel` and `channel + 1` of one output.
template <int GROUPS, int TILES, int SHARE, int SIDE, int STRIDE, class Finish>
__device__ inline void convolve(const unsigned* in, int pitch, int width, int rows, int columns,
                                const uint2* __restrict__ weights, Finish finish) {
    static_assert(TILES % SHARE == 0, "a warp takes whole shares of the channels");
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int count = rows * columns, parts = (count + 15) / 16;
    for (int part = warp; part < parts * (TILES / SHARE); part += warps) {
        const int first = part / (TILES / SHARE) * 16 + lane / 4, tile = part % (TILES / SHARE) * SHARE;
        const unsigned* pixel[2];
        for (int i = 0; i < 2; ++i) {
            const int output = min(first + 8 * i, count - 1);  // beyond the last one: computed, and not used
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
