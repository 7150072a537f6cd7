#include "Kernels.h"

#include "Primitives.h"

// The kernels' own text.
namespace {
#include "../../Sources/CCUDA/kernels/arithmetic.cu"
#include "../../Sources/CCUDA/kernels/linear.cu"
#include "../../Sources/CCUDA/kernels/tiles.cu"
#include "../../Sources/CCUDA/kernels/rows.cu"
#include "../../Sources/CCUDA/kernels/attention.cu"
#include "../../Sources/CCUDA/kernels/sampler.cu"
#include "../../Sources/CCUDA/kernels/embedding.cu"
#include "../../Sources/CCUDA/kernels/codec.cu"
#include "../../Sources/CCUDA/kernels/pack.cu"
#include "../../Sources/CCUDA/kernels/focus.cu"
#include "../../Sources/CCUDA/kernels/step.cu"
}  // namespace

namespace emulator {

namespace {

template <class Arguments, void (*Function)(Arguments)>
void call(const void *arguments) {
    Function(*(const Arguments *)arguments);
}

template <class Arguments>
constexpr size_t size_of(void (*)(Arguments)) {
    return sizeof(Arguments);
}

template <class Function>
struct argument_of;
template <class Arguments>
struct argument_of<void (*)(Arguments)> {
    typedef Arguments type;
};

#define ENTRY(name) {#name, call<argument_of<decltype(&name)>::type, name>, size_of(name)}
const Kernel kernels[] = {
    ENTRY(gemm_bf16_split_narrow), ENTRY(gemm_bf16_split_wide), ENTRY(gemm_bf16_split_wide4), ENTRY(gemm_f16_split_narrow),
    ENTRY(gemm_f16_split_wide),    ENTRY(gemm_f16_plain_narrow), ENTRY(gemm_f16_plain_wide),
    ENTRY(gemm_f16_plain_rows128), ENTRY(gemm_f16_plain_rows64),  ENTRY(gemm_f16_split_rows64),
    ENTRY(gemm_f16_plain_band160),
    ENTRY(gemm_bf16_split_rows64x96), ENTRY(gemm_bf16_split_rows64x48), ENTRY(gemm_bf16_split_rows64x32),
    ENTRY(gemm_bf16_split_rows32x64), ENTRY(gemm_bf16_split_rows32x32), ENTRY(gemm_bf16_split_rows16x32),
    ENTRY(gemm_f16_plain_narrow2),
    ENTRY(gemm_f16_plain_narrow4), ENTRY(gemm_f16_split_narrow4),
    ENTRY(prepare_rows),           ENTRY(rope_and_store),        ENTRY(attend_rows),
    ENTRY(attend_rows2),           ENTRY(attend_rows4),
    ENTRY(sample_codes),           ENTRY(embed_frames),
    ENTRY(embed_prompt),           ENTRY(gather_halves),         ENTRY(predictor_input),
    ENTRY(gemm_f16_normed1), ENTRY(gemm_f16_normed2), ENTRY(gemm_f16_normed4),
    ENTRY(gemm_f16_normed_rows2), ENTRY(gemm_f16_normed_rows3), ENTRY(attend_frames), ENTRY(attend_many_frames),
    ENTRY(sum_codebooks),          ENTRY(depthwise_norm),        ENTRY(roll_histories),
    ENTRY(pack_weights),           ENTRY(fill_noise),            ENTRY(talker_step),
    ENTRY(predictor_frame),        ENTRY(focus_rows),
};

}  // namespace

const Kernel *all_kernels(size_t &count) {
    count = sizeof kernels / sizeof kernels[0];
    return kernels;
}

}  // namespace emulator
