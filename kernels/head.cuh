// The last convolution of a block, in float32: 16 channels to one output of one pixel.
#pragma once

// `active` (N, 16) and `weights` (9, 16) of one image and output; zero outside of the image.
__device__ inline float head(const float* __restrict__ active, const float* __restrict__ weights, float bias, int voxel,
                             int rows, int columns) {
    float sum = bias;
    for (int tap = 0; tap < 9; ++tap) {
        const int row = voxel / columns + tap / 3 - 1, column = voxel % columns + tap % 3 - 1;
        if (row < 0 || row >= rows || column < 0 || column >= columns) continue;
        const float4* pixel = reinterpret_cast<const float4*>(active + (row * columns + column) * 16);
        const float4* weight = reinterpret_cast<const float4*>(weights + tap * 16);
        for (int i = 0; i < 4; ++i) {
            const float4 p = pixel[i], w = weight[i];
            sum += p.x * w.x + p.y * w.y + p.z * w.z + p.w * w.w;
        }
    }
    return sum;
}
