// Linear layers of few rows. One row is bound by the memory that the weights come from, many rows by arithmetic.
//
// The including file defines the tiles for several rows: QUANTIZED_TILE, "outputs, rows" whose sums stay in registers;
// BF16_OUTPUTS and BF16_ROWS, those of a bf16 tile, the former a divisor of BF16_GROUP; BF16_PARTS, 1 if such a tile takes
// all sixteen lanes at a time and 2 if the even ones and then the odd ones; and WIDEN_BF16, an expression for sixteen
// weights at w, if there is a shorter one than that of AVX2.
#include "vectors.h"

// Sixteen activations from i on, zeros beyond k.
INLINE f32x16 activations_at(const float *x, size_t i, size_t k) { return i < k ? load(x + i, k - i) : 0.0f; }

INLINE void store_codes(int16_t *codes, f32x16 rounded) {
    typedef i16x16 unaligned __attribute__((aligned(1), may_alias));
    *(unaligned *)codes = __builtin_convertvector((i32x16)rounded - ROUND_MAGIC_BITS, i16x16);
}

// Quantises a group of activations into the planes of a block; returns its scale.
INLINE float prepare_group(f32x16 low, f32x16 high, int16_t *planes) {
    // As integers, magnitudes have the order of the numbers, and what is not a number comes last.
    i32x16 a = (i32x16)low & 0x7fffffff, b = (i32x16)high & 0x7fffffff;
    int32_t bits = __builtin_reduce_max(a > b ? a : b);
    float peak, inverse;
    memcpy(&peak, &bits, sizeof peak);
    float scale = activation_scale(peak, &inverse);
    store_codes(planes, low * inverse + ROUND_MAGIC);
    store_codes(planes + 32, high * inverse + ROUND_MAGIC);
    return scale;
}

static void prepare(mk_format format, const float *x, size_t ldx, size_t rows, size_t k, float *out) {
    const size_t size = prepared_size(format, k);
    for (size_t row = 0; row < rows; row++, x += ldx, out += size) {
        if (format == MK_BF16) {
            for (size_t i = 0; i < k; i += LANES) {
                f32x16 block = load(x + i, k - i);
                store_f32x16(out + i, __builtin_shufflevector(block, block, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9,
                                                              11, 13, 15));
            }
            continue;
        }
        for (size_t begin = 0; begin < k; begin += SCALE_BLOCK) {
            float *scales = out + prepared_before(begin);
            int16_t *codes = (int16_t *)(scales + LANES);
            store_f32x16(scales, 0.0f);
            for (size_t i = 0; i < SCALE_BLOCK && begin + i < round_up(k, QUANT_BLOCK); i += MK_GROUP) {
                scales[i / MK_GROUP] =
                    prepare_group(activations_at(x, begin + i, k), activations_at(x, begin + i + LANES, k),
                                  codes + plane_position(i));
            }
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
INLINE void store_sums(const f32x16 *sums, float *y, const size_t count) {
    size_t o = 0;
    UNROLL for (; o + 4 <= count; o += 4) {
        f32x4 four = sum_lanes_of_4(sums[o], sums[o + 1], sums[o + 2], sums[o + 3]);
        memcpy(y + o, &four, sizeof four);
    }
    UNROLL for (; o < count; o++) y[o] = sum_lanes(sums[o]);
}

INLINE f32x16 bf16_weights(const uint8_t *w) {
#if defined(WIDEN_BF16)
    return WIDEN_BF16(w);
#else
    u32x8 pairs = load_u32x8(w);
    u32x8 even = pairs << 16, odd = pairs & 0xffff0000u;
    return (f32x16)__builtin_shufflevector(even, odd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#endif
}

// The terms begin..<end of k for one row and one output.
INLINE f32x16 dot_bf16(const uint8_t *w, size_t k, const float *x, f32x16 sum) {
    size_t i = 0;
    for (; i + LANES <= k; i += LANES) {
        __builtin_prefetch(w + i * sizeof(uint16_t) + PREFETCH);
        sum = fma16(bf16_weights(w + i * sizeof(uint16_t)), load_f32x16(x + i), sum);
    }
    if (i < k) {
        uint8_t rest[LANES * sizeof(uint16_t)] = {0};
        memcpy(rest, w + i * sizeof(uint16_t), (k - i) * sizeof(uint16_t));
        sum = fma16(bf16_weights(rest), load_f32x16(x + i), sum);
    }
    return sum;
}

// Several rows of bf16: each weight that was widened is used for all rows of a tile. Where a register has half the lanes,
// twelve sums, the weights of three outputs and one activation fill sixteen registers.
#define BF16_GROUP 12
// Up to so many rows wait for weights rather than for arithmetic.
#define BF16_FEW 4
#define PART_LANES (LANES / BF16_PARTS)

#if BF16_PARTS == 2
typedef f32x8 f32_part;
INLINE f32_part load_part(const float *p) { return load_f32x8(p); }
INLINE void store_part(float *p, f32_part value) { store_f32x8(p, value); }
INLINE f32_part bf16_part(const uint8_t *w, const size_t part) {
    u32x8 pairs = load_u32x8(w);
    return (f32_part)(part == 0 ? pairs << 16 : pairs & 0xffff0000u);
}
#else
typedef f32x16 f32_part;
INLINE f32_part load_part(const float *p) { return load_f32x16(p); }
INLINE void store_part(float *p, f32_part value) { store_f32x16(p, value); }
INLINE f32_part bf16_part(const uint8_t *w, const size_t part) {
    (void)part;
    return bf16_weights(w);
}
#endif

INLINE void step_bf16(const uint8_t *w, size_t row_size, const float *x, size_t ldx, f32_part *sum, const size_t part,
                      const size_t O, const size_t R) {
    f32_part weights[BF16_OUTPUTS];
    UNROLL for (size_t o = 0; o < O; o++) weights[o] = bf16_part(w + o * row_size, part);
    UNROLL for (size_t r = 0; r < R; r++) {
        f32_part activations = load_part(x + r * ldx + part * PART_LANES);
        UNROLL for (size_t o = 0; o < O; o++) {
            sum[r * O + o] = __builtin_elementwise_fma(weights[o], activations, sum[r * O + o]);
        }
    }
}

// Pieces of rows of weights to ask for while others are at work, BF16_SOON lines with each step: those of the first half of
// the steps, then those of the second.
#define BF16_SOON (BF16_PARTS == 2 ? 1 : 2)
typedef struct bf16_soon {
    const uint8_t *rows[2 * BF16_SOON];
} bf16_soon;

INLINE void ask_for(const uint8_t *const *rows, size_t line) {
    UNROLL for (size_t i = 0; i < BF16_SOON; i++) __builtin_prefetch(rows[i] + line * 64);
}

// Adds the terms begin..<end of k, for one part of the lanes, to the sums that wait at sums[(r·BF16_GROUP + o)·LANES];
// the first terms begin them.
INLINE void tile_bf16(const uint8_t *w, size_t k, const float *x, size_t ldx, size_t begin, size_t end, float *sums,
                      bf16_soon soon, const size_t part, const size_t O, const size_t R) {
    const size_t row_size = k * sizeof(uint16_t);
    f32_part sum[BF16_OUTPUTS * BF16_ROWS];
    sums += part * PART_LANES;
    if (begin == 0) {
        UNROLL for (size_t i = 0; i < O * R; i++) sum[i] = 0.0f;
    } else {
        UNROLL for (size_t i = 0; i < O * R; i++) sum[i] = load_part(sums + (i / O * BF16_GROUP + i % O) * LANES);
    }
    const float *activations = x + begin, *const half = activations + (end - begin) / 2, *const last = x + end;
    const uint8_t *weights = w + begin * sizeof(uint16_t);
    size_t line = 0;
    for (; activations + LANES <= half; activations += LANES, weights += LANES * sizeof(uint16_t), line++) {
        ask_for(soon.rows, line);
        step_bf16(weights, row_size, activations, ldx, sum, part, O, R);
    }
    line = 0;
    for (; activations + LANES <= last; activations += LANES, weights += LANES * sizeof(uint16_t), line++) {
        ask_for(soon.rows + BF16_SOON, line);
        step_bf16(weights, row_size, activations, ldx, sum, part, O, R);
    }
    if (activations < last) {
        const size_t size = (size_t)(last - activations) * sizeof(uint16_t);
        uint8_t rest[BF16_OUTPUTS * LANES * sizeof(uint16_t)] = {0};
        UNROLL for (size_t o = 0; o < O; o++) {
            memcpy(rest + o * LANES * sizeof(uint16_t), weights + o * row_size, size);
        }
        step_bf16(rest, LANES * sizeof(uint16_t), activations, ldx, sum, part, O, R);
    }
    UNROLL for (size_t i = 0; i < O * R; i++) store_part(sums + (i / O * BF16_GROUP + i % O) * LANES, sum[i]);
}

#define BF16_CASE(R) case R: tile_bf16(w, k, activations, ldx, begin, end, waiting, soon, part, O, R); break;

// One block of k of O outputs for `rows` rows, 2 to ROW_BLOCK. Meanwhile the block at `next` is asked for, some of its rows
// in each tile: all at once they would hold up what comes from nearer.
INLINE void block_bf16(const uint8_t *w, size_t k, const float *x, size_t ldx, size_t rows, size_t begin, size_t end,
                       f32x16 *sums, const uint8_t *next, const size_t O) {
    const size_t passes = (rows + BF16_ROWS - 1) / BF16_ROWS, pieces = passes * BF16_PARTS * 2 * BF16_SOON;
    size_t piece = 0;
    for (size_t pass = 0; pass < passes; pass++) {
        const size_t first = rows * pass / passes, count = rows * (pass + 1) / passes - first;
        const float *activations = x + first * ldx;
        float *waiting = (float *)(sums + first * BF16_GROUP);
        UNROLL for (size_t part = 0; part < BF16_PARTS; part++) {
            bf16_soon soon;
            UNROLL for (size_t i = 0; i < 2 * BF16_SOON; i++) {
                soon.rows[i] = next + O * piece++ / pieces * k * sizeof(uint16_t);
            }
            switch (count) {
                BF16_CASE(2) BF16_CASE(3) BF16_CASE(4)
#if BF16_ROWS == 8
                BF16_CASE(5) BF16_CASE(6) BF16_CASE(7) BF16_CASE(8)
#endif
            }
        }
    }
}

static void rows_bf16(const uint8_t *w, size_t k, size_t first, size_t last, const float *x, size_t rows, float *y,
                      size_t ldy) {
    const size_t ldx = prepared_size(MK_BF16, k), row_size = k * sizeof(uint16_t);
    // Blocks of nearly equal size, so that none has a single row.
    const size_t blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
    // Few rows wait for weights: where a row of them is one block, they are read as one ascending stream.
    const bool few = rows <= BF16_FEW;
    const size_t group_size = few ? BF16_OUTPUTS : BF16_GROUP, block_size = few && k <= 2 * K_BLOCK ? k : K_BLOCK;
    for (size_t output = first; output < last; output += group_size) {
        const size_t count = last - output < group_size ? last - output : group_size;
        const uint8_t *group = w + output * row_size;
        for (size_t block = 0; block < blocks; block++) {
            const size_t first_row = rows * block / blocks, block_rows = rows * (block + 1) / blocks - first_row;
            const float *activations = x + first_row * ldx;
            f32x16 sums[ROW_BLOCK * BF16_GROUP];
            for (size_t begin = 0; begin < k; begin += block_size) {
                const size_t end = k - begin < block_size ? k : begin + block_size;
                // Rows after the first ones find the weights in a cache.
                const bool near = end < k || block > 0;
                const uint8_t *next = group + (near ? end * sizeof(uint16_t) : group_size * row_size);
                size_t o = 0;
                for (; o + BF16_OUTPUTS <= count; o += BF16_OUTPUTS) {
                    block_bf16(group + o * row_size, k, activations, ldx, block_rows, begin, end, sums + o,
                               next + o * row_size, BF16_OUTPUTS);
                }
                for (; o < count; o++) {
                    block_bf16(group + o * row_size, k, activations, ldx, block_rows, begin, end, sums + o,
                               next + o * row_size, 1);
                }
            }
            for (size_t r = 0; r < block_rows; r++) {
                const f32x16 *row = sums + r * BF16_GROUP;
                float *out = y + (first_row + r) * ldy + output;
                size_t o = 0;
                for (; o + 4 <= count; o += 4) store_sums(row + o, out + o, 4);
                for (; o < count; o++) out[o] = sum_lanes(row[o]);
            }
        }
    }
}

static void linear_bf16(const uint8_t *w, size_t k, size_t first, size_t last, const float *x, size_t rows, float *y,
                        size_t ldy) {
    if (rows > 1) {
        rows_bf16(w, k, first, last, x, rows, y, ldy);
        return;
    }
    for (size_t o = first; o < last; o++) y[o] = sum_lanes(dot_bf16(w + o * k * sizeof(uint16_t), k, x, 0.0f));
}

// The codes of plane p of a block.
INLINE i16x32 plane_q8(const uint8_t *block, const size_t p) {
    return __builtin_convertvector(load_i8x32(block + 32 * p), i16x32);
}

INLINE i16x32 plane_q4(const uint8_t *block, const size_t p) {
    return (i16x32)(load_u16x32(block) << (12 - 4 * p)) >> 12;
}

// Products of neighbours, added: one instruction.
INLINE i32x16 multiply_pairs(i16x32 a, i16x32 b) {
    i32x32 products = __builtin_convertvector(a, i32x32) * __builtin_convertvector(b, i32x32);
    return __builtin_shufflevector(products, products, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(products, products, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

// The scale of one group in lanes 0-7, that of the next but one in lanes 8-15. A broadcast from memory costs less than
// taking a vector apart.
INLINE f32x16 two_scales(const float *scales) {
    f32x8 low = scales[0], high = scales[2];
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

#define DEFINE_QUANTIZED_TILE(name, format)                                                                            \
    INLINE void tile_##name(const uint8_t *w, size_t k, const float *x, size_t ldx, size_t begin, size_t end,          \
                            size_t ahead, f32x16 *sum, const size_t O, const size_t R) {                               \
        const size_t row_size = quantized_row(format, k), codes = quantized_codes(format, k);                          \
        const size_t block_size = quantized_codes(format, QUANT_BLOCK);                                                \
        for (size_t block = begin; block < end; block += SCALE_BLOCK) {                                                \
            const float *prepared = x + prepared_before(block);                                                        \
            float scales[16][LANES];                                                                                   \
            UNROLL for (size_t o = 0; o < O; o++) {                                                                    \
                f32x16 row = widen_bf16((const uint16_t *)(w + o * row_size + codes) + block / MK_GROUP);              \
                UNROLL for (size_t r = 0; r < R; r++) {                                                                \
                    store_f32x16(scales[r * O + o], row * load_f32x16(prepared + r * ldx));                            \
                }                                                                                                      \
            }                                                                                                          \
            for (size_t i = block; i < end && i < block + SCALE_BLOCK; i += QUANT_BLOCK) {                             \
                UNROLL for (size_t o = 0; o < O; o++) {                                                                \
                    const uint8_t *weights = w + o * row_size + i / QUANT_BLOCK * block_size;                          \
                    UNROLL for (size_t line = 0; line < block_size; line += 64) {                                      \
                        __builtin_prefetch(weights + line + ahead);                                                    \
                    }                                                                                                  \
                    /* Loaded anew for each output: there are more activations than registers. */                      \
                    const int16_t *activations = (const int16_t *)(prepared + LANES) + (i - block);                    \
                    __asm__ volatile("" : "+r"(activations));                                                          \
                    UNROLL for (size_t p = 0; p < 4; p += 2) {                                                         \
                        i16x32 first = plane_##name(weights, p), second = plane_##name(weights, p + 1);                \
                        UNROLL for (size_t r = 0; r < R; r++) {                                                        \
                            const int16_t *row = activations + 2 * r * ldx + 32 * p;                                   \
                            i32x16 products = multiply_pairs(first, load_i16x32(row)) +                                \
                                              multiply_pairs(second, load_i16x32(row + 32));                           \
                            f32x16 scale = two_scales(scales[r * O + o] + (i - block) / MK_GROUP + p / 2);             \
                            sum[r * O + o] = fma16(__builtin_convertvector(products, f32x16), scale, sum[r * O + o]);  \
                        }                                                                                              \
                    }                                                                                                  \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_QUANTIZED_TILE(q8, MK_Q8)
DEFINE_QUANTIZED_TILE(q4, MK_Q4)

// `tile` for sums that wait in memory, at sums[r·ld + o].
#define DEFINE_QUANTIZED_LINEAR(format_name, format)                                                                   \
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
        const size_t size = quantized_row(format, k), padded = round_up(k, QUANT_BLOCK);                               \
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
            for (size_t r = 0; r < count; r++) store_sums(sums + r * N, y + (row + r) * ldy, N);                       \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    static void linear_##format_name(const uint8_t *w, size_t k, size_t first, size_t last, const float *x,            \
                                     size_t rows, float *y, size_t ldy) {                                              \
        const size_t ldx = prepared_size(format, k), size = quantized_row(format, k);                                  \
        size_t o = first;                                                                                              \
        for (; rows > 1 && o + OUTPUT_GROUP <= last; o += OUTPUT_GROUP) {                                              \
            rows_##format_name(w + o * size, k, x, ldx, rows, y + o, ldy, OUTPUT_GROUP, QUANTIZED_TILE);               \
        }                                                                                                              \
        for (; rows > 1 && o < last; o++) rows_##format_name(w + o * size, k, x, ldx, rows, y + o, ldy, 1, 1, 1);      \
        for (; o < last; o++) {                                                                                        \
            /* One output at a time: the processor guesses one ascending stream of weights far better than two. */     \
            const size_t padded = round_up(k, QUANT_BLOCK);                                                            \
            f32x16 sum = 0.0f;                                                                                         \
            tile_##format_name(w + o * size, k, x, ldx, 0, padded, PREFETCH, &sum, 1, 1);                              \
            y[o] = sum_lanes(sum);                                                                                     \
        }                                                                                                              \
    }

DEFINE_QUANTIZED_LINEAR(q8, MK_Q8)
DEFINE_QUANTIZED_LINEAR(q4, MK_Q4)

static void linear(mk_format format, const void *w, size_t k, size_t first, size_t last, const float *prepared,
                   size_t rows, float *y, size_t ldy) {
    switch (format) {
    case MK_Q8: linear_q8(w, k, first, last, prepared, rows, y, ldy); break;
    case MK_Q4: linear_q4(w, k, first, last, prepared, rows, y, ldy); break;
    default: linear_bf16(w, k, first, last, prepared, rows, y, ldy); break;
    }
}
