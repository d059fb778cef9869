// One kernel as a shared library: g++ -include cuda_shim.h -DSOURCE='"reduce.cu"' -DKERNEL=reduce kernel.cpp
#include SOURCE

Index threadIdx, blockIdx, blockDim, gridDim;
float4 shared[shim::SHARED / sizeof(float4)];

void __syncthreads() {
    shim::Fiber& fiber = shim::fibers[shim::current];
    fiber.status = shim::WAITING;
    shim::to_scheduler(fiber);
}

// Returns what went wrong, or null.
extern "C" const char* launch(void** arguments, unsigned grid_x, unsigned grid_y, unsigned threads, size_t bytes,
                              int backwards) {
    return shim::launch(KERNEL, arguments, {grid_x, grid_y, 1}, threads, bytes, backwards);
}
