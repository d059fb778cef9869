// reduce: complex signals of frames -> what they say about the image.
//
//     y = Re(P b)                      (frames, R), P = U^T diag(w) with real over imaginary folded into one product
//     energy = sum_m w_m^2 |b_m|^2     (frames,)
//
// b are the selected rows of a frame. What they hold outside the range of A is noise alone, of variance
// (energy - |y|^2) / (2 M - R): prepare.cu takes that difference, once all of y is there.
//
// In double precision, since at 50 dB the difference is a hundred-thousandth of its terms: single precision would leave
// two digits of the noise level, and every gain depends on it.
//
// Why fast. A frame of M = 500 rows and R = 150 is 0.15 M double fused multiply-adds; P is 1.2 MB (at most 14 MB, M =
// 2451, R = 361) and stays in the L2 cache (RTX 4090: 72 MB, H200: 50 MB) from frame to frame. A block takes 8 rows of
// y and 4 frames: P is read once per 4 frames, in whole 128-byte lines, and one frame already spreads over 19 blocks.
// Floors for one frame: 64 KB of P into each multiprocessor, 0.7 us at 48 bytes per clock; for 64 frames 19 MFLOP, 15 us
// at the 1.3 TFLOP/s of an RTX 4090, 0.6 us at an H200's 34 TFLOP/s. A single evaluation of the network does 2000 times as
// many operations: a library's product could save next to nothing.
//
// Checked by tests/test_kernels_shim.py: against NumPy in double precision, built by g++ with one fiber per thread, under
// sanitizers; tests/test_device_gpu.py: the same on a GPU.
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
    if (thread < ROWS * FRAMES) {  // share 0 ... FRAMES - 1 each finishes one frame
        double total = 0.0;
        for (int other = 0; other < SHARES; ++other)
            total += scratch[share * REDUCE_THREADS + other * ROWS + thread % ROWS];
        if (row < rank && first + share < frames) y[(size_t)(first + share) * rank + row] = total;
    }
    if (blockIdx.x == 0) {  // every block of these frames has seen all of b; one reports its energy
        __syncthreads();
#pragma unroll
        for (int f = 0; f < FRAMES; ++f) {
            const double total = block_sum(power[f], scratch);
            if (thread == 0 && first + f < frames) energy[first + f] = total;
        }
    }
}
