// Attention over a paged cache: norm and rotation of a head, one page of one query group, and the sum over pages.
//
// A page is 64 absolute positions. Each page gives (maximum, Σ exp, Σ exp · value) in one order; pages are added in
// order. So a result does not depend on how rows were cut into calls.

DEVICE float *cache_page(const mk_cache &c, int slot, int page) {
    const int entry = c.ring && page >= c.ring ? page % c.ring : page;
    return (float *)((const mk_address *)c.pages)[(long long)slot * c.stride + entry];
}

// Keys [MK_PAGE][dim] of (layer, head) in a page; values follow `value_offset` floats later.
DEVICE float *page_keys(const mk_cache &c, float *page, int head) {
    return page + (long long)(c.layer * 2 * c.kv_heads + head) * MK_PAGE * c.dim;
}

DEVICE long long value_offset(const mk_cache &c) { return (long long)c.kv_heads * MK_PAGE * c.dim; }

// A head as one warp holds it: lane l has elements 2l and 2l + 1 of either half.
struct head_values {
    float2 low, high;
};

// Cosine and sine of a position's rotation of pair m.
DEVICE float2 rotation(int position, float frequency) {
    const float angle = (float)position * frequency;
    return make_float2(cosf(angle), sinf(angle));
}

// One warp: RMSNorm (if `normed`; a lane's gains) and rotation of a head, → y and, if given, → copy. `turns`: [dim / 2]
// of its position.
DEVICE void norm_rope(
    head_values x, float *y, float *copy, int dim, bool normed, float2 first, float2 second, float epsilon,
    const float2 *turns) {
    const int half = dim / 2, m = (opaque((int)threadIdx.x) & 31) * 2;
    float2 a = x.low, b = x.high;
    float scale = 1;
    if (normed) {
        const float sum = sum_of_lanes(fmaf(b.y, b.y, fmaf(b.x, b.x, fmaf(a.y, a.y, a.x * a.x))));
        scale = inverse_root(quotient(sum, (float)dim) + epsilon);
    }
    if (m >= half) return;
    if (normed) {
        a = make_float2(a.x * scale * first.x, a.y * scale * first.y);
        b = make_float2(b.x * scale * second.x, b.y * scale * second.y);
    }
    const float2 t0 = turns[m], t1 = turns[m + 1];
    const float2 low = make_float2(a.x * t0.x - b.x * t0.y, a.y * t1.x - b.y * t1.y);
    const float2 high = make_float2(b.x * t0.x + a.x * t0.y, b.y * t1.x + a.y * t1.y);
    *(float2 *)(y + m) = low;
    *(float2 *)(y + half + m) = high;
    if (copy) {
        *(float2 *)(copy + m) = low;
        *(float2 *)(copy + half + m) = high;
    }
}

// Floats of shared memory that a head's attention works in: scores [group][MK_PAGE], sums [MK_WARPS][group][dim], and for
// each query head maximum and Σ exp.
DEVICE int attention_work(int group, int dim) { return group * (MK_PAGE + MK_WARPS * dim + 2); }

// A lane's part of a page's keys or values, for one of HEADS heads that a block takes side by side: four values of each of
// four positions, HEADS times. `warp` is the warp among its head's MK_WARPS / HEADS.
template <int HEADS>
struct page_rows {
    static const int warps = MK_WARPS / HEADS;
    float4 at[HEADS][4];

    // The first of the n-th four positions.
    static DEVICE_MEMBER int position(int warp, int n) { return (n * warps + warp) * 4; }

    // Positions first…last (0…63) of [·][dim]; those from `fresh_from` on are left out.
    DEVICE_MEMBER void load(int warp, const float *from, int first, int last, int fresh_from, int dim) {
        const int d = (opaque((int)threadIdx.x) & 31) * 4;
#pragma unroll
        for (int n = 0; n < HEADS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int j = position(warp, n) + i;
                const bool seen = j >= first && j <= last && j < fresh_from && d < dim;
                at[n][i] =
                    seen ? load_shared_data((const float4 *)(from + j * dim + d)) : make_float4(0, 0, 0, 0);
            }
    }

    // Positions fresh_from…last from shared memory.
    DEVICE_MEMBER void take(int warp, const float *from, int fresh_from, int last, int dim) {
        const int d = (opaque((int)threadIdx.x) & 31) * 4;
#pragma unroll
        for (int n = 0; n < HEADS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int j = position(warp, n) + i;
                if (j >= fresh_from && j <= last && d < dim)
                    at[n][i] = *(const float4 *)(from + (j - fresh_from) * dim + d);
            }
    }
};

// Scores of queries [group][dim] in shared memory (normed and rotated) with positions first…last (0…63) of a page.
template <int HEADS>
DEVICE void score_page(
    int warp, const page_rows<HEADS> &keys, const float *queries, float *scores, int group, int dim, int first,
    int last) {
    const int lane = opaque((int)threadIdx.x) & 31, d = lane * 4;
    const float scale = inverse_root((float)dim);
#pragma unroll 1
    for (int h = 0; h < group; h++) {
        const float4 q = d < dim ? *(const float4 *)(queries + h * dim + d) : make_float4(0, 0, 0, 0);
#pragma unroll
        for (int n = 0; n < HEADS; n++) {
            const int start = keys.position(warp, n), j = start + lane / 8;
            float own = 0;
            if (start <= last) {
                float dots[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float4 k = keys.at[n][i];
                    dots[i] = fmaf(k.w, q.w, fmaf(k.z, q.z, fmaf(k.y, q.y, k.x * q.x)));
                }
                own = sum_four_of_lanes(dots);
            }
            if ((lane & 7) == 0) scores[h * MK_PAGE + j] = j >= first && j <= last ? own * scale : -INFINITY;
        }
    }
}

// Σ exp · value of each four positions, for page_sums, and each head's maximum and Σ exp, for page_totals.
template <int HEADS>
DEVICE void weigh_page(
    int warp, const page_rows<HEADS> &values, const float *scores, float *sums, float *totals, int group, int dim,
    int last) {
    const int lane = opaque((int)threadIdx.x) & 31, d = lane * 4;
#pragma unroll 1
    for (int h = 0; h < group; h++) {
        const float s0 = scores[h * MK_PAGE + lane], s1 = scores[h * MK_PAGE + 32 + lane];
        const float maximum = maximum_of_lanes(fmaxf(s0, s1));
        if (warp == h % page_rows<HEADS>::warps) {
            const float total = sum_of_lanes(expf(s0 - maximum) + expf(s1 - maximum));
            if (lane == 0) {
                totals[h * 2] = maximum;
                totals[h * 2 + 1] = total;
            }
        }
#pragma unroll
        for (int n = 0; n < HEADS; n++) {
            if (values.position(0, n) > last) continue;
            // A lane's weight for position lane % 4 of the four.
            const float weight = expf(scores[h * MK_PAGE + values.position(warp, n) + (lane & 3)] - maximum);
            float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float factor = __shfl_sync(0xffffffffu, weight, i);
                const float4 v = values.at[n][i];
                sum.x = fmaf(factor, v.x, sum.x);
                sum.y = fmaf(factor, v.y, sum.y);
                sum.z = fmaf(factor, v.z, sum.z);
                sum.w = fmaf(factor, v.w, sum.w);
            }
            if (d < dim) *(float4 *)(sums + ((n * page_rows<HEADS>::warps + warp) * group + h) * dim + d) = sum;
        }
    }
}

// Keys and values of a page for a block of one head.
struct page_values {
    page_rows<1> k, v;
};

DEVICE void load_page(
    page_values &part, const float *keys, const float *values, int first, int last, int fresh_from, int dim) {
    const int warp = opaque((int)threadIdx.x) >> 5;
    part.k.load(warp, keys, first, last, fresh_from, dim);
    part.v.load(warp, values, first, last, fresh_from, dim);
}

DEVICE void take_fresh(page_values &part, const float *keys, const float *values, int fresh_from, int last, int dim) {
    const int warp = opaque((int)threadIdx.x) >> 5;
    part.k.take(warp, keys, fresh_from, last, dim);
    part.v.take(warp, values, fresh_from, last, dim);
}

// One block: queries [group][dim] in shared memory (normed and rotated) against positions first…last (0…63) of a page.
// The results are in `work` after the call, for page_sums.
DEVICE void attend_page(
    const page_values &part, const float *queries, float *work, int group, int dim, int first, int last) {
    const int warp = opaque((int)threadIdx.x) >> 5;
    float *sums = work + group * MK_PAGE;
    score_page(warp, part.k, queries, work, group, dim, first, last);
    __syncthreads();
    weigh_page(warp, part.v, work, sums, sums + MK_WARPS * group * dim, group, dim, last);
    __syncthreads();
}

// Of attend_page's results: two neighbouring values of a head, Σ exp · value. Behind `warps` of them are zeros only.
DEVICE float2 page_sums(const float *work, int group, int dim, int head, int d, int warps) {
    const float *at = work + group * MK_PAGE + head * dim + d;
    const int stride = opaque(group * dim);
    float2 sum = make_float2(0, 0);
    // Four loads at a time; of zeros at most three, which change no sum.
#pragma unroll 1
    for (int w = 0; w < warps; w += 4) {
        float2 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = *(const float2 *)(at + (w + i) * stride);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum.x += v[i].x;
            sum.y += v[i].y;
        }
    }
    return sum;
}

// Maximum and Σ exp of a head.
DEVICE float2 page_totals(const float *work, int group, int dim, int head) {
    return *(const float2 *)(work + group * (MK_PAGE + MK_WARPS * dim) + head * 2);
}

// Eight neighbouring values of a head from its pages' partial sums [pages][dim + 2].
DEVICE void combine_pages(const float *partials, int pages, int dim, int d, float (&v)[8]) {
    float maximum = -INFINITY;
    for (int b = 0; b < pages; b++) maximum = fmaxf(maximum, load_shared_data(partials + b * (dim + 2)));
    float total = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = 0;
    for (int b = 0; b < pages; b++) {
        const float *at = partials + b * (dim + 2);
        float factor = expf(load_shared_data(at) - maximum);
        total = fmaf(load_shared_data(at + 1), factor, total);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = fmaf(load_shared_data(at + 2 + d + i), factor, v[i]);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = quotient(v[i], total);
}

// One warp: norms and rotates a head of a row's floats, a query or its key; gains of 0 are none.
DEVICE void turn_head(
    const float *x, mk_address gains, float epsilon, float *y, float *copy, int dim, const float2 *turns) {
    const int m = (threadIdx.x & 31) * 2, half = dim / 2;
    const float *gain = (const float *)gains;
    const float2 zero = make_float2(0, 0);
    head_values values = {zero, zero};
    float2 first = zero, second = zero;
    if (m < half) {
        values = {*(const float2 *)(x + m), *(const float2 *)(x + half + m)};
        if (gain) {
            first = *(const float2 *)(gain + m);
            second = *(const float2 *)(gain + half + m);
        }
    }
    norm_rope(values, y, copy, dim, gain != 0, first, second, epsilon, turns);
}

// Grid: rows. Warps take the row's heads. Shared memory: dim / 2 pairs of floats.
KERNEL rope_and_store(const mk_rope_arguments p) {
    let_next_launch_begin();
    wait_for_launches();
    const int row = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int dim = p.cache.dim, half = dim / 2, kv = p.cache.kv_heads;
    float *q = (float *)p.qkv + (long long)row * p.ld;
    const int slot = ((const int *)p.row_slots)[row], position = ((const int *)p.row_positions)[row];
    float2 *turns = (float2 *)dynamic_shared();
    for (int m = threadIdx.x; m < half; m += MK_THREADS)
        turns[m] = rotation(position, ((const float *)p.frequencies)[m]);
    __syncthreads();
    float *page = cache_page(p.cache, slot, position / MK_PAGE);
    for (int head = warp; head < p.heads + 2 * kv; head += MK_WARPS) {
        const float *x = q + head * dim;
        if (head < p.heads + kv) {
            const bool is_query = head < p.heads;
            float *to = is_query ? q + head * dim
                                 : page_keys(p.cache, page, head - p.heads) + (position % MK_PAGE) * dim;
            turn_head(x, is_query ? p.query_norm : p.key_norm, p.epsilon, to, 0, dim, turns);
        } else {
            float *to = page_keys(p.cache, page, head - p.heads - kv) + value_offset(p.cache)
                + (position % MK_PAGE) * dim;
            for (int d = lane; d < dim; d += 32) to[d] = x[d];
        }
    }
}

DEVICE int first_page(int position, int window) {
    return window > 0 && position >= window ? (position - window + 1) / MK_PAGE : 0;
}

// Two neighbouring values of an attended row.
template <int HALF>
DEVICE void put_attended(const mk_attention_arguments &p, int row, int k, float v0, float v1) {
    half_bits h0, l0, h1, l1;
    split_half<HALF>(v0, h0, l0);
    split_half<HALF>(v1, h1, l1);
    const long long at = output_place<HALF>(p.rows, row, k, p.ld_output);
    *(unsigned *)((half_bits *)p.output + at) = pair(h0, h1);
    *(unsigned *)((half_bits *)p.output_low + at) = pair(l0, l1);
}

DEVICE void put_attended(const mk_attention_arguments &p, int row, int k, float v0, float v1) {
    if (p.half == MK_BF16) {
        put_attended<MK_BF16>(p, row, k, v0, v1);
    } else {
        put_attended<MK_F16>(p, row, k, v0, v1);
    }
}

// Grid: x rows · kv heads / HEADS, y pages. Shared memory: rotations [dim] of the row, and for each head floats of the queries
// [group][dim], key and value [dim], and attention_work, in multiples of four. Of a row with several pages, the block that
// ends last adds them. MK_WARPS / HEADS warps take a key head; HEADS divides the key heads.
template <int HEADS>
DEVICE void attend(const mk_attention_arguments &p) {
    let_next_launch_begin();
    const int kv = p.cache.kv_heads, dim = p.cache.dim, group = p.heads / kv, half = dim / 2;
    const int row = blockIdx.x / (kv / HEADS), warps = MK_WARPS / HEADS, own = threadIdx.x / (warps * 32);
    const int head = blockIdx.x % (kv / HEADS) * HEADS + own;
    const int thread = threadIdx.x % (warps * 32), warp = thread >> 5;
    // What the host copied, and what follows from it.
    const int position = ((const int *)p.row_positions)[row], slot = ((const int *)p.row_slots)[row];
    const int start = first_page(position, p.window), pages = position / MK_PAGE - start + 1;
    const int page_index = start + blockIdx.y;
    const bool is_seen = (int)blockIdx.y < pages;
    float *keys = 0;
    float2 *turns = (float2 *)dynamic_shared();
    if (is_seen) {
        keys = page_keys(p.cache, cache_page(p.cache, slot, page_index), head);
        for (int m = threadIdx.x; p.is_alone && m < half; m += MK_THREADS)
            turns[m] = rotation(position, ((const float *)p.frequencies)[m]);
    }
    wait_for_launches();
    if (!is_seen) return;
    float *queries = (float *)(turns + half) + own * (((group + 2) * dim + attention_work(group, dim) + 3) & ~3);
    float *key = queries + group * dim, *value = key + dim, *work = value + dim;
    float *sums = work + group * MK_PAGE, *totals = sums + MK_WARPS * group * dim;
    const float *x = (const float *)p.qkv + (long long)row * p.ld;
    const int oldest = p.window > 0 ? max(0, position - p.window + 1) : 0;
    const int first = max(0, oldest - page_index * MK_PAGE), last = min(MK_PAGE - 1, position - page_index * MK_PAGE);
    // Where the row's own key is not in the cache yet.
    const bool has_fresh = p.is_alone && page_index == position / MK_PAGE;
    const int fresh_from = has_fresh ? last : MK_PAGE;
    float *values = keys + value_offset(p.cache);
    page_rows<HEADS> part;
    part.load(warp, keys, first, last, fresh_from, dim);
    // These come later, from the L2 cache then.
    if (HEADS > 1) {
#pragma unroll
        for (int n = 0; n < HEADS; n++) {
            const int j = part.position(warp, n) + (threadIdx.x & 31) / 8;
            for (int d = (threadIdx.x & 7) * 8; j <= last && d < dim; d += 64) prefetch_l2(values + j * dim + d);
        }
    }
    if (p.is_alone) {
        __syncthreads();
        for (int task = warp; task < group + 2; task += warps) {
            if (task < group) {
                turn_head(
                    x + (head * group + task) * dim, p.query_norm, p.epsilon, queries + task * dim, 0, dim, turns);
            } else if (has_fresh && task == group) {
                turn_head(x + (p.heads + head) * dim, p.key_norm, p.epsilon, key, keys + last * dim, dim, turns);
            } else if (has_fresh) {
                for (int d = threadIdx.x & 31; d < dim; d += 32)
                    values[last * dim + d] = value[d] = x[(p.heads + kv + head) * dim + d];
            }
        }
    } else {
        for (int i = thread; i < group * dim; i += warps * 32) queries[i] = x[head * group * dim + i];
    }
    __syncthreads();
    if (has_fresh) part.take(warp, key, last, last, dim);
    score_page(warp, part, queries, work, group, dim, first, last);
    part.load(warp, values, first, last, fresh_from, dim);
    if (has_fresh) part.take(warp, value, last, last, dim);
    __syncthreads();
    weigh_page(warp, part, work, sums, totals, group, dim, last);
    __syncthreads();
    // Positions behind the last of these are in no sum.
    const int summed = (last / (warps * 4) + 1) * warps;
    // Behind the last head, rows are padded with zeros.
    const int padding = head == kv - 1 ? p.ld_output - p.heads * dim : 0;
    if (pages == 1) {
        for (int item = thread; item < group * half; item += warps * 32) {
            const int h = item / half, d = item % half * 2;
            const float2 sum = page_sums(work, group, dim, h, d, summed);
            const float total = page_totals(work, group, dim, h).y;
            put_attended(p, row, (head * group + h) * dim + d, quotient(sum.x, total), quotient(sum.y, total));
        }
        for (int i = 2 * thread; i < padding; i += 2 * warps * 32) put_attended(p, row, p.heads * dim + i, 0, 0);
        return;
    }
    const int stride = p.pages * (dim + 2);
    float *partials = (float *)p.partials + (long long)(row * p.heads + head * group) * stride;
    float *out = partials + blockIdx.y * (dim + 2);
    for (int item = thread; item < group * half; item += warps * 32) {
        const int h = item / half, d = item % half * 2;
        *(float2 *)(out + (long long)h * stride + 2 + d) = page_sums(work, group, dim, h, d, summed);
    }
    if (thread < group) *(float2 *)(out + (long long)thread * stride) = page_totals(work, group, dim, thread);
    // What the others wrote is visible to the block that counts last.
    unsigned *counter = (unsigned *)p.counters + row * kv + head, *ticket = (unsigned *)key;
    __threadfence();
    __syncthreads();
    if (thread == 0) *ticket = atomicAdd(counter, 1u);
    __syncthreads();
    if (*ticket + 1 != (unsigned)pages) return;
    __threadfence();
    if (thread == 0) *counter = 0;
    for (int item = thread; item < group * (dim / 8); item += warps * 32) {
        const int h = item / (dim / 8), d = item % (dim / 8) * 8;
        float v[8];
        combine_pages(partials + (long long)h * stride, pages, dim, d, v);
#pragma unroll
        for (int i = 0; i < 8; i += 2) put_attended(p, row, (head * group + h) * dim + d + i, v[i], v[i + 1]);
    }
    for (int i = 2 * thread; i < padding; i += 2 * warps * 32) put_attended(p, row, p.heads * dim + i, 0, 0);
}

KERNEL_PAIRED attend_rows(const mk_attention_arguments p) { attend<1>(p); }
KERNEL attend_rows2(const mk_attention_arguments p) { attend<2>(p); }
KERNEL attend_rows4(const mk_attention_arguments p) { attend<4>(p); }
