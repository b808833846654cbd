// The forward pass of attention.cu: out [rows, WIDTH]. Grid (blocks of groups, HEADS).

#if ELEMENT != 0

// With 16 bits scores never leave the registers: a warp takes QUERIES queries of a group, and its probabilities are the next
// product's left operand as they lie. A block takes PARTS groups at once, so that `chunk` is PARTS.
constexpr int PARTS = 2, QUERIES = 16;

extern "C" __global__ void __launch_bounds__(PARTS* ROWS * 32 / QUERIES)
text_attention(const element* qkv, const int* starts, const int* first, element* out, int groups, int, int prefix) {
    DYNAMIC_SHARED(element, memory);
    __shared__ int owns[PARTS][ROWS];
    constexpr int warps = ROWS / QUERIES;  // of a group
    int column = blockIdx.y * HEAD, lane = threadIdx.x % 32, part = threadIdx.x / 32 / warps;
    int from_row = threadIdx.x / 32 % warps * QUERIES;  // of the group, the warp's first
    element* prefix_k = memory;                         // [PAD, LD]
    element* prefix_v = prefix_k + PAD * LD;            // [PAD, LD]
    load_tile(prefix_k, qkv + WIDTH + column, 3 * WIDTH, prefix, PAD);
    load_tile(prefix_v, qkv + 2 * WIDTH + column, 3 * WIDTH, prefix, PAD);
    for (int p = 0; p < PARTS; p++) {
        int group = blockIdx.x * PARTS + p;
        if (group >= groups) break;
        int start = starts[group], rows = starts[group + 1] - start;
        const element* from = qkv + (long long)start * 3 * WIDTH + column;
        element* tile = prefix_v + PAD * LD + p * 3 * ROWS * LD;  // q, k and v, [ROWS, LD] each
        if ((int)threadIdx.x < rows) owns[p][threadIdx.x] = first[start + threadIdx.x] - start;
        for (int i = 0; i < 3; i++) load_tile(tile + i * ROWS * LD, from + i * WIDTH, 3 * WIDTH, rows, ROWS);
    }
    await_tiles();
    __syncthreads();
    int group = blockIdx.x * PARTS + part;
    if (group >= groups) return;
    int start = starts[group], rows = starts[group + 1] - start;
    if (from_row >= rows) return;
    element* q = prefix_v + PAD * LD + part * 3 * ROWS * LD;
    const element *k = q + ROWS * LD, *v = k + ROWS * LD;
    int matrix = lane / 8, r = lane % 8;
    unsigned x[HEAD / 16][4];
#pragma unroll
    for (int i = 0; i < HEAD / 16; i++) load_matrices(x[i], q + (from_row + matrix % 2 * 8 + r) * LD + 16 * i + matrix / 2 * 8);

    // s[t][i] is the score of query lane / 4 + i / 2 * 8 and key 8 t + lane % 4 * 2 + i % 2.
    float s[KEYS / 8][4] = {}, most[2] = {LOWEST, LOWEST}, sum[2] = {};
#pragma unroll
    for (int j = 0; j < KEYS; j += 16) {
        if (j >= PAD ? j - PAD > from_row : group == 0) continue;  // nothing of this is seen
        const element* keys = j < PAD ? prefix_k + j * LD : k + (j - PAD) * LD;
#pragma unroll
        for (int i = 0; i < HEAD / 16; i++) {
            unsigned y[4];
            load_matrices(y, keys + (matrix / 2 * 8 + r) * LD + 16 * i + matrix % 2 * 8);
            multiply(s[j / 8], x[i], y[0], y[1]);
            multiply(s[j / 8 + 1], x[i], y[2], y[3]);
        }
    }
    const float scale = 1 / sqrtf((float)HEAD);
    int row[2] = {from_row + lane / 4, from_row + lane / 4 + 8}, own[2];
    for (int h = 0; h < 2; h++) own[h] = row[h] < rows ? owns[part][row[h]] : 0;
#pragma unroll
    for (int t = 0; t < KEYS / 8; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int key = 8 * t + lane % 4 * 2 + i % 2, other = key - PAD;
            bool seen = key < PAD ? group > 0 && key < prefix : other <= row[i / 2] && other >= own[i / 2];
            s[t][i] = seen ? scale * s[t][i] : 2 * LOWEST;
            most[i / 2] = fmaxf(most[i / 2], s[t][i]);
        }
    for (int h = 0; h < 2; h++)
        for (int step = 2; step > 0; step /= 2) most[h] = fmaxf(most[h], __shfl_xor_sync(ALL_LANES, most[h], step));
#pragma unroll
    for (int t = 0; t < KEYS / 8; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s[t][i] = exponential(s[t][i] - most[i / 2]);
            sum[i / 2] += s[t][i];
        }
    for (int h = 0; h < 2; h++) {
        for (int step = 2; step > 0; step /= 2) sum[h] += __shfl_xor_sync(ALL_LANES, sum[h], step);
        sum[h] = 1 / sum[h];
    }
    float o[HEAD / 8][4] = {};
#pragma unroll
    for (int j = 0; j < KEYS; j += 16) {
        if (j >= PAD ? j - PAD > from_row : group == 0) continue;
        const element* values = j < PAD ? prefix_v + j * LD : v + (j - PAD) * LD;
        const float *a = s[j / 8], *b = s[j / 8 + 1];
        unsigned p[4] = {pack_pair(a[0], a[1]), pack_pair(a[2], a[3]), pack_pair(b[0], b[1]), pack_pair(b[2], b[3])};
#pragma unroll
        for (int n = 0; n < HEAD; n += 16) {
            unsigned y[4];
            load_transposed(y, values + (matrix % 2 * 8 + r) * LD + n + matrix / 2 * 8);
            multiply(o[n / 8], p, y[0], y[1]);
            multiply(o[n / 8 + 1], p, y[2], y[3]);
        }
    }
    // To where the warp's queries were, then out in whole vectors.
    __syncwarp();
#pragma unroll
    for (int n = 0; n < HEAD / 8; n++)
        for (int h = 0; h < 2; h++)
            write_two(q + row[h] * LD + 8 * n + lane % 4 * 2, o[n][2 * h] * sum[h], o[n][2 * h + 1] * sum[h]);
    __syncwarp();
    for (int i = lane; i < QUERIES * HEAD / VECTOR; i += 32) {
        int at = from_row + i / (HEAD / VECTOR), c = i % (HEAD / VECTOR) * VECTOR;
        if (at < rows) *(uint4*)(out + (long long)(start + at) * WIDTH + column + c) = *(const uint4*)(q + at * LD + c);
    }
}

#else

// A block takes `chunk` groups, one after another.
extern "C" __global__ void __launch_bounds__(32 * WARPS, FORWARD_BLOCKS)
text_attention(const element* qkv, const int* starts, const int* first, element* out, int groups, int chunk, int prefix) {
    DYNAMIC_SHARED(element, memory);
    element* q = memory;             // [ROWS, LD]
    element* k = q + ROWS * LD;      // [KEYS, LD]
    element* v = k + KEYS * LD;      // [KEYS, LD]
    float* s = v + KEYS * LD;        // [ROWS, SCORES], then the probabilities
    __shared__ int own[ROWS];
    int column = blockIdx.y * HEAD;
    load_tile(k, qkv + WIDTH + column, 3 * WIDTH, prefix, PAD);
    load_tile(v, qkv + 2 * WIDTH + column, 3 * WIDTH, prefix, PAD);
    int last = min((int)(blockIdx.x + 1) * chunk, groups);
    for (int group = blockIdx.x * chunk; group < last; group++) {
        int start = starts[group], rows = starts[group + 1] - start;
        const element* from = qkv + (long long)start * 3 * WIDTH + column;
        if ((int)threadIdx.x < rows) own[threadIdx.x] = first[start + threadIdx.x] - start;
        load_tile(q, from, 3 * WIDTH, rows, ROWS);
        load_tile(k + PAD * LD, from + WIDTH, 3 * WIDTH, rows, ROWS);
        load_tile(v + PAD * LD, from + 2 * WIDTH, 3 * WIDTH, rows, ROWS);
        await_tiles();
        __syncthreads();
        product<ROWS, KEYS, HEAD, false, true>(q, LD, k, LD, [&](int r, int c, float x, float y) {
            *(float2*)(s + r * SCORES + c) = make_float2(x, y);
        });
        __syncthreads();
        float p[EACH][SLOTS];
        softmax(s, own, rows, group > 0 ? prefix : 0, p);
        __syncwarp();
        replace(s, p);
        __syncthreads();
        product<ROWS, HEAD, KEYS, false, false>(s, SCORES, v, LD, [&](int r, int c, float x, float y) {
            write_two(q + r * LD + c, x, y);
        });
        __syncthreads();
        store_tile(q, out + (long long)start * WIDTH + column, WIDTH, rows);
        __syncthreads();
    }
    // A block without a group has begun to copy the prefix, too.
    await_tiles();
}

#endif
