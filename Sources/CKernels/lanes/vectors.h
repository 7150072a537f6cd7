// Sixteen float lanes as one value, and the functions of one value that the kernels share. The compiler splits it into
// as many registers as the instruction set needs: two on AVX2, one on AVX-512, four on NEON.
//
// The files of this folder are templates: each instruction set's file includes them once, under its own target
// attribute, and states its tile sizes. Function by function they compute what scalar.c does.
#ifndef MARTLET_LANES_VECTORS_H
#define MARTLET_LANES_VECTORS_H

#include "../internal.h"

#pragma STDC FP_CONTRACT OFF
// Values wider than a register are passed to inlined functions only.
#pragma clang diagnostic ignored "-Wpsabi"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

typedef float f32x16 __attribute__((ext_vector_type(16)));
typedef float f32x8 __attribute__((ext_vector_type(8)));
typedef float f32x4 __attribute__((ext_vector_type(4)));
typedef int32_t i32x16 __attribute__((ext_vector_type(16)));
typedef uint32_t u32x16 __attribute__((ext_vector_type(16)));
typedef uint32_t u32x8 __attribute__((ext_vector_type(8)));
typedef uint16_t u16x16 __attribute__((ext_vector_type(16)));
typedef int8_t i8x32 __attribute__((ext_vector_type(32)));
typedef int16_t i16x16 __attribute__((ext_vector_type(16)));
typedef int16_t i16x32 __attribute__((ext_vector_type(32)));
typedef uint16_t u16x32 __attribute__((ext_vector_type(32)));
typedef int32_t i32x32 __attribute__((ext_vector_type(32)));

#define DEFINE_LOAD(name, type)                                                 \
    INLINE type name(const void *p) {                                           \
        typedef type unaligned __attribute__((aligned(1), may_alias));          \
        return *(const unaligned *)p;                                           \
    }
DEFINE_LOAD(load_f32x16, f32x16)
DEFINE_LOAD(load_f32x8, f32x8)
DEFINE_LOAD(load_u32x8, u32x8)
DEFINE_LOAD(load_u16x16, u16x16)
DEFINE_LOAD(load_i8x32, i8x32)
DEFINE_LOAD(load_i16x32, i16x32)
DEFINE_LOAD(load_u16x32, u16x32)
#undef DEFINE_LOAD

INLINE void store_f32x16(float *p, f32x16 value) {
    typedef f32x16 unaligned __attribute__((aligned(1), may_alias));
    *(unaligned *)p = value;
}

INLINE void store_f32x8(float *p, f32x8 value) {
    typedef f32x8 unaligned __attribute__((aligned(1), may_alias));
    *(unaligned *)p = value;
}

// The first `count` of sixteen floats, zeros beyond; any count from 16 up means all.
INLINE f32x16 load(const float *p, size_t count) {
    if (count >= LANES) return load_f32x16(p);
    float part[LANES] = {0};
    for (size_t i = 0; i < count; i++) part[i] = p[i];
    return load_f32x16(part);
}

INLINE void store(float *p, size_t count, f32x16 value) {
    if (count >= LANES) {
        store_f32x16(p, value);
        return;
    }
    float part[LANES];
    store_f32x16(part, value);
    for (size_t i = 0; i < count; i++) p[i] = part[i];
}

INLINE f32x16 fma16(f32x16 a, f32x16 b, f32x16 c) { return __builtin_elementwise_fma(a, b, c); }

// a where the mask is set, b elsewhere.
INLINE f32x16 choose(i32x16 mask, f32x16 a, f32x16 b) { return mask ? a : b; }

INLINE f32x4 fold_to_4(f32x16 sum) {
    f32x8 eight = sum.lo + sum.hi;
    return eight.lo + eight.hi;
}

// The sums of four sets of lanes.
INLINE f32x4 sum_lanes_of_4(f32x16 a, f32x16 b, f32x16 c, f32x16 d) {
    f32x4 a4 = fold_to_4(a), b4 = fold_to_4(b), c4 = fold_to_4(c), d4 = fold_to_4(d);
    f32x4 ab = __builtin_shufflevector(a4, b4, 0, 1, 4, 5) + __builtin_shufflevector(a4, b4, 2, 3, 6, 7);
    f32x4 cd = __builtin_shufflevector(c4, d4, 0, 1, 4, 5) + __builtin_shufflevector(c4, d4, 2, 3, 6, 7);
    return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

INLINE float sum_lanes(f32x16 sum) {
    f32x4 four = fold_to_4(sum);
    return (four.x + four.z) + (four.y + four.w);
}

INLINE f32x16 exp_tail(f32x16 x, i32x16 *exponent) {
    x = choose(EXP_LOWEST > x, EXP_LOWEST, x);
    x = choose(EXP_HIGHEST < x, EXP_HIGHEST, x);
    f32x16 shifted = fma16(x, LOG2_E, ROUND_MAGIC);
    f32x16 n = shifted - ROUND_MAGIC;
    f32x16 r = fma16(-n, LN2_LOW, fma16(-n, LN2_HIGH, x));
    f32x16 p = fma16(fma16(fma16(fma16(EXP_4, r, EXP_3), r, EXP_2), r, EXP_1), r, EXP_0);
    *exponent = (i32x16)((u32x16)shifted << 23);
    return fma16(p, r * r, r);
}

INLINE f32x16 add_bits(f32x16 x, i32x16 n) { return (f32x16)((u32x16)x + (u32x16)n); }

INLINE f32x16 exponential(f32x16 x) {
    i32x16 exponent;
    f32x16 tail = exp_tail(x, &exponent);
    return add_bits(1.0f + tail, exponent);
}

INLINE f32x16 exponential_minus_1(f32x16 x) {
    i32x16 exponent;
    f32x16 tail = exp_tail(x, &exponent);
    f32x16 power = add_bits(1.0f, exponent);
    return fma16(power, tail, power - 1.0f);
}

INLINE f32x16 silu_of(f32x16 x) { return x / (1.0f + exponential(-x)); }

INLINE f32x16 gelu_of(f32x16 x) {
    f32x16 a = choose(x < 0.0f, -x, x);
    f32x16 p = fma16(GELU_7, a, GELU_6);
    p = fma16(p, a, GELU_5);
    p = fma16(p, a, GELU_4);
    p = fma16(p, a, GELU_3);
    p = fma16(p, a, GELU_2);
    p = fma16(p, a, GELU_1);
    p = fma16(p, a, GELU_0);
    f32x16 tail = 0.5f * exponential(-(p * a));
    return choose(x < 0.0f, x * tail, fma16(-x, tail, x));
}

INLINE f32x16 elu_of(f32x16 x) { return choose(x < 0.0f, exponential_minus_1(x), x); }

INLINE f32x16 snake_of(f32x16 x, f32x16 alpha, f32x16 inv_beta) {
    f32x16 u = alpha * x;
    f32x16 n = fma16(u, INV_PI, ROUND_MAGIC) - ROUND_MAGIC;
    f32x16 r = fma16(-n, PI_LOW, fma16(-n, PI_HIGH, u));
    f32x16 z = r * r;
    f32x16 p = fma16(fma16(fma16(SIN_3, z, SIN_2), z, SIN_1), z, SIN_0);
    f32x16 sine = fma16(r * z, p, r);
    return fma16(sine * sine, inv_beta, x);
}

INLINE f32x16 widen_bf16(const uint16_t *p) {
    return (f32x16)(__builtin_convertvector(load_u16x16(p), u32x16) << 16);
}

#endif
