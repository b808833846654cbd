// What the kernels of texts and losses share beside device.cuh: blocks of eight warps.

constexpr int WARPS = 8;  // of every block, unless a kernel says otherwise
#define THREADS_OF_WARPS __launch_bounds__(32 * WARPS)

// e^x: exact where float32 is asked for, fast where 16 bits round away more than it does.
__device__ inline float exponential(float x) {
#if ELEMENT == 0
    return expf(x);
#else
    return __expf(x);
#endif
}
