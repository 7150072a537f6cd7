// One query over one block of keys and values.
#include "vectors.h"

// Scores of four keys; returns their unscaled products.
INLINE f32x4 score_4_keys(const float *q, const float *k, size_t stride, size_t dim) {
    f32x16 sum[4] = {0};
    for (size_t d = 0; d < dim; d += LANES) {
        f32x16 query = load(q + d, dim - d);
        UNROLL for (size_t i = 0; i < 4; i++) sum[i] = fma16(query, load(k + i * stride + d, dim - d), sum[i]);
    }
    return sum_lanes_of_4(sum[0], sum[1], sum[2], sum[3]);
}

INLINE float score_key(const float *q, const float *k, size_t dim) {
    f32x16 sum = 0.0f;
    for (size_t d = 0; d < dim; d += LANES) sum = fma16(load(q + d, dim - d), load(k + d, dim - d), sum);
    return sum_lanes(sum);
}

// Adds the values' next 16·N dimensions, of which `dims` exist, to the running sums.
INLINE void add_values(const float *weights, const float *v, size_t stride, size_t keys, float rescale, float *sums,
                       size_t dims, const size_t N) {
    f32x16 sum[4];
    UNROLL for (size_t n = 0; n < N; n++) sum[n] = load(sums + n * LANES, dims - n * LANES) * rescale;
    for (size_t i = 0; i < keys; i++) {
        UNROLL for (size_t n = 0; n < N; n++) {
            sum[n] = fma16(weights[i], load(v + i * stride + n * LANES, dims - n * LANES), sum[n]);
        }
    }
    UNROLL for (size_t n = 0; n < N; n++) store(sums + n * LANES, dims - n * LANES, sum[n]);
}

static void attend(const float *q, const float *k, const float *v, size_t stride, size_t count, size_t dim,
                   float scale, float *state) {
    float weights[MK_KV_BLOCK];
    for (size_t start = 0; start < count; start += MK_KV_BLOCK) {
        size_t keys = count - start < MK_KV_BLOCK ? count - start : MK_KV_BLOCK;
        const float *key = k + start * stride, *value = v + start * stride;
        size_t i = 0;
        for (; i + 4 <= keys; i += 4) {
            f32x4 products = score_4_keys(q, key + i * stride, stride, dim) * scale;
            memcpy(weights + i, &products, sizeof products);
        }
        for (; i < keys; i++) weights[i] = scale * score_key(q, key + i * stride, dim);
        float maximum = state[0];
        for (i = 0; i < keys; i++) maximum = weights[i] > maximum ? weights[i] : maximum;

        f32x16 first = state[0] - maximum;
        float rescale = exponential(first).x;
        f32x16 lanes = 0.0f;
        for (i = 0; i < keys; i += LANES) {
            store(weights + i, keys - i, exponential(load(weights + i, keys - i) - maximum));
            lanes = lanes + load(weights + i, keys - i);
        }
        state[0] = maximum;
        state[1] = __builtin_fmaf(state[1], rescale, sum_lanes(lanes));

        float *sums = state + 2;
        size_t d = 0;
        for (; d + 4 * LANES <= dim; d += 4 * LANES) {
            add_values(weights, value + d, stride, keys, rescale, sums + d, 4 * LANES, 4);
        }
        for (; d + LANES <= dim; d += LANES) add_values(weights, value + d, stride, keys, rescale, sums + d, LANES, 1);
        if (d < dim) add_values(weights, value + d, stride, keys, rescale, sums + d, dim - d, 1);
    }
}
