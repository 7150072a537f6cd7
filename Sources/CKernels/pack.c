// Packing of float32 weights for `conv_f32`.
#include "internal.h"

size_t mk_packed_size(size_t outputs, size_t k) { return round_up(outputs, MK_PANEL) * k; }

void mk_pack_panels(const float *w, size_t output_stride, const size_t *index, size_t outputs, size_t k,
                    float *packed) {
    for (size_t first = 0; first < outputs; first += MK_PANEL) {
        for (size_t i = 0; i < k; i++) {
            for (size_t lane = 0; lane < MK_PANEL; lane++) {
                size_t o = first + lane;
                *packed++ = o < outputs ? w[o * output_stride + index[i]] : 0.0f;
            }
        }
    }
}
