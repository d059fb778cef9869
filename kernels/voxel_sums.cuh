// Sums over the columns of V in each voxel, for images that are too large for one thread block:
//
//     sum_i[n] = sum_j V[n, j] factor[j, i]        for the first LINEAR factors,
//     sum_i[n] = sum_j V[n, j]^2 factor[j, i]      for the SQUARES factors after them
//
// A thread block computes 32 voxels, one for each lane, and its warps share the columns of V. So V^T is read once, in
// whole cache lines, for any number of sums and images. The sums of warps go through shared memory and are added in the
// order of warps, so that results are the same in every run and for every TOGETHER.
#pragma once
#include "device.cuh"

constexpr int SUMS_VOXELS = 32, SUMS_SHARES = 8, SUMS_THREADS = SUMS_VOXELS * SUMS_SHARES;

// `factors` are (R, LINEAR + SQUARES) for each of TOGETHER frames; `scratch` holds SUMS_THREADS * TOGETHER * (LINEAR +
// SQUARES) floats. `finish(frame, i, voxel, sum)` is called once for each sum, also for surplus frames after the last
// one, which are given the factors of the last one.
template <int TOGETHER, int LINEAR, int SQUARES, class Finish>
__device__ inline void voxel_sums(const float* __restrict__ basis_t, int rank, int voxels, int first,
                                  const Row<LINEAR + SQUARES>* const (&factors)[TOGETHER], float* scratch,
                                  Finish finish) {
    constexpr int COUNT = LINEAR + SQUARES;
    const int lane = threadIdx.x % SUMS_VOXELS, share = threadIdx.x / SUMS_VOXELS, voxel = first + lane;
    float sum[TOGETHER][COUNT] = {};
    if (voxel < voxels) {
        const float* column = basis_t + voxel;
#pragma unroll 4
        for (int j = share; j < rank; j += SUMS_SHARES) {
            const float element = column[(size_t)j * voxels], square = element * element;
#pragma unroll
            for (int f = 0; f < TOGETHER; ++f) {
                const Row<COUNT> factor = factors[f][j];
#pragma unroll
                for (int i = 0; i < COUNT; ++i) sum[f][i] += (i < LINEAR ? element : square) * factor.value[i];
            }
        }
    }
#pragma unroll
    for (int f = 0; f < TOGETHER; ++f)
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            scratch[((f * COUNT + i) * SUMS_SHARES + share) * SUMS_VOXELS + lane] = sum[f][i];
    __syncthreads();
    if (voxel >= voxels) return;
    for (int which = share; which < TOGETHER * COUNT; which += SUMS_SHARES) {
        float total = 0.0f;
        for (int other = 0; other < SUMS_SHARES; ++other)
            total += scratch[(which * SUMS_SHARES + other) * SUMS_VOXELS + lane];
        finish(which / COUNT, which % COUNT, voxel, total);
    }
}
