#ifndef MK_EMULATOR_KERNELS_H
#define MK_EMULATOR_KERNELS_H

#include <cstddef>

namespace emulator {

struct Kernel {
    const char *name;
    void (*call)(const void *arguments);
    size_t argument_bytes;
};

const Kernel *all_kernels(size_t &count);

}  // namespace emulator

#endif
