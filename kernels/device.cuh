// Functions and types that several kernels use.
//
// The kernels are plain CUDA C++17 without headers, so that NVRTC compiles them from their source alone.
// tests/cuda_shim builds the same source with g++, with one fiber per CUDA thread.
#pragma once

__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }

// One row of a narrow matrix in shared memory. All threads of a warp read the same row at the same time, 16 bytes per
// instruction.
template <int WIDTH>
struct alignas(WIDTH % 4 == 0 ? 16 : WIDTH % 2 == 0 ? 8 : 4) Row {
    float value[WIDTH];
};

// Sum of one number per thread over the thread block, returned to every thread; `scratch` holds blockDim.x doubles.
__device__ inline double block_sum(double value, double* scratch) {
    scratch[threadIdx.x] = value;
    __syncthreads();
    for (int count = blockDim.x; count > 1;) {
        const int half = (count + 1) / 2;
        if ((int)threadIdx.x + half < count) scratch[threadIdx.x] += scratch[threadIdx.x + half];
        __syncthreads();
        count = half;
    }
    const double sum = scratch[0];
    __syncthreads();  // the next use of scratch may overwrite it
    return sum;
}
