// AVX2 with FMA: sixteen lanes are two of the sixteen registers.
#if defined(__x86_64__)
#include "../internal.h"

#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)

#define BF16_PARTS 2
#define BF16_OUTPUTS 3
#define BF16_ROWS 4
#define QUANTIZED_TILE 2, 2

// Twelve registers of sums, two of weights, one of activations.
#define CONV_COLUMNS 6
#define CONV_PANELS 4
#define CONV_SUMS 6
#define CONV_TILES                                                                                                     \
    CONV_CASE(1, 1) CONV_CASE(2, 1) CONV_CASE(3, 1) CONV_CASE(4, 1) CONV_CASE(5, 1) CONV_CASE(6, 1)                    \
    CONV_CASE(1, 2) CONV_CASE(2, 2) CONV_CASE(3, 2) CONV_CASE(1, 4)

#include "../lanes/kernels.h"

const mk_kernels mk_avx2_kernels = KERNEL_TABLE(MK_AVX2, "avx2");

#pragma clang attribute pop
#endif
