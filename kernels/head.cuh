// The last convolution of a network block, in float32, from 16 channels to one output.
#pragma once
#include "slices.cuh"

// One output of the voxel, from `active` (N, 16) and `weights` (9, 16); padded by zeros outside of the voxel's slice.
__device__ inline float head(const float* __restrict__ active, const float* __restrict__ weights, float bias, int voxel,
                             const Slices& slices) {
    const Pixel centre = slices.pixel(voxel);
    const int first = voxel - slices.offset(centre.row, centre.column);
    float sum = bias;
#pragma unroll 3
    for (int tap = 0; tap < 9; ++tap) {
        const int row = centre.row + tap / 3 - 1, column = centre.column + tap % 3 - 1;
        if (!slices.holds(row, column)) continue;
        const float4* pixel = reinterpret_cast<const float4*>(active + (first + slices.offset(row, column)) * 16);
        const float4* weight = reinterpret_cast<const float4*>(weights + tap * 16);
        for (int i = 0; i < 4; ++i) {
            const float4 p = pixel[i], w = weight[i];
            sum += p.x * w.x + p.y * w.y + p.z * w.z + p.w * w.w;
        }
    }
    return sum;
}
