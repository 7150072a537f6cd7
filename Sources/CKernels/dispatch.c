// Which instruction sets this build and this processor have.
#include <stdlib.h>

#include "internal.h"

const mk_kernels *mk_kernels_for(mk_isa isa) {
    switch (isa) {
    case MK_SCALAR: return &mk_scalar_kernels;
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
