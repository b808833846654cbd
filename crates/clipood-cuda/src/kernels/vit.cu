// The two ends of a vision transformer that are neither a product nor a row kernel: pixels to patches, patches to tokens.
// Follows rows.cu.
//
// Macros: ELEMENT, WIDTH, SIDE and PATCH (pixels), COLUMNS (values of a patch, padded to whole vectors).

#define GRID (SIDE / PATCH)
#define TOKENS (GRID * GRID + 1)

// Bytes [images, SIDE, SIDE, 3] -> patches [images * GRID * GRID, COLUMNS]: a row holds byte * scale + shift of its channel in
// the order of a convolution's weight (channel, y, x), then zeros. One thread a vector.
extern "C" __global__ void patches(const unsigned char* pixels, element* out, int images, float scale_0, float scale_1, float scale_2,
                                   float shift_0, float shift_1, float shift_2) {
    const unsigned vectors = COLUMNS / VECTOR;
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned row = index / vectors, first = index % vectors * VECTOR;
    const unsigned image = row / (GRID * GRID), patch = row % (GRID * GRID);
    if (image >= (unsigned)images) return;
    const unsigned top = patch / GRID * PATCH, left = patch % GRID * PATCH;
    float values[VECTOR];
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        const unsigned column = first + i, channel = column / (PATCH * PATCH);
        const unsigned y = top + column / PATCH % PATCH, x = left + column % PATCH;
        const float scale = channel == 0 ? scale_0 : channel == 1 ? scale_1 : scale_2;
        const float shift = channel == 0 ? shift_0 : channel == 1 ? shift_1 : shift_2;
        values[i] = 0;
        if (column < 3 * PATCH * PATCH) values[i] = pixels[((image * SIDE + y) * (size_t)SIDE + x) * 3 + channel] * scale + shift;
    }
    store(out + (size_t)row * COLUMNS + first, values);
}

// The residual stream [images, TOKENS, WIDTH]: the class token and the patch embeddings [images * GRID * GRID, WIDTH], plus
// positions [TOKENS, WIDTH], through the first layer norm. A warp a row.
extern "C" __global__ void embed(const element* patch, const element* class_token, const element* positions, const element* gain,
                                 const element* bias, element* out, int rows) {
    const int row = blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES, lane = threadIdx.x % LANES;
    if (row >= rows) return;
    const int image = row / TOKENS, token = row % TOKENS;
    const element* from = token ? patch + ((size_t)image * (TOKENS - 1) + token - 1) * WIDTH : class_token;
    float values[LANE_VALUES] = {};
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++)
        if (lane_has(i, lane)) {
            float position[VECTOR];
            float* own = values + i * VECTOR;
            load(from + lane_column(i, lane), own);
            load(positions + token * WIDTH + lane_column(i, lane), position);
#pragma unroll
            for (int j = 0; j < VECTOR; j++) own[j] += position[j];
        }
    normalise_row(values, gain, bias, out + (size_t)row * WIDTH);
}
