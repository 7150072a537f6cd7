// AVX-512: sixteen lanes are one of the thirty-two registers.
#if defined(__x86_64__)
#include <immintrin.h>

#include "../internal.h"

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma"))), apply_to = function)

// Twenty-four sums, the weights of three outputs, one activation. Widening takes one instruction beside the load: it leaves
// the arithmetic units to the products.
#define BF16_PARTS 1
#define BF16_OUTPUTS 3
#define BF16_ROWS 8
#define WIDEN_BF16 widen_pairs
#define QUANTIZED_TILE 1, 8

// Up to twenty-four registers of sums.
#define CONV_COLUMNS 12
#define CONV_PANELS 8
#define CONV_SUMS 24
#define CONV_TILES                                                                                                     \
    CONV_CASE(1, 1) CONV_CASE(2, 1) CONV_CASE(3, 1) CONV_CASE(4, 1) CONV_CASE(5, 1) CONV_CASE(6, 1)                    \
    CONV_CASE(7, 1) CONV_CASE(8, 1) CONV_CASE(9, 1) CONV_CASE(10, 1) CONV_CASE(11, 1) CONV_CASE(12, 1)                 \
    CONV_CASE(1, 2) CONV_CASE(2, 2) CONV_CASE(3, 2) CONV_CASE(4, 2) CONV_CASE(5, 2) CONV_CASE(6, 2)                    \
    CONV_CASE(7, 2) CONV_CASE(8, 2) CONV_CASE(9, 2) CONV_CASE(10, 2) CONV_CASE(11, 2) CONV_CASE(12, 2)                 \
    CONV_CASE(1, 4) CONV_CASE(2, 4) CONV_CASE(3, 4) CONV_CASE(4, 4) CONV_CASE(5, 4) CONV_CASE(6, 4)                    \
    CONV_CASE(1, 8) CONV_CASE(2, 8) CONV_CASE(3, 8)

// Of sixteen bfloat16 the even ones into lanes 0-7, the odd ones into lanes 8-15: both halves of a register get all eight
// pairs, and in each pair's word the bytes of one move up.
static inline __attribute__((always_inline)) __m512 widen_pairs(const void *w) {
    const __m512i pairs = _mm512_broadcast_i64x4(_mm256_loadu_si256(w));
    const __m512i bytes = _mm512_set_epi32(0x0f0e8080, 0x0b0a8080, 0x07068080, 0x03028080, 0x0f0e8080, 0x0b0a8080,
                                           0x07068080, 0x03028080, 0x0d0c8080, 0x09088080, 0x05048080, 0x01008080,
                                           0x0d0c8080, 0x09088080, 0x05048080, 0x01008080);
    return (__m512)_mm512_shuffle_epi8(pairs, bytes);
}

#include "../lanes/kernels.h"

const mk_kernels mk_avx512_kernels = KERNEL_TABLE(MK_AVX512, "avx512");

#pragma clang attribute pop
#endif
