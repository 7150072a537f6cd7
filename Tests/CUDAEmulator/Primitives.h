#ifndef MK_EMULATOR_PRIMITIVES_H
#define MK_EMULATOR_PRIMITIVES_H

// What kernels/primitives.cu is on a card: CUDA's own names, and every instruction that is not C++.

#include <cmath>
#include <cstring>

#include "Threads.h"

#define __device__
#define __forceinline__ inline
#define DEVICE static inline
#define DEVICE_MEMBER inline
#define DEVICE_CALL static __attribute__((noinline))
#define KERNEL_ARGUMENT const
#define KERNEL_PAIRED KERNEL
#define KERNEL static inline __attribute__((always_inline)) void
#define threadIdx (emulator::current->index)
#define blockIdx (emulator::current->warp->block->index)
#define gridDim (emulator::current_launch->grid)

namespace {

typedef unsigned short half_bits;
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

DEVICE uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
DEVICE uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
DEVICE float2 make_float2(float x, float y) { return {x, y}; }
DEVICE float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE int max(int a, int b) { return a > b ? a : b; }
DEVICE unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
DEVICE unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }

DEVICE unsigned __float_as_uint(float x) {
    unsigned u;
    memcpy(&u, &x, 4);
    return u;
}

DEVICE float __uint_as_float(unsigned u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

DEVICE unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }

DEVICE unsigned atomicAdd(unsigned *at, unsigned v) {
    const unsigned old = *at;
    *at = old + v;
    return old;
}

DEVICE void __threadfence() {}

DEVICE void __syncthreads() { emulator::block_barrier(); }

DEVICE void __syncwarp() {
    if (emulator::arrive(0xffffffffu, "__syncwarp")) emulator::resume_warp();
}

// Every lane gives a word and the number of the lane whose word it takes.
DEVICE unsigned exchange(unsigned mask, unsigned v, unsigned from, const char *operation) {
    emulator::Warp &warp = *emulator::current->warp;
    const int lane = emulator::current->lane;
    warp.given[lane] = v;
    warp.source[lane] = from;
    if (emulator::arrive(mask, operation)) {
        for (int i = 0; i < 32; i++) warp.taken[i] = warp.given[warp.source[i] & 31];
        emulator::resume_warp();
    }
    return warp.taken[lane];
}

DEVICE float __shfl_xor_sync(unsigned mask, float v, int by) {
    return __uint_as_float(
        exchange(mask, __float_as_uint(v), emulator::current->lane ^ by, "__shfl_xor_sync"));
}

DEVICE unsigned __shfl_xor_sync(unsigned mask, unsigned v, int by) {
    return exchange(mask, v, emulator::current->lane ^ by, "__shfl_xor_sync");
}

DEVICE unsigned __shfl_up_sync(unsigned mask, unsigned v, int by) {
    const int lane = emulator::current->lane;
    return exchange(mask, v, lane >= by ? lane - by : lane, "__shfl_up_sync");
}

DEVICE float __shfl_up_sync(unsigned mask, float v, int by) {
    return __uint_as_float(__shfl_up_sync(mask, __float_as_uint(v), by));
}

DEVICE unsigned __shfl_sync(unsigned mask, unsigned v, int from) { return exchange(mask, v, from, "__shfl_sync"); }

DEVICE float __shfl_sync(unsigned mask, float v, int from) {
    return __uint_as_float(__shfl_sync(mask, __float_as_uint(v), from));
}

DEVICE unsigned __reduce_add_sync(unsigned mask, unsigned v) {
    emulator::Warp &warp = *emulator::current->warp;
    const int lane = emulator::current->lane;
    warp.given[lane] = v;
    if (emulator::arrive(mask, "__reduce_add_sync")) {
        unsigned sum = 0;
        for (int i = 0; i < 32; i++) sum += warp.given[i];
        for (int i = 0; i < 32; i++) warp.taken[i] = sum;
        emulator::resume_warp();
    }
    return warp.taken[lane];
}

DEVICE unsigned __reduce_max_sync(unsigned mask, unsigned v) {
    emulator::Warp &warp = *emulator::current->warp;
    const int lane = emulator::current->lane;
    warp.given[lane] = v;
    if (emulator::arrive(mask, "__reduce_max_sync")) {
        unsigned most = 0;
        for (int i = 0; i < 32; i++) most = max(most, warp.given[i]);
        for (int i = 0; i < 32; i++) warp.taken[i] = most;
        emulator::resume_warp();
    }
    return warp.taken[lane];
}

DEVICE bool all_lanes(bool v) { return __reduce_max_sync(0xffffffffu, v ? 0 : 1) == 0; }

DEVICE float inverse_root(float x) { return 1.0f / sqrtf(x); }

DEVICE float quotient(float a, float b) { return a / b; }

DEVICE unsigned bf16_pair(float low, float high) {
    const unsigned a = __float_as_uint(low), b = __float_as_uint(high);
    return (a + 0x7fffu + (a >> 16 & 1)) >> 16 | ((b + 0x7fffu + (b >> 16 & 1)) & 0xffff0000u);
}

DEVICE void let_next_launch_begin() {}
// Every launch begins when the one before it is done.
DEVICE void wait_for_launches() { emulator::current->has_waited = true; }

DEVICE char *dynamic_shared() { return emulator::current->warp->block->shared; }

DEVICE half_bits f16_from_float(float x) {
    const unsigned u = __float_as_uint(x), sign = u >> 16 & 0x8000u;
    const unsigned magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (half_bits)(sign | 0x7fffu);
    if (magnitude >= 0x47800000u) return (half_bits)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        // Below the least normal number: in units of 2^-24, which an addition rounds to.
        const float unit = __uint_as_float(magnitude) + 0.5f;
        return (half_bits)(sign | (__float_as_uint(unit) - 0x3f000000u));
    }
    // To nearest, ties to even; a carry goes into the exponent.
    return (half_bits)(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13));
}

DEVICE unsigned f16_pair(float low, float high) {
    return (unsigned)f16_from_float(low) | (unsigned)f16_from_float(high) << 16;
}

DEVICE float float_from_f16(half_bits h) {
    const unsigned sign = (unsigned)(h & 0x8000u) << 16, magnitude = (unsigned)(h & 0x7fffu) << 13;
    const unsigned exponent = magnitude & 0x0f800000u;
    const unsigned normal = magnitude + 0x38000000u;
    const float small = __uint_as_float(normal + 0x00800000u) - 6.103515625e-05f;
    unsigned u = exponent == 0 ? __float_as_uint(small) : normal;
    if (exponent == 0x0f800000u) u = magnitude + 0x70000000u;
    return __uint_as_float(sign | u);
}

template <int HALF>
DEVICE float float_of(unsigned half) {
    return HALF == MK_BF16 ? __uint_as_float(half << 16) : float_from_f16((half_bits)half);
}

#if defined(__x86_64__) && defined(__linux__)
#define MK_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define MK_WIDE
#endif

typedef float float8 __attribute__((vector_size(32)));

/// An operand of a warp as floats: of 8 rows or columns g, 32 inputs, by lane (g, t) and place: inputs 8t + place.
struct operand {
    float values[32][8];
    /// Lanes with anything but zeros, in the places 0…3 and 4…7.
    unsigned used[2];
    bool extreme;
};

template <int HALF>
static void unpack(operand &o, const uint4 *const (&lanes)[32]) {
    unsigned words[32][4];
    for (int lane = 0; lane < 32; lane++) memcpy(words[lane], lanes[lane], 16);
    const unsigned exponent = HALF == MK_BF16 ? 0x7f80u : 0x7c00u;
    unsigned extreme = 0;
    o.used[0] = o.used[1] = 0;
    for (int lane = 0; lane < 32; lane++) {
        o.used[0] |= (unsigned)((words[lane][0] | words[lane][1]) != 0) << lane;
        o.used[1] |= (unsigned)((words[lane][2] | words[lane][3]) != 0) << lane;
    }
    for (int i = 0; i < 128; i++) {
        const unsigned word = words[i / 4][i % 4], low = word & 0xffffu, high = word >> 16;
        (&o.values[0][0])[2 * i] = float_of<HALF>(low);
        (&o.values[0][0])[2 * i + 1] = float_of<HALF>(high);
        extreme |= (unsigned)((low & exponent) == exponent) | (unsigned)((high & exponent) == exponent);
    }
    o.extreme = extreme != 0;
}

// sums[row g][column] of 8 rows += a · b over the 16 inputs of a product: of lane t the places 4 · part…4 · part + 3.
MK_WIDE static void multiply_rows(const operand &a, const operand &b, int part, float *const (&sums)[32], int offset) {
    float8 columns[16];
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 4; i++)
            for (int g = 0; g < 8; g++) columns[4 * t + i][g] = b.values[g * 4 + t][4 * part + i];
    for (int g = 0; g < 8; g++) {
        const unsigned used = b.extreme ? 15u : a.used[part] >> (4 * g) & 15u;
        // Zeros add nothing, unless there is an infinity or a NaN to multiply.
        if (!used) continue;
        float *at[4];
        for (int t = 0; t < 4; t++) at[t] = sums[g * 4 + t] + offset;
        float8 sum = {at[0][0], at[0][1], at[1][0], at[1][1], at[2][0], at[2][1], at[3][0], at[3][1]};
        for (int t = 0; t < 4; t++) {
            if (!(used >> t & 1)) continue;
            for (int i = 0; i < 4; i++) sum += a.values[g * 4 + t][4 * part + i] * columns[4 * t + i];
        }
        for (int t = 0; t < 4; t++) {
            at[t][0] = sum[2 * t];
            at[t][1] = sum[2 * t + 1];
        }
    }
}

template <int HALF, int T, int G, int DEPTH>
DEVICE void multiply_chunks(
    float (&sums)[T][G][4], const uint4 (&a0)[DEPTH][G], const uint4 (&a1)[DEPTH][G], const uint4 (&b)[DEPTH][T]) {
    emulator::Warp &warp = *emulator::current->warp;
    const int lane = emulator::current->lane;
    warp.operands[0][lane] = &a0[0][0];
    warp.operands[1][lane] = &a1[0][0];
    warp.operands[2][lane] = &b[0][0];
    warp.sums[lane] = &sums[0][0][0];
    if (!emulator::arrive(0xffffffffu, HALF == MK_BF16 ? "mma (bf16)" : "mma (f16)")) return;
    for (int d = 0; d < DEPTH; d++) {
        const uint4 *words[32];
        operand rows[2][G];
        for (int j = 0; j < G; j++) {
            for (int half = 0; half < 2; half++) {
                for (int i = 0; i < 32; i++) words[i] = (const uint4 *)warp.operands[half][i] + d * G + j;
                unpack<HALF>(rows[half][j], words);
            }
        }
        for (int i = 0; i < T; i++) {
            operand columns;
            for (int k = 0; k < 32; k++) words[k] = (const uint4 *)warp.operands[2][k] + d * T + i;
            unpack<HALF>(columns, words);
            for (int j = 0; j < G; j++) {
                float *at[32];
                for (int k = 0; k < 32; k++) at[k] = warp.sums[k] + (i * G + j) * 4;
                for (int part = 0; part < 2; part++)
                    for (int half = 0; half < 2; half++) multiply_rows(rows[half][j], columns, part, at, 2 * half);
            }
        }
    }
    emulator::resume_warp();
}

// Every lane gives a float, and takes what all of them come to in the kernels' order.
template <class Operation>
DEVICE float butterfly(float v, const char *name, Operation combine) {
    emulator::Warp &warp = *emulator::current->warp;
    const int lane = emulator::current->lane;
    warp.given[lane] = __float_as_uint(v);
    if (emulator::arrive(0xffffffffu, name)) {
        float values[32], others[32];
        for (int i = 0; i < 32; i++) values[i] = __uint_as_float(warp.given[i]);
        for (int step = 16; step > 0; step >>= 1) {
            for (int i = 0; i < 32; i++) others[i] = values[i ^ step];
            for (int i = 0; i < 32; i++) values[i] = combine(values[i], others[i]);
        }
        for (int i = 0; i < 32; i++) warp.taken[i] = __float_as_uint(values[i]);
        emulator::resume_warp();
    }
    return __uint_as_float(warp.taken[lane]);
}

DEVICE float sum_of_lanes(float v) {
    return butterfly(v, "sum_of_lanes", [](float a, float b) { return a + b; });
}

DEVICE float sum_four_of_lanes(const float (&v)[4]) {
    float sums[4];
    for (int i = 0; i < 4; i++) sums[i] = sum_of_lanes(v[i]);
    return sums[emulator::current->lane / 8];
}

DEVICE float maximum_of_lanes(float v) {
    return butterfly(v, "maximum_of_lanes", [](float a, float b) { return fmaxf(a, b); });
}

DEVICE void copy_async(void *shared, const void *global) { emulator::copy_later(shared, global); }
// A bulk copy comes at once; its barrier holds what is still to come, and in its lowest bit the phase.
typedef unsigned long long bulk_barrier;
DEVICE void bulk_open(bulk_barrier *barrier) { *barrier = 0; }
DEVICE void bulk_expect(bulk_barrier *barrier, unsigned bytes) { *barrier += 2ull * bytes; }
DEVICE void bulk_copy(void *shared, const void *global, unsigned bytes, bulk_barrier *barrier) {
    memcpy(shared, global, bytes);
    *barrier -= 2ull * bytes;
    if (*barrier < 2) *barrier ^= 1;
}
DEVICE void bulk_wait(bulk_barrier *barrier, unsigned parity) {
    if (*barrier >= 2 || (*barrier & 1) == parity) emulator::fail("a bulk copy was waited for that was not begun");
}
DEVICE void copy_async_cached(void *shared, const void *global) { emulator::copy_later(shared, global); }
DEVICE void copy_async_commit() { emulator::close_copies(); }

template <int PENDING>
DEVICE void copy_async_wait() {
    emulator::wait_copies(PENDING);
}

DEVICE void prefetch_l2(const void *) {}

// Only loops that wait for other blocks read so.
DEVICE uint4 load_tagged(const uint4 *p) {
    emulator::yield();
    return *p;
}

DEVICE void store_tagged(uint4 *p, uint4 v) {
    *p = v;
    emulator::progress();
}

DEVICE unsigned cycles() { return 0; }

DEVICE int opaque(int v) { return v; }

DEVICE void give_up_if(bool lost) {
    if (lost) emulator::fail("a block waited for values that never came");
}

DEVICE uint4 load_shared_data(const uint4 *p) { return *p; }
DEVICE float load_shared_data(const float *p) { return *p; }
DEVICE int load_shared_data(const int *p) { return *p; }

}  // namespace

#endif
