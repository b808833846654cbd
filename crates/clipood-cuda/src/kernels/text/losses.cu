// The losses of CoOp, LoCoOp and SCT and their gradients with respect to the logits, in float throughout.
//
// Defined by the host: ELEMENT, the type in which the tower takes the gradient of its features. The rows of logits are
// [images + images * patches, classes]: first those of the images, then those of the patches of each image. A warp takes a row.
// Formulas: the documentation of `PromptLoss::step` in clipood-clip. With l = log p_y of an image,
//   CoOp and LoCoOp  -mean(l),                 d/dl = -1 / images
//   SCT              -mean(l (A - p_y)),       d/dl = -(A - p_y - l p_y) / images, A = 1.0000001
// and for a selected patch of the image H = sum_c p_c log(p_c + EPS), weighted by w = 1 (LoCoOp) or B + p_y (SCT, B = 1e-7); the
// patch term is lambda * sum(w H) / count.

constexpr float EPS = 1e-5f;

// Row i of y = row i of x divided by its length; inverse[i] is 1 / length. Rows are float [rows, dim].
extern "C" __global__ void THREADS_OF_WARPS normalise(const float* x, float* y, float* inverse, int rows, int dim) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    x += (long long)row * dim;
    y += (long long)row * dim;
    float squares = 0;
    for (int i = lane; i < dim; i += 32) squares += x[i] * x[i];
    float factor = 1 / sqrtf(warp_sum(squares));
    for (int i = lane; i < dim; i += 32) y[i] = x[i] * factor;
    if (lane == 0) inverse[row] = factor;
}

// From d, the gradient of y = x / |x|, to that of x, times `scale`: what the tower's backward pass starts from.
extern "C" __global__ void THREADS_OF_WARPS
normalise_backward(const float* y, const float* inverse, const float* d, element* dx, float scale, int rows, int dim) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    y += (long long)row * dim;
    d += (long long)row * dim;
    float dot = 0;
    for (int i = lane; i < dim; i += 32) dot += y[i] * d[i];
    dot = warp_sum(dot);
    for (int i = lane; i < dim; i += 32)
        dx[(long long)row * dim + i] = to_element(scale * inverse[row] * (d[i] - y[i] * dot));
}

// What the gradient of a row of logits needs.
struct Found {
    float most, inverse_sum;  // of the softmax
    float log_p;              // of an image: log p_y
    float mean;               // of a selected patch: sum p g, where g is the derivative of H's terms
    float entropy;            // of a selected patch: H
    float selected;           // 1 for a patch whose label is not among its `top` most likely classes
    float right;              // 1 for an image whose label is its most likely class (the first of equals)
};

__device__ inline int image_of(int row, int images, int patches) {
    return row < images ? row : (row - images) / patches;
}

extern "C" __global__ void THREADS_OF_WARPS
loss_rows(const float* logits, const int* labels, Found* found, int images, int patches, int rows, int classes, int top) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const float* z = logits + (long long)row * classes;
    int label = labels[image_of(row, images, patches)];
    float own = z[label], most = -3.4e38f, above = 0, first = 0, sum = 0;
    for (int c = lane; c < classes; c += 32) {
        most = fmaxf(most, z[c]);
        above += z[c] > own;
        first += z[c] == own && c < label;
    }
    most = warp_max(most);
    above = warp_sum(above);
    first = warp_sum(first);
    for (int c = lane; c < classes; c += 32) sum += expf(z[c] - most);
    sum = warp_sum(sum);
    Found f = {most, 1 / sum, 0, 0, 0, 0, 0};
    if (row < images) {
        f.log_p = own - most - logf(sum);
        f.right = above + first == 0;
    } else if (above >= top) {
        float entropy = 0, mean = 0;
        for (int c = lane; c < classes; c += 32) {
            float p = expf(z[c] - most) * f.inverse_sum, l = logf(p + EPS);
            entropy += p * l;
            mean += p * (l + p / (p + EPS));
        }
        f.entropy = warp_sum(entropy);
        f.mean = warp_sum(mean);
        f.selected = 1;
    }
    if (lane == 0) found[row] = f;
}

// Of each image the sum of its selected patches' entropies and their number: a warp takes an image, in a fixed order.
extern "C" __global__ void THREADS_OF_WARPS loss_images(const Found* found, float2* sums, int images, int patches) {
    int image = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (image >= images) return;
    const Found* own = found + images + (long long)image * patches;
    float entropy = 0, selected = 0;
    for (int i = lane; i < patches; i += 32) {
        entropy += own[i].entropy;
        selected += own[i].selected;
    }
    entropy = warp_sum(entropy);
    selected = warp_sum(selected);
    if (lane == 0) sums[image] = make_float2(entropy, selected);
}

// One block of 256 threads. total: [0] the loss, [1] the images' term, [2] the patch term without lambda, [3] selected patches,
// [4] images classified correctly. `weighted` is 1 for SCT.
extern "C" __global__ void __launch_bounds__(256)
loss_total(const Found* found, const float2* sums, float* total, float lambda, int weighted, int images) {
    __shared__ float shares[4][256];
    float own = 0, entropy = 0, selected = 0, right = 0;
    for (int image = threadIdx.x; image < images; image += 256) {
        float l = found[image].log_p, p = expf(l);
        own -= weighted ? l * (1.0000001f - p) : l;
        entropy += weighted ? (p + 1e-7f) * sums[image].x : sums[image].x;
        selected += sums[image].y;
        right += found[image].right;
    }
    shares[0][threadIdx.x] = own;
    shares[1][threadIdx.x] = entropy;
    shares[2][threadIdx.x] = selected;
    shares[3][threadIdx.x] = right;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half)
            for (int i = 0; i < 4; i++) shares[i][threadIdx.x] += shares[i][threadIdx.x + half];
    }
    if (threadIdx.x > 0) return;
    total[1] = shares[0][0] / images;
    total[2] = shares[1][0] / fmaxf(shares[2][0], 1);
    total[3] = shares[2][0];
    total[4] = shares[3][0];
    total[0] = total[1] + lambda * total[2];
}

// The logits become the gradients of the loss with respect to themselves.
extern "C" __global__ void THREADS_OF_WARPS
loss_gradient(float* logits, const int* labels, const Found* found, const float2* sums, const float* total, float lambda, int weighted,
              int images, int patches, int rows, int classes) {
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float* z = logits + (long long)row * classes;
    Found f = found[row];
    int image = image_of(row, images, patches), label = labels[image];
    float share = lambda / fmaxf(total[3], 1), l = found[image].log_p, p_y = expf(l);
    // Of an image's row: the derivative with respect to log p_y. Of a patch's row: the factor of the derivative of H.
    float factor;
    if (row >= images)
        factor = share * (weighted ? p_y + 1e-7f : 1.0f);
    else if (weighted)
        factor = -(1.0000001f - p_y - l * p_y) / images + share * sums[image].x * p_y;
    else
        factor = -1.0f / images;
    for (int c = lane; c < classes; c += 32) {
        float p = expf(z[c] - f.most) * f.inverse_sum;
        if (row < images)
            z[c] = factor * ((c == label) - p);
        else if (f.selected > 0)
            z[c] = factor * p * (logf(p + EPS) + p / (p + EPS) - f.mean);
        else
            z[c] = 0;
    }
}

// Row i of y [rows, size] = row from[i] of x, float; a thread takes a value. The features of a batch out of those of all images.
extern "C" __global__ void THREADS_OF_WARPS take_features(const float* x, const int* from, float* y, int rows, int size) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)rows * size) return;
    y[at] = x[(long long)from[at / size] * size + at % size];
}
