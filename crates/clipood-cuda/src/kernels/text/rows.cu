// Kernels of the text tower that treat rows or values one by one: embedding, layer norm, activations, gathering, ordered sums.
//
// Defined by the host: ELEMENT (see device.cuh) and WIDTH, the width of the tower, a multiple of 32. Rows are [rows, WIDTH] and
// contiguous; a warp takes a row unless a kernel says otherwise, and a block has WARPS warps. All arithmetic is in float.

constexpr int PACKS = (WIDTH + 32 * VECTOR - 1) / (32 * VECTOR);  // packs of a row that a lane holds

struct alignas(16) Row {
    float x[PACKS][VECTOR];
};

__device__ inline int column_of(int pack, int lane) { return (pack * 32 + lane) * VECTOR; }

// A lane's columns of a row; zeros beyond the row's end.
__device__ inline Row read_row(const element* x, int lane) {
    Row row = {};
#pragma unroll
    for (int p = 0; p < PACKS; p++)
        if (column_of(p, lane) < WIDTH) load(x + column_of(p, lane), row.x[p]);
    return row;
}

// The same columns of a vector of floats.
__device__ inline Row read_floats(const float* x, int lane) {
    Row row = {};
#pragma unroll
    for (int p = 0; p < PACKS; p++)
        if (column_of(p, lane) < WIDTH)
#pragma unroll
            for (int i = 0; i < VECTOR; i += 4) *(float4*)&row.x[p][i] = *(const float4*)(x + column_of(p, lane) + i);
    return row;
}

__device__ inline void write_row(element* y, int lane, const Row& row) {
#pragma unroll
    for (int p = 0; p < PACKS; p++)
        if (column_of(p, lane) < WIDTH) store(y + column_of(p, lane), row.x[p]);
}

// Row `to[i]` of x = row `from[i]` of `table` + position `positions[i]`, for i below `count`. `table` is float: learned context
// vectors, or the token embedding.
extern "C" __global__ void THREADS_OF_WARPS
embed(const float* table, const float* position, const int* from, const int* positions, const int* to, element* x, int count) {
    int i = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (i >= count) return;
    Row v = read_floats(table + (long long)from[i] * WIDTH, lane);
    Row p = read_floats(position + (long long)positions[i] * WIDTH, lane);
#pragma unroll
    for (int j = 0; j < PACKS; j++)
#pragma unroll
        for (int k = 0; k < VECTOR; k++) v.x[j][k] += p.x[j][k];
    write_row(x + (long long)to[i] * WIDTH, lane, v);
}

// y = (x - mean) / sqrt(variance + 1e-5) * weight + bias. `stats` keeps mean and reciprocal deviation for the backward pass.
extern "C" __global__ void THREADS_OF_WARPS
text_norm(const element* x, const float* weight, const float* bias, element* y, float2* stats, int rows) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    Row v = read_row(x + (long long)row * WIDTH, lane), w = read_floats(weight, lane), b = read_floats(bias, lane);
    float sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int i = 0; i < VECTOR; i++) sum += v.x[p][i];
    float mean = warp_sum(sum) / WIDTH;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
        if (column_of(p, lane) < WIDTH)
#pragma unroll
            for (int i = 0; i < VECTOR; i++) squares += (v.x[p][i] - mean) * (v.x[p][i] - mean);
    float inverse = rsqrtf(warp_sum(squares) / WIDTH + 1e-5f);
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v.x[p][i] = (v.x[p][i] - mean) * inverse * w.x[p][i] + b.x[p][i];
    write_row(y + (long long)row * WIDTH, lane, v);
    if (lane == 0) stats[row] = make_float2(mean, inverse);
}

// d += the gradient of x, given that of y (`dy`); where `add` is 0, d = the gradient.
extern "C" __global__ void THREADS_OF_WARPS
text_norm_backward(const element* x, const float* weight, const float2* stats, const element* dy, element* d, int rows, int add) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    long long at = (long long)row * WIDTH;
    Row v = read_row(x + at, lane), g = read_row(dy + at, lane), w = read_floats(weight, lane), out = {};
    if (add) out = read_row(d + at, lane);
    float2 s = stats[row];
    float sum = 0, dot = 0;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            v.x[p][i] = (v.x[p][i] - s.x) * s.y;
            g.x[p][i] *= w.x[p][i];  // zero beyond the row's end
            sum += g.x[p][i];
            dot += g.x[p][i] * v.x[p][i];
        }
    sum = warp_sum(sum) / WIDTH;
    dot = warp_sum(dot) / WIDTH;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int i = 0; i < VECTOR; i++) out.x[p][i] += s.y * (g.x[p][i] - sum - v.x[p][i] * dot);
    write_row(d + at, lane, out);
}

// ---- Activations: a thread takes one vector. The bias came with the product. ---------------------------------------------

__device__ inline float quick_gelu_of(float x) { return x / (1 + exponential(-1.702f * x)); }
__device__ inline float quick_gelu_slope(float x) {
    float s = 1 / (1 + exponential(-1.702f * x));
    return s * (1 + 1.702f * x * (1 - s));
}
// x times the normal distribution's cumulative function, and the derivative.
__device__ inline float gelu_of(float x) { return 0.5f * x * (1 + erff(x * 0.70710678f)); }
__device__ inline float gelu_slope(float x) {
    return 0.5f * (1 + erff(x * 0.70710678f)) + x * 0.39894228f * exponential(-0.5f * x * x);
}

// NAME: y = f(x). NAME_backward: d, the gradient of y, becomes that of x.
#define ACTIVATION(NAME)                                                                                        \
    extern "C" __global__ void THREADS_OF_WARPS NAME(const element* x, element* y, int vectors) {               \
        int at = blockIdx.x * blockDim.x + threadIdx.x;                                                         \
        if (at >= vectors) return;                                                                              \
        float v[VECTOR];                                                                                        \
        load(x + (long long)at * VECTOR, v);                                                                    \
        _Pragma("unroll") for (int i = 0; i < VECTOR; i++) v[i] = NAME##_of(v[i]);                              \
        store(y + (long long)at * VECTOR, v);                                                                   \
    }                                                                                                           \
    extern "C" __global__ void THREADS_OF_WARPS NAME##_backward(const element* x, element* d, int vectors) {    \
        int at = blockIdx.x * blockDim.x + threadIdx.x;                                                         \
        if (at >= vectors) return;                                                                              \
        float v[VECTOR], g[VECTOR];                                                                             \
        load(x + (long long)at * VECTOR, v);                                                                    \
        load(d + (long long)at * VECTOR, g);                                                                    \
        _Pragma("unroll") for (int i = 0; i < VECTOR; i++) g[i] *= NAME##_slope(v[i]);                          \
        store(d + (long long)at * VECTOR, g);                                                                   \
    }
ACTIVATION(quick_gelu)
ACTIVATION(gelu)

// ---- Moving and summing rows ---------------------------------------------------------------------------------------------

// Row i of y = row from[i] of x; zeros where from[i] is negative. Both ways: end tokens out of all tokens, and back.
extern "C" __global__ void THREADS_OF_WARPS take_rows(const element* x, const int* from, element* y, int rows) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    int source = from[row];
    Row v = {};
    if (source >= 0) v = read_row(x + (long long)source * WIDTH, lane);
    write_row(y + (long long)row * WIDTH, lane, v);
}

// The gradient of the keys and values of the prefix: the sum over `blocks` of `partial` [blocks, prefix, 2 WIDTH], always in
// the same order, into dqkv [rows, 3 WIDTH]. A block of threads takes 32 columns, a warp every WARPS-th of the partial sums.
extern "C" __global__ void THREADS_OF_WARPS sum_prefix(const float* partial, element* dqkv, int blocks, int prefix) {
    __shared__ float sums[WARPS][32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, at = blockIdx.x * 32 + lane;
    float sum = 0;
    for (int b = warp; b < blocks; b += WARPS) sum += partial[(long long)b * prefix * 2 * WIDTH + at];
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0) return;
    for (int w = 1; w < WARPS; w++) sum += sums[w][lane];
    dqkv[(long long)(at / (2 * WIDTH)) * 3 * WIDTH + WIDTH + at % (2 * WIDTH)] = to_element(sum);
}

// The gradient of the context, float [contexts, WIDTH]: vector c's is `unscale` times the sum of the rows rows[begin[c]] to
// rows[begin[c + 1] - 1] of d, in the order of this list. Grid (contexts, WIDTH / 32): a block takes 32 columns of one vector.
extern "C" __global__ void THREADS_OF_WARPS
sum_context(const element* d, const int* begin, const int* rows, float* gradient, float unscale) {
    __shared__ float sums[WARPS][32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = blockIdx.y * 32 + lane;
    float sum = 0;
    for (int i = begin[blockIdx.x] + warp; i < begin[blockIdx.x + 1]; i += WARPS) sum += to_float(d[(long long)rows[i] * WIDTH + column]);
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0) return;
    for (int w = 1; w < WARPS; w++) sum += sums[w][lane];
    gradient[(long long)blockIdx.x * WIDTH + column] = sum * unscale;
}
