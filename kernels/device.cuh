// What the kernels share: 16-bit numbers, Philox noise, and the product that all of the linear algebra here is.
//
// Plain CUDA C++17 without headers, so that NVRTC compiles it from the source alone; tests/cuda_shim builds the same text
// with g++, one fiber per CUDA thread.
#pragma once

// Threads of a block. An image of 19 x 19 voxels takes two of them per voxel, 722 of 768. Kernels are bound to
// (THREADS, 1): one block per multiprocessor, up to 80 registers for each thread. Left to itself the compiler squeezes
// them to 40 for a second block, and spills.
constexpr int THREADS = 768;

// ---- 16-bit network tensors ---------------------------------------------------------------------------------------
// By bit arithmetic, which is a dozen integer operations per voxel and runs unchanged on a CPU, where it is tested.

struct Half {  // IEEE binary16
    unsigned short bits;
};

struct BFloat16 {  // the upper half of a binary32
    unsigned short bits;
};

__device__ inline float load(float value) { return value; }

__device__ inline float load(BFloat16 value) { return __uint_as_float((unsigned)value.bits << 16); }

__device__ inline float load(Half value) {
    const unsigned sign = (value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7fffu;
    // The exponent and fraction in place, 2^112 too small for their bias; the multiplication is exact, subnormals too.
    const unsigned finite = __float_as_uint(__uint_as_float(magnitude << 13) * 0x1p112f);
    return __uint_as_float(sign | (magnitude < 0x7c00u ? finite : (magnitude << 13) | 0x7f800000u));
}

__device__ inline void store(float* where, float value) { *where = value; }

__device__ inline void store(BFloat16* where, float value) {
    const unsigned bits = __float_as_uint(value);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    // Round to nearest, ties to even: what is cut off carries into what stays.
    where->bits = (unsigned short)((nan ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ inline unsigned short half_bits(float value) {
    const unsigned sign = (__float_as_uint(value) >> 16) & 0x8000u, bits = __float_as_uint(value) & 0x7fffffffu;
    unsigned half;
    if (bits >= 0x47800000u)  // 65536 and above, infinity, NaN
        half = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
    else if (bits < 0x38800000u)  // below 2^-14: adding 0.5 leaves a multiple of 2^-24 in the lowest bits, rounded
        half = __float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000u;
    else  // the exponent's bias changes by 112, then as above
        half = (bits - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    return (unsigned short)(sign | half);
}

__device__ inline void store(Half* where, float value) { where->bits = half_bits(value); }

// ---- noise --------------------------------------------------------------------------------------------------------

struct Four {
    float value[4];
};

// Normals of voxels 4 block ... 4 block + 3: Philox4x32-10 and Box-Muller as mpi_fast/philox.py lays them down. Some 100
// integer operations for four numbers, no memory, and the same number on every device whatever the batch.
__device__ inline Four normals(unsigned long long seed, unsigned sample, unsigned draw, unsigned block) {
    unsigned c0 = block, c1 = draw, c2 = sample, c3 = 0;  // every frame is sampled from the noise of frame 0
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const unsigned high2 = __umulhi(0xCD9E8D57u, c2), low2 = 0xCD9E8D57u * c2;
        c0 = high2 ^ c1 ^ k0;
        c1 = low2;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const float radius0 = sqrtf(-2.0f * logf((float)((c0 >> 8) + 1u) * 0x1p-24f));
    const float radius1 = sqrtf(-2.0f * logf((float)((c2 >> 8) + 1u) * 0x1p-24f));
    Four normal;
    float sine, cosine;
    sincospif(2.0f * ((float)(c1 >> 8) * 0x1p-24f), &sine, &cosine);
    normal.value[0] = radius0 * cosine;
    normal.value[1] = radius0 * sine;
    sincospif(2.0f * ((float)(c3 >> 8) * 0x1p-24f), &sine, &cosine);
    normal.value[2] = radius1 * cosine;
    normal.value[3] = radius1 * sine;
    return normal;
}

__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }

// ---- linear algebra -----------------------------------------------------------------------------------------------

// One row of a narrow matrix in shared memory. All threads of a warp read the same row at the same time, 16 bytes in one
// instruction.
template <int WIDTH>
struct alignas(WIDTH % 4 == 0 ? 16 : WIDTH % 2 == 0 ? 8 : 4) Row {
    float value[WIDTH];
};

// out = matrix^T in, by one block: matrix (rows, columns) in global memory is read once, coalesced, for all columns of
// `in` (rows, WIDTH). After these come the sums of the squared elements times `weight` (rows, SQUARED).
//
// Threads own columns. Where there are several threads per column they share its rows, and `partial`, (columns,
// WIDTH + SQUARED) floats for each thread but the first, collects what they found; `product_floats` says how many. The
// order of summation depends on rows and columns alone, so results do not depend on how samples are grouped into blocks.
// `finish(column, sums)` runs once per column; what it writes is visible to the block after its next __syncthreads().
template <int WIDTH, int SQUARED, class Finish>
__device__ inline void product(const float* __restrict__ matrix, int rows, int columns, const Row<WIDTH>* in,
                               const float* weight, float* partial, Finish finish) {
    constexpr int SUMS = WIDTH + SQUARED;
    [[maybe_unused]] constexpr int UNROLL = WIDTH < 8 ? 8 : 4;  // loads in flight, as far as registers go
    const int shares = max(1, (int)blockDim.x / columns);
    const int share = shares > 1 ? threadIdx.x / columns : 0;
    for (int start = 0; start < columns; start += blockDim.x) {  // once, unless the image has more voxels than threads
        const int column = start + threadIdx.x - share * columns;
        const bool busy = share < shares && column < columns;
        Row<SUMS> sum = {};
        if (busy) {
#pragma unroll UNROLL
            for (int row = share; row < rows; row += shares) {
                const float element = matrix[(size_t)row * columns + column];
                const Row<WIDTH> input = in[row];
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) sum.value[i] += element * input.value[i];
#pragma unroll
                for (int i = 0; i < SQUARED; ++i) sum.value[WIDTH + i] += element * element * weight[row * SQUARED + i];
            }
        }
        if (shares > 1) {
            if (busy && share > 0)
                for (int i = 0; i < SUMS; ++i) partial[((share - 1) * columns + column) * SUMS + i] = sum.value[i];
            __syncthreads();
            if (share == 0)
                for (int other = 0; other < shares - 1; ++other)
                    for (int i = 0; i < SUMS; ++i) sum.value[i] += partial[(other * columns + column) * SUMS + i];
        }
        if (busy && share == 0) finish(column, sum);
    }
}

// Sum over the block of one number per thread; `scratch` holds blockDim.x doubles. Every thread gets the sum.
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
