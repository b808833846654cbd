// Runs CUDA kernels on a CPU, to test them where there is no GPU: what the language and the run-time give a kernel.
//
// One block runs at a time, on one thread of the operating system; each CUDA thread is a fiber with a stack of its own that
// runs until it waits for others (`__syncthreads`, `__syncwarp`, a shuffle, a matrix instruction). Fibers run in ascending or
// descending order, as the caller asks: a kernel that lacks a barrier gives different results in the two orders.
//
// What differs from a GPU: threads do not run in lockstep or in parallel, memory is coherent, and approximate functions are
// exact. Speed, registers and bank conflicts are not modelled.
#pragma once

#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

namespace host {

[[noreturn]] inline void fail(const char* problem) {
    std::fprintf(stderr, "emulated kernel: %s\n", problem);
    std::abort();
}

constexpr int LANES = 32, MOST_THREADS = 1024, WARPS = MOST_THREADS / LANES, WORDS = 8;
constexpr size_t STACK = 256 << 10;

struct Copy {
    void* to;
    unsigned char bytes[16];
};

// What the lanes of a warp hand each other. Two sets in turn: a lane may already write the next while another reads the last.
struct Warp {
    uint64_t words[2][LANES][WORDS];
    int arrived[2], alive;
    long turn;
};

struct Fiber {
    jmp_buf state;
    bool started, done;
    int turns;         // exchanges of its warp it has taken part in
    long barrier;      // barriers of the block it has reached
    std::vector<std::vector<Copy>> copies;  // groups of asynchronous copies under way; the last is open
};

struct Index {
    unsigned x, y, z;
};

inline Fiber fibers[MOST_THREADS];
inline Warp warps[WARPS];
inline Index thread_index, block_index, block_size, grid_size;
inline int current, threads, waiting, alive;
inline long barriers;
inline bool descending;
inline jmp_buf scheduler;
inline char* stacks;
inline std::vector<unsigned char> shared_memory;
inline void (*body)(void**);
inline void** arguments;

inline Fiber& self() { return fibers[current]; }
inline int lane() { return current % LANES; }
inline Warp& warp() { return warps[current / LANES]; }

// Hands the processor to the scheduler.
inline void pause() {
    if (_setjmp(self().state) == 0) _longjmp(scheduler, 1);
}

inline void release_barrier() {
    if (alive > 0 && waiting == alive) {
        barriers++;
        waiting = 0;
    }
}

inline void block_barrier() {
    long reached = barriers;
    waiting++;
    release_barrier();
    while (barriers == reached) pause();
}

// All living lanes of the warp have written their words when this returns; the set to read them from.
inline uint64_t (*exchange(const uint64_t* words, int count))[WORDS] {
    Warp& w = warp();
    long turn = self().turns++;
    int set = turn % 2;
    for (int i = 0; i < count; i++) w.words[set][lane()][i] = words[i];
    w.arrived[set]++;
    while (w.turn <= turn) {
        if (w.arrived[set] == w.alive) {
            w.arrived[set] = 0;
            w.turn = turn + 1;
            break;
        }
        pause();
    }
    return w.words[set];
}

inline void run_body() {
    body(arguments);
    Fiber& f = self();
    for (auto& group : f.copies)
        if (!group.empty()) fail("a thread ended with asynchronous copies that it never waited for");
    f.done = true;
    alive--;
    warp().alive--;
    release_barrier();
    _longjmp(scheduler, 1);
}

inline void start(int thread) {
    static ucontext_t fresh, back;
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = stacks + STACK * thread;
    fresh.uc_stack.ss_size = STACK;
    fresh.uc_link = nullptr;
    makecontext(&fresh, run_body, 0);
    swapcontext(&back, &fresh);  // left by longjmp only
}

inline void run_block() {
    alive = threads;
    waiting = 0;
    barriers = 0;
    for (int w = 0; w < WARPS; w++) {
        warps[w].arrived[0] = warps[w].arrived[1] = 0;
        warps[w].turn = 0;
        warps[w].alive = threads - w * LANES < 0 ? 0 : threads - w * LANES > LANES ? LANES : threads - w * LANES;
    }
    for (int t = 0; t < threads; t++) {
        fibers[t].started = fibers[t].done = false;
        fibers[t].turns = 0;
        fibers[t].copies.assign(1, {});
    }
    // Shared memory starts as NaN, so that a value nobody wrote shows.
    std::memset(shared_memory.data(), 0xff, shared_memory.size());
    long idle = 0;
    while (alive > 0) {
        int before = alive;
        long reached = barriers;
        for (int i = 0; i < threads; i++) {
            current = descending ? threads - 1 - i : i;
            if (self().done) continue;
            thread_index = {unsigned(current) % block_size.x, unsigned(current) / block_size.x, 0};
            if (_setjmp(scheduler) == 0) {
                if (self().started) _longjmp(self().state, 1);
                self().started = true;
                start(current);
            }
        }
        idle = alive == before && barriers == reached ? idle + 1 : 0;
        if (idle > 1000000) fail("threads wait for each other forever");
    }
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** from, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A>*>(from[I])...);
}

struct Shape {
    unsigned grid[3], threads, shared, descending;
};

inline void launch(void (*run)(void**), void** from, const Shape* shape) {
    if (shape->threads == 0 || shape->threads > MOST_THREADS) fail("a block of too many threads");
    if (!stacks) {
        void* room = mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED) fail("no memory for stacks");
        stacks = static_cast<char*>(room);
    }
    body = run;
    arguments = from;
    threads = int(shape->threads);
    descending = shape->descending;
    block_size = {shape->threads, 1, 1};
    grid_size = {shape->grid[0], shape->grid[1], shape->grid[2]};
    shared_memory.assign(shape->shared + 16, 0);
    for (unsigned z = 0; z < grid_size.z; z++)
        for (unsigned y = 0; y < grid_size.y; y++)
            for (unsigned x = 0; x < grid_size.x; x++) {
                block_index = {x, y, z};
                run_block();
            }
}

template <class V>
V shuffle(V value, int from) {
    static_assert(sizeof(V) <= 8);
    uint64_t word = 0;
    std::memcpy(&word, &value, sizeof(V));
    auto words = exchange(&word, 1);
    std::memcpy(&value, &words[from & 31][0], sizeof(V));
    return value;
}

}  // namespace host

// ---- The language ------------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static  // one block runs at a time
#define __constant__ static const

#define threadIdx host::thread_index
#define blockIdx host::block_index
#define blockDim host::block_size
#define gridDim host::grid_size

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct uchar3 { unsigned char x, y, z; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }

inline float __uint_as_float(unsigned x) { float y; std::memcpy(&y, &x, 4); return y; }
inline unsigned __float_as_uint(float x) { unsigned y; std::memcpy(&y, &x, 4); return y; }
inline float __int_as_float(int x) { float y; std::memcpy(&y, &x, 4); return y; }
inline int __float_as_int(float x) { int y; std::memcpy(&y, &x, 4); return y; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }

inline void __syncthreads() { host::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { host::exchange(nullptr, 0); }
template <class V> V __shfl_xor_sync(unsigned, V value, int mask) { return host::shuffle(value, host::lane() ^ mask); }
template <class V> V __shfl_sync(unsigned, V value, int from) { return host::shuffle(value, from); }
template <class V> V __shfl_down_sync(unsigned, V value, int by) {
    return host::shuffle(value, host::lane() + by < host::LANES ? host::lane() + by : host::lane());
}

// `EMULATED(kernel)` behind the kernels makes one callable from outside: as cuLaunchKernel, with an array of pointers to arguments.
#define EMULATED(name)                                                                                  \
    extern "C" void emulate_##name(void** from, const host::Shape* shape) {                             \
        host::launch([](void** from) {                                                                  \
            [&]<class... A>(void (*kernel)(A...)) {                                                     \
                host::call(kernel, from, std::index_sequence_for<A...>());                              \
            }(name);                                                                                    \
        }, from, shape);                                                                                \
    }
