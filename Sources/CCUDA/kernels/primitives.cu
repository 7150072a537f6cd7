// What the kernels need of the machine: tensor-core products, conversions, asynchronous copies, values handed from block
// to block.
// Arithmetic is written out: the compiler is told not to fuse, so that every kernel rounds alike.

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
// Called, not inlined: keeps the first start's compilation short.
#define DEVICE_CALL static __device__ __noinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(MK_THREADS, 1)
// Two blocks find room on a multiprocessor: one may begin beside the launch before it.
#define KERNEL_PAIRED extern "C" __global__ void __launch_bounds__(MK_THREADS, 2)

// An argument of a kernel that functions it calls may refer to without a copy.
#define KERNEL_ARGUMENT const __grid_constant__

typedef unsigned short half_bits;

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

// Launches that overlap (CUDADevice.launch): lets the next one on the stream begin as soon as all blocks of this one have
// come here. It then waits in wait_for_launches, so this may stand at the beginning.
DEVICE void let_next_launch_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Waits until the launch before this one is done and its stores can be seen. As that one waited for the one before it, so
// are all before. Before this a kernel may read what no launch of the stream writes (arguments, weights), and write nothing.
DEVICE void wait_for_launches() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

DEVICE char *dynamic_shared() {
    extern __shared__ uint4 mk_dynamic_shared[];
    return (char *)mk_dynamic_shared;
}

// c += a · b, [16, 16] · [16, 8]. Lane (g, t) = (lane / 4, lane % 4) holds rows g and g + 8 of a, column g of b, and
// columns 2t and 2t + 1 of c.
template <int HALF>
DEVICE void multiply(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    if (HALF == MK_BF16) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    } else {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }
}

// sums[i][j] += a[·][j] · b[·][i] over DEPTH chunks of 32 inputs; a lane holds 16 bytes of each operand.
template <int HALF, int T, int G, int DEPTH>
DEVICE void multiply_chunks(
    float (&sums)[T][G][4], const uint4 (&a0)[DEPTH][G], const uint4 (&a1)[DEPTH][G], const uint4 (&b)[DEPTH][T]) {
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
        // First halves, then second ones: products of one sum wait for each other.
#pragma unroll
        for (int i = 0; i < T; i++)
#pragma unroll
            for (int j = 0; j < G; j++)
                multiply<HALF>(sums[i][j], a0[d][j].x, a1[d][j].x, a0[d][j].y, a1[d][j].y, b[d][i].x, b[d][i].y);
#pragma unroll
        for (int i = 0; i < T; i++)
#pragma unroll
            for (int j = 0; j < G; j++)
                multiply<HALF>(sums[i][j], a0[d][j].z, a1[d][j].z, a0[d][j].w, a1[d][j].w, b[d][i].z, b[d][i].w);
    }
}

// Over the 32 lanes, in one order; every lane gets it.
DEVICE float sum_of_lanes(float v) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

// Lane l gets the sum of v[l / 8] over the 32 lanes, in sum_of_lanes' order.
DEVICE float sum_four_of_lanes(const float (&v)[4]) {
    const bool upper = (threadIdx.x & 16) != 0, second = (threadIdx.x & 8) != 0;
    float a = upper ? v[2] : v[0], b = upper ? v[3] : v[1];
    a += __shfl_xor_sync(0xffffffffu, upper ? v[0] : v[2], 16);
    b += __shfl_xor_sync(0xffffffffu, upper ? v[1] : v[3], 16);
    float sum = second ? b : a;
    sum += __shfl_xor_sync(0xffffffffu, second ? a : b, 8);
#pragma unroll
    for (int step = 4; step > 0; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    return sum;
}

// By one instruction, in an order of unsigned integers.
DEVICE float maximum_of_lanes(float v) {
    const unsigned u = __float_as_uint(v);
    const unsigned most = __reduce_max_sync(0xffffffffu, u & 0x80000000u ? ~u : u | 0x80000000u);
    return __uint_as_float(most & 0x80000000u ? most & 0x7fffffffu : ~most);
}

// Whether all 32 lanes say so.
DEVICE bool all_lanes(bool v) { return __all_sync(0xffffffffu, v) != 0; }

// 1 / √x and a / b by the instructions that approximate them, to about one unit in the last place. An exact quotient takes
// ten times as long, and its rare cases a branch.
DEVICE float inverse_root(float x) {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

DEVICE float quotient(float a, float b) {
    float y;
    asm("div.approx.ftz.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

// Two bfloat16, to nearest, ties to even.
DEVICE unsigned bf16_pair(float low, float high) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// Two float16, likewise.
DEVICE unsigned f16_pair(float low, float high) {
    unsigned both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

DEVICE half_bits f16_from_float(float x) {
    half_bits h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}

DEVICE float float_from_f16(half_bits h) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}

// 16 bytes from global to shared memory, past L1.
DEVICE void copy_async(void *shared, const void *global) {
    unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// Bulk copies: one thread copies many bytes, past the multiprocessor's load path. A barrier in shared memory counts what is
// to come; its phase ends when all is there.
typedef unsigned long long bulk_barrier;

DEVICE unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

DEVICE void bulk_open(bulk_barrier *barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

DEVICE void bulk_expect(bulk_barrier *barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

DEVICE void bulk_copy(void *shared, const void *global, unsigned bytes, bulk_barrier *barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
}

// Waits for the end of a barrier's phase of this parity.
DEVICE void bulk_wait(bulk_barrier *barrier, unsigned parity) {
    unsigned done;
    do {
        asm volatile(
            "{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.u32 %0, 1, 0, done;\n}"
            : "=r"(done)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (!done);
}
#endif

// The same through L1: for what this multiprocessor copies more than once.
DEVICE void copy_async_cached(void *shared, const void *global) {
    unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of this thread's groups are under way.
template <int PENDING>
DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

DEVICE void prefetch_l2(const void *global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }

// Sixteen bytes that another block may be writing: all or nothing of one store_tagged.
DEVICE uint4 load_tagged(const uint4 *p) {
    unsigned long long low, high;
    asm volatile("{\n.reg .b128 v;\nld.relaxed.gpu.global.b128 v, [%2];\nmov.b128 {%0, %1}, v;\n}"
                 : "=l"(low), "=l"(high)
                 : "l"(p)
                 : "memory");
    return make_uint4((unsigned)low, (unsigned)(low >> 32), (unsigned)high, (unsigned)(high >> 32));
}

DEVICE void store_tagged(uint4 *p, uint4 v) {
    const unsigned long long low = v.x | (unsigned long long)v.y << 32, high = v.z | (unsigned long long)v.w << 32;
    asm volatile("{\n.reg .b128 v;\nmov.b128 v, {%1, %2};\nst.relaxed.gpu.global.b128 [%0], v;\n}"
                 :
                 : "l"(p), "l"(low), "l"(high)
                 : "memory");
}

// This multiprocessor's clock.
DEVICE unsigned cycles() {
    unsigned now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
    return now;
}

// The same value, of which the compiler knows nothing.
DEVICE int opaque(int v) {
    asm volatile("" : "+r"(v));
    return v;
}

// Ends the launch with an error: writes to no address, as a trap would make a branch of this.
DEVICE void give_up_if(bool lost) {
    asm volatile("{\n.reg .pred lost;\nsetp.ne.u32 lost, %0, 0;\n@lost st.global.u32 [%1], %0;\n}" ::"r"((unsigned)lost),
                 "l"(0ull)
                 : "memory");
}

// Data that other blocks of the same launch wrote: past L1, which keeps no coherence.
DEVICE uint4 load_shared_data(const uint4 *p) {
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

DEVICE float load_shared_data(const float *p) {
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p));
    return v;
}

DEVICE int load_shared_data(const int *p) {
    int v;
    asm volatile("ld.global.cg.s32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
