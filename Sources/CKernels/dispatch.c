// Which instruction sets this build and this processor have.
#include <stdlib.h>

#include "internal.h"

const mk_kernels *mk_kernels_for(mk_isa isa) {
    switch (isa) {
    case MK_SCALAR: return &mk_scalar_kernels;
#if defined(__x86_64__)
    case MK_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &mk_avx2_kernels : NULL;
    case MK_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
                && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
            ? &mk_avx512_kernels : NULL;
#elif defined(__aarch64__)
    case MK_NEON: return &mk_neon_kernels;
#endif
    default: return NULL;
    }
}

const mk_kernels *mk_kernels_best(void) {
    static const mk_isa fastest_first[] = {MK_AVX512, MK_AVX2, MK_NEON, MK_SCALAR};
    const char *wanted = getenv("MARTLET_ISA");
    for (size_t i = 0; i < sizeof fastest_first / sizeof *fastest_first; i++) {
        const mk_kernels *kernels = mk_kernels_for(fastest_first[i]);
        if (kernels && (!wanted || !*wanted || strcmp(wanted, kernels->name) == 0)) return kernels;
    }
    return NULL;
}
