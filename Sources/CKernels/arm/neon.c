// NEON: sixteen lanes are four of the thirty-two registers.
#if defined(__aarch64__)

#define BF16_PARTS 2
#define BF16_OUTPUTS 2
#define BF16_ROWS 4
#define QUANTIZED_TILE 1, 4

// Twenty-four registers of sums, four of weights.
#define CONV_COLUMNS 6
#define CONV_PANELS 4
#define CONV_SUMS 6
#define CONV_TILES                                                                                                     \
    CONV_CASE(1, 1) CONV_CASE(2, 1) CONV_CASE(3, 1) CONV_CASE(4, 1) CONV_CASE(5, 1) CONV_CASE(6, 1)                    \
    CONV_CASE(1, 2) CONV_CASE(2, 2) CONV_CASE(3, 2) CONV_CASE(1, 4)

#include "../lanes/kernels.h"

const mk_kernels mk_neon_kernels = KERNEL_TABLE(MK_NEON, "neon");

#endif
