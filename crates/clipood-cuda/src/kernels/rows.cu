// Kernels that treat the rows of a matrix, or its values, one by one: layer norm and the activations.
//
// Macros: ELEMENT, WIDTH (of a row, a multiple of VECTOR).

#if WIDTH % VECTOR
#error "WIDTH must be whole 16-byte vectors"
#endif
#define ROW_VECTORS (WIDTH / VECTOR)
#define LANE_VECTORS ((ROW_VECTORS + LANES - 1) / LANES)  // vectors that a lane holds at most
#define LANE_VALUES (LANE_VECTORS * VECTOR)

// The column where a lane's i-th vector starts; lanes take neighbouring vectors.
__device__ inline int lane_column(int i, int lane) { return (i * LANES + lane) * VECTOR; }

// Whether a lane has an i-th vector. A constant where the width divides evenly among the lanes.
__device__ inline bool lane_has(int i, int lane) { return ROW_VECTORS % LANES == 0 || i * LANES + lane < ROW_VECTORS; }

// (x - mean) / sqrt(variance + 1e-5) * gain + bias of the row that a warp holds; the variance is taken about the mean, from
// registers. Values that a lane does not have must be 0 and are not written.
__device__ inline void normalise_row(float* values, const element* gain, const element* bias, element* out) {
    const int lane = threadIdx.x % LANES;
    float sum = 0, squares = 0;
#pragma unroll
    for (int i = 0; i < LANE_VALUES; i++) sum += values[i];
    const float mean = warp_sum(sum) / WIDTH;
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++)
        if (lane_has(i, lane)) {
#pragma unroll
            for (int j = 0; j < VECTOR; j++) squares += (values[i * VECTOR + j] - mean) * (values[i * VECTOR + j] - mean);
        }
    const float inverse = rsqrtf(warp_sum(squares) / WIDTH + 1e-5f);
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++)
        if (lane_has(i, lane)) {
            float g[VECTOR], b[VECTOR];
            float* own = values + i * VECTOR;
            load(gain + lane_column(i, lane), g);
            load(bias + lane_column(i, lane), b);
#pragma unroll
            for (int j = 0; j < VECTOR; j++) own[j] = (own[j] - mean) * inverse * g[j] + b[j];
            store(out + lane_column(i, lane), own);
        }
}

// out [rows, WIDTH] = the layer norm of selected rows of x, a warp a row. Row r is token `first + r % per` of sequence r / per, a
// sequence being `tokens` rows of x: per = tokens, first = 0 takes every row; per = 1, first = 0 the first token of each
// sequence; per = tokens - 1, first = 1 all others.
extern "C" __global__ void layer_norm(const element* x, const element* gain, const element* bias, element* out, int rows, int tokens,
                                      int per, int first) {
    const int row = blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES, lane = threadIdx.x % LANES;
    if (row >= rows) return;
    const element* from = x + ((size_t)(row / per) * tokens + first + row % per) * WIDTH;
    float values[LANE_VALUES] = {};
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++)
        if (lane_has(i, lane)) load(from + lane_column(i, lane), values + i * VECTOR);
    normalise_row(values, gain, bias, out + (size_t)row * WIDTH);
}

// x * sigmoid(1.702 x), the activation of OpenAI's models.
__device__ inline float quick_gelu(float x) { return __fdividef(x, 1 + __expf(-1.702f * x)); }

// x times the normal distribution function of x.
__device__ inline float exact_gelu(float x) { return 0.5f * x * (1 + erff(x * 0.70710678f)); }

// An activation in place over `vectors` vectors. A thread takes four of them and loads all before it uses the first.
#define ACTIVATION(name, function)                                                                     \
    extern "C" __global__ void name(element* x, long long vectors) {                                   \
        const long long start = (long long)blockIdx.x * blockDim.x * 4 + threadIdx.x;                  \
        float values[4][VECTOR];                                                                       \
        _Pragma("unroll") for (int i = 0; i < 4; i++) {                                                \
            const long long index = start + i * blockDim.x;                                            \
            if (index < vectors) load(x + index * VECTOR, values[i]);                                  \
        }                                                                                              \
        _Pragma("unroll") for (int i = 0; i < 4; i++) {                                                \
            const long long index = start + i * blockDim.x;                                            \
            if (index < vectors) {                                                                     \
                _Pragma("unroll") for (int j = 0; j < VECTOR; j++) values[i][j] = function(values[i][j]); \
                store(x + index * VECTOR, values[i]);                                                  \
            }                                                                                          \
        }                                                                                              \
    }
ACTIVATION(quick_gelu_rows, quick_gelu)
ACTIVATION(exact_gelu_rows, exact_gelu)
