// One kernel as a shared library: g++ -include cuda_shim.h -DSOURCE='"reduce.cu"' -DKERNEL=reduce kernel.cpp
#include SOURCE

Index threadIdx, blockIdx, blockDim, gridDim;
float4 shared[shim::SHARED / sizeof(float4)];

void __syncthreads() {
    shim::Fiber& fiber = shim::fibers[shim::current];
    fiber.status = shim::WAITING;
    shim::to_scheduler(fiber);
}

namespace {
float half(unsigned word, int upper) {
    const unsigned bits = upper ? word >> 16 : word & 0xffffu, magnitude = bits & 0x7fffu;
    const float value = magnitude < 0x7c00u ? __uint_as_float(magnitude << 13) * 0x1p112f
                                            : __uint_as_float(magnitude << 13 | 0x7f800000u);
    return bits & 0x8000u ? -value : value;
}

// Operands of the lanes, in two sets, so that a lane can store those of the next product before others have read these.
unsigned brought_a[2][shim::MOST_THREADS][4], brought_b[2][shim::MOST_THREADS][2];
unsigned char turn[shim::MOST_THREADS];
}  // namespace

void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const unsigned me = shim::current, lane = me % 32, first = me - lane;
    const int now = turn[me] ^= 1;
    for (int i = 0; i < 4; ++i) brought_a[now][me][i] = a[i];
    for (int i = 0; i < 2; ++i) brought_b[now][me][i] = b[i];
    shim::fibers[me].status = shim::MEETING;
    shim::to_scheduler(shim::fibers[me]);
    for (int i = 0; i < 4; ++i) {  // rows lane / 4 and + 8, columns 2 (lane % 4) and + 1, as PTX lays them out
        const unsigned row = lane / 4, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k) {
            const unsigned pair = k % 8 / 2;
            const unsigned left = brought_a[now][first + row * 4 + pair][i / 2 + k / 8 * 2];
            const unsigned right = brought_b[now][first + column * 4 + pair][k / 8];
            d[i] += half(left, k % 2) * half(right, k % 2);
        }
    }
}

// Returns an error message, or null.
extern "C" const char* launch(void** arguments, unsigned grid_x, unsigned grid_y, unsigned threads, size_t bytes,
                              int backwards) {
    return shim::launch(KERNEL, arguments, {grid_x, grid_y, 1}, threads, bytes, backwards);
}
