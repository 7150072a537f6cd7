// Linear layers of few rows: bound by the memory that the weights come from. One chain per (output, lane).
//
// The including file defines the tiles: BF16_OUTPUTS × 1 for one row, BF16_TILE_OUTPUTS × BF16_TILE_ROWS for several,
// QUANT_OUTPUTS × 1 and 1 × QUANT_ROWS for the quantised formats.
#include "vectors.h"

// Sixteen activations from i on, zeros beyond k.
INLINE f32x16 activations_at(const float *x, size_t i, size_t k) { return i < k ? load(x + i, k - i) : 0.0f; }

static void prepare(mk_format format, const float *x, size_t ldx, size_t rows, size_t k, float *out) {
    for (size_t row = 0; row < rows; row++, x += ldx) {
        switch (format) {
        case MK_Q8:
            for (size_t i = 0; i < round_up(k, QUANT_BLOCK); i += LANES, out += LANES) {
                store_f32x16(out, activations_at(x, i, k));
            }
            break;
        case MK_Q4:
            for (size_t i = 0; i < round_up(k, QUANT_BLOCK); i += MK_GROUP, out += 48) {
                f32x16 low = activations_at(x, i, k), high = activations_at(x, i + LANES, k);
                store_f32x16(out, Q4_START * (low + high));
                store_f32x16(out + 16, low * Q4_ACTIVATION);
                store_f32x16(out + 32, high * Q4_ACTIVATION);
            }
            break;
        default:
            for (size_t i = 0; i < k; i += LANES, out += LANES) {
                f32x16 block = load(x + i, k - i);
                store_f32x16(out, __builtin_shufflevector(block, block, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11,
                                                          13, 15));
            }
            break;
        }
    }
}

INLINE void store_sums(const f32x16 *sum, size_t step, float factor, float *y, const size_t count) {
    size_t i = 0;
    UNROLL for (; i + 4 <= count; i += 4) {
        f32x4 sums = sum_lanes_of_4(sum[i * step], sum[(i + 1) * step], sum[(i + 2) * step], sum[(i + 3) * step]);
        sums = sums * factor;
        memcpy(y + i, &sums, sizeof sums);
    }
    UNROLL for (; i < count; i++) y[i] = sum_lanes(sum[i * step]) * factor;
}

INLINE f32x16 bf16_weights(const uint16_t *w) {
    u32x8 pairs = load_u32x8(w);
    u32x8 even = pairs << 16, odd = pairs & 0xffff0000u;
    return (f32x16)__builtin_shufflevector(even, odd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

INLINE void bf16_tile(const uint16_t *w, size_t k, const float *x, size_t ldx, float *y, size_t ldy, const size_t O,
                      const size_t R) {
    f32x16 sum[16];
    UNROLL for (size_t i = 0; i < O * R; i++) sum[i] = 0.0f;
    size_t whole = k / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        f32x16 weights[16];
        UNROLL for (size_t o = 0; o < O; o++) weights[o] = bf16_weights(w + o * k + i);
        UNROLL for (size_t r = 0; r < R; r++) {
            f32x16 activations = load_f32x16(x + r * ldx + i);
            UNROLL for (size_t o = 0; o < O; o++) sum[r * O + o] = fma16(weights[o], activations, sum[r * O + o]);
        }
    }
    if (whole < k) {
        UNROLL for (size_t o = 0; o < O; o++) {
            uint16_t part[LANES] = {0};
            memcpy(part, w + o * k + whole, (k - whole) * sizeof *w);
            f32x16 weights = bf16_weights(part);
            UNROLL for (size_t r = 0; r < R; r++) {
                sum[r * O + o] = fma16(weights, load_f32x16(x + r * ldx + whole), sum[r * O + o]);
            }
        }
    }
    UNROLL for (size_t r = 0; r < R; r++) store_sums(sum + r * O, 1, 1.0f, y + r * ldy, O);
}

INLINE void bf16_rows(const uint16_t *w, size_t k, const float *x, size_t ldx, size_t rows, float *y, size_t ldy,
                      const size_t O) {
    size_t r = 0;
    for (; r + BF16_TILE_ROWS <= rows; r += BF16_TILE_ROWS) {
        bf16_tile(w, k, x + r * ldx, ldx, y + r * ldy, ldy, O, BF16_TILE_ROWS);
    }
    for (; r < rows; r++) bf16_tile(w, k, x + r * ldx, ldx, y + r * ldy, ldy, O, 1);
}

static void linear_bf16(const uint16_t *w, size_t k, size_t first, size_t last, const float *x, size_t ldx,
                        size_t rows, float *y, size_t ldy) {
    size_t o = first;
    if (rows == 1) {
        for (; o + BF16_OUTPUTS <= last; o += BF16_OUTPUTS) bf16_tile(w + o * k, k, x, ldx, y + o, ldy, BF16_OUTPUTS, 1);
    } else {
        for (; o + BF16_TILE_OUTPUTS <= last; o += BF16_TILE_OUTPUTS) {
            bf16_rows(w + o * k, k, x, ldx, rows, y + o, ldy, BF16_TILE_OUTPUTS);
        }
    }
    for (; o < last; o++) bf16_rows(w + o * k, k, x, ldx, rows, y + o, ldy, 1);
}

INLINE f32x16 q8_weights(const uint8_t *w) {
    return __builtin_convertvector(__builtin_convertvector(load_i8x16(w), i32x16), f32x16);
}

INLINE float scale_at(const uint8_t *scales, size_t group) {
    uint16_t bits;
    memcpy(&bits, scales + group * sizeof bits, sizeof bits);
    return from_bf16(bits);
}

INLINE void q8_tile(const uint8_t *w, size_t k, const float *x, size_t ldx, float *y, size_t ldy, const size_t O,
                    const size_t R) {
    const size_t row_size = quantized_row(MK_Q8, k), codes = quantized_codes(MK_Q8, k);
    f32x16 sum[16];
    UNROLL for (size_t i = 0; i < O * R; i++) sum[i] = 0.0f;
    for (size_t i = 0; i < codes; i += MK_GROUP) {
        UNROLL for (size_t o = 0; o < O; o++) {
            const uint8_t *row = w + o * row_size;
            f32x16 low = q8_weights(row + i), high = q8_weights(row + i + 16);
            f32x16 scale = scale_at(row + codes, i / MK_GROUP);
            UNROLL for (size_t r = 0; r < R; r++) {
                f32x16 group = low * load_f32x16(x + r * ldx + i);
                group = fma16(high, load_f32x16(x + r * ldx + i + 16), group);
                sum[r * O + o] = fma16(scale, group, sum[r * O + o]);
            }
        }
    }
    UNROLL for (size_t r = 0; r < R; r++) store_sums(sum + r * O, 1, 1.0f, y + r * ldy, O);
}

// In every 32-bit lane byte B moves to byte 2, the rest is zero.
#define Q4_LANE(B, l) 64, 64, 4 * (l) + (B), 64
#define Q4_FOUR_LANES(B, l) Q4_LANE(B, l), Q4_LANE(B, (l) + 1), Q4_LANE(B, (l) + 2), Q4_LANE(B, (l) + 3)
#define Q4_PLANE(codes, B)                                                                                             \
    (f32x16) __builtin_shufflevector((u8x64)(codes), (u8x64)(0), Q4_FOUR_LANES(B, 0), Q4_FOUR_LANES(B, 4),             \
                                     Q4_FOUR_LANES(B, 8), Q4_FOUR_LANES(B, 12))

INLINE void q4_group(f32x16 low, f32x16 high, const uint8_t *scales, size_t group, const float *x, size_t ldx,
                     f32x16 *sum, const size_t O, const size_t R) {
    f32x16 scale = scale_at(scales, group);
    UNROLL for (size_t r = 0; r < R; r++) {
        const float *activations = x + r * ldx + group * 48;
        f32x16 partial = fma16(low, load_f32x16(activations + 16), load_f32x16(activations));
        partial = fma16(high, load_f32x16(activations + 32), partial);
        sum[r * O] = fma16(scale, partial, sum[r * O]);
    }
}

INLINE void q4_tile(const uint8_t *w, size_t k, const float *x, size_t ldx, float *y, size_t ldy, const size_t O,
                    const size_t R) {
    const size_t row_size = quantized_row(MK_Q4, k), codes = quantized_codes(MK_Q4, k);
    f32x16 sum[16];
    UNROLL for (size_t i = 0; i < O * R; i++) sum[i] = 0.0f;
    for (size_t i = 0; i < codes; i += 64) {
        UNROLL for (size_t o = 0; o < O; o++) {
            const uint8_t *row = w + o * row_size, *scales = row + codes;
            u32x16 words = load_u32x16(row + i);
            // Each byte becomes 1qqqq000: the lowest exponent bit, then the code.
            u32x16 low = (words << 3 & 0x78787878u) | 0x80808080u;
            u32x16 high = (words >> 1 & 0x78787878u) | 0x80808080u;
            size_t group = i / 16;
            q4_group(Q4_PLANE(low, 0), Q4_PLANE(low, 1), scales, group, x, ldx, sum + o, O, R);
            q4_group(Q4_PLANE(low, 2), Q4_PLANE(low, 3), scales, group + 1, x, ldx, sum + o, O, R);
            q4_group(Q4_PLANE(high, 0), Q4_PLANE(high, 1), scales, group + 2, x, ldx, sum + o, O, R);
            q4_group(Q4_PLANE(high, 2), Q4_PLANE(high, 3), scales, group + 3, x, ldx, sum + o, O, R);
        }
    }
    UNROLL for (size_t r = 0; r < R; r++) store_sums(sum + r * O, 1, Q4_RESULT, y + r * ldy, O);
}

#define DEFINE_QUANTIZED_LINEAR(name, tile, format)                                                                    \
    static void name(const uint8_t *w, size_t k, size_t first, size_t last, const float *x, size_t ldx, size_t rows,   \
                     float *y, size_t ldy) {                                                                           \
        const size_t row_size = quantized_row(format, k);                                                              \
        size_t o = first;                                                                                              \
        for (; rows == 1 && o + QUANT_OUTPUTS <= last; o += QUANT_OUTPUTS) {                                           \
            tile(w + o * row_size, k, x, ldx, y + o, ldy, QUANT_OUTPUTS, 1);                                           \
        }                                                                                                              \
        for (; o < last; o++) {                                                                                        \
            size_t r = 0;                                                                                              \
            for (; r + QUANT_ROWS <= rows; r += QUANT_ROWS) {                                                          \
                tile(w + o * row_size, k, x + r * ldx, ldx, y + r * ldy + o, ldy, 1, QUANT_ROWS);                      \
            }                                                                                                          \
            for (; r < rows; r++) tile(w + o * row_size, k, x + r * ldx, ldx, y + r * ldy + o, ldy, 1, 1);             \
        }                                                                                                              \
    }
DEFINE_QUANTIZED_LINEAR(linear_q8, q8_tile, MK_Q8)
DEFINE_QUANTIZED_LINEAR(linear_q4, q4_tile, MK_Q4)

static void linear(mk_format format, const void *w, size_t k, size_t first, size_t last, const float *prepared,
                   size_t rows, float *y, size_t ldy) {
    const size_t ldx = prepared_size(format, k);
    switch (format) {
    case MK_Q8: linear_q8(w, k, first, last, prepared, ldx, rows, y, ldy); break;
    case MK_Q4: linear_q4(w, k, first, last, prepared, ldx, rows, y, ldy); break;
    default: linear_bf16(w, k, first, last, prepared, ldx, rows, y, ldy); break;
    }
}
