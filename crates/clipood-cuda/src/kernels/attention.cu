// Attention of packed projections: softmax(q k^T / sqrt(HEAD)) v, online softmax, scores never in memory.
//
// Macros: ELEMENT, HEAD (values of a head: any in float32, a multiple of 8 else); of the 16-bit kernel TALL (sixteens of queries
// of a warp), MOST_WARPS (of a block), LEAST_BLOCKS (that a multiprocessor holds), KEYS (of a tile), STAGES (tiles in
// shared memory).

// Rows of q, k, v and out start at sequence * sequence_stride + row * row_stride + head * HEAD, so that projections are read where
// a product left them. Grid (blocks of queries, heads, sequences).
#define ATTENTION_ARGUMENTS                                                                                                       \
    const element *q, const element *k, const element *v, element *out, long long q_sequence, int q_row, long long kv_sequence,      \
        int kv_row, long long out_sequence, int out_row, int queries, int keys

#if ELEMENT != 0

#define STEPS ((HEAD + 15) / 16)      // products of depth 16 over a head's values
#define PIECES (2 * STEPS)            // 16-byte pieces of a row in shared memory, zeros behind HEAD
#define PITCH ((PIECES | 1) * 8)      // an odd number of pieces: eight rows lie in eight different bank groups
#define GROUPS (KEYS / 16)

// A warp owns 16 * TALL queries; all warps of a block read the same tiles of KEYS keys and values, which are loaded STAGES - 1
// tiles ahead. Maximum and sum of each row stay in registers: a lane holds rows lane / 4 and lane / 4 + 8 of a sixteen, there
// columns 2 * (lane % 4) and the next. Dynamic shared memory: STAGES * 2 * KEYS * PITCH elements.
extern "C" __global__ void __launch_bounds__(MOST_WARPS * LANES, LEAST_BLOCKS) attention(ATTENTION_ARGUMENTS) {
    DYNAMIC_SHARED(element, tiles);
    // Warps without queries only help to load. Which ones they are turns with the head: warp w always runs on scheduler w % 4.
    const int warps = blockDim.x / LANES, warp = (threadIdx.x / LANES + blockIdx.y) % warps;
    const int lane = threadIdx.x % LANES, quad = lane / 4, pair = lane % 4 * 2;
    const int block = blockIdx.x * warps * 16 * TALL, first = block + warp * 16 * TALL;
    q += blockIdx.z * q_sequence + blockIdx.y * HEAD;
    k += blockIdx.z * kv_sequence + blockIdx.y * HEAD;
    v += blockIdx.z * kv_sequence + blockIdx.y * HEAD;
    out += blockIdx.z * out_sequence + blockIdx.y * HEAD;

    const int count = (keys + KEYS - 1) / KEYS;

    // A thread copies one 16-byte piece of every `pass`-th row; keys and values lie `apart`.
    const int pass = blockDim.x / PIECES, own = threadIdx.x / PIECES, piece = threadIdx.x % PIECES * 8;
    const long long apart = v - k;
    k += (size_t)own * kv_row + piece;
    auto fetch = [&](int tile) {
        const element* from = k + (size_t)tile * KEYS * kv_row;
        shared_address_t to = shared_address(tiles + tile % STAGES * (2 * KEYS * PITCH) + own * PITCH + piece);
        if (tile < count && own < pass)
            for (int row = own; row < KEYS; row += pass) {
                const bool valid = tile * KEYS + row < keys && piece < HEAD;
                copy_async(to, from, valid);
                copy_async(to + KEYS * PITCH * sizeof(element), from + apart, valid);
                from += (size_t)pass * kv_row;
                to += pass * PITCH * sizeof(element);
            }
        copy_commit();  // an empty group behind the last tile, so that the count of groups stays right
    };
#pragma unroll
    for (int tile = 0; tile < STAGES - 1; tile++) fetch(tile);

    // The queries' fragments stay in registers.
    unsigned query[TALL][STEPS][4];
#pragma unroll
    for (int tall = 0; tall < TALL; tall++)
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int part = 0; part < 4; part++) {
                const int row = first + tall * 16 + quad + part % 2 * 8, column = step * 16 + pair + part / 2 * 8;
                query[tall][step][part] = 0;
                if (row < queries && column < HEAD)
                    query[tall][step][part] = *reinterpret_cast<const unsigned*>(q + (size_t)row * q_row + column);
            }

    const float scale = LOG2_E * rsqrtf((float)HEAD);
    float sums[TALL][PIECES][4] = {}, most[TALL][2], total[TALL][2] = {};
#pragma unroll
    for (int tall = 0; tall < TALL; tall++) most[tall][0] = most[tall][1] = LOWEST;

    // One tile; `whole` ones have every key in sight of every query, and no branch between the products.
    auto attend = [&](int tile, bool whole) {
        const element *key_tile = tiles + tile % STAGES * (2 * KEYS * PITCH), *value_tile = key_tile + KEYS * PITCH;
        const int valid = whole ? KEYS : keys - tile * KEYS;  // groups of 16 keys from here on are skipped
        float scores[TALL][2 * GROUPS][4] = {};
#pragma unroll
        for (int group = 0; group < GROUPS; group++)
            if (group * 16 < valid) {
                const element* row = key_tile + (group * 16 + lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 8;
#pragma unroll
                for (int step = 0; step < STEPS; step++) {
                    unsigned b[4];
                    load_matrices(b, row + step * 16);
#pragma unroll
                    for (int tall = 0; tall < TALL; tall++) {
                        multiply(scores[tall][2 * group], query[tall][step], b[0], b[1]);
                        multiply(scores[tall][2 * group + 1], query[tall][step], b[2], b[3]);
                    }
                }
            }
#pragma unroll
        for (int tall = 0; tall < TALL; tall++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int limit = valid - pair;
                float high = most[tall][half];
#pragma unroll
                for (int n = 0; n < 2 * GROUPS; n++)
                    if (n / 2 * 16 < valid) {
#pragma unroll
                        for (int i = 0; i < 2; i++) {
                            float& score = scores[tall][n][2 * half + i];
                            if (!whole && n * 8 + i >= limit) score = LOWEST;
                            high = fmaxf(high, score);
                        }
                    }
                high = fmaxf(high, __shfl_xor_sync(ALL_LANES, high, 1));
                high = fmaxf(high, __shfl_xor_sync(ALL_LANES, high, 2));
                const float shrink = exp2_fast((most[tall][half] - high) * scale), base = high * scale;
                most[tall][half] = high;
                float sum = 0;
#pragma unroll
                for (int n = 0; n < 2 * GROUPS; n++)
                    if (n / 2 * 16 < valid) {
#pragma unroll
                        for (int i = 2 * half; i < 2 * half + 2; i++) {
                            scores[tall][n][i] = exp2_fast(scores[tall][n][i] * scale - base);
                            sum += scores[tall][n][i];
                        }
                    }
                total[tall][half] = total[tall][half] * shrink + sum;
#pragma unroll
                for (int n = 0; n < PIECES; n++) sums[tall][n][2 * half] *= shrink, sums[tall][n][2 * half + 1] *= shrink;
            }
#pragma unroll
        for (int group = 0; group < GROUPS; group++)
            if (group * 16 < valid) {
                unsigned a[TALL][4];
#pragma unroll
                for (int tall = 0; tall < TALL; tall++)
#pragma unroll
                    for (int part = 0; part < 4; part++) {
                        const float* score = scores[tall][2 * group + part / 2];
                        a[tall][part] = pack_pair(score[part % 2 * 2], score[part % 2 * 2 + 1]);
                    }
                const element* row = value_tile + (group * 16 + lane / 8 % 2 * 8 + lane % 8) * PITCH + lane / 16 * 8;
#pragma unroll
                for (int step = 0; step < STEPS; step++) {
                    unsigned b[4];
                    load_transposed(b, row + step * 16);
#pragma unroll
                    for (int tall = 0; tall < TALL; tall++) {
                        multiply(sums[tall][2 * step], a[tall], b[0], b[1]);
                        multiply(sums[tall][2 * step + 1], a[tall], b[2], b[3]);
                    }
                }
            }
    };

    for (int tile = 0; tile < count; tile++) {
        copy_wait<STAGES - 2>();
        __syncthreads();  // the tile is here, and nobody reads the one before any more
        fetch(tile + STAGES - 1);
        if (first >= queries) continue;
        if ((tile + 1) * KEYS <= keys)
            attend(tile, true);
        else
            attend(tile, false);
    }

#pragma unroll
    for (int tall = 0; tall < TALL; tall++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[tall][half];
            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            const float inverse = __fdividef(1, sum);
            const int row = first + tall * 16 + quad + half * 8;
            if (row >= queries) continue;
#pragma unroll
            for (int n = 0; n < PIECES; n++)
                if (n * 8 < HEAD)
                    *reinterpret_cast<unsigned*>(out + (size_t)row * out_row + n * 8 + pair) =
                        pack_pair(sums[tall][n][2 * half] * inverse, sums[tall][n][2 * half + 1] * inverse);
        }
}

#else  // float32: plain multiply-adds, tiles of 64 queries and 64 keys

#define TILE 64
#define PITCH (TILE + 4)
#define ROUND(n) (((n) + 15) / 16)

// 256 threads with 4 x 4 scores each: thread (y, x) has the four queries from 4 y and the four keys from 4 x, and of the sums the
// same queries and the values x, x + 16, .... Queries and keys lie transposed in shared memory.
// Dynamic shared memory: 2 * HEAD * PITCH + TILE * HEAD + TILE * PITCH floats.
extern "C" __global__ void __launch_bounds__(256) attention(ATTENTION_ARGUMENTS) {
    DYNAMIC_SHARED(float, tiles);
    float *query = tiles, *key_tile = query + HEAD * PITCH, *value_tile = key_tile + HEAD * PITCH, *weights = value_tile + TILE * HEAD;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16, first = blockIdx.x * TILE;
    q += blockIdx.z * q_sequence + blockIdx.y * HEAD;
    k += blockIdx.z * kv_sequence + blockIdx.y * HEAD;
    v += blockIdx.z * kv_sequence + blockIdx.y * HEAD;
    out += blockIdx.z * out_sequence + blockIdx.y * HEAD;
    const float scale = LOG2_E * rsqrtf((float)HEAD);
    for (int i = threadIdx.x; i < TILE * HEAD; i += 256) {
        const int row = i / HEAD, column = i % HEAD;
        query[column * PITCH + row] = first + row < queries ? q[(size_t)(first + row) * q_row + column] * scale : 0;
    }
    float sums[4][ROUND(HEAD)] = {}, most[4] = {LOWEST, LOWEST, LOWEST, LOWEST}, total[4] = {};
    for (int start = 0; start < keys; start += TILE) {
        __syncthreads();
        for (int i = threadIdx.x; i < TILE * HEAD; i += 256) {
            const int row = i / HEAD, column = i % HEAD;
            const bool valid = start + row < keys;
            const size_t from = valid ? (size_t)(start + row) * kv_row + column : 0;
            key_tile[column * PITCH + row] = valid ? k[from] : 0;
            value_tile[row * HEAD + column] = valid ? v[from] : 0;
        }
        __syncthreads();
        float scores[4][4] = {};
#pragma unroll 8
        for (int d = 0; d < HEAD; d++) {
            const float4 a = *reinterpret_cast<const float4*>(query + d * PITCH + 4 * y);
            const float4 b = *reinterpret_cast<const float4*>(key_tile + d * PITCH + 4 * x);
            const float as[4] = {a.x, a.y, a.z, a.w}, bs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) scores[i][j] += as[i] * bs[j];
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float high = most[i];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int key = start + 4 * x + j;
                if (key >= keys) scores[i][j] = LOWEST;
                high = fmaxf(high, scores[i][j]);
            }
#pragma unroll
            for (int step = 8; step; step /= 2) high = fmaxf(high, __shfl_xor_sync(ALL_LANES, high, step));
            const float shrink = exp2f(most[i] - high);
            most[i] = high;
            total[i] *= shrink;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                scores[i][j] = exp2f(scores[i][j] - high);
                total[i] += scores[i][j];
                weights[(4 * x + j) * PITCH + 4 * y + i] = scores[i][j];
            }
#pragma unroll
            for (int j = 0; j < ROUND(HEAD); j++) sums[i][j] *= shrink;
        }
        __syncthreads();
#pragma unroll 8
        for (int key = 0; key < TILE; key++) {
            const float4 a = *reinterpret_cast<const float4*>(weights + key * PITCH + 4 * y);
            const float as[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
            for (int j = 0; j < ROUND(HEAD); j++)
                if (j * 16 + x < HEAD) {
                    const float b = value_tile[key * HEAD + j * 16 + x];
#pragma unroll
                    for (int i = 0; i < 4; i++) sums[i][j] += as[i] * b;
                }
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float sum = total[i];
#pragma unroll
        for (int step = 8; step; step /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
        const int row = first + 4 * y + i;
        if (row >= queries) continue;
#pragma unroll
        for (int j = 0; j < ROUND(HEAD); j++)
            if (j * 16 + x < HEAD) out[(size_t)row * out_row + j * 16 + x] = sums[i][j] / sum;
    }
}

#endif
