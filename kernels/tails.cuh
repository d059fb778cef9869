// Quantiles of a frame's errors, from the average of its features.
#pragma once

constexpr int LEVELS = 2;  // number of levels in uncertainty.py

// Quantile number `level` of the errors relative to the deviation, by a dense layer `tails` (LEVELS, width), `bias`
// (LEVELS,).
__device__ inline float quantile(const float* __restrict__ tails, const float* __restrict__ bias, const float* average,
                                 int width, int level) {
    float sum = bias[level];
    for (int c = 0; c < width; ++c) sum += tails[level * width + c] * average[c];
    return expf(sum);
}
