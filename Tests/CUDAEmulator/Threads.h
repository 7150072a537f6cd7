#ifndef MK_EMULATOR_THREADS_H
#define MK_EMULATOR_THREADS_H

// Threads of a launch as fibers of one thread of the host. A fiber runs until it waits: for the other lanes of its warp,
// for its block, or in a loop for another block. So everything between two such points is in one piece, and which fiber
// comes next is ours to choose.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "KernelArguments.h"

namespace emulator {

struct index3 {
    unsigned x, y, z;
};

struct Warp;

/// An asynchronous copy that has not arrived.
struct Copy {
    void *to;
    const void *from;
    unsigned group;
};

struct Fiber {
    void *stack_pointer;
    Warp *warp;
    index3 index;
    int lane;
    /// Its place in the warp's order, and the bit of it.
    int place;
    unsigned bit;
    /// What it waits for, to name it.
    const char *waits_for;
    bool has_waited;
    // A ring of copies, and the number of groups that were closed.
    enum { capacity = 64 };
    Copy *copies;
    unsigned first_copy, copy_end, groups;
};

struct Block;

struct Warp {
    Block *block;
    int number;
    /// Lanes that can run and those that have not returned, by place.
    unsigned ready, alive;
    /// A collective operation under way: its name, and how many lanes have come to it.
    const char *operation;
    unsigned arrived;
    Fiber *by_place[32];
    // What lanes bring to a collective operation and take away, by lane.
    unsigned given[32], source[32], taken[32];
    const void *operands[3][32];
    float *sums[32];
};

struct Block {
    index3 index;
    char *shared;
    unsigned ready_warps;
    int alive, arrived;
    int cursor;
    Warp warps[32];
};

/// What is launched.
struct Launch {
    const char *name;
    void (*kernel)(const void *arguments);
    const void *arguments;
    index3 grid;
    unsigned threads;
    size_t shared_bytes;
    bool cooperative;
    /// Whether it may begin while the launch before it runs, on a card: each thread must wait for that one.
    bool overlaps;
    unsigned seed;
};

/// Runs a launch.
/// - Returns: empty, or what went wrong; `code` is then the CUresult.
std::string run(const Launch &launch, int &code);

/// What an address is in the memory of a card, in words. For faults.
std::string describe(const void *address);

// For the kernels.

#ifdef __ELF__
#define MK_PER_THREAD __thread __attribute__((tls_model("initial-exec")))
#else
#define MK_PER_THREAD __thread
#endif
extern MK_PER_THREAD Fiber *current;
extern MK_PER_THREAD const Launch *current_launch;

/// Keeps the registers that a call must keep on the stack, and goes on where `to` was left.
void switch_stack(void **from, void *to);

/// The first set bit behind `after`, in a circle.
inline int next_bit(unsigned bits, int after) {
    const int from = (after + 1) & 31;
    const unsigned rotated = from == 0 ? bits : bits >> from | bits << (32 - from);
    return (from + __builtin_ctz(rotated)) & 31;
}

inline void go_to(Fiber *next) {
    Fiber *self = current;
    current = next;
    switch_stack(&self->stack_pointer, next->stack_pointer);
}

/// Goes on elsewhere: this fiber's warp has none that can run.
void leave_warp();
void begin_operation(unsigned mask, const char *operation);
[[noreturn]] void fail_operation(const char *operation);

/// Comes to a collective operation of the warp.
/// - Returns: whether this is the last lane, which then must do the operation and call `resume_warp`. The other lanes
///   return when it is done.
inline bool arrive(unsigned mask, const char *operation) {
    Fiber &self = *current;
    Warp &warp = *self.warp;
    if (warp.arrived == 0) {
        begin_operation(mask, operation);
    } else if (warp.operation != operation) {
        fail_operation(operation);
    }
    if (++warp.arrived == 32) return true;
    self.waits_for = operation;
    warp.ready &= ~self.bit;
    if (warp.ready) {
        go_to(warp.by_place[next_bit(warp.ready, self.place)]);
    } else {
        leave_warp();
    }
    return false;
}

void resume_warp();
void block_barrier();
/// Lets other blocks run.
void yield();
/// Something that other blocks wait for has happened.
void progress();
[[noreturn]] void fail(const std::string &message);
/// A number from the seed; 0 for the seed 0.
unsigned random_bits();

void copy_later(void *to, const void *from);
void close_copies();
void wait_copies(unsigned pending);

}  // namespace emulator

#endif
