// A GPU of one multiprocessor for tests: the part of CUDA that the kernels use, in C++17.
//
// Every CUDA thread is a ucontext fiber. Between two barriers the fibers of a block run one after the other, in the
// requested order; if the result depends on this order, the kernel lacks a barrier. A barrier that some threads of a
// block do not reach is an error. Shared memory starts as NaN, and memory beyond the requested bytes is poisoned for
// the address sanitizer. A matrix product of tensor cores is computed when the 32 fibers of a warp have reached it.
// This shim cannot detect races between blocks, bank conflicts or misaligned vector loads, and has no occupancy.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <utility>  // no larger header of C++, because each kernel and variant is built separately

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __shared__  // only `extern __shared__ float4 shared[]` is supported: all shared memory is dynamic
#define __launch_bounds__(...)

inline int max(int a, int b) { return a < b ? b : a; }
inline int min(int a, int b) { return b < a ? b : a; }

struct float2 { float x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct Index { unsigned x, y, z; };

extern Index threadIdx, blockIdx, blockDim, gridDim;
extern float4 shared[];

inline unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
inline void sincospif(float x, float* sine, float* cosine) {
    *sine = (float)sin(M_PI * (double)x);
    *cosine = (float)cos(M_PI * (double)x);
}
void __syncthreads();

// mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32, by the lanes of a warp together: d += a b.
void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);

namespace shim {

enum Status { NEW, WAITING, MEETING, DONE };

struct Fiber {
    ucontext_t context;  // start of the fiber
    jmp_buf jump;        // place where it waits
    char* stack;
    Status status;
};

constexpr size_t STACK = 128 << 10, SHARED = 96 << 10, MOST_THREADS = 1024;

inline Fiber fibers[MOST_THREADS];
inline unsigned current;
inline void (*body)();

// Changes of stack. Plain builds jump, which takes some ten nanoseconds. The address sanitizer supports only ucontext,
// and has to be notified.
#ifdef __SANITIZE_ADDRESS__
inline ucontext_t scheduler;
inline const void* scheduler_bottom;
inline size_t scheduler_size;

inline void to_scheduler(Fiber& fiber) {
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, scheduler_bottom, scheduler_size);
    swapcontext(&fiber.context, &scheduler);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

inline void to_fiber(Fiber& fiber) {
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack, STACK);
    swapcontext(&scheduler, &fiber.context);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

inline void arrived() { __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size); }
#else
inline jmp_buf scheduler;

[[gnu::noinline]] inline void to_scheduler(Fiber& fiber) {
    if (_setjmp(fiber.jump) == 0) _longjmp(scheduler, 1);
}

[[gnu::noinline]] inline void to_fiber(Fiber& fiber) {
    if (_setjmp(scheduler) != 0) return;
    if (fiber.status == NEW) setcontext(&fiber.context);
    _longjmp(fiber.jump, 1);
}

inline void arrived() {}
#endif

inline void enter() {
    arrived();
    body();
    fibers[current].status = DONE;
    to_scheduler(fibers[current]);
}

[[gnu::noinline]] inline void begin(Fiber& fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    fiber.status = NEW;
    makecontext(&fiber.context, enter, 0);
}

inline void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread, 0, 0};
    to_fiber(fibers[thread]);
}

// Run the threads of a warp until they wait for the block or are finished.
inline bool run_warp(unsigned first, unsigned threads, bool backwards) {
    const unsigned count = threads - first < 32 ? threads - first : 32;
    for (;;) {
        bool meeting = false, apart = false;
        for (unsigned i = 0; i < count; ++i) resume(first + (backwards ? count - 1 - i : i));
        for (unsigned i = 0; i < count; ++i) (fibers[first + i].status == MEETING ? meeting : apart) = true;
        if (!meeting) return true;
        if (apart || count < 32) return false;
    }
}

inline const char* run_block(unsigned threads, bool backwards) {
    for (unsigned t = 0; t < threads; ++t) begin(fibers[t]);
    for (Status all = WAITING; all != DONE;) {
        for (unsigned w = 0; w < (threads + 31) / 32; ++w)
            if (!run_warp((backwards ? (threads - 1) / 32 - w : w) * 32, threads, backwards))
                return "divergent warp: some of its threads meet for a matrix product, others do not";
        all = fibers[0].status;
        for (unsigned t = 1; t < threads; ++t)
            if (fibers[t].status != all) return "divergent barrier: some threads of a block wait, others have returned";
    }
    return nullptr;
}

// A kernel and its arguments, given as addresses of values as in cuLaunchKernel.
template <class... Arguments>
struct Call {
    inline static void (*kernel)(Arguments...);
    inline static void** arguments;

    template <size_t... I>
    static void unpack(std::index_sequence<I...>) {
        kernel(*static_cast<Arguments*>(arguments[I])...);
    }

    static void run() { unpack(std::index_sequence_for<Arguments...>{}); }
};

template <class... Arguments>
const char* launch(void (*kernel)(Arguments...), void** arguments, Index grid, unsigned threads, size_t bytes,
                   bool backwards) {
    if (bytes > SHARED || threads > MOST_THREADS) return "more shared memory or threads than a block can have";
    for (unsigned t = 0; t < threads; ++t)
        if (!fibers[t].stack)
            fibers[t].stack = static_cast<char*>(
                mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    Call<Arguments...>::kernel = kernel;
    Call<Arguments...>::arguments = arguments;
    body = Call<Arguments...>::run;
    gridDim = grid;
    blockDim = {threads, 1, 1};
    for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
            blockIdx = {x, y, 0};
            char* memory = reinterpret_cast<char*>(shared);
#ifdef __SANITIZE_ADDRESS__
            __asan_unpoison_memory_region(memory, SHARED);
#endif
            memset(memory, 0xff, SHARED);
#ifdef __SANITIZE_ADDRESS__
            __asan_poison_memory_region(memory + bytes, SHARED - bytes);
#endif
            if (const char* error = run_block(threads, backwards)) return error;
        }
    return nullptr;
}

}  // namespace shim
