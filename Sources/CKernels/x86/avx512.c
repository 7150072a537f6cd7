// AVX-512: sixteen lanes are one of the thirty-two registers.
#if defined(__x86_64__)
#include "../internal.h"

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma"))), apply_to = function)

#define BF16_PARTS 1
#define BF16_OUTPUTS 4
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

#include "../lanes/kernels.h"

const mk_kernels mk_avx512_kernels = KERNEL_TABLE(MK_AVX512, "avx512");

#pragma clang attribute pop
#endif
