// Attention over a paged cache: norm and rotation of a head, one page of one query group, and the sum over pages.
//
// A page is 64 absolute positions. Each page gives (maximum, Σ exp, Σ exp · value) in one order; pages are added in
// order. So a result does not depend on how rows were cut into calls.

DEVICE float *cache_page(const mk_cache &c, int slot, int page) {
    int entry = c.ring ? page % c.ring : page;
    return (float *)((const mk_address *)c.pages)[(long long)slot * c.stride + entry];
}

// Keys [MK_PAGE][dim] of (layer, head) in a page; values follow `value_offset` floats later.
DEVICE float *page_keys(const mk_cache &c, float *page, int head) {
    return page + (long long)(c.layer * 2 * c.kv_heads + head) * MK_PAGE * c.dim;
}

DEVICE long long value_offset(const mk_cache &c) { return (long long)c.kv_heads * MK_PAGE * c.dim; }

// One warp: RMSNorm (if `gain`) and rotation by `position` of a head of `dim` floats, x → y and, if given, → copy; x is
// read past L1.
DEVICE_CALL void norm_rope(
    const float *x, float *y, float *copy, int dim, const float *gain, float epsilon, const float *frequencies,
    int position) {
    const int lane = threadIdx.x & 31, half = dim / 2;
    float a[MK_MAX_HEAD / 64], b[MK_MAX_HEAD / 64];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < MK_MAX_HEAD / 64; i++) {
        int m = lane + i * 32;
        a[i] = m < half ? load_shared_data(x + m) : 0.0f;
        b[i] = m < half ? load_shared_data(x + half + m) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < MK_MAX_HEAD / 64; i++) {
        sum = fmaf(a[i], a[i], sum);
        sum = fmaf(b[i], b[i], sum);
    }
    float scale = 1;
    if (gain) scale = 1.0f / sqrtf(sum_of_lanes(sum) / (float)dim + epsilon);
#pragma unroll
    for (int i = 0; i < MK_MAX_HEAD / 64; i++) {
        int m = lane + i * 32;
        if (m >= half) continue;
        if (gain) {
            a[i] = a[i] * scale * gain[m];
            b[i] = b[i] * scale * gain[half + m];
        }
        float angle = (float)position * frequencies[m];
        float cosine = cosf(angle), sine = sinf(angle);
        float low = a[i] * cosine - b[i] * sine, high = b[i] * cosine + a[i] * sine;
        y[m] = low;
        y[half + m] = high;
        if (copy) {
            copy[m] = low;
            copy[half + m] = high;
        }
    }
}

DEVICE float4 scaled_sum(float4 sum, float factor, float4 v) {
    sum.x = fmaf(factor, v.x, sum.x);
    sum.y = fmaf(factor, v.y, sum.y);
    sum.z = fmaf(factor, v.z, sum.z);
    sum.w = fmaf(factor, v.w, sum.w);
    return sum;
}

// Floats of shared memory behind the queries that attend_page works in.
DEVICE int attention_work(int group, int dim) { return group * (MK_PAGE + MK_WARPS * dim); }

// One block: queries [group][dim] in shared memory (normed and rotated) against positions first…last (0…63) of a page.
// Warp w takes positions 4w…4w + 3, a lane four values of each. Positions from `fresh_from` on are in shared memory:
// keys and values [·][dim]. Shared memory may be written right before the call.
// out: for each query head dim + 2 floats, `out_stride` apart: maximum, Σ exp, Σ exp · value.
DEVICE_CALL void attend_page(
    const float *queries, float *work, const float *keys, const float *values, const float *fresh_keys,
    const float *fresh_values, int fresh_from, int group, int dim, int first, int last, float *out, int out_stride) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, d = lane * 4;
    float *scores = work;                   // [group][MK_PAGE]
    float *sums = work + group * MK_PAGE;   // [MK_WARPS][group][dim]
    const float4 zero = make_float4(0, 0, 0, 0);
    float4 k[4], v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int j = warp * 4 + i;
        bool seen = j >= first && j <= last && j < fresh_from && d < dim;
        k[i] = seen ? load_shared_data((const float4 *)(keys + j * dim + d)) : zero;
        v[i] = seen ? load_shared_data((const float4 *)(values + j * dim + d)) : zero;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int j = warp * 4 + i;
        if (j >= first && j <= last && j >= fresh_from && d < dim) {
            k[i] = *(const float4 *)(fresh_keys + (j - fresh_from) * dim + d);
            v[i] = *(const float4 *)(fresh_values + (j - fresh_from) * dim + d);
        }
    }
    const float scale = 1.0f / sqrtf((float)dim);
#pragma unroll 2
    for (int h = 0; h < group; h++) {
        const float4 q = d < dim ? *(const float4 *)(queries + h * dim + d) : zero;
        float dot[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            dot[i] = sum_of_lanes(fmaf(k[i].w, q.w, fmaf(k[i].z, q.z, fmaf(k[i].y, q.y, k[i].x * q.x))));
        if (lane < 4) {
            int j = warp * 4 + lane;
            float own = lane == 0 ? dot[0] : lane == 1 ? dot[1] : lane == 2 ? dot[2] : dot[3];
            scores[h * MK_PAGE + j] = j >= first && j <= last ? own * scale : -INFINITY;
        }
    }
    __syncthreads();
#pragma unroll 2
    for (int h = 0; h < group; h++) {
        const float s0 = scores[h * MK_PAGE + lane], s1 = scores[h * MK_PAGE + 32 + lane];
        const float maximum = maximum_of_lanes(fmaxf(s0, s1));
        if (warp == h % MK_WARPS) {
            const float total = sum_of_lanes(expf(s0 - maximum) + expf(s1 - maximum));
            if (lane == 0) {
                out[(long long)h * out_stride] = maximum;
                out[(long long)h * out_stride + 1] = total;
            }
        }
        float4 sum = zero;
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum = scaled_sum(sum, expf(scores[h * MK_PAGE + warp * 4 + i] - maximum), v[i]);
        if (d < dim) *(float4 *)(sums + (warp * group + h) * dim + d) = sum;
    }
    __syncthreads();
    for (int item = threadIdx.x; item < group * dim; item += MK_THREADS) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < MK_WARPS; w++) sum += sums[w * group * dim + item];
        out[(long long)(item / dim) * out_stride + 2 + item % dim] = sum;
    }
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
    for (int i = 0; i < 8; i++) v[i] = v[i] / total;
}

// Grid: rows. Warps take the row's heads.
KERNEL rope_and_store(const mk_rope_arguments p) {
    const int row = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int dim = p.cache.dim, kv = p.cache.kv_heads;
    float *q = (float *)p.qkv + (long long)row * p.ld;
    const int slot = ((const int *)p.row_slots)[row], position = ((const int *)p.row_positions)[row];
    float *page = cache_page(p.cache, slot, position / MK_PAGE);
    for (int head = warp; head < p.heads + 2 * kv; head += MK_WARPS) {
        float *x = q + head * dim;
        if (head < p.heads) {
            norm_rope(
                x, x, 0, dim, (const float *)p.query_norm, p.epsilon, (const float *)p.frequencies, position);
        } else if (head < p.heads + kv) {
            float *to = page_keys(p.cache, page, head - p.heads) + (position % MK_PAGE) * dim;
            norm_rope(
                x, to, 0, dim, (const float *)p.key_norm, p.epsilon, (const float *)p.frequencies, position);
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

// Grid: x rows · kv heads, y pages.
KERNEL attend_rows(const mk_attention_arguments p) {
    const int kv = p.cache.kv_heads, dim = p.cache.dim, group = p.heads / kv;
    const int row = blockIdx.x / kv, head = blockIdx.x % kv;
    const int position = ((const int *)p.row_positions)[row];
    const int start = first_page(position, p.window);
    const int page_index = start + blockIdx.y;
    if (page_index > position / MK_PAGE) return;
    const int slot = ((const int *)p.row_slots)[row];
    float *shared = (float *)dynamic_shared();
    const float *q = (const float *)p.qkv + (long long)row * p.ld + head * group * dim;
    for (int i = threadIdx.x; i < group * dim; i += MK_THREADS) shared[i] = q[i];
    int oldest = p.window > 0 ? max(0, position - p.window + 1) : 0;
    int first = max(0, oldest - page_index * MK_PAGE), last = min(MK_PAGE - 1, position - page_index * MK_PAGE);
    const float *keys = page_keys(p.cache, cache_page(p.cache, slot, page_index), head);
    float *out = (float *)p.partials + ((long long)(row * p.heads + head * group) * p.pages + blockIdx.y) * (dim + 2);
    attend_page(
        shared, shared + group * dim, keys, keys + value_offset(p.cache), 0, 0, MK_PAGE, group, dim, first, last, out,
        p.pages * (dim + 2));
}

template <int HALF>
DEVICE void combine(const mk_attention_arguments &p) {
    const int dim = p.cache.dim, eighths = p.ld_output / 8;
    const int item = blockIdx.x * MK_THREADS + threadIdx.x;
    const int row = item / eighths, k = (item - row * eighths) * 8;
    if (row >= p.rows) return;
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = 0;
    if (k < p.heads * dim) {
        const int position = ((const int *)p.row_positions)[row];
        const int pages = position / MK_PAGE - first_page(position, p.window) + 1;
        const int head = k / dim;
        combine_pages(
            (const float *)p.partials + (long long)(row * p.heads + head) * p.pages * (dim + 2), pages, dim,
            k - head * dim, v);
    }
    uint4 high, low;
    split_eight<HALF>(v, high, low);
    long long at = (long long)row * p.ld_output + k;
    *(uint4 *)((half_bits *)p.output + at) = high;
    *(uint4 *)((half_bits *)p.output_low + at) = low;
}

// Grid: rows · ld_output / 8 threads.
KERNEL combine_rows(const mk_attention_arguments p) {
    if (p.half == MK_BF16) {
        combine<MK_BF16>(p);
    } else {
        combine<MK_F16>(p);
    }
}
