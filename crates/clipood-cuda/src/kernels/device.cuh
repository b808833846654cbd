// What every kernel file begins with: the element type, 16-byte vectors, sums over a warp, and the few instructions that CUDA C++
// has no word for. No CUDA header is included, so NVRTC alone compiles the kernels.
//
// All inline PTX of the crate is in this file, in small functions. Everything else is plain C++, which a host compiler builds
// too: with CLIPOOD_HOST defined, host.h replaces the section "Instructions" and CUDA's built-in variables and functions.
//
// Macros from the host program: ELEMENT (0 float32, 1 float16, 2 bfloat16), the type of weights and activations in memory.
// All arithmetic is in float32.

#ifdef CLIPOOD_HOST
#include "host.h"
#endif

#if ELEMENT == 0
typedef float element;
#define VECTOR 4  // elements of a 16-byte access
#else
typedef unsigned short element;  // the bits
#define VECTOR 8
#endif

#define LANES 32
#define ALL_LANES 0xffffffffu
#define LOG2_E 1.44269504f
#define LOWEST -1e30f  // of scores: finite, so that a difference of two is never NaN

// ---- Instructions ----------------------------------------------------------------------------------------------------

#ifndef CLIPOOD_HOST

// Memory of a block whose size the launch gives, 16-byte aligned.
#define DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]

// An address in shared memory as the instructions below take it; bytes can be added to it.
typedef unsigned shared_address_t;

__device__ inline shared_address_t shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Two 16-bit values of a word, the lower half first.
__device__ inline float2 unpack_pair(unsigned pair) {
#if ELEMENT == 1
    float2 value;
    asm("{ .reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b; }" : "=f"(value.x), "=f"(value.y) : "r"(pair));
    return value;
#else
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
#endif
}

__device__ inline unsigned pack_pair(float low, float high) {
    unsigned pair;
#if ELEMENT == 1
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
    return pair;
}

// 2^x, to about 2 units in the last place.
__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Starts to copy 16 bytes to shared memory; zeros where `valid` is false, and then nothing is read.
__device__ inline void copy_async(shared_address_t to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

// Ends a group of copies, which may be empty.
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `open` of this thread's groups are still being copied.
template <int open>
__device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(open) : "memory");
}

// Four 8 x 8 matrices of 16-bit values from shared memory, one row from each lane's address, as operands of `multiply`.
__device__ inline void load_matrices(unsigned* r, const element* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ inline void load_transposed(unsigned* r, const element* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

#if ELEMENT != 0
// c [16, 8] += a [16, 16] b [16, 8] on a tensor core, fragments as PTX's mma.m16n8k16 lays them out.
__device__ inline void multiply(float* c, const unsigned* a, unsigned b0, unsigned b1) {
#if ELEMENT == 1
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#endif
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

#endif  // CLIPOOD_HOST

// ---- Elements and vectors --------------------------------------------------------------------------------------------

__device__ inline float to_float(element x) {
#if ELEMENT == 0
    return x;
#else
    return unpack_pair(x).x;
#endif
}

__device__ inline element to_element(float x) {
#if ELEMENT == 0
    return x;
#else
    return static_cast<element>(pack_pair(x, 0));
#endif
}

// Sixteen bytes of memory as VECTOR floats.
__device__ inline void load(const element* from, float* values) {
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
#if ELEMENT == 0
        values[i] = __uint_as_float(words[i]);
#else
        const float2 pair = unpack_pair(words[i]);
        values[2 * i] = pair.x, values[2 * i + 1] = pair.y;
#endif
    }
}

// VECTOR floats as sixteen bytes of memory.
__device__ inline void store(element* to, const float* values) {
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
#if ELEMENT == 0
        words[i] = __float_as_uint(values[i]);
#else
        words[i] = pack_pair(values[2 * i], values[2 * i + 1]);
#endif
    }
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

// ---- Warps -----------------------------------------------------------------------------------------------------------

// The sum over a warp, in every lane; always added in the same order.
__device__ inline float warp_sum(float value) {
#pragma unroll
    for (int step = LANES / 2; step; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

__device__ inline float warp_max(float value) {
#pragma unroll
    for (int step = LANES / 2; step; step /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, step));
    return value;
}
