// reduce: reduced signals and energy of frames, from their complex signals.
//
//     y = Re(P b)                      (frames, R), P = U^T diag(w), real and imaginary parts combined in one product
//     energy = sum_m w_m^2 |b_m|^2     (frames,)
//
// b are the selected rows of a frame. The part of b outside the range of A is only noise, of variance
// (energy - |y|^2) / (2 M - R), which prepare.cu computes when y is complete.
//
// Precision is double because at 50 dB this difference is 1e-5 of its terms. In single precision the noise level, on
// which every gain depends, would have only two correct digits.
//
// Performance: A frame of M = 500 rows and R = 150 is 0.15 M double fused multiply-adds. P is 1.2 MB (at most 14 MB, M
// = 2451, R = 361) and stays in the L2 cache (RTX 4090: 72 MB, H200: 50 MB) from frame to frame. A thread block
// computes 8 rows of y for 4 frames. So P is read once per 4 frames, in whole 128-byte lines, and a single frame is
// distributed over 19 thread blocks. Lower bounds are, for one frame, 64 KB of P into each multiprocessor, 0.7 us at 48
// bytes per clock; for 64 frames 19 MFLOP, 15 us at the 1.3 TFLOP/s of an RTX 4090, 0.6 us at the 34 TFLOP/s of an
// H200. A single evaluation of the network takes 2000 times as many operations, so a library's matrix product would
// save next to nothing.
//
// Tested by tests/test_kernels_shim.py against NumPy in double precision, built by g++ with one fiber per thread, with
// sanitizers; and by tests/test_device_gpu.py on a GPU.
#include "device.cuh"

constexpr int ROWS = 8, FRAMES = 4, CHUNK = 512, REDUCE_THREADS = 256;
constexpr int SHARES = REDUCE_THREADS / ROWS;  // threads that share a row of y

// grid (ceil(R / ROWS), ceil(frames / FRAMES)), shared memory CHUNK * FRAMES float2 and REDUCE_THREADS * FRAMES double
extern "C" __global__ void __launch_bounds__(REDUCE_THREADS)
reduce(const float2* __restrict__ signals,      // (frames, M)
       const double2* __restrict__ projection,  // (M, R)
       const double* __restrict__ weights,      // (M,)
       int frames, int num_rows, int rank,
       double* __restrict__ y,       // (frames, R)
       double* __restrict__ energy)  // (frames,)
{
    extern __shared__ float4 shared[];
    double* scratch = reinterpret_cast<double*>(shared);                          // (FRAMES, REDUCE_THREADS)
    float2* chunk = reinterpret_cast<float2*>(scratch + FRAMES * REDUCE_THREADS);  // (CHUNK, FRAMES)
    const int thread = threadIdx.x, share = thread / ROWS;
    const int row = blockIdx.x * ROWS + thread % ROWS, first = blockIdx.y * FRAMES;

    double sum[FRAMES] = {}, power[FRAMES] = {};
    for (int start = 0; start < num_rows; start += CHUNK) {
        const int count = min(CHUNK, num_rows - start);
        for (int m = thread; m < count; m += REDUCE_THREADS) {
            const double weight = weights[start + m];
            const size_t at = (size_t)first * num_rows + start + m;
#pragma unroll
            for (int f = 0; f < FRAMES; ++f) {
                const float2 nothing = {0.0f, 0.0f};
                const float2 b = first + f < frames ? signals[at + (size_t)f * num_rows] : nothing;
                chunk[m * FRAMES + f] = b;
                const double re = weight * b.x, im = weight * b.y;
                power[f] += re * re + im * im;
            }
        }
        __syncthreads();
        if (row < rank) {
#pragma unroll 4
            for (int m = share; m < count; m += SHARES) {
                const double2 p = projection[(size_t)(start + m) * rank + row];
#pragma unroll
                for (int f = 0; f < FRAMES; ++f) {
                    const float2 b = chunk[m * FRAMES + f];
                    sum[f] += p.x * b.x - p.y * b.y;
                }
            }
        }
        __syncthreads();
    }

#pragma unroll
    for (int f = 0; f < FRAMES; ++f) scratch[f * REDUCE_THREADS + thread] = sum[f];
    __syncthreads();
    if (thread < ROWS * FRAMES) {  // shares 0 to FRAMES - 1 complete one frame each
        double total = 0.0;
        for (int other = 0; other < SHARES; ++other)
            total += scratch[share * REDUCE_THREADS + other * ROWS + thread % ROWS];
        if (row < rank && first + share < frames) y[(size_t)(first + share) * rank + row] = total;
    }
    if (blockIdx.x == 0) {  // every thread block of these frames has read all of b; the first one writes the energy
        __syncthreads();
#pragma unroll
        for (int f = 0; f < FRAMES; ++f) {
            const double total = block_sum(power[f], scratch);
            if (thread == 0 && first + f < frames) energy[first + f] = total;
        }
    }
}
