// How a frame's errors are spread, of the average of its features.
#pragma once

constexpr int LEVELS = 2;  // of uncertainty.py

// One of `LEVELS` quantiles of the errors next to the deviation: `tails` (LEVELS, width), `bias` (LEVELS,).
__device__ inline float quantile(const float* __restrict__ tails, const float* __restrict__ bias, const float* average,
                                 int width, int level) {
    float sum = bias[level];
    for (int c = 0; c < width; ++c) sum += tails[level * width + c] * average[c];
    return expf(sum);
}
