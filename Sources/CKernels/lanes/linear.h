// Linear layers of few rows. One row is bound by the memory that the weights come from, many rows by arithmetic.
//
// The including file defines the tiles (outputs × rows whose sums stay in registers): ONE_ROW_BF16 × 1 and
// ONE_ROW_QUANTIZED × 1 for one row; BF16_TILE and QUANTIZED_TILE, each "outputs, rows", for several.
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
            for (size_t begin = 0; begin < round_up(k, QUANT_BLOCK); begin += SCALE_BLOCK) {
                f32x16 starts = 0.0f;
                float *block = out + LANES;
                for (size_t i = begin; i < begin + SCALE_BLOCK && i < round_up(k, QUANT_BLOCK); i += MK_GROUP) {
                    f32x16 low = activations_at(x, i, k), high = activations_at(x, i + LANES, k);
                    starts[(i - begin) / MK_GROUP] = Q4_START * sum_lanes(low + high);
                    store_f32x16(block, low * Q4_ACTIVATION);
                    store_f32x16(block + LANES, high * Q4_ACTIVATION);
                    block += MK_GROUP;
                }
                store_f32x16(out, starts);
                out = block;
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

// Several rows are taken in blocks whose activations stay in the first-level cache: of ROW_BLOCK rows and K_BLOCK
// terms, for OUTPUT_GROUP outputs at a time, whose lanes wait in memory between blocks of k.
#define ROW_BLOCK 8
#define K_BLOCK SCALE_BLOCK
#define OUTPUT_GROUP 4

// How far ahead of its first use a weight is asked for, in bytes.
#define PREFETCH 8192

// Results of `count` outputs of one row.
INLINE void store_sums(const f32x16 *sums, float factor, float *y, const size_t count) {
    size_t o = 0;
    UNROLL for (; o + 4 <= count; o += 4) {
        f32x4 four = sum_lanes_of_4(sums[o], sums[o + 1], sums[o + 2], sums[o + 3]) * factor;
        memcpy(y + o, &four, sizeof four);
    }
    UNROLL for (; o < count; o++) y[o] = sum_lanes(sums[o]) * factor;
}

INLINE f32x16 bf16_weights(const uint8_t *w) {
    u32x8 pairs = load_u32x8(w);
    u32x8 even = pairs << 16, odd = pairs & 0xffff0000u;
    return (f32x16)__builtin_shufflevector(even, odd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

INLINE void step_bf16(const uint8_t *w, size_t row_size, const float *x, size_t ldx, f32x16 *sum, const size_t O,
                      const size_t R) {
    f32x16 weights[8];
    UNROLL for (size_t o = 0; o < O; o++) weights[o] = bf16_weights(w + o * row_size);
    UNROLL for (size_t r = 0; r < R; r++) {
        f32x16 activations = load_f32x16(x + r * ldx);
        UNROLL for (size_t o = 0; o < O; o++) sum[r * O + o] = fma16(weights[o], activations, sum[r * O + o]);
    }
}

// The tile functions add the terms begin..<end of k to sum[r·O + o]; w is the first output's row. `ahead` is PREFETCH
// for the first rows that use the weights, and 0 for the others, which find them in a cache.

INLINE void tile_bf16(const uint8_t *w, size_t k, const float *x, size_t ldx, size_t begin, size_t end, size_t ahead,
                      f32x16 *sum, const size_t O, const size_t R) {
    const size_t row_size = k * sizeof(uint16_t);
    size_t i = begin;
    for (; i + LANES <= (end < k ? end : k); i += LANES) {
        const uint8_t *soon = w + i * sizeof(uint16_t) + ahead;
        UNROLL for (size_t o = 0; o < O; o++) __builtin_prefetch(soon + o * row_size);
        step_bf16(w + i * sizeof(uint16_t), row_size, x + i, ldx, sum, O, R);
    }
    if (i < end) {
        uint8_t part[8 * LANES * sizeof(uint16_t)] = {0};
        UNROLL for (size_t o = 0; o < O; o++) {
            memcpy(part + o * LANES * sizeof(uint16_t), w + o * row_size + i * sizeof(uint16_t),
                   (k - i) * sizeof(uint16_t));
        }
        step_bf16(part, LANES * sizeof(uint16_t), x + i, ldx, sum, O, R);
    }
}

// The scales of one SCALE_BLOCK of O (at most 4) outputs: group g's is scales[o][g]. A broadcast from memory costs less
// than taking a vector apart.
INLINE void load_scales(const uint8_t *scales, size_t row_size, float out[][LANES], const size_t O) {
    UNROLL for (size_t o = 0; o < O; o++) store_f32x16(out[o], widen_bf16((const uint16_t *)(scales + o * row_size)));
}

INLINE f32x16 q8_weights(const uint8_t *w) {
    return __builtin_convertvector(__builtin_convertvector(load_i8x16(w), i32x16), f32x16);
}

INLINE void tile_q8(const uint8_t *w, size_t k, const float *x, size_t ldx, size_t begin, size_t end, size_t ahead,
                    f32x16 *sum, const size_t O, const size_t R) {
    const size_t row_size = quantized_row(MK_Q8, k), codes = quantized_codes(MK_Q8, k);
    for (size_t block = begin; block < end; block += SCALE_BLOCK) {
        float scales[4][LANES];
        load_scales(w + codes + block / MK_GROUP * sizeof(uint16_t), row_size, scales, O);
        for (size_t i = block; i < end && i < block + SCALE_BLOCK; i += MK_GROUP) {
            UNROLL for (size_t o = 0; o < O; o++) {
                const uint8_t *row = w + o * row_size;
                __builtin_prefetch(row + i + ahead);
                f32x16 low = q8_weights(row + i), high = q8_weights(row + i + 16);
                f32x16 scale = scales[o][(i - block) / MK_GROUP];
                UNROLL for (size_t r = 0; r < R; r++) {
                    f32x16 group = low * load_f32x16(x + r * ldx + i);
                    group = fma16(high, load_f32x16(x + r * ldx + i + 16), group);
                    sum[r * O + o] = fma16(scale, group, sum[r * O + o]);
                }
            }
        }
    }
}

// In every 32-bit lane byte B moves to byte 2, the rest is zero.
#define Q4_LANE(B, l) 64, 64, 4 * (l) + (B), 64
#define Q4_FOUR_LANES(B, l) Q4_LANE(B, l), Q4_LANE(B, (l) + 1), Q4_LANE(B, (l) + 2), Q4_LANE(B, (l) + 3)
#define Q4_PLANE(codes, B)                                                                                             \
    (f32x16) __builtin_shufflevector((u8x64)(codes), (u8x64)(0), Q4_FOUR_LANES(B, 0), Q4_FOUR_LANES(B, 4),             \
                                     Q4_FOUR_LANES(B, 8), Q4_FOUR_LANES(B, 12))

INLINE void group_q4(f32x16 low, f32x16 high, f32x16 scale, const float *x, size_t ldx, f32x16 *sum, const size_t O,
                     const size_t R) {
    UNROLL for (size_t r = 0; r < R; r++, x += ldx) {
        f32x16 group = low * load_f32x16(x);
        group = fma16(high, load_f32x16(x + LANES), group);
        sum[r * O] = fma16(scale, group, sum[r * O]);
    }
}

INLINE void tile_q4(const uint8_t *w, size_t k, const float *x, size_t ldx, size_t begin, size_t end, size_t ahead,
                    f32x16 *sum, const size_t O, const size_t R) {
    const size_t row_size = quantized_row(MK_Q4, k), codes = quantized_codes(MK_Q4, k);
    x += begin / SCALE_BLOCK * (SCALE_BLOCK + LANES);
    for (size_t block = begin; block < end; block += SCALE_BLOCK) {
        float scales[4][LANES];
        load_scales(w + codes + block / MK_GROUP * sizeof(uint16_t), row_size, scales, O);
        UNROLL for (size_t r = 0; r < R; r++) {
            f32x16 starts = load_f32x16(x + r * ldx);
            UNROLL for (size_t o = 0; o < O; o++) {
                sum[r * O + o] = fma16(load_f32x16(scales[o]), starts, sum[r * O + o]);
            }
        }
        x += LANES;
        for (size_t i = block; i < end && i < block + SCALE_BLOCK; i += QUANT_BLOCK, x += QUANT_BLOCK) {
            UNROLL for (size_t o = 0; o < O; o++) {
                const uint8_t *row = w + o * row_size + i / 2;
                const float *scale = scales[o] + (i - block) / MK_GROUP;
                __builtin_prefetch(row + ahead);
                // Loaded anew for each output: there are more activations than registers.
                const float *activations = x;
                __asm__ volatile("" : "+r"(activations));
                // Each byte becomes 1qqqq111: the lowest bit of the exponent, the code, and 7/128 that all share.
                u32x16 words = load_u32x16(row);
                u32x16 low = words << 3 | 0x87878787u, high = words >> 1 | 0x87878787u;
                group_q4(Q4_PLANE(low, 0), Q4_PLANE(low, 1), scale[0], activations, ldx, sum + o, O, R);
                group_q4(Q4_PLANE(low, 2), Q4_PLANE(low, 3), scale[1], activations + 32, ldx, sum + o, O, R);
                group_q4(Q4_PLANE(high, 0), Q4_PLANE(high, 1), scale[2], activations + 64, ldx, sum + o, O, R);
                group_q4(Q4_PLANE(high, 2), Q4_PLANE(high, 3), scale[3], activations + 96, ldx, sum + o, O, R);
            }
        }
    }
}

// `tile` for sums that wait in memory, at sums[r·ld + o].
#define DEFINE_LINEAR(format_name, format, row_size, factor, one_row, tile_shape)                                      \
    INLINE void block_##format_name(const uint8_t *w, size_t k, const float *x, size_t ldx, size_t begin, size_t end,  \
                                    size_t ahead, f32x16 *sums, size_t ld, const size_t O, const size_t R) {           \
        f32x16 sum[16];                                                                                                \
        UNROLL for (size_t i = 0; i < O * R; i++) sum[i] = sums[i / O * ld + i % O];                                   \
        tile_##format_name(w, k, x, ldx, begin, end, ahead, sum, O, R);                                                \
        UNROLL for (size_t i = 0; i < O * R; i++) sums[i / O * ld + i % O] = sum[i];                                   \
    }                                                                                                                  \
                                                                                                                       \
    /* N outputs for all rows, in tiles of O × R. */                                                                   \
    INLINE void rows_##format_name(const uint8_t *w, size_t k, const float *x, size_t ldx, size_t rows, float *y,      \
                                   size_t ldy, const size_t N, const size_t O, const size_t R) {                       \
        const size_t size = (row_size);                                                                                \
        const size_t padded = round_up(k, (format) == MK_BF16 ? LANES : QUANT_BLOCK);                                  \
        for (size_t row = 0; row < rows; row += ROW_BLOCK, x += ROW_BLOCK * ldx) {                                     \
            const size_t count = rows - row < ROW_BLOCK ? rows - row : ROW_BLOCK;                                      \
            f32x16 sums[ROW_BLOCK * OUTPUT_GROUP];                                                                     \
            for (size_t i = 0; i < count * N; i++) sums[i] = 0.0f;                                                     \
            for (size_t begin = 0; begin < padded; begin += K_BLOCK) {                                                 \
                const size_t end = padded - begin < K_BLOCK ? padded : begin + K_BLOCK;                                \
                size_t r = 0, ahead = row == 0 ? PREFETCH : 0;                                                         \
                for (; r + R <= count; r += R, ahead = 0) {                                                            \
                    for (size_t o = 0; o < N; o += O) {                                                                \
                        block_##format_name(w + o * size, k, x + r * ldx, ldx, begin, end, ahead, sums + r * N + o, N, \
                                            O, R);                                                                     \
                    }                                                                                                  \
                }                                                                                                      \
                for (; r < count; r++, ahead = 0) {                                                                    \
                    for (size_t o = 0; o < N; o += O) {                                                                \
                        block_##format_name(w + o * size, k, x + r * ldx, ldx, begin, end, ahead, sums + r * N + o, N, \
                                            O, 1);                                                                     \
                    }                                                                                                  \
                }                                                                                                      \
            }                                                                                                          \
            for (size_t r = 0; r < count; r++) store_sums(sums + r * N, factor, y + (row + r) * ldy, N);               \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    static void linear_##format_name(const uint8_t *w, size_t k, size_t first, size_t last, const float *x,            \
                                     size_t rows, float *y, size_t ldy) {                                              \
        const size_t ldx = prepared_size(format, k), size = (row_size);                                                \
        size_t o = first;                                                                                              \
        if (rows == 1) {                                                                                               \
            const size_t padded = round_up(k, (format) == MK_BF16 ? LANES : QUANT_BLOCK);                              \
            for (; o + one_row <= last; o += one_row) {                                                                \
                f32x16 sum[one_row];                                                                                   \
                UNROLL for (size_t i = 0; i < one_row; i++) sum[i] = 0.0f;                                             \
                tile_##format_name(w + o * size, k, x, ldx, 0, padded, PREFETCH, sum, one_row, 1);                     \
                store_sums(sum, factor, y + o, one_row);                                                               \
            }                                                                                                          \
        } else {                                                                                                       \
            for (; o + OUTPUT_GROUP <= last; o += OUTPUT_GROUP) {                                                      \
                rows_##format_name(w + o * size, k, x, ldx, rows, y + o, ldy, OUTPUT_GROUP, tile_shape);               \
            }                                                                                                          \
        }                                                                                                              \
        for (; o < last; o++) rows_##format_name(w + o * size, k, x, ldx, rows, y + o, ldy, 1, 1, 1);                  \
    }

DEFINE_LINEAR(bf16, MK_BF16, k * sizeof(uint16_t), 1.0f, ONE_ROW_BF16, BF16_TILE)
DEFINE_LINEAR(q8, MK_Q8, quantized_row(MK_Q8, k), 1.0f, ONE_ROW_QUANTIZED, QUANTIZED_TILE)
DEFINE_LINEAR(q4, MK_Q4, quantized_row(MK_Q4, k), Q4_RESULT, ONE_ROW_QUANTIZED, QUANTIZED_TILE)

static void linear(mk_format format, const void *w, size_t k, size_t first, size_t last, const float *prepared,
                   size_t rows, float *y, size_t ldy) {
    switch (format) {
    case MK_Q8: linear_q8(w, k, first, last, prepared, rows, y, ldy); break;
    case MK_Q4: linear_q4(w, k, first, last, prepared, rows, y, ldy); break;
    default: linear_bf16(w, k, first, last, prepared, rows, y, ldy); break;
    }
}
