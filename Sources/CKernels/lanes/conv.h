// The codec's matrix product. A tile is C columns × P panels of 16 outputs, all of whose sums stay in registers; a step
// along k loads P vectors of weights and broadcasts C activations.
//
// Where few strips of columns use a weight, or a panel exceeds the second-level cache, the strips take turns on one
// piece of k while the next piece arrives; between pieces the sums wait in memory.
//
// The including file defines CONV_COLUMNS, the most columns of a tile, CONV_PANELS, the most panels, CONV_SUMS, the
// most sums (C·P), and CONV_TILES, a CONV_CASE for every shape that follows from them.
#include "vectors.h"

// Weights of one panel from which on k is cut into pieces: half of a second-level cache.
#define CONV_LARGE_PANEL (256 * 1024 / sizeof(float))
// Steps of k in one piece: 8 KB of a panel's weights.
#define CONV_PIECE 128
// Strips whose sums wait at the same time.
#define CONV_STRIPS 8
// Steps between two requests for weights to come.
#define CONV_AHEAD 16

typedef struct conv_shape {
    size_t taps, channels, outputs, column_stride, tap_stride;
    const mk_epilogue *epilogue;
} conv_shape;

// A piece of k: some taps, and of each the channels first..<last.
typedef struct conv_piece {
    size_t first_tap, last_tap, first, last;
    // Lines of weights that are asked for every CONV_AHEAD steps, the first CONV_PIECE + `line` lines ahead.
    size_t lines, line;
} conv_piece;

INLINE void finish(const mk_epilogue *e, f32x16 sum, size_t column, size_t o, size_t count) {
    if (e->bias) sum = sum + load(e->bias + o, count);
    if (e->residual) sum = sum + load(e->residual + column * e->ld_residual + o, count);
    if (e->raw) store(e->raw + column * e->ld_raw + o, count, sum);
    if (e->activated) {
        f32x16 value = snake_of(sum, load(e->alpha + o, count), load(e->inv_beta + o, count));
        store(e->activated + column * e->ld_activated + o, count, value);
    }
}

INLINE void conv_tile(const conv_shape *shape, const conv_piece *piece, const float *w, const float *x, f32x16 *sums,
                      size_t column, size_t panel, const size_t C, const size_t P) {
    const size_t panel_size = shape->taps * shape->channels * MK_PANEL;
    const size_t column_stride = shape->column_stride;
    const size_t lines = piece->lines;
    const ptrdiff_t stretch = lines ? CONV_AHEAD : PTRDIFF_MAX;
    f32x16 sum[CONV_SUMS];
    if (piece->first_tap == 0 && piece->first == 0) {
        UNROLL for (size_t i = 0; i < C * P; i++) sum[i] = 0.0f;
    } else {
        UNROLL for (size_t i = 0; i < C * P; i++) sum[i] = sums[i];
    }
    w += panel * panel_size + (piece->first_tap * shape->channels + piece->first) * MK_PANEL;
    x += column * column_stride;
    const float *ahead = w + (CONV_PIECE + piece->line) * MK_PANEL;
    for (size_t j = piece->first_tap; j < piece->last_tap; j++) {
        const float *activations[(CONV_COLUMNS + 2) / 3];
        UNROLL for (size_t i = 0; 3 * i < C; i++) {
            activations[i] = x + j * shape->tap_stride + piece->first + 3 * i * column_stride;
            // Or the compiler computes each column's address anew in every step.
            __asm__("" : "+r"(activations[i]));
        }
        const float *end = activations[0] + (piece->last - piece->first);
        while (activations[0] < end) {
            const float *stop = end - activations[0] > stretch ? activations[0] + stretch : end;
            for (size_t line = 0; line < lines; line++, ahead += MK_PANEL) __builtin_prefetch(ahead);
            while (activations[0] < stop) {
                f32x16 weights[CONV_SUMS];
                UNROLL for (size_t p = 0; p < P; p++) weights[p] = load_f32x16(w + p * panel_size);
                UNROLL for (size_t c = 0; c < C; c++) {
                    f32x16 activation = activations[c / 3][c % 3 * column_stride];
                    f32x16 *sums_of_column = sum + c * P;
                    UNROLL for (size_t p = 0; p < P; p++) {
                        sums_of_column[p] = fma16(weights[p], activation, sums_of_column[p]);
                    }
                }
                UNROLL for (size_t i = 0; 3 * i < C; i++) activations[i]++;
                w += MK_PANEL;
            }
        }
    }
    if (piece->last_tap < shape->taps || piece->last < shape->channels) {
        UNROLL for (size_t i = 0; i < C * P; i++) sums[i] = sum[i];
        return;
    }
    UNROLL for (size_t p = 0; p < P; p++) {
        size_t o = (panel + p) * MK_PANEL;
        UNROLL for (size_t c = 0; c < C; c++) {
            finish(shape->epilogue, sum[c * P + p], column + c, o, shape->outputs - o);
        }
    }
}

#define CONV_CASE(C, P)                                                                                                \
    case (C) * 16 + (P): conv_tile(shape, piece, w, x, sums, column, panel, C, P); break;

static void conv_tile_of(const conv_shape *shape, const conv_piece *piece, const float *w, const float *x, f32x16 *sums,
                         size_t column, size_t panel, size_t columns, size_t panels) {
    switch (columns * 16 + panels) { CONV_TILES }
}

// Panel by panel in pieces of k, at most CONV_STRIPS strips at a time.
static void conv_in_pieces(const conv_shape *shape, const float *w, const float *x, size_t columns, size_t strips,
                           size_t panel, size_t panels) {
    f32x16 sums[CONV_STRIPS * CONV_SUMS];
    for (size_t first_strip = 0; first_strip < strips; first_strip += CONV_STRIPS) {
        size_t count = strips - first_strip < CONV_STRIPS ? strips - first_strip : CONV_STRIPS;
        conv_piece piece = {.lines = (CONV_AHEAD + count - 1) / count};
        for (size_t j = 0; j < shape->taps; j++) {
            for (size_t channel = 0; channel < shape->channels; channel += CONV_PIECE) {
                piece.first_tap = j;
                piece.last_tap = j + 1;
                piece.first = channel;
                piece.last = shape->channels - channel < CONV_PIECE ? shape->channels : channel + CONV_PIECE;
                for (size_t i = 0; i < count; i++) {
                    size_t strip = first_strip + i;
                    size_t column = columns * strip / strips, next = columns * (strip + 1) / strips;
                    piece.line = CONV_PIECE * i / count;
                    conv_tile_of(shape, &piece, w, x, sums + i * CONV_SUMS, column, panel, next - column, panels);
                }
            }
        }
    }
}

static void conv_f32(const float *w, size_t taps, size_t channels, size_t outputs, const float *x,
                     size_t column_stride, size_t tap_stride, size_t columns, size_t first_panel, size_t last_panel,
                     const mk_epilogue *epilogue) {
    if (columns == 0) return;
    const conv_shape shape = {taps, channels, outputs, column_stride, tap_stride, epilogue};
    // Strips of nearly equal width, so that none is left with too few sums to hide the latency.
    const size_t strips = (columns + CONV_COLUMNS - 1) / CONV_COLUMNS;
    const size_t widest = (columns + strips - 1) / strips;
    size_t most_panels = 1;
    while (most_panels * 2 * widest <= CONV_SUMS && most_panels < CONV_PANELS) most_panels *= 2;
    conv_piece all = {.last_tap = taps, .last = channels};
    for (size_t panel = first_panel, panels = most_panels; panel < last_panel; panel += panels) {
        while (panels > last_panel - panel) panels /= 2;
        if (strips > 1 && (strips <= CONV_STRIPS || taps * channels * MK_PANEL >= CONV_LARGE_PANEL)) {
            conv_in_pieces(&shape, w, x, columns, strips, panel, panels);
            continue;
        }
        // Weights that are used once are asked for early; several panels are streams enough for the processor's own
        // guess.
        all.lines = strips == 1 && panels == 1 ? CONV_AHEAD : 0;
        for (size_t strip = 0; strip < strips; strip++) {
            size_t column = columns * strip / strips, next = columns * (strip + 1) / strips;
            conv_tile_of(&shape, &all, w, x, NULL, column, panel, next - column, panels);
        }
    }
}
