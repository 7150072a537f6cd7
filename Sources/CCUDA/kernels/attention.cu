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

// One warp: RMSNorm (if `gain`) and rotation by `position` of a head of `dim` floats, x → y; x is read past L1.
DEVICE_CALL void norm_rope(
    const float *x, float *y, int dim, const float *gain, float epsilon, const float *frequencies, int position) {
    const int lane = threadIdx.x & 31, half = dim / 2;
    float a[MK_MAX_HEAD / 64], b[MK_MAX_HEAD / 64];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < MK_MAX_HEAD / 64; i++) {
        int m = lane + i * 32;
        a[i] = m < half ? load_shared_data(x + m) : 0.0f;
        b[i] = m < half ? load_shared_data(x + half + m) : 0.0f;
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
        y[m] = a[i] * cosine - b[i] * sine;
        y[half + m] = b[i] * cosine + a[i] * sine;
    }
}

// One block: queries [group][dim] at `shared` (normed and rotated) against positions first…last (0…63) of a page.
// out: for each query head dim + 2 floats, `out_stride` apart: maximum, Σ exp, Σ exp · value.
// Shared memory: group · (dim + MK_PAGE + 2 + 2 · dim) floats.
DEVICE_CALL void attend_page(
    float *shared, const float *keys, const float *values, int group, int dim, int first, int last, float *out,
    int out_stride) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float *scores = shared + group * dim;          // [group][MK_PAGE]
    float *totals = scores + group * MK_PAGE;      // [group][2]
    float *sums = totals + group * 2;              // [2][group][dim]
    const float scale = 1.0f / sqrtf((float)dim);
    for (int j = warp; j < MK_PAGE; j += MK_WARPS) {
        bool seen = j >= first && j <= last;
        float dots[MK_MAX_GROUP];
#pragma unroll
        for (int h = 0; h < MK_MAX_GROUP; h++) dots[h] = 0;
        if (seen) {
            for (int d = lane; d < dim; d += 32) {
                float k = load_shared_data(keys + j * dim + d);
#pragma unroll
                for (int h = 0; h < MK_MAX_GROUP; h++)
                    if (h < group) dots[h] = fmaf(shared[h * dim + d], k, dots[h]);
            }
        }
#pragma unroll
        for (int h = 0; h < MK_MAX_GROUP; h++) {
            if (h < group) {
                float dot = seen ? sum_of_lanes(dots[h]) * scale : -INFINITY;
                if (lane == 0) scores[h * MK_PAGE + j] = dot;
            }
        }
    }
    __syncthreads();
    if (warp < group) {
        float s0 = scores[warp * MK_PAGE + lane], s1 = scores[warp * MK_PAGE + 32 + lane];
        float maximum = maximum_of_lanes(fmaxf(s0, s1));
        float e0 = expf(s0 - maximum), e1 = expf(s1 - maximum);
        scores[warp * MK_PAGE + lane] = e0;
        scores[warp * MK_PAGE + 32 + lane] = e1;
        float total = sum_of_lanes(e0 + e1);
        if (lane == 0) {
            totals[warp * 2] = maximum;
            totals[warp * 2 + 1] = total;
        }
    }
    __syncthreads();
    for (int item = threadIdx.x; item < 2 * group * dim; item += MK_THREADS) {
        int part = item / (group * dim), rest = item - part * group * dim;
        int h = rest / dim, d = rest - h * dim;
        float sum = 0;
        int from = max(first, part * 32), to = min(last, part * 32 + 31);
#pragma unroll 8
        for (int j = from; j <= to; j++)
            sum = fmaf(scores[h * MK_PAGE + j], load_shared_data(values + j * dim + d), sum);
        sums[item] = sum;
    }
    __syncthreads();
    for (int item = threadIdx.x; item < group * dim; item += MK_THREADS) {
        int h = item / dim, d = item - h * dim;
        out[(long long)h * out_stride + 2 + d] = sums[item] + sums[group * dim + item];
    }
    if (threadIdx.x < group) {
        out[(long long)threadIdx.x * out_stride] = totals[threadIdx.x * 2];
        out[(long long)threadIdx.x * out_stride + 1] = totals[threadIdx.x * 2 + 1];
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
                x, x, dim, (const float *)p.query_norm, p.epsilon, (const float *)p.frequencies, position);
        } else if (head < p.heads + kv) {
            float *to = page_keys(p.cache, page, head - p.heads) + (position % MK_PAGE) * dim;
            norm_rope(
                x, to, dim, (const float *)p.key_norm, p.epsilon, (const float *)p.frequencies, position);
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
    __syncthreads();
    int oldest = p.window > 0 ? max(0, position - p.window + 1) : 0;
    int first = max(0, oldest - page_index * MK_PAGE), last = min(MK_PAGE - 1, position - page_index * MK_PAGE);
    const float *keys = page_keys(p.cache, cache_page(p.cache, slot, page_index), head);
    float *out = (float *)p.partials + ((long long)(row * p.heads + head * group) * p.pages + blockIdx.y) * (dim + 2);
    attend_page(
        shared, keys, keys + value_offset(p.cache), group, dim, first, last, out, p.pages * (dim + 2));
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
