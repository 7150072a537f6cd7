// The codec's matrix product. A tile is C columns × P panels of 16 outputs, all of whose sums stay in registers; a step
// along k loads P vectors of weights and broadcasts C activations.
//
// The including file defines CONV_COLUMNS, the most columns of a tile, and CONV_SUMS, the most sums (C·P) of one.
#include "vectors.h"

typedef struct conv_shape {
    size_t taps, channels, outputs, column_stride, tap_stride;
    const mk_epilogue *epilogue;
} conv_shape;

INLINE void finish(const mk_epilogue *e, f32x16 sum, size_t column, size_t o, size_t count) {
    if (e->bias) sum = sum + load(e->bias + o, count);
    if (e->residual) sum = sum + load(e->residual + column * e->ld_residual + o, count);
    if (e->raw) store(e->raw + column * e->ld_raw + o, count, sum);
    if (e->activated) {
        f32x16 value = snake_of(sum, load(e->alpha + o, count), load(e->inv_beta + o, count));
        store(e->activated + column * e->ld_activated + o, count, value);
    }
}

INLINE void conv_tile(const conv_shape *shape, const float *w, const float *x, size_t column, size_t panel,
                      const size_t C, const size_t P) {
    const size_t panel_size = shape->taps * shape->channels * MK_PANEL;
    const size_t column_stride = shape->column_stride;
    w += panel * panel_size;
    x += column * column_stride;
    f32x16 sum[CONV_SUMS];
    UNROLL for (size_t i = 0; i < C * P; i++) sum[i] = 0.0f;
    for (size_t j = 0; j < shape->taps; j++) {
        const float *activations = x + j * shape->tap_stride;
        for (const float *end = activations + shape->channels; activations < end; activations++) {
            f32x16 weights[CONV_SUMS];
            UNROLL for (size_t p = 0; p < P; p++) weights[p] = load_f32x16(w + p * panel_size);
            UNROLL for (size_t c = 0; c < C; c++) {
                f32x16 activation = activations[c * column_stride];
                UNROLL for (size_t p = 0; p < P; p++) sum[c * P + p] = fma16(weights[p], activation, sum[c * P + p]);
            }
            w += MK_PANEL;
        }
    }
    UNROLL for (size_t p = 0; p < P; p++) {
        size_t o = (panel + p) * MK_PANEL;
        UNROLL for (size_t c = 0; c < C; c++) {
            finish(shape->epilogue, sum[c * P + p], column + c, o, shape->outputs - o);
        }
    }
}

#define CONV_CASE(C, P)                                                                                                \
    case (C) * 16 + (P): conv_tile(shape, w, x, column, panel, C, P); break;

static void conv_tile_of(const conv_shape *shape, const float *w, const float *x, size_t column, size_t panel,
                         size_t columns, size_t panels) {
    switch (columns * 16 + panels) { CONV_TILES }
}

static void conv_f32(const float *w, size_t taps, size_t channels, size_t outputs, const float *x,
                     size_t column_stride, size_t tap_stride, size_t columns, size_t first_panel, size_t last_panel,
                     const mk_epilogue *epilogue) {
    if (columns == 0) return;
    const conv_shape shape = {taps, channels, outputs, column_stride, tap_stride, epilogue};
    // Strips of nearly equal width, so that none is left with too few sums to hide the latency.
    size_t strips = (columns + CONV_COLUMNS - 1) / CONV_COLUMNS;
    size_t widest = (columns + strips - 1) / strips;
    size_t most_panels = 1;
    while (most_panels * 2 * widest <= CONV_SUMS && most_panels < CONV_PANELS) most_panels *= 2;
    for (size_t panel = first_panel, panels = most_panels; panel < last_panel; panel += panels) {
        while (panels > last_panel - panel) panels /= 2;
        for (size_t strip = 0; strip < strips; strip++) {
            size_t column = columns * strip / strips, next = columns * (strip + 1) / strips;
            conv_tile_of(&shape, w, x, column, panel, next - column, panels);
        }
    }
}
