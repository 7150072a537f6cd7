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
// two bfloat16 comes apart in two instructions.
#define LANES 16

// Quantised rows are padded to whole blocks of 128 weights: 64 bytes of 4-bit codes.
#define QUANT_BLOCK 128
// Weights whose scales are unpacked together: as many groups as lanes.
#define SCALE_BLOCK (LANES * MK_GROUP)

// 4-bit weights: code q (0…15) stands for scale·(q - 8). The kernels read it as the float 2^-126·(1 + q/16 + 7/128),
// whose bits a shift, an or and a byte shuffle can make; activations are prepared times 2^96 to stay far from both ends
// of the range, and a block's sum starts with scale·-(1.5 + 7/128)·Σx of every group so that it ends as Σ(q - 8)/16·x.
#define Q4_ACTIVATION 0x1p96f
#define Q4_CODE(q) (0x1p-126f * (1.0f + (float)(q) / 16.0f + 7.0f / 128.0f))
#define Q4_START (Q4_CODE(8) * -0x1p96f)
#define Q4_RESULT 0x1p34f

static inline size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static inline float from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

// A quantised row: the codes of round_up(k, 128) weights, then one bfloat16 scale per 32 weights, each part padded to
// 64 bytes. 8 bits: two's complement bytes in order. 4 bits: in each 64 bytes (128 weights) byte 4·l + b holds weight
// 16·b + l in its low half and weight 16·(b + 4) + l in its high half (l < 16, b < 4): 32-bit lane l holds the weights
// that belong to lane l of the sum.
static inline size_t quantized_codes(mk_format format, size_t k) {
    return round_up(k, QUANT_BLOCK) / (format == MK_Q4 ? 2 : 1);
}

static inline size_t quantized_row(mk_format format, size_t k) {
    return quantized_codes(format, k) + round_up(round_up(k, QUANT_BLOCK) / MK_GROUP * sizeof(uint16_t), 64);
}

// Prepared activations, zeros beyond k. bf16: 16 by 16, evens first. 8 bits: in order. 4 bits: per SCALE_BLOCK the
// starts of its 16 groups (zero where the row has ended), then its activations in order.
static inline size_t prepared_size(mk_format format, size_t k) {
    switch (format) {
    case MK_Q8: return round_up(k, QUANT_BLOCK);
    case MK_Q4: return round_up(k, SCALE_BLOCK) / MK_GROUP + round_up(k, QUANT_BLOCK);
    default: return round_up(k, LANES);
    }
}

// Adding and subtracting this rounds |x| < 2^22 to the nearest integer, which is then in the sum's low bits.
#define ROUND_MAGIC 0x1.8p23f

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
