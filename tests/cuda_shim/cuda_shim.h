// A GPU of one multiprocessor, for tests: what the kernels use of CUDA, in C++17.
//
// Every CUDA thread is a ucontext fiber. Between two barriers the fibers of a block run one after the other, in the
// order asked for: a kernel whose result depends on it lacks a barrier. A barrier that some threads of a block do not
// reach is an error, shared memory starts as NaN, and what lies beyond the bytes asked for is poisoned for the address
// sanitizer. What this cannot show: races between blocks, bank conflicts, misaligned vector loads, occupancy.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __shared__  // only `extern __shared__ float4 shared[]` is understood: all shared memory is dynamic
#define __launch_bounds__(threads)

using std::max;
using std::min;

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct Index { unsigned x, y, z; };

extern Index threadIdx, blockIdx, blockDim, gridDim;
extern float4 shared[];

inline unsigned __float_as_uint(float value) { unsigned bits; std::memcpy(&bits, &value, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float value; std::memcpy(&value, &bits, 4); return value; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
inline void sincospif(float x, float* sine, float* cosine) {
    *sine = (float)std::sin(M_PI * (double)x);
    *cosine = (float)std::cos(M_PI * (double)x);
}
void __syncthreads();

namespace shim {

enum Status { READY, WAITING, DONE };

struct Fiber {
    ucontext_t context;
    char* stack;
    Status status;
};

constexpr size_t STACK = 128 << 10, SHARED = 96 << 10;

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline unsigned current;
inline std::function<void()> body;

// The address sanitizer must be told whenever the stack changes.
inline void leave(void** fake, const void* bottom, size_t size) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(fake, bottom, size);
#endif
    (void)fake, (void)bottom, (void)size;
}

inline void arrive(void* fake, const void** bottom, size_t* size) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, bottom, size);
#endif
    (void)fake, (void)bottom, (void)size;
}

inline const void* scheduler_bottom;
inline size_t scheduler_size;

inline void enter() {
    arrive(nullptr, &scheduler_bottom, &scheduler_size);
    body();
    fibers[current].status = DONE;
    leave(nullptr, scheduler_bottom, scheduler_size);  // never comes back
    swapcontext(&fibers[current].context, &scheduler);
}

inline void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread, 0, 0};
    void* fake = nullptr;
    leave(&fake, fibers[thread].stack, STACK);
    swapcontext(&scheduler, &fibers[thread].context);
    arrive(fake, nullptr, nullptr);
}

inline const char* run_block(unsigned threads, bool backwards) {
    for (unsigned t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        fiber.status = READY;
        makecontext(&fiber.context, enter, 0);
    }
    for (Status all = READY; all != DONE;) {
        for (unsigned i = 0; i < threads; ++i) resume(backwards ? threads - 1 - i : i);
        all = fibers[0].status;
        for (unsigned t = 1; t < threads; ++t)
            if (fibers[t].status != all) return "divergent barrier: some threads of a block wait, others have returned";
    }
    return nullptr;
}

template <class... Arguments, size_t... I>
const char* launch(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>, Index grid,
                   unsigned threads, size_t bytes, bool backwards) {
    if (bytes > SHARED) return "more shared memory than the shim has";
    while (fibers.size() < threads) {
        void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        fibers.push_back({{}, static_cast<char*>(stack), READY});
    }
    // Arguments are addresses of values, as cuLaunchKernel takes them.
    body = [=] { kernel(*static_cast<Arguments*>(arguments[I])...); };
    gridDim = grid;
    blockDim = {threads, 1, 1};
    for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
            blockIdx = {x, y, 0};
            char* memory = reinterpret_cast<char*>(shared);
#ifdef __SANITIZE_ADDRESS__
            __asan_unpoison_memory_region(memory, SHARED);
#endif
            std::memset(memory, 0xff, SHARED);
#ifdef __SANITIZE_ADDRESS__
            __asan_poison_memory_region(memory + bytes, SHARED - bytes);
#endif
            if (const char* error = run_block(threads, backwards)) return error;
        }
    return nullptr;
}

template <class... Arguments>
const char* launch(void (*kernel)(Arguments...), void** arguments, Index grid, unsigned threads, size_t bytes,
                   bool backwards) {
    return launch(kernel, arguments, std::index_sequence_for<Arguments...>{}, grid, threads, bytes, backwards);
}

}  // namespace shim
