// A ModifiedResNet without its products: columns of convolutions, average pooling, the tokens of its attention pooling.
// Activations are [images, side, side, channels]; channels are padded with zeros to whole vectors.
//
// Macros: ELEMENT.

// Bytes [images, side, side, 3] -> columns [images * out_side^2, columns] of a 3 x 3 convolution with stride 2 and padding 1: a row
// holds byte * scale + shift in the order (ky, kx, channel), 27 values, then zeros. Outside the image the value is 0 (of the
// normalised pixels). One thread a vector.
extern "C" __global__ void stem_columns(const unsigned char* pixels, element* out, int images, int side, int columns, float scale_0,
                                        float scale_1, float scale_2, float shift_0, float shift_1, float shift_2) {
    const unsigned out_side = (side - 1) / 2 + 1, vectors = columns / VECTOR;
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned row = index / vectors, first = index % vectors * VECTOR;
    const unsigned image = row / (out_side * out_side), place = row % (out_side * out_side);
    if (image >= (unsigned)images) return;
    const int top = 2 * (place / out_side) - 1, left = 2 * (place % out_side) - 1;
    float values[VECTOR];
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        const int column = first + i, channel = column % 3;
        const int y = top + column / 9, x = left + column / 3 % 3;
        const float scale = channel == 0 ? scale_0 : channel == 1 ? scale_1 : scale_2;
        const float shift = channel == 0 ? shift_0 : channel == 1 ? shift_1 : shift_2;
        values[i] = 0;
        if (column < 27 && y >= 0 && y < side && x >= 0 && x < side)
            values[i] = pixels[((image * side + y) * (size_t)side + x) * 3 + channel] * scale + shift;
    }
    store(out + (size_t)row * columns + first, values);
}

// x [images, side, side, channels] -> columns [images * side^2, 9 * channels] of a 3 x 3 convolution with stride 1 and padding 1,
// in the order (ky, kx, channel). One thread a vector.
extern "C" __global__ void columns_3x3(const element* x, element* out, int images, int side, int channels) {
    const unsigned vectors = channels / VECTOR;
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned row = index / (9 * vectors), tap = index / vectors % 9, column = index % vectors * VECTOR;
    const unsigned image = row / (side * side), place = row % (side * side);
    if (image >= (unsigned)images) return;
    const int above = place / side + tap / 3 - 1, beside = place % side + tap % 3 - 1;
    uint4 raw = make_uint4(0, 0, 0, 0);
    if (above >= 0 && above < side && beside >= 0 && beside < side)
        raw = *reinterpret_cast<const uint4*>(x + (((size_t)image * side + above) * side + beside) * channels + column);
    *reinterpret_cast<uint4*>(out + ((size_t)row * 9 + tap) * channels + column) = raw;
}

// x [images, side, side, channels] -> means of 2 x 2 places [images, side / 2, side / 2, channels]; an odd last row or column is
// left out. One thread a vector.
extern "C" __global__ void average_pool(const element* x, element* out, int images, int side, int channels) {
    const unsigned vectors = channels / VECTOR, half = side / 2;
    const size_t index = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned column = index % vectors * VECTOR;
    const size_t place = index / vectors;
    const unsigned right = place % half, down = place / half % half;
    const size_t image = place / half / half;
    if (image >= (unsigned)images) return;
    const element* from = x + ((image * side + 2 * down) * side + 2 * right) * channels + column;
    float sum[VECTOR] = {};
#pragma unroll
    for (int corner = 0; corner < 4; corner++) {
        float values[VECTOR];
        load(from + (size_t)(corner / 2 * side + corner % 2) * channels, values);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) sum[i] += values[i];
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) sum[i] *= 0.25f;
    store(out + place * channels + column, sum);
}

// x [images, places, channels] and positions [places + 1, channels] -> tokens [images, places + 1, channels]: the mean of an
// image's places, then the places, each plus its position. One thread a vector of channels, which walks over the places.
extern "C" __global__ void pool_tokens(const element* x, const element* positions, element* out, int images, int places, int channels) {
    const unsigned vectors = channels / VECTOR;
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned image = index / vectors, column = index % vectors * VECTOR;
    if (image >= (unsigned)images) return;
    x += (size_t)image * places * channels + column;
    out += (size_t)image * (places + 1) * channels + column;
    positions += column;
    float mean[VECTOR] = {}, values[VECTOR], position[VECTOR];
    for (int place = 0; place < places; place++) {
        load(x + (size_t)place * channels, values);
        load(positions + (size_t)(place + 1) * channels, position);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) mean[i] += values[i], values[i] += position[i];
        store(out + (size_t)(place + 1) * channels, values);
    }
    load(positions, position);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) mean[i] = mean[i] / places + position[i];
    store(out, mean);
}
