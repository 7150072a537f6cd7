// Martlet's CPU kernels.
//
// One table of functions per instruction set, chosen at run time. `scalar.c` is the readable reference of every
// function; the vector files compute the same sums.
//
// Contract (docs/determinism.md): each output element is one sum in one fixed order that depends on the layer's shape
// only, never on how many rows or columns a call brings or how outputs are split among threads. All tables give the
// same bits: they sum in the same 16 lanes and share the elementary functions. No function allocates, locks or keeps
// state. All matrices are row-major; `ld…` are strides in elements.
#ifndef MARTLET_CKERNELS_H
#define MARTLET_CKERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/// Output channels that lie side by side in a packed float32 weight panel.
#define MK_PANEL 16
/// Weights that share one scale in the quantised formats.
#define MK_GROUP 32
/// Positions of a KV cache that lie in one block; attention sums block by block of absolute positions.
#define MK_KV_BLOCK 64

/// Storage of a linear layer's weights [outputs, k].
typedef enum mk_format {
    MK_BF16 = 0,  ///< row-major bfloat16, as in the checkpoint file (memory-mapped, any alignment of 2)
    MK_Q8 = 1,    ///< 8-bit symmetric, one bfloat16 scale per group of MK_GROUP along k
    MK_Q4 = 2,    ///< 4-bit symmetric, likewise
} mk_format;

typedef enum mk_isa { MK_SCALAR = 0, MK_AVX2 = 1, MK_AVX512 = 2, MK_NEON = 3 } mk_isa;

/// What happens to a finished sum of `conv_f32` before it is stored: out = sum + bias (+ residual);
/// `raw` receives out, `activated` receives SnakeBeta(out) = out + sin²(alpha·out)·inv_beta.
/// Any pointer but one of the two outputs may be null. Index: column t, output o at [t·ld + o].
typedef struct mk_epilogue {
    const float *bias;       ///< [outputs] or null
    const float *residual;   ///< or null; may be the same memory as `raw`
    size_t ld_residual;
    float *raw;              ///< or null
    size_t ld_raw;
    float *activated;        ///< or null
    size_t ld_activated;
    const float *alpha;      ///< [outputs], exp already applied
    const float *inv_beta;   ///< [outputs], 1/(exp(beta)+1e-9)
} mk_epilogue;

typedef struct mk_kernels {
    mk_isa isa;
    const char *name;  ///< "scalar", "avx2", "avx512", "neon"

    /// Floats that `prepare` writes for one row of k activations in the given format.
    size_t (*prepared_size)(mk_format format, size_t k);
    /// Brings `rows` rows of activations x [rows, k] into the order that `linear` of this format reads
    /// (group sums included). `out` is [rows, prepared_size], 64-byte aligned.
    void (*prepare)(mk_format format, const float *x, size_t ldx, size_t rows, size_t k, float *out);
    /// y[r·ldy + o] = Σ_k w[o, k]·x[r, k] for o in first..<last, from prepared activations. Fixed order per (o, r).
    void (*linear)(mk_format format, const void *w, size_t k, size_t first, size_t last, const float *prepared,
                   size_t rows, float *y, size_t ldy);

    /// The codec's matrix product: every dense convolution, transposed convolution and linear layer in float32.
    ///
    ///     sum[t, o] = Σ_j Σ_c w[j, c, o] · x[t·column_stride + j·tap_stride + c]
    ///
    /// j outer, c inner, one chain of fused multiply-adds from 0. `w` is packed by `mk_pack_panels`; outputs of panels
    /// first_panel..<last_panel are computed.
    void (*conv_f32)(const float *w, size_t taps, size_t channels, size_t outputs, const float *x,
                     size_t column_stride, size_t tap_stride, size_t columns, size_t first_panel, size_t last_panel,
                     const mk_epilogue *epilogue);

    /// y[t, c] = bias[c] + Σ_j w[j, c]·x[t + j, c]: causal depthwise convolution over x [columns + taps - 1, channels]
    /// (history first), w [taps, channels].
    void (*depthwise_f32)(const float *w, const float *bias, size_t taps, size_t channels, const float *x,
                          size_t columns, float *y);

    /// y = weight · x / sqrt(mean(x²) + eps), each of `rows` rows of n.
    void (*rms_norm)(const float *x, size_t ldx, const float *weight, float eps, size_t rows, size_t n, float *y,
                     size_t ldy);
    /// y = weight · (x - mean) / sqrt(variance + eps) + bias.
    void (*layer_norm)(const float *x, size_t ldx, const float *weight, const float *bias, float eps, size_t rows,
                       size_t n, float *y, size_t ldy);
    /// In place on x [heads, dim]: RMSNorm per head with `weight` [dim] (none if null), then rotation of the two halves
    /// by cos/sin [dim / 2].
    void (*norm_rope)(float *x, size_t heads, size_t dim, const float *weight, float eps, const float *cos,
                      const float *sin);
    /// One query head over part of one KV block: adds keys k[i·stride], values v[i·stride], i in 0..<count, to the
    /// running softmax {state[0] = maximum, state[1] = sum, state[2...] = Σ weight·v [dim]}.
    /// A fresh state is {-INFINITY, 0, 0…}. `count` is at most MK_KV_BLOCK.
    void (*attend)(const float *q, const float *k, const float *v, size_t stride, size_t count, size_t dim,
                   float scale, float *state);

    /// y[i] = silu(gate[i]) · up[i]
    void (*silu_mul)(const float *gate, const float *up, size_t n, float *y);
    /// y[i] = silu(x[i]); y may be x.
    void (*silu)(const float *x, size_t n, float *y);
    /// Exact (erf) GELU; y may be x.
    void (*gelu)(const float *x, size_t n, float *y);
    /// ELU with alpha 1; y may be x.
    void (*elu)(const float *x, size_t n, float *y);
    /// y[i] += scale[i]·x[i], or y[i] += x[i] if scale is null.
    void (*add_scaled)(const float *x, const float *scale, size_t n, float *y);
    /// y[r·ldy + i] = SnakeBeta(x[r·ldx + i]) with alpha, inv_beta [n]
    void (*snake)(const float *x, size_t ldx, const float *alpha, const float *inv_beta, size_t rows, size_t n,
                  float *y, size_t ldy);
    /// y[i] += float(x[i]) / y[i] = float(x[i]): rows of embedding tables in bfloat16.
    void (*add_bf16)(const uint16_t *x, size_t n, float *y);
    void (*copy_bf16)(const uint16_t *x, size_t n, float *y);
} mk_kernels;

/// The table of an instruction set, or null where this build or this processor lacks it.
const mk_kernels *mk_kernels_for(mk_isa isa);
/// The fastest table of this processor. MARTLET_ISA=scalar|avx2|avx512|neon in the environment overrides it: null if it
/// names a set that this build or this processor lacks.
const mk_kernels *mk_kernels_best(void);

/// Tells the processor that this thread spins.
static inline void mk_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/// Floats that a packed weight matrix takes: outputs rounded up to MK_PANEL, times k.
size_t mk_packed_size(size_t outputs, size_t k);
/// Packs w [outputs, k] (element (o, i) at w[o·output_stride + index[i]]) into panels [outputs/16, k, 16],
/// zeros beyond `outputs`. `index` [k] lists source offsets in the order in which the kernel sums (tap-major).
void mk_pack_panels(const float *w, size_t output_stride, const size_t *index, size_t outputs, size_t k, float *packed);

/// Bytes of a quantised matrix [outputs, k] (k is padded to a multiple of 4·MK_GROUP inside). The format is the same on
/// every instruction set; memory aligned to 64 bytes is read fastest.
size_t mk_quantized_size(mk_format format, size_t outputs, size_t k);
/// Quantises rows first..<last of w [outputs, k] (float32 rows at w + (o - first)·ldw) into `out`, the whole matrix's
/// memory.
void mk_quantize(mk_format format, const float *w, size_t ldw, size_t outputs, size_t k, size_t first, size_t last,
                 void *out);
/// One row back as float32 [k]: for tests and error reports.
void mk_dequantize_row(mk_format format, const void *w, size_t outputs, size_t k, size_t row, float *out);

#if defined(__cplusplus)
}
#endif
#endif
