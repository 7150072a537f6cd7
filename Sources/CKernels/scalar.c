// The reference: every kernel as plain loops, in the order in which the vector files sum. Its results and theirs are
// the same bits, which the tests check; read this file to know what a kernel computes.
#include "internal.h"

#pragma STDC FP_CONTRACT OFF

static float sum_lanes(const float lanes[LANES]) {
    float sum[LANES];
    memcpy(sum, lanes, sizeof sum);
    for (size_t half = LANES / 2; half > 0; half /= 2) {
        for (size_t i = 0; i < half; i++) sum[i] = sum[i] + sum[i + half];
    }
    return sum[0];
}

static float add_bits(float x, int32_t n) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (int32_t)((uint32_t)bits + (uint32_t)n);
    memcpy(&x, &bits, sizeof bits);
    return x;
}

// x = n·ln 2 + r and exp r = 1 + tail: returns tail, and n·2^23 in `exponent`.
static float exp_tail(float x, int32_t *exponent) {
    x = EXP_LOWEST > x ? EXP_LOWEST : x;
    x = EXP_HIGHEST < x ? EXP_HIGHEST : x;
    float shifted = fmaf(x, LOG2_E, ROUND_MAGIC);
    float n = shifted - ROUND_MAGIC;
    float r = fmaf(-n, LN2_LOW, fmaf(-n, LN2_HIGH, x));
    float p = fmaf(fmaf(fmaf(fmaf(EXP_4, r, EXP_3), r, EXP_2), r, EXP_1), r, EXP_0);
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    *exponent = (int32_t)(bits << 23);
    return fmaf(p, r * r, r);
}

static float exponential(float x) {
    int32_t exponent;
    float tail = exp_tail(x, &exponent);
    return add_bits(1.0f + tail, exponent);
}

// exp x - 1 without cancellation near 0.
static float exponential_minus_1(float x) {
    int32_t exponent;
    float tail = exp_tail(x, &exponent);
    float power = add_bits(1.0f, exponent);
    return fmaf(power, tail, power - 1.0f);
}

static float silu_of(float x) { return x / (1.0f + exponential(-x)); }

static float gelu_of(float x) {
    float a = x < 0.0f ? -x : x;
    float p = fmaf(GELU_7, a, GELU_6);
    p = fmaf(p, a, GELU_5);
    p = fmaf(p, a, GELU_4);
    p = fmaf(p, a, GELU_3);
    p = fmaf(p, a, GELU_2);
    p = fmaf(p, a, GELU_1);
    p = fmaf(p, a, GELU_0);
    float tail = 0.5f * exponential(-(p * a));
    return x < 0.0f ? x * tail : fmaf(-x, tail, x);
}

// x + sin²(alpha·x)·inv_beta. sin² has the period π.
static float snake_of(float x, float alpha, float inv_beta) {
    float u = alpha * x;
    float n = fmaf(u, INV_PI, ROUND_MAGIC) - ROUND_MAGIC;
    float r = fmaf(-n, PI_LOW, fmaf(-n, PI_HIGH, u));
    float z = r * r;
    float p = fmaf(fmaf(fmaf(SIN_3, z, SIN_2), z, SIN_1), z, SIN_0);
    float sine = fmaf(r * z, p, r);
    return fmaf(sine * sine, inv_beta, x);
}

static void prepare_group(const float *x, size_t count, int16_t *codes, size_t first, float *scale) {
    float peak = 0.0f, inverse;
    // What is not a number stays the peak.
    for (size_t i = 0; i < count; i++) peak = fabsf(x[i]) <= peak || isnan(peak) ? peak : fabsf(x[i]);
    *scale = activation_scale(peak, &inverse);
    for (size_t i = 0; i < count; i++) {
        float shifted = x[i] * inverse + ROUND_MAGIC;
        int32_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        codes[plane_position(first + i)] = (int16_t)(bits - ROUND_MAGIC_BITS);
    }
}

static void prepare(mk_format format, const float *x, size_t ldx, size_t rows, size_t k, float *out) {
    size_t size = prepared_size(format, k);
    for (size_t row = 0; row < rows; row++, x += ldx, out += size) {
        memset(out, 0, size * sizeof *out);
        if (format == MK_BF16) {
            for (size_t i = 0; i < k; i++) out[i / LANES * LANES + i % 2 * 8 + i % LANES / 2] = x[i];
            continue;
        }
        for (size_t begin = 0; begin < k; begin += MK_GROUP) {
            float *block = out + prepared_before(begin / SCALE_BLOCK * SCALE_BLOCK);
            prepare_group(x + begin, k - begin < MK_GROUP ? k - begin : MK_GROUP, (int16_t *)(block + LANES),
                          begin % SCALE_BLOCK, block + begin % SCALE_BLOCK / MK_GROUP);
        }
    }
}

static float dot_bf16(const uint16_t *w, const float *x, size_t k) {
    float lanes[LANES] = {0};
    for (size_t i = 0; i < round_up(k, LANES); i++) {
        size_t l = i % LANES;
        size_t element = i - l + (l < 8 ? 2 * l : 2 * (l - 8) + 1);
        lanes[l] = fmaf(element < k ? from_bf16(w[element]) : 0.0f, x[i], lanes[l]);
    }
    return sum_lanes(lanes);
}

static float scale_at(const uint8_t *scales, size_t group) {
    uint16_t bits;
    memcpy(&bits, scales + group * sizeof bits, sizeof bits);
    return from_bf16(bits);
}

static float dot_quantized(mk_format format, const uint8_t *w, const float *x, size_t k) {
    const uint8_t *scales = w + quantized_codes(format, k);
    float lanes[LANES] = {0};
    for (size_t group = 0; group < round_up(k, QUANT_BLOCK) / MK_GROUP; group++) {
        const float *block = x + prepared_before(group / LANES * SCALE_BLOCK);
        const int16_t *activations = (const int16_t *)(block + LANES);
        float scale = scale_at(scales, group) * block[group % LANES];
        for (size_t l = 0; l < 8; l++) {
            int32_t sum = 0;
            for (size_t i = 0; i < 4; i++) {
                size_t element = group * MK_GROUP + i / 2 * 16 + 2 * l + i % 2;
                sum += quantized_code(format, w, plane_position(element)) *
                       activations[plane_position(element % SCALE_BLOCK)];
            }
            float *lane = lanes + group % 4 / 2 * 8 + l;
            *lane = fmaf((float)sum, scale, *lane);
        }
    }
    return sum_lanes(lanes);
}

static void linear(mk_format format, const void *w, size_t k, size_t first, size_t last, const float *prepared,
                   size_t rows, float *y, size_t ldy) {
    for (size_t row = 0; row < rows; row++) {
        const float *x = prepared + row * prepared_size(format, k);
        for (size_t o = first; o < last; o++) {
            const uint8_t *quantized = (const uint8_t *)w + o * quantized_row(format, k);
            switch (format) {
            case MK_Q8:
            case MK_Q4: y[row * ldy + o] = dot_quantized(format, quantized, x, k); break;
            default: y[row * ldy + o] = dot_bf16((const uint16_t *)w + o * k, x, k); break;
            }
        }
    }
}

static void conv_f32(const float *w, size_t taps, size_t channels, size_t outputs, const float *x,
                     size_t column_stride, size_t tap_stride, size_t columns, size_t first_panel, size_t last_panel,
                     const mk_epilogue *e) {
    for (size_t o = first_panel * MK_PANEL; o < last_panel * MK_PANEL && o < outputs; o++) {
        const float *panel = w + o / MK_PANEL * taps * channels * MK_PANEL + o % MK_PANEL;
        for (size_t t = 0; t < columns; t++) {
            float sum = 0.0f;
            for (size_t j = 0; j < taps; j++) {
                for (size_t c = 0; c < channels; c++) {
                    sum = fmaf(panel[(j * channels + c) * MK_PANEL], x[t * column_stride + j * tap_stride + c], sum);
                }
            }
            if (e->bias) sum = sum + e->bias[o];
            if (e->residual) sum = sum + e->residual[t * e->ld_residual + o];
            if (e->raw) e->raw[t * e->ld_raw + o] = sum;
            if (e->activated) e->activated[t * e->ld_activated + o] = snake_of(sum, e->alpha[o], e->inv_beta[o]);
        }
    }
}

static void depthwise_f32(const float *w, const float *bias, size_t taps, size_t channels, const float *x,
                          size_t columns, float *y) {
    for (size_t t = 0; t < columns; t++) {
        for (size_t c = 0; c < channels; c++) {
            float sum = bias ? bias[c] : 0.0f;
            for (size_t j = 0; j < taps; j++) sum = fmaf(w[j * channels + c], x[(t + j) * channels + c], sum);
            y[t * channels + c] = sum;
        }
    }
}

static float inverse_rms(const float *x, size_t n, float eps) {
    float lanes[LANES] = {0};
    for (size_t i = 0; i < n; i++) lanes[i % LANES] = fmaf(x[i], x[i], lanes[i % LANES]);
    return 1.0f / sqrtf(sum_lanes(lanes) / (float)n + eps);
}

static void rms_norm(const float *x, size_t ldx, const float *weight, float eps, size_t rows, size_t n, float *y,
                     size_t ldy) {
    for (size_t row = 0; row < rows; row++, x += ldx, y += ldy) {
        float inverse = inverse_rms(x, n, eps);
        for (size_t i = 0; i < n; i++) y[i] = weight[i] * (x[i] * inverse);
    }
}

static void layer_norm(const float *x, size_t ldx, const float *weight, const float *bias, float eps, size_t rows,
                       size_t n, float *y, size_t ldy) {
    for (size_t row = 0; row < rows; row++, x += ldx, y += ldy) {
        float lanes[LANES] = {0};
        for (size_t i = 0; i < n; i++) lanes[i % LANES] = lanes[i % LANES] + x[i];
        float mean = sum_lanes(lanes) / (float)n;
        float squares[LANES] = {0};
        for (size_t i = 0; i < n; i++) {
            squares[i % LANES] = fmaf(x[i] - mean, x[i] - mean, squares[i % LANES]);
        }
        float inverse = 1.0f / sqrtf(sum_lanes(squares) / (float)n + eps);
        for (size_t i = 0; i < n; i++) y[i] = fmaf((x[i] - mean) * inverse, weight[i], bias[i]);
    }
}

static void norm_rope(float *x, size_t heads, size_t dim, const float *weight, float eps, const float *cos,
                      const float *sin) {
    size_t half = dim / 2;
    for (size_t head = 0; head < heads; head++, x += dim) {
        if (weight) rms_norm(x, dim, weight, eps, 1, dim, x, dim);
        for (size_t i = 0; i < half; i++) {
            float low = x[i], high = x[i + half];
            x[i] = low * cos[i] - high * sin[i];
            x[i + half] = high * cos[i] + low * sin[i];
        }
    }
}

static void attend(const float *q, const float *k, const float *v, size_t stride, size_t count, size_t dim,
                   float scale, float *state) {
    float weights[MK_KV_BLOCK];
    for (size_t start = 0; start < count; start += MK_KV_BLOCK) {
        size_t keys = count - start < MK_KV_BLOCK ? count - start : MK_KV_BLOCK;
        float maximum = state[0];
        for (size_t i = 0; i < keys; i++) {
            const float *key = k + (start + i) * stride;
            float lanes[LANES] = {0};
            for (size_t d = 0; d < dim; d++) lanes[d % LANES] = fmaf(q[d], key[d], lanes[d % LANES]);
            weights[i] = scale * sum_lanes(lanes);
            maximum = weights[i] > maximum ? weights[i] : maximum;
        }
        float rescale = exponential(state[0] - maximum);
        float lanes[LANES] = {0};
        for (size_t i = 0; i < keys; i++) {
            weights[i] = exponential(weights[i] - maximum);
            lanes[i % LANES] = lanes[i % LANES] + weights[i];
        }
        state[0] = maximum;
        state[1] = fmaf(state[1], rescale, sum_lanes(lanes));
        for (size_t d = 0; d < dim; d++) {
            float sum = state[2 + d] * rescale;
            for (size_t i = 0; i < keys; i++) sum = fmaf(weights[i], v[(start + i) * stride + d], sum);
            state[2 + d] = sum;
        }
    }
}

static void silu_mul(const float *gate, const float *up, size_t n, float *y) {
    for (size_t i = 0; i < n; i++) y[i] = silu_of(gate[i]) * up[i];
}

static void silu(const float *x, size_t n, float *y) {
    for (size_t i = 0; i < n; i++) y[i] = silu_of(x[i]);
}

static void gelu(const float *x, size_t n, float *y) {
    for (size_t i = 0; i < n; i++) y[i] = gelu_of(x[i]);
}

static void elu(const float *x, size_t n, float *y) {
    for (size_t i = 0; i < n; i++) y[i] = x[i] < 0.0f ? exponential_minus_1(x[i]) : x[i];
}

static void add_scaled(const float *x, const float *scale, size_t n, float *y) {
    for (size_t i = 0; i < n; i++) y[i] = fmaf(x[i], scale ? scale[i] : 1.0f, y[i]);
}

static void snake(const float *x, size_t ldx, const float *alpha, const float *inv_beta, size_t rows, size_t n,
                  float *y, size_t ldy) {
    for (size_t row = 0; row < rows; row++, x += ldx, y += ldy) {
        for (size_t i = 0; i < n; i++) y[i] = snake_of(x[i], alpha[i], inv_beta[i]);
    }
}

static void add_bf16(const uint16_t *x, size_t n, float *y) {
    for (size_t i = 0; i < n; i++) y[i] = y[i] + from_bf16(x[i]);
}

static void copy_bf16(const uint16_t *x, size_t n, float *y) {
    for (size_t i = 0; i < n; i++) y[i] = from_bf16(x[i]);
}

const mk_kernels mk_scalar_kernels = {
    .isa = MK_SCALAR,
    .name = "scalar",
    .prepared_size = prepared_size,
    .prepare = prepare,
    .linear = linear,
    .conv_f32 = conv_f32,
    .depthwise_f32 = depthwise_f32,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .norm_rope = norm_rope,
    .attend = attend,
    .silu_mul = silu_mul,
    .silu = silu,
    .gelu = gelu,
    .elu = elu,
    .add_scaled = add_scaled,
    .snake = snake,
    .add_bf16 = add_bf16,
    .copy_bf16 = copy_bf16,
};
