// What the implementations share: the tables, the layouts of weights and prepared activations, and the constants of the
// elementary functions. Not visible outside the module.
#ifndef MARTLET_INTERNAL_H
#define MARTLET_INTERNAL_H

#include <math.h>
#include <string.h>

#include "include/CKernels.h"

extern const mk_kernels mk_scalar_kernels;
#if defined(__x86_64__)
extern const mk_kernels mk_avx2_kernels;
extern const mk_kernels mk_avx512_kernels;
#elif defined(__aarch64__)
extern const mk_kernels mk_neon_kernels;
#endif

// The lanes of every reduction, on every instruction set: element i goes to lane i % 16, each lane is one chain of
// fused multiply-adds, and the lanes are added 8 + 8, 4 + 4, 2 + 2, 1 + 1. Only bf16 weights have another order: in
// each 16 elements the even ones go to lanes 0-7 and the odd ones to lanes 8-15, because that is how a 32-bit word of
// two bfloat16 comes apart in two instructions. Quantised weights are multiplied as integers, below.
#define LANES 16

// Quantised rows are padded to whole blocks of 128 weights: 64 bytes of 4-bit codes, four groups A, B, C, D.
#define QUANT_BLOCK 128
// Weights whose scales are unpacked together: as many groups as lanes.
#define SCALE_BLOCK (LANES * MK_GROUP)

// The product of quantised weights. Activations are quantised too, to 16 bits with a scale per group of 32, so that a
// group's sum is one of integers: exact, in whatever order, below 2^31 (and each of its eight parts below 2^24, which a
// float holds). Lanes 0-7 then add A and B, lanes 8-15 C and D: lane l adds scale(weights)·scale(activations)·(the
// products of the group's elements 2l, 2l + 1, 16 + 2l, 17 + 2l) by a fused multiply-add.
//
// So that sixteen 32-bit lanes are filled by one multiplication of pairs, a block's codes lie in four planes of 32:
// A's first half and C's, A's second and C's, B's first and D's, B's second and D's.
static inline size_t plane_position(size_t element) {
    size_t group = element / MK_GROUP % 4, half = element % MK_GROUP / 16;
    return element / QUANT_BLOCK * QUANT_BLOCK + (group % 2 * 2 + half) * 32 + group / 2 * 16 + element % 16;
}

#define ACTIVATION_PEAK 32767.0f

// The scale of a group of activations whose largest magnitude is `peak`, and in `inverse` what they are multiplied by
// before they are rounded. A number that is not finite makes the scale one that is not, and so the sum.
static inline float activation_scale(float peak, float *inverse) {
    *inverse = peak > 0x1p-100f && peak < INFINITY ? ACTIVATION_PEAK / peak : 0.0f;
    return peak < INFINITY ? peak / ACTIVATION_PEAK : NAN;
}

static inline size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static inline float from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

// A quantised row: the codes of round_up(k, 128) weights, then one bfloat16 scale per 32 weights, each part padded to
// 64 bytes. 8 bits: two's complement bytes, plane after plane. 4 bits: 32 words of 16 bits a block; word i holds the
// elements i of planes 0, 1, 2, 3, the first in its lowest four bits, in two's complement.
static inline size_t quantized_codes(mk_format format, size_t k) {
    return round_up(k, QUANT_BLOCK) / (format == MK_Q4 ? 2 : 1);
}

static inline size_t quantized_row(mk_format format, size_t k) {
    return quantized_codes(format, k) + round_up(round_up(k, QUANT_BLOCK) / MK_GROUP * sizeof(uint16_t), 64);
}

// Where the 4-bit code of a position lies.
static inline size_t nibble_byte(size_t position) {
    return position / QUANT_BLOCK * 64 + position % 32 * 2 + position % QUANT_BLOCK / 64;
}

static inline int nibble_shift(size_t position) { return position / 32 % 2 * 4; }

static inline int quantized_code(mk_format format, const uint8_t *codes, size_t position) {
    if (format == MK_Q8) return (int8_t)codes[position];
    return ((codes[nibble_byte(position)] >> nibble_shift(position) & 15) ^ 8) - 8;
}

// Prepared activations, zeros from k to the end of its lanes or block. bf16: 16 by 16, evens first; rows lie an odd
// multiple of 512 bytes apart, so that the same piece of eight rows takes different sets of a first-level cache.
// Quantised: per SCALE_BLOCK the scales of its 16 groups (zero where the row has ended), then its 16-bit codes, plane
// after plane.
static inline size_t prepared_size(mk_format format, size_t k) {
    if (format == MK_BF16) return ((k + 127) / 128 | 1) * 128;
    return round_up(k, SCALE_BLOCK) / MK_GROUP + round_up(k, QUANT_BLOCK) / 2;
}

// Floats before the prepared activations of element `begin`, a multiple of SCALE_BLOCK.
static inline size_t prepared_before(size_t begin) { return begin / MK_GROUP + begin / 2; }

// Adding and subtracting this rounds |x| < 2^22 to the nearest integer, which is then in the sum's low bits.
#define ROUND_MAGIC 0x1.8p23f
#define ROUND_MAGIC_BITS 0x4b400000

// sin r on |r| ≤ π/2 as r + r³·(S0 + S1·r² + S2·r⁴ + S3·r⁶): error 5e-9 before rounding.
#define INV_PI 0x1.45f306p-2f
#define PI_HIGH 0x1.921fb6p+1f
#define PI_LOW -0x1.777a5cp-24f
#define SIN_0 -0x1.555548p-3f
#define SIN_1 0x1.110e68p-7f
#define SIN_2 -0x1.9f5f96p-13f
#define SIN_3 0x1.5cf3fep-19f

// exp r on |r| ≤ ln 2 / 2 as 1 + r + r²·(E0 + … + E4·r⁴): relative error 3e-9 before rounding. Arguments are held to
// [EXP_LOWEST, EXP_HIGHEST] so that 2^n stays a normal number.
#define LOG2_E 0x1.715476p+0f
#define LN2_HIGH 0x1.62e430p-1f
#define LN2_LOW -0x1.05c610p-29f
#define EXP_LOWEST -87.0f
#define EXP_HIGHEST 88.0f
#define EXP_0 0x1.fffffcp-2f
#define EXP_1 0x1.555490p-3f
#define EXP_2 0x1.5558f4p-5f
#define EXP_3 0x1.123a6cp-7f
#define EXP_4 0x1.6a2352p-10f

// erfc(x/√2) = exp(-x·(G0 + … + G7·x⁷)) for x ≥ 0: error 1e-7 after rounding.
#define GELU_0 0x1.98849ap-1f
#define GELU_1 0x1.45ecb8p-2f
#define GELU_2 0x1.2a7042p-5f
#define GELU_3 -0x1.452bf2p-8f
#define GELU_4 0x1.35871ep-13f
#define GELU_5 0x1.be555ap-14f
#define GELU_6 -0x1.777848p-16f
#define GELU_7 0x1.9e60d8p-20f

#endif
