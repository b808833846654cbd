// Scores of a group of attention.cu in shared memory, and the softmax of their rows: for the backward pass and for float32.

constexpr int SCORES = KEYS + 4;                         // row stride of scores, floats
constexpr int PROBABILITIES = SCORES * 4 / (int)sizeof(element);  // of the probabilities that replace them: the same bytes
constexpr int SLOTS = KEYS / 32;                         // keys of a row that a lane holds
constexpr int EACH = ROWS / WARPS;  // queries of a group that a warp treats: warp + WARPS i, all at once, to hide latencies

// The probabilities of a warp's queries: p[i][t] is that of key lane + 32 t. The group has `rows` rows; `own` is where each row's
// text starts in the group, and the first `prefix` keys are seen by all. Zeros for queries that the group does not have.
__device__ inline void softmax(const float* scores, const int* own, int rows, int prefix, float p[EACH][SLOTS]) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float most[EACH], sum[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int row = warp + WARPS * i, from = row < rows ? own[row] : 0;
        most[i] = LOWEST;
#pragma unroll
        for (int t = 0; t < SLOTS; t++) {
            int key = lane + 32 * t, other = key - PAD;
            bool seen = row < rows && (key < PAD ? key < prefix : other <= row && other >= from);
            p[i][t] = seen ? scores[row * SCORES + key] : 2 * LOWEST;
            most[i] = fmaxf(most[i], p[i][t]);
        }
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
#pragma unroll
        for (int i = 0; i < EACH; i++) most[i] = fmaxf(most[i], __shfl_xor_sync(ALL_LANES, most[i], step));
    const float scale = 1 / sqrtf((float)HEAD);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        sum[i] = 0;
#pragma unroll
        for (int t = 0; t < SLOTS; t++) {
            p[i][t] = exponential(scale * (p[i][t] - most[i]));
            sum[i] += p[i][t];
        }
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
#pragma unroll
        for (int i = 0; i < EACH; i++) sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], step);
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int t = 0; t < SLOTS; t++) p[i][t] *= sum[i] > 0 ? 1 / sum[i] : 0;
}

// Replaces a warp's rows of scores, which all its lanes have read, by values of the same columns.
__device__ inline void replace(float* scores, const float p[EACH][SLOTS]) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int t = 0; t < SLOTS; t++)
            ((element*)scores)[(warp + WARPS * i) * PROBABILITIES + lane + 32 * t] = to_element(p[i][t]);
}
