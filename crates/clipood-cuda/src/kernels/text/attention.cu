// Causal attention of texts that share their first tokens, packed without padding, and its gradient.
//
// Defined by the host: ELEMENT, WIDTH, HEADS; PAD, a multiple of 32 that holds the prefix; ROWS, a multiple of 32 that holds the
// prefix and the longest text's own tokens; FORWARD_BLOCKS and BACKWARD_BLOCKS, how many blocks of threads a multiprocessor shall
// hold at once, so that the compiler uses no more registers than leave room for them.
//
// `qkv` is [rows, 3 WIDTH]: the rows of the prefix, then those of each text. Rows are treated in groups of whole texts, at most
// ROWS rows each; group 0 is the prefix itself, and a group may be empty. A query of a group sees KEYS keys: the prefix's, padded
// to PAD, then the group's own rows, of which a mask leaves those of the same text up to the query. So all of a group's
// arithmetic is a few small dense products. `starts` [groups + 1] is the first row of each group, `first` [rows] that of each
// row's text.

constexpr int HEAD = WIDTH / HEADS;
constexpr int KEYS = PAD + ROWS;
constexpr int LD = HEAD + VECTOR;  // row stride of a tile of a head's columns: no two rows of eight start in one bank
static_assert(HEAD % 16 == 0 && ROWS % 32 == 0 && PAD % 32 == 0, "the tiles divide head, rows and prefix");

// C [M, N] = A [M, K] B [K, N], all threads of the block together, A and B in shared memory. A is stored [K, M] where TA, B is
// stored [N, K] where TB. `out(row, column, x, y)` gets the values at (row, column) and (row, column + 1).
template <int M, int N, int K, bool TA, bool TB, class Out>
__device__ inline void product(const element* a, int lda, const element* b, int ldb, Out out) {
#if ELEMENT == 0
    for (int tile = threadIdx.x; tile < M / 4 * (N / 2); tile += 32 * WARPS) {
        int m = tile / (N / 2) * 4, n = tile % (N / 2) * 2;
        float c[4][2] = {};
        for (int k = 0; k < K; k += 4) {
            float x[4][4], y[2][4];  // of 4 terms
            for (int i = 0; i < 4; i++)
                for (int t = 0; t < 4; t++) x[i][t] = TA ? a[(k + t) * lda + m + i] : a[(m + i) * lda + k + t];
            for (int j = 0; j < 2; j++)
                for (int t = 0; t < 4; t++) y[j][t] = TB ? b[(n + j) * ldb + k + t] : b[(k + t) * ldb + n + j];
            for (int t = 0; t < 4; t++)
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 2; j++) c[i][j] += x[i][t] * y[j][t];
        }
        for (int i = 0; i < 4; i++) out(m + i, n, c[i][0], c[i][1]);
    }
#else
    int lane = threadIdx.x % 32, matrix = lane / 8, r = lane % 8;  // the 8 x 8 matrix and its row whose address a lane gives
    for (int tile = threadIdx.x / 32; tile < M / 16 * (N / 16); tile += WARPS) {
        int m = tile / (N / 16) * 16, n = tile % (N / 16) * 16;
        float c[2][4] = {};
#pragma unroll
        for (int k = 0; k < K; k += 16) {
            unsigned x[4], y[4];
            if (TA)
                load_transposed(x, a + (k + matrix / 2 * 8 + r) * lda + m + matrix % 2 * 8);
            else
                load_matrices(x, a + (m + matrix % 2 * 8 + r) * lda + k + matrix / 2 * 8);
            if (TB)
                load_matrices(y, b + (n + matrix / 2 * 8 + r) * ldb + k + matrix % 2 * 8);
            else
                load_transposed(y, b + (k + matrix % 2 * 8 + r) * ldb + n + matrix / 2 * 8);
            multiply(c[0], x, y[0], y[1]);
            multiply(c[1], x, y[2], y[3]);
        }
        for (int j = 0; j < 2; j++)
            for (int i = 0; i < 2; i++) out(m + lane / 4 + 8 * i, n + 8 * j + lane % 4 * 2, c[j][2 * i], c[j][2 * i + 1]);
    }
#endif
}

// Two neighbouring values of a row in shared memory.
__device__ inline void write_two(element* to, float x, float y) {
#if ELEMENT == 0
    *(float2*)to = make_float2(x, y);
#else
    *(unsigned*)to = pack_pair(x, y);
#endif
}

// Starts to copy `rows` rows of a head's columns from global to shared memory; zeros up to `padded`.
__device__ inline void load_tile(element* tile, const element* x, int stride, int rows, int padded) {
    constexpr int vectors = HEAD / VECTOR;
    for (int i = threadIdx.x; i < padded * vectors; i += blockDim.x) {
        int row = i / vectors, c = i % vectors * VECTOR;
        bool valid = row < rows;
        copy_async(shared_address(tile + row * LD + c), valid ? x + (long long)row * stride + c : x, valid);
    }
}

__device__ inline void await_tiles() {
    copy_commit();
    copy_wait<0>();
}

__device__ inline void store_tile(const element* tile, element* x, int stride, int rows) {
    constexpr int vectors = HEAD / VECTOR;
    for (int i = threadIdx.x; i < rows * vectors; i += blockDim.x) {
        int row = i / vectors, c = i % vectors * VECTOR;
        *(uint4*)(x + (long long)row * stride + c) = *(const uint4*)(tile + row * LD + c);
    }
}
