// The backward pass of attention.cu.
//
// From `dout` [rows, WIDTH] to dqkv [rows, 3 WIDTH], all but the prefix's keys and values; of these, each block leaves its share
// in `partial` [blocks, prefix, 2 WIDTH], which it sums over its groups in a fixed order. Grid (blocks of `chunk` groups, HEADS).

constexpr int SUMS = HEAD + 8;  // row stride of the prefix's sums, floats

extern "C" __global__ void __launch_bounds__(32 * WARPS, BACKWARD_BLOCKS)
text_attention_backward(const element* qkv, const element* dout, const int* starts, const int* first, element* dqkv, float* partial, int groups,
                   int chunk, int prefix) {
    DYNAMIC_SHARED(element, memory);
    element* q = memory;                         // [ROWS, LD]
    element* g = q + ROWS * LD;                  // [ROWS, LD], of dout
    element* k = g + ROWS * LD;                  // [KEYS, LD]
    element* v = k + KEYS * LD;                  // [KEYS, LD]
    float* s = (float*)(v + KEYS * LD);          // [ROWS, SCORES], then the probabilities
    float* d = s + ROWS * SCORES;                // [ROWS, SCORES], their gradients, then those of the scores
    float* sum_k = d + ROWS * SCORES;            // [prefix, SUMS]
    float* sum_v = sum_k + prefix * SUMS;        // [prefix, SUMS]
    // Results [ROWS, LD] take the place of what is not read any more.
    element *dv = v + PAD * LD, *dq = g, *dk = (element*)s;
    static_assert(LD * sizeof(element) <= SCORES * sizeof(float), "dk fits where the scores were");
    __shared__ int own[ROWS];
    int column = blockIdx.y * HEAD;
    load_tile(k, qkv + WIDTH + column, 3 * WIDTH, prefix, PAD);
    load_tile(v, qkv + 2 * WIDTH + column, 3 * WIDTH, prefix, PAD);
    for (int i = threadIdx.x; i < 2 * prefix * SUMS; i += 32 * WARPS) sum_k[i] = 0;
    int last = min((int)(blockIdx.x + 1) * chunk, groups);
    for (int group = blockIdx.x * chunk; group < last; group++) {
        int start = starts[group], rows = starts[group + 1] - start;
        const element* from = qkv + (long long)start * 3 * WIDTH + column;
        if ((int)threadIdx.x < rows) own[threadIdx.x] = first[start + threadIdx.x] - start;
        load_tile(q, from, 3 * WIDTH, rows, ROWS);
        load_tile(k + PAD * LD, from + WIDTH, 3 * WIDTH, rows, ROWS);
        load_tile(v + PAD * LD, from + 2 * WIDTH, 3 * WIDTH, rows, ROWS);
        load_tile(g, dout + (long long)start * WIDTH + column, WIDTH, rows, ROWS);
        await_tiles();
        __syncthreads();
        product<ROWS, KEYS, HEAD, false, true>(q, LD, k, LD, [&](int r, int c, float x, float y) {
            *(float2*)(s + r * SCORES + c) = make_float2(x, y);
        });
        product<ROWS, KEYS, HEAD, false, true>(g, LD, v, LD, [&](int r, int c, float x, float y) {
            *(float2*)(d + r * SCORES + c) = make_float2(x, y);
        });
        __syncthreads();
        float p[EACH][SLOTS], ds[EACH][SLOTS], dot[EACH] = {};
        softmax(s, own, rows, group > 0 ? prefix : 0, p);
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int t = 0; t < SLOTS; t++) {
                ds[i][t] = d[(threadIdx.x / 32 + WARPS * i) * SCORES + threadIdx.x % 32 + 32 * t];
                dot[i] += p[i][t] * ds[i][t];
            }
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
#pragma unroll
            for (int i = 0; i < EACH; i++) dot[i] += __shfl_xor_sync(ALL_LANES, dot[i], step);
        const float scale = 1 / sqrtf((float)HEAD);
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int t = 0; t < SLOTS; t++) ds[i][t] = scale * p[i][t] * (ds[i][t] - dot[i]);
        __syncwarp();
        replace(s, p);
        replace(d, ds);
        __syncthreads();
        // Of a product over all keys, rows of the prefix are added up and own ones kept; group 0 has the prefix as its own.
        auto deliver = [&](float* sum, element* rest, int r, int c, float x, float y) {
            int at = group == 0 ? r - PAD : r;
            if (at >= 0 && at < prefix) {
                float2* to = (float2*)(sum + at * SUMS + c);
                *to = make_float2(to->x + x, to->y + y);
            } else if (r >= PAD) {
                write_two(rest + (r - PAD) * LD + c, x, y);
            }
        };
        product<KEYS, HEAD, ROWS, true, false>((const element*)s, PROBABILITIES, g, LD, [&](int r, int c, float x, float y) {
            deliver(sum_v, dv, r, c, x, y);
        });
        __syncthreads();
        product<KEYS, HEAD, ROWS, true, false>((const element*)d, PROBABILITIES, q, LD, [&](int r, int c, float x, float y) {
            deliver(sum_k, dk, r, c, x, y);
        });
        product<ROWS, HEAD, KEYS, false, false>((const element*)d, PROBABILITIES, k, LD, [&](int r, int c, float x, float y) {
            write_two(dq + r * LD + c, x, y);
        });
        __syncthreads();
        element* to = dqkv + (long long)start * 3 * WIDTH + column;
        store_tile(dq, to, 3 * WIDTH, rows);
        if (group > 0) {
            store_tile(dk, to + WIDTH, 3 * WIDTH, rows);
            store_tile(dv, to + 2 * WIDTH, 3 * WIDTH, rows);
        }
        __syncthreads();
    }
    await_tiles();
    __syncthreads();
    float* to = partial + (long long)blockIdx.x * prefix * 2 * WIDTH + column;
    for (int i = threadIdx.x; i < prefix * HEAD; i += 32 * WARPS) {
        int row = i / HEAD, c = i % HEAD;
        to[row * 2 * WIDTH + c] = sum_k[row * SUMS + c];
        to[row * 2 * WIDTH + WIDTH + c] = sum_v[row * SUMS + c];
    }
}
