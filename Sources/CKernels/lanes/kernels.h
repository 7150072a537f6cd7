// All kernels of one instruction set, and its table.
#include "attention.h"
#include "conv.h"
#include "elementwise.h"
#include "linear.h"

#define KERNEL_TABLE(set, set_name)                                                                                    \
    {                                                                                                                  \
        .isa = set, .name = set_name, .prepared_size = prepared_size, .prepare = prepare, .linear = linear,            \
        .conv_f32 = conv_f32, .depthwise_f32 = depthwise_f32, .rms_norm = rms_norm, .layer_norm = layer_norm,          \
        .norm_rope = norm_rope, .attend = attend, .silu_mul = silu_mul, .silu = silu, .gelu = gelu, .elu = elu,        \
        .add_scaled = add_scaled, .snake = snake, .add_bf16 = add_bf16, .copy_bf16 = copy_bf16,                        \
    }
