// Functions of one element, norms, rotary positions, depthwise convolution.
#include "vectors.h"

static void depthwise_f32(const float *w, const float *bias, size_t taps, size_t channels, const float *x,
                          size_t columns, float *y) {
    for (size_t t = 0; t < columns; t++) {
        for (size_t c = 0; c < channels; c += LANES) {
            f32x16 sum = bias ? load(bias + c, channels - c) : 0.0f;
            for (size_t j = 0; j < taps; j++) {
                f32x16 weight = load(w + j * channels + c, channels - c);
                sum = fma16(weight, load(x + (t + j) * channels + c, channels - c), sum);
            }
            store(y + t * channels + c, channels - c, sum);
        }
    }
}

static void rms_norm(const float *x, size_t ldx, const float *weight, float eps, size_t rows, size_t n, float *y,
                     size_t ldy) {
    for (size_t row = 0; row < rows; row++, x += ldx, y += ldy) {
        f32x16 squares = 0.0f;
        for (size_t i = 0; i < n; i += LANES) {
            f32x16 value = load(x + i, n - i);
            squares = fma16(value, value, squares);
        }
        float inverse = 1.0f / sqrtf(sum_lanes(squares) / (float)n + eps);
        for (size_t i = 0; i < n; i += LANES) {
            store(y + i, n - i, load(weight + i, n - i) * (load(x + i, n - i) * inverse));
        }
    }
}

static void layer_norm(const float *x, size_t ldx, const float *weight, const float *bias, float eps, size_t rows,
                       size_t n, float *y, size_t ldy) {
    for (size_t row = 0; row < rows; row++, x += ldx, y += ldy) {
        f32x16 sum = 0.0f;
        for (size_t i = 0; i < n; i += LANES) sum = sum + load(x + i, n - i);
        float mean = sum_lanes(sum) / (float)n;
        f32x16 squares = 0.0f;
        for (size_t i = 0; i < n; i += LANES) {
            f32x16 deviation = load(x + i, n - i) - mean;
            if (n - i < LANES) {
                float part[LANES] = {0};
                store(part, n - i, deviation);
                deviation = load_f32x16(part);
            }
            squares = fma16(deviation, deviation, squares);
        }
        float inverse = 1.0f / sqrtf(sum_lanes(squares) / (float)n + eps);
        for (size_t i = 0; i < n; i += LANES) {
            f32x16 scaled = (load(x + i, n - i) - mean) * inverse;
            store(y + i, n - i, fma16(scaled, load(weight + i, n - i), load(bias + i, n - i)));
        }
    }
}

static void norm_rope(float *x, size_t heads, size_t dim, const float *weight, float eps, const float *cos,
                      const float *sin) {
    size_t half = dim / 2;
    for (size_t head = 0; head < heads; head++, x += dim) {
        if (weight) rms_norm(x, dim, weight, eps, 1, dim, x, dim);
        for (size_t i = 0; i < half; i += LANES) {
            size_t count = half - i;
            f32x16 low = load(x + i, count), high = load(x + half + i, count);
            f32x16 c = load(cos + i, count), s = load(sin + i, count);
            store(x + i, count, low * c - high * s);
            store(x + half + i, count, high * c + low * s);
        }
    }
}

static void silu_mul(const float *gate, const float *up, size_t n, float *y) {
    for (size_t i = 0; i < n; i += LANES) {
        store(y + i, n - i, silu_of(load(gate + i, n - i)) * load(up + i, n - i));
    }
}

static void silu(const float *x, size_t n, float *y) {
    for (size_t i = 0; i < n; i += LANES) store(y + i, n - i, silu_of(load(x + i, n - i)));
}

static void gelu(const float *x, size_t n, float *y) {
    for (size_t i = 0; i < n; i += LANES) store(y + i, n - i, gelu_of(load(x + i, n - i)));
}

static void elu(const float *x, size_t n, float *y) {
    for (size_t i = 0; i < n; i += LANES) store(y + i, n - i, elu_of(load(x + i, n - i)));
}

static void add_scaled(const float *x, const float *scale, size_t n, float *y) {
    for (size_t i = 0; i < n; i += LANES) {
        f32x16 factor = scale ? load(scale + i, n - i) : 1.0f;
        store(y + i, n - i, fma16(load(x + i, n - i), factor, load(y + i, n - i)));
    }
}

static void snake(const float *x, size_t ldx, const float *alpha, const float *inv_beta, size_t rows, size_t n,
                  float *y, size_t ldy) {
    for (size_t row = 0; row < rows; row++, x += ldx, y += ldy) {
        for (size_t i = 0; i < n; i += LANES) {
            f32x16 value = snake_of(load(x + i, n - i), load(alpha + i, n - i), load(inv_beta + i, n - i));
            store(y + i, n - i, value);
        }
    }
}

static void add_bf16(const uint16_t *x, size_t n, float *y) {
    size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) store_f32x16(y + i, load_f32x16(y + i) + widen_bf16(x + i));
    for (size_t i = whole; i < n; i++) y[i] = y[i] + from_bf16(x[i]);
}

static void copy_bf16(const uint16_t *x, size_t n, float *y) {
    size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) store_f32x16(y + i, widen_bf16(x + i));
    for (size_t i = whole; i < n; i++) y[i] = from_bf16(x[i]);
}
