#ifndef CUDA_EMULATOR_H
#define CUDA_EMULATOR_H

#include <stddef.h>
#include <stdint.h>

#include "CCUDA.h"

// NVIDIA cards for tests: the driver's functions over the memory and the cores of this machine. Kernels are the text of
// Sources/CCUDA/kernels, compiled as C++. docs/cuda.md, "Without a GPU", says what that shows.

#ifdef __cplusplus
extern "C" {
#endif

/// What a card has.
typedef struct {
    int multiprocessors;
    /// Bytes that can be allocated.
    size_t memory;
    /// 0: threads, warps and blocks run in the order of their numbers, and asynchronous copies arrive as late as they may.
    /// Others: in orders, and at moments, that differ from seed to seed.
    unsigned seed;
} mk_emulated_card;

/// Fills the table of functions.
void mk_emulator_driver(mk_cuda_driver *driver);

/// A new card; it stays until the process ends.
/// - Returns: its number, as cuDeviceGet takes it.
int mk_emulator_add_card(mk_emulated_card card);

/// Sets how many bytes can be allocated.
void mk_emulator_set_memory(int card, size_t bytes);

/// Lets the launch after the next `launches` fail with a CUresult.
void mk_emulator_fail_launch(int card, int launches, mk_cu_result code);

/// Launches so far, those of graphs among them.
long mk_emulator_launches(int card);

/// Graphs launched so far.
long mk_emulator_graph_launches(int card);

/// Names of the kernels, up to a null.
const char *const *mk_emulator_kernels(void);

#ifdef __cplusplus
}
#endif

#endif
