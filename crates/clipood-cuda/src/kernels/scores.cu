// Scores of patches: what the softmax over classes needs of each row of cosines. All in float32; a warp takes a row.

// Divides the rows [rows, dim] by their lengths, in place. A row of zeros becomes NaN.
extern "C" __global__ void THREADS_OF_WARPS unit_rows(float* x, int rows, int dim) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    x += (long long)row * dim;
    float squares = 0;
    for (int i = lane; i < dim; i += 32) squares += x[i] * x[i];
    float length = sqrtf(warp_sum(squares));
    for (int i = lane; i < dim; i += 32) x[i] /= length;
}

// others[row] = the sum over all classes but the largest (the first of equals) of exp(scale (c - the largest)), c the row's
// cosines: the largest probability is 1 / (1 + others), and digits survive that 1 + others would lose. NaN where a cosine is.
extern "C" __global__ void THREADS_OF_WARPS patch_others(const float* cosines, float* others, float scale, int rows, int classes) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const float* c = cosines + (long long)row * classes;
    float most = -3.4e38f;
    for (int i = lane; i < classes; i += 32) most = fmaxf(most, c[i]);
    most = warp_max(most);
    float sum = 0, equal = 0;
    for (int i = lane; i < classes; i += 32) {
        equal += c[i] == most;
        sum += c[i] == most ? 0 : expf(scale * (c[i] - most));
    }
    sum = warp_sum(sum);
    equal = warp_sum(equal);
    if (lane == 0) others[row] = sum + (equal - 1);
}
