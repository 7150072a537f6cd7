// Symmetric quantisation in groups of 32 along k; the layout is described in internal.h.
#include "internal.h"

#pragma STDC FP_CONTRACT OFF

// Where a group's entry of largest magnitude may come to lie, in steps of the scale. The candidate with the least
// squared error wins; beyond the code range the entry is clipped.
static const float q8_peaks[] = {127.0f, 126.5f};
static const float q4_peaks[] = {-8.0f, -8.6f, -8.3f, -7.7f, -7.4f, -7.0f, 7.0f, 7.5f, 6.5f};

static uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The nearest code to `value`, in low...high; low if it isn't a number.
static float nearest_code(float value, float low, float high) {
    value = value > low ? value : low;
    value = value < high ? value : high;
    return (value + ROUND_MAGIC) - ROUND_MAGIC;
}

static float inverse_of(float scale) { return fabsf(scale) > 0x1p-100f ? 1.0f / scale : 0.0f; }

static float squared_error(const float *group, float scale, float low, float high) {
    float inverse = inverse_of(scale);
    float lanes[8] = {0};
    for (size_t i = 0; i < MK_GROUP; i += 8) {
        for (size_t l = 0; l < 8; l++) {
            float error = group[i + l] - scale * nearest_code(group[i + l] * inverse, low, high);
            lanes[l] += error * error;
        }
    }
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// The scale with the least squared error among the candidates, already rounded to bfloat16.
static uint16_t choose_scale(mk_format format, const float *group, float low, float high) {
    float peak = 0.0f;
    for (size_t i = 0; i < MK_GROUP; i++) peak = fabsf(group[i]) > fabsf(peak) ? group[i] : peak;
    const float *peaks = format == MK_Q4 ? q4_peaks : q8_peaks;
    size_t count = format == MK_Q4 ? sizeof q4_peaks / sizeof *q4_peaks : sizeof q8_peaks / sizeof *q8_peaks;
    uint16_t best = to_bf16(peak / peaks[0]);
    float least = squared_error(group, from_bf16(best), low, high);
    for (size_t i = 1; i < count; i++) {
        uint16_t scale = to_bf16(peak / peaks[i]);
        float error = squared_error(group, from_bf16(scale), low, high);
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return best;
}

static void quantize_row(mk_format format, const float *row, size_t k, uint8_t *out) {
    float low = format == MK_Q4 ? -8.0f : -127.0f, high = format == MK_Q4 ? 7.0f : 127.0f;
    uint8_t *scales = out + quantized_codes(format, k);
    memset(out, 0, quantized_row(format, k));
    for (size_t start = 0; start < round_up(k, QUANT_BLOCK); start += MK_GROUP) {
        float group[MK_GROUP] = {0};
        size_t count = start >= k ? 0 : k - start < MK_GROUP ? k - start : MK_GROUP;
        memcpy(group, row + (count ? start : 0), count * sizeof *row);
        uint16_t scale = choose_scale(format, group, low, high);
        memcpy(scales + start / MK_GROUP * 2, &scale, 2);
        float inverse = inverse_of(from_bf16(scale));
        for (size_t i = 0; i < MK_GROUP; i++) {
            int code = (int)nearest_code(group[i] * inverse, low, high);
            size_t position = plane_position(start + i);
            if (format == MK_Q8) {
                out[position] = (uint8_t)code;
            } else {
                out[nibble_byte(position)] |= (uint8_t)((code & 15) << nibble_shift(position));
            }
        }
    }
}

size_t mk_quantized_size(mk_format format, size_t outputs, size_t k) { return outputs * quantized_row(format, k); }

void mk_quantize(mk_format format, const float *w, size_t ldw, size_t outputs, size_t k, size_t first, size_t last,
                 void *out) {
    for (size_t o = first; o < last && o < outputs; o++) {
        quantize_row(format, w + (o - first) * ldw, k, (uint8_t *)out + o * quantized_row(format, k));
    }
}

void mk_dequantize_row(mk_format format, const void *w, size_t outputs, size_t k, size_t row, float *out) {
    (void)outputs;
    const uint8_t *codes = (const uint8_t *)w + row * quantized_row(format, k);
    const uint8_t *scales = codes + quantized_codes(format, k);
    for (size_t i = 0; i < k; i++) {
        uint16_t scale;
        memcpy(&scale, scales + i / MK_GROUP * 2, 2);
        out[i] = from_bf16(scale) * (float)quantized_code(format, codes, plane_position(i));
    }
}
