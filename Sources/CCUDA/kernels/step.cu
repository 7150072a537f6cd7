// One stream at its fastest: a talker step, or all passes of a code predictor frame, as one cooperative launch.
//
// Weights do not depend on activations. So every warp streams its share of all layers, in the order of use, through a
// ring of its own in shared memory, with asynchronous copies that run ahead across layers and grid barriers: memory
// never waits for arithmetic. A lane reads back the 16 bytes that it copied itself; no barrier guards the ring.
//
// Sums are cut and added as in linear.cu: warp w takes run w of the chunks of every tile. Rows of activations are split
// into halves once a phase, by the warp that needs them. The 1 / rms of an RMSNorm is applied to the finished sum.

// Chunks of 512 bytes in flight for each warp: as many as shared memory holds.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000
#define MK_RING 16
#elif __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 870
#define MK_RING 8
#else
#define MK_RING 6
#endif

// Tiles of one product, and of one barrier of the block.
#define MK_BATCH 4
#define MK_GATHER 16
#define MK_STEP_ROWS 2

// Where an activation row comes from: floats, or a bfloat16 table.
struct row_input {
    const float *floats;
    const half_bits *halves;
};

// What an operation of the schedule does with its sums.
enum { MK_QKV = 0, MK_OUTPUT = 1, MK_GATE_UP = 2, MK_DOWN = 3, MK_HEAD = 4, MK_PROJECT = 5 };

// The producer's place in the schedule.
struct weight_stream {
    const uint4 *schedule;
    uint4 coming;  // the next entry, loaded ahead
    int count, next, chunks;
    int tiles, first, batch, begin, end, chunk, place;
    const char *base, *at;
    long long tile_stride;
    char *ring;
    int slot;
    unsigned grid_inverse;

    // x / gridDim.x for x below 65536.
    DEVICE_MEMBER int over_grid(int x) { return (int)__umulhi((unsigned)x, grid_inverse); }

    DEVICE_MEMBER int own_tiles(int all) {
        return (int)blockIdx.x < all ? over_grid(all - (int)blockIdx.x + (int)gridDim.x - 1) : 0;
    }

    DEVICE_MEMBER void open_entry() {
        tiles = 0;
        while (next < count) {
            const uint4 entry = coming;
            if (++next < count) coming = schedule[next];
            const int all = (int)entry.z;
            chunks = (int)entry.w;
            const int run = ceiling(chunks, MK_WARPS), warp = threadIdx.x >> 5;
            begin = min(chunks, warp * run);
            end = min(chunks, begin + run);
            if (begin >= end || (int)blockIdx.x >= all) continue;
            tiles = own_tiles(all);
            base = (const char *)((unsigned long long)entry.x | (unsigned long long)entry.y << 32)
                + (long long)blockIdx.x * chunks * 512 + (threadIdx.x & 31) * 16;
            tile_stride = (long long)gridDim.x * chunks * 512;
            first = 0;
            batch = min(MK_BATCH, tiles);
            chunk = begin;
            place = 0;
            at = base + begin * 512;
            return;
        }
    }

    // Starts the copy of one chunk, or of none at the end: a group either way.
    DEVICE_MEMBER void issue() {
        if (tiles > 0) {
            copy_async(ring + slot * 512 + (threadIdx.x & 31) * 16, at);
            at += tile_stride;
            if (++place == batch) {
                place = 0;
                if (++chunk == end) {
                    chunk = begin;
                    first += MK_BATCH;
                    base += MK_BATCH * tile_stride;
                    batch = min(MK_BATCH, tiles - first);
                    if (first >= tiles) {
                        open_entry();
                    } else {
                        at = base + begin * 512;
                    }
                } else {
                    at = base + chunk * 512;
                }
            }
        }
        copy_async_commit();
        slot = slot + 1 == MK_RING ? 0 : slot + 1;
    }
};

struct step_block {
    weight_stream stream;
    // Shared memory.
    uint4 *activations;  // of this warp: [chunks of a run][rows][4][high, low]
    float *squares;      // of this warp: [chunks of a run][rows][4]
    float *run_sums;     // [rows][MK_WARPS]
    float *partial;      // [MK_GATHER][MK_WARPS][rows · 8]
    float *attention;
    unsigned *words;
    int taken;
    unsigned *barrier;
    unsigned barrier_target;

    DEVICE_MEMBER void open(const mk_step_arguments &p, int run_limit) {
        const int warp = threadIdx.x >> 5;
        char *shared = dynamic_shared();
        stream.ring = shared + warp * MK_RING * 512;
        shared += MK_WARPS * MK_RING * 512;
        activations = (uint4 *)shared + warp * run_limit * MK_STEP_ROWS * 8;
        shared += MK_WARPS * run_limit * MK_STEP_ROWS * 8 * 16;
        squares = (float *)shared + warp * run_limit * MK_STEP_ROWS * 4;
        shared += MK_WARPS * run_limit * MK_STEP_ROWS * 4 * 4;
        run_sums = (float *)shared;
        shared += MK_STEP_ROWS * MK_WARPS * 4;
        words = (unsigned *)shared;
        shared += MK_SAMPLER_BYTES;
        partial = (float *)shared;
        attention = (float *)shared;
        stream.schedule = (const uint4 *)p.schedule;
        stream.count = p.schedule_count;
        stream.next = 0;
        stream.coming = stream.schedule[0];
        stream.slot = 0;
        stream.grid_inverse = 0xffffffffu / gridDim.x + 1;
        taken = 0;
        barrier = (unsigned *)p.barrier;
        barrier_target = p.barrier_base;
        stream.open_entry();
#pragma unroll 1
        for (int i = 0; i < MK_RING; i++) stream.issue();
    }

    // All blocks arrive; what they wrote before is seen after: the block's barriers, the release and the acquire order
    // it.
    DEVICE_MEMBER void grid_barrier() {
        __syncthreads();
        barrier_target += gridDim.x;
        if (threadIdx.x == 0) {
            arrive_release(barrier);
            while ((int)(load_acquire(barrier) - barrier_target) < 0) {
            }
        }
        __syncthreads();
    }

    DEVICE_MEMBER void run_of(int chunks, int &begin, int &end) {
        const int run = ceiling(chunks, MK_WARPS);
        begin = min(chunks, (int)(threadIdx.x >> 5) * run);
        end = min(chunks, begin + run);
    }

    DEVICE_MEMBER void keep(int item, const float (&v)[8]) {
        uint4 high, low;
        split_eight<MK_BF16>(v, high, low);
        activations[item * 2] = high;
        activations[item * 2 + 1] = low;
    }

    // This warp's run of x · gain, and its Σ x² for 1 / rms. Without `gain`, of x.
    DEVICE_MEMBER void load_rows(
        const row_input (&x)[MK_STEP_ROWS], int rows, int chunks, const float *gain) {
        const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, shift = rows - 1;
        int begin, end;
        run_of(chunks, begin, end);
#pragma unroll 1
        for (int item = lane; item < (end - begin) * rows * 4; item += 32) {
            const int c = item >> (2 + shift), row = (item >> 2) & shift, t = item & 3;
            const int k0 = (begin + c) * MK_CHUNK + t * 8;
            const row_input &source = row == 0 ? x[0] : x[1];
            float v[8], y[8];
            // Rows and gains are padded to whole chunks.
            if (source.floats) {
                const float4 a = load_shared_data((const float4 *)(source.floats + k0));
                const float4 b = load_shared_data((const float4 *)(source.floats + k0 + 4));
                v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
            } else {
                const uint4 h = *(const uint4 *)(source.halves + k0);
                const unsigned words[4] = {h.x, h.y, h.z, h.w};
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    v[2 * i] = float_from_bf16((half_bits)(words[i] & 0xffff));
                    v[2 * i + 1] = float_from_bf16((half_bits)(words[i] >> 16));
                }
            }
            if (gain) {
                const float4 a = *(const float4 *)(gain + k0), b = *(const float4 *)(gain + k0 + 4);
                const float factor[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
                for (int i = 0; i < 8; i++) y[i] = v[i] * factor[i];
            } else {
#pragma unroll
                for (int i = 0; i < 8; i++) y[i] = v[i];
            }
            squares[item] = sum_of_squares(v);
            keep(item, y);
        }
        __syncwarp();
        if (lane < rows) {
            float sum = 0;
            for (int c = 0; c < end - begin; c++) {
                const float4 q = *(const float4 *)(squares + ((c << shift) + lane) * 4);
                sum += (q.x + q.y) + (q.z + q.w);
            }
            run_sums[lane * MK_WARPS + warp] = sum;
        }
    }

    // This warp's run of rows that are split already.
    DEVICE_MEMBER void load_halves(const half_bits *high, const half_bits *low, int ld, int rows, int chunks) {
        const int shift = rows - 1;
        int begin, end;
        run_of(chunks, begin, end);
#pragma unroll 1
        for (int item = threadIdx.x & 31; item < (end - begin) * rows * 4; item += 32) {
            const int c = item >> (2 + shift), row = (item >> 2) & shift, t = item & 3;
            const int at = row * ld + (begin + c) * MK_CHUNK + t * 8;
            const uint4 a = load_shared_data((const uint4 *)(high + at));
            const uint4 b = load_shared_data((const uint4 *)(low + at));
            activations[item * 2] = a;
            activations[item * 2 + 1] = b;
        }
        __syncwarp();
    }

    // This warp's run of the attention's output, summed over pages.
    DEVICE_MEMBER void load_attention(const mk_step_arguments &p, int pages, int rows, int chunks) {
        const int dim = p.stack.cache.dim, shift = rows - 1;
        int begin, end;
        run_of(chunks, begin, end);
#pragma unroll 1
        for (int item = threadIdx.x & 31; item < (end - begin) * rows * 4; item += 32) {
            const int c = item >> (2 + shift), row = (item >> 2) & shift, t = item & 3;
            const int k = (begin + c) * MK_CHUNK + t * 8;
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = 0;
            if (k < p.stack.heads * dim) {
                const int head = k / dim;
                combine_pages(
                    (const float *)p.partials + (long long)(row * p.stack.heads + head) * p.pages * (dim + 2), pages,
                    dim, k - head * dim, v);
            }
            keep(item, v);
        }
        __syncwarp();
    }

    // What becomes of two neighbouring sums; `old`: what the residual stream holds there.
    DEVICE_MEMBER void finish(
        const mk_step_arguments &p, int kind, int row, int n, float v0, float v1, float2 old, float *logits) {
        const mk_stack &s = p.stack;
        const int ld = s.chunks * MK_CHUNK;
        if (kind == MK_QKV || kind == MK_GATE_UP || kind == MK_HEAD) {
            const float scale = inverse_rms(run_sums + row * MK_WARPS, s.width, s.epsilon);
            v0 *= scale;
            v1 *= scale;
        }
        if (kind == MK_QKV) {
            *(float2 *)((float *)p.qkv + row * p.ld_qkv + n) = make_float2(v0, v1);
        } else if (kind == MK_OUTPUT || kind == MK_DOWN) {
            *(float2 *)((float *)p.x + row * ld + n) = make_float2(v0 + old.x, v1 + old.y);
        } else if (kind == MK_GATE_UP) {
            half_bits high, low;
            split_half<MK_BF16>(silu(v0) * v1, high, low);
            ((half_bits *)p.inner)[row * p.ld_inner + n / 2] = high;
            ((half_bits *)p.inner_low)[row * p.ld_inner + n / 2] = low;
        } else if (kind == MK_HEAD) {
            *(float2 *)(logits + n) = make_float2(v0, v1);
        } else {
            const float *bias = (const float *)p.projection_bias + n;
            *(float2 *)((float *)p.x + row * ld + n) = make_float2(v0 + bias[0], v1 + bias[1]);
        }
    }

    DEVICE_MEMBER float2 old_values(const row_input &source, int n) {
        if (source.floats) {
            return make_float2(load_shared_data(source.floats + n), load_shared_data(source.floats + n + 1));
        }
        return make_float2(float_from_bf16(source.halves[n]), float_from_bf16(source.halves[n + 1]));
    }

    // Takes an operation's weights from the ring and finishes its sums.
    DEVICE_MEMBER void product(
        const mk_step_arguments &p, int kind, int tiles, int chunks, int rows, const row_input (&x)[MK_STEP_ROWS],
        float *logits) {
        const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
        const int grid = gridDim.x, block = blockIdx.x, shift = rows - 1;
        const int own = stream.own_tiles(tiles);
        const uint4 zero = make_uint4(0, 0, 0, 0);
        int begin, end;
        run_of(chunks, begin, end);
#pragma unroll 1
        for (int gather = 0; gather < own; gather += MK_GATHER) {
            const int gathered = min(MK_GATHER, own - gather);
            // This thread's sums, and what they are added to.
            const int i = threadIdx.x >> (2 + shift), place = threadIdx.x & (4 * rows - 1), row = place >> 2;
            const int n = (block + (gather + i) * grid) * MK_TILE + (place & 3) * 2;
            float2 old = make_float2(0, 0);
            if ((kind == MK_OUTPUT || kind == MK_DOWN) && i < gathered) old = old_values(row == 0 ? x[0] : x[1], n);
#pragma unroll 1
            for (int first = 0; first < gathered; first += MK_BATCH) {
                const int batch = min(MK_BATCH, gathered - first);
                float sums[MK_BATCH][1][4];
#pragma unroll
                for (int j = 0; j < MK_BATCH; j++)
#pragma unroll
                    for (int k = 0; k < 4; k++) sums[j][0][k] = 0;
#pragma unroll 1
                for (int c = 0; c < end - begin; c++) {
                    const uint4 *a = activations + (((c << shift) + g) * 4 + t) * 2;
                    const uint4 a0[1][1] = {{g < rows ? a[0] : zero}}, a1[1][1] = {{g < rows ? a[1] : zero}};
                    copy_async_wait<MK_RING - MK_BATCH>();
                    uint4 b[1][MK_BATCH];
#pragma unroll
                    for (int j = 0; j < MK_BATCH; j++) {
                        const int slot = taken + j < MK_RING ? taken + j : taken + j - MK_RING;
                        b[0][j] = j < batch ? *(const uint4 *)(stream.ring + slot * 512 + lane * 16) : zero;
                    }
                    multiply_chunks<MK_BF16, MK_BATCH, 1, 1>(sums, a0, a1, b);
                    taken = taken + batch < MK_RING ? taken + batch : taken + batch - MK_RING;
#pragma unroll 1
                    for (int j = 0; j < batch; j++) stream.issue();
                }
                if (g < rows) {
#pragma unroll
                    for (int j = 0; j < MK_BATCH; j++) {
                        if (j < batch) {
                            float2 *to = (float2 *)partial + ((first + j) * MK_WARPS + warp) * rows * 4 + lane;
                            *to = make_float2(sums[j][0][0] + sums[j][0][2], sums[j][0][1] + sums[j][0][3]);
                        }
                    }
                }
            }
            __syncthreads();
            if (i < gathered) {
                float v0 = 0, v1 = 0;
#pragma unroll
                for (int w = 0; w < MK_WARPS; w++) {
                    const float2 v = ((const float2 *)partial)[(i * MK_WARPS + w) * rows * 4 + place];
                    v0 += v.x;
                    v1 += v.y;
                }
                finish(p, kind, row, n, v0, v1, old, logits);
            }
            if (gather + MK_GATHER < own) __syncthreads();
        }
    }

    DEVICE_MEMBER void prefetch(const float *p, int count) {
        for (int i = threadIdx.x * 32; i < count; i += MK_THREADS * 32) prefetch_l2(p + i);
    }

    // Queries, keys and values of the rows → partial sums of attention. Blocks take (key head, page).
    DEVICE_MEMBER void attend(const mk_step_arguments &p, const mk_cache &cache, int slot, int position, int rows) {
        const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
        const int dim = cache.dim, kv = cache.kv_heads, heads = p.stack.heads, group = heads / kv;
        const int pages = (position + rows - 1) / MK_PAGE + 1;
        const float *qkv = (const float *)p.qkv, *frequencies = (const float *)p.stack.frequencies;
        const float *gains = (const float *)p.stack.head_gains + cache.layer * 2 * dim;
        float *fresh_keys = attention + rows * group * dim, *fresh_values = fresh_keys + rows * dim;
        float *work = fresh_values + rows * dim;
#pragma unroll 1
        for (int item = blockIdx.x; item < kv * pages; item += gridDim.x) {
            const int head = item % kv, page = item / kv;
            float *keys = page_keys(cache, cache_page(cache, slot, page), head);
            float *values = keys + value_offset(cache);
            // The rows' own positions end the sequence: they are all that is fresh.
            const int fresh_from = max(0, position - page * MK_PAGE);
#pragma unroll 1
            for (int job = warp; job < rows * (group + 2); job += MK_WARPS) {
                const int row = job / (group + 2), part = job - row * (group + 2), at = position + row;
                const float *source = qkv + row * p.ld_qkv;
                const bool is_query = part < group;
                if (!is_query && at / MK_PAGE != page) continue;
                float *fresh = (part == group ? fresh_keys : fresh_values)
                    + (at - page * MK_PAGE - fresh_from) * dim;
                if (part <= group) {
                    norm_rope(
                        source + (is_query ? head * group + part : heads + head) * dim,
                        is_query ? attention + (row * group + part) * dim : fresh,
                        is_query ? 0 : keys + (at % MK_PAGE) * dim, dim, gains + (is_query ? 0 : dim), p.stack.epsilon,
                        frequencies, at);
                } else {
                    for (int d = lane; d < dim; d += 32) {
                        const float v = load_shared_data(source + (heads + kv + head) * dim + d);
                        values[(at % MK_PAGE) * dim + d] = v;
                        fresh[d] = v;
                    }
                }
            }
#pragma unroll 1
            for (int row = 0; row < rows; row++) {
                const int last = min(MK_PAGE - 1, position + row - page * MK_PAGE);
                if (last >= 0) {
                    float *out = (float *)p.partials
                        + ((long long)(row * heads + head * group) * p.pages + page) * (dim + 2);
                    attend_page(
                        attention + row * group * dim, work, keys, values, fresh_keys, fresh_values, fresh_from, group,
                        dim, 0, last, out, p.pages * (dim + 2));
                }
            }
            __syncthreads();
        }
    }

    // One operation of the schedule: `index` counts from 0 over the layers, four each, and ends with the head; -1 is
    // the projection in front.
    DEVICE_MEMBER void operation(
        const mk_step_arguments &p, int index, row_input (&x)[MK_STEP_ROWS], int slot, int position, int &rows,
        float *logits, float *hidden) {
        const mk_stack &s = p.stack;
        const int ld = s.chunks * MK_CHUNK, layer = index >> 2;
        const bool is_head = index == 4 * s.layer_count;
        const int kind = index < 0 ? MK_PROJECT : is_head ? MK_HEAD : index & 3;
        const float *gains = (const float *)s.gains;
        mk_cache cache = s.cache;
        cache.layer = layer;
        int chunks = s.chunks, tiles = s.chunks * (MK_CHUNK / MK_TILE);
        if (kind == MK_OUTPUT) {
            chunks = ceiling(s.heads * cache.dim, MK_CHUNK);
            load_attention(p, (position + rows - 1) / MK_PAGE + 1, rows, chunks);
        } else if (kind == MK_DOWN) {
            chunks = s.intermediate_chunks;
            load_halves((const half_bits *)p.inner, (const half_bits *)p.inner_low, p.ld_inner, rows, chunks);
        } else {
            if (kind == MK_HEAD && rows == 2) {
                // Position 0 only feeds the caches.
                x[0] = x[1];
                rows = 1;
            }
            const float *gain = kind == MK_PROJECT ? 0 : gains + (layer * 2 + (kind == MK_GATE_UP)) * ld;
            if (kind == MK_PROJECT) chunks = p.talker_chunks;
            if (kind == MK_QKV) tiles = ceiling((s.heads + 2 * cache.kv_heads) * cache.dim, MK_TILE);
            if (kind == MK_GATE_UP) tiles = s.intermediate_chunks * (2 * MK_CHUNK / MK_TILE);
            if (kind == MK_HEAD) tiles = ceiling(p.head_outputs, MK_CHUNK) * (MK_CHUNK / MK_TILE);
            load_rows(x, rows, chunks, gain);
        }
        if (kind == MK_QKV) prefetch((const float *)s.head_gains + layer * 2 * cache.dim, 2 * cache.dim);
        if (kind == MK_OUTPUT || kind == MK_GATE_UP)
            prefetch(gains + (layer * 2 + (kind == MK_OUTPUT ? 1 : 2)) * ld, ld);
        product(p, kind, tiles, chunks, rows, x, logits);
        if (kind == MK_HEAD && hidden && blockIdx.x == gridDim.x - 1) {
            __syncthreads();
            const float scale = inverse_rms(run_sums, s.width, s.epsilon);
            for (int k = threadIdx.x; k < s.width; k += MK_THREADS)
                hidden[k] = load_shared_data(x[0].floats + k) * gains[layer * 2 * ld + k] * scale;
        }
        if (kind == MK_OUTPUT || kind == MK_PROJECT) {
            x[0].floats = (const float *)p.x;
            x[1].floats = (const float *)p.x + ld;
        }
        grid_barrier();
        if (kind == MK_QKV) {
            attend(p, cache, slot, position, rows);
            grid_barrier();
        }
    }
};

DEVICE int longest_run(const mk_step_arguments &p) {
    int chunks = max(p.stack.chunks, p.stack.intermediate_chunks);
    chunks = max(chunks, ceiling(p.stack.heads * p.stack.cache.dim, MK_CHUNK));
    return ceiling(max(chunks, p.talker_chunks), MK_WARPS);
}

// One position of one session: p.x → hidden state and logits of its slot.
KERNEL talker_step(const mk_step_arguments p) {
    step_block block;
    block.open(p, longest_run(p));
    const mk_session session = *(const mk_session *)p.sessions;
    row_input x[MK_STEP_ROWS];
    x[0].floats = x[1].floats = (const float *)p.x;
    x[0].halves = x[1].halves = 0;
    int rows = 1;
    float *logits = (float *)p.logits + (long long)session.slot * p.ld_logits;
    float *hidden = (float *)p.hidden + (long long)session.slot * p.ld_hidden;
#pragma unroll 1
    for (int index = 0; index <= 4 * p.stack.layer_count; index++)
        block.operation(p, index, x, session.slot, session.position, rows, logits, hidden);
}

// One frame of one session: code 0 from the talker's logits, then the other codes, one pass each. Every block chooses
// every code itself, from the same logits in the same order.
KERNEL predictor_frame(const mk_step_arguments p) {
    step_block block;
    block.open(p, longest_run(p));
    const mk_session session = *(const mk_session *)p.sessions;
    mk_sample_arguments rule = {};
    rule.groups = p.groups;
    rule.forced = p.forced;
    rule.speakable = p.speakable;
    rule.eos = p.eos;
    rule.seen = p.seen;
    int *codes = (int *)p.codes + session.slot * p.groups;
    const float *chosen_from = (const float *)p.logits + (long long)session.slot * p.ld_logits;
    int code0 = 0;
#pragma unroll 1
    for (int group = 0; group < p.groups; group++) {
        // The code of this group, from the talker's logits or the pass before.
        rule.codebook = group;
        rule.vocabulary = group == 0 ? p.talker_vocabulary : p.vocabulary;
        const int code = choose(rule, session, 0, chosen_from, block.words);
        if (group == 0) code0 = code;
        if (blockIdx.x == 0 && threadIdx.x == 0) codes[group] = code;
        if (group + 1 == p.groups) break;
        // The pass that gives the next group's logits.
        int rows = group == 0 ? 2 : 1;
        const int position = group == 0 ? 0 : group + 1;
        row_input x[MK_STEP_ROWS];
        x[0].floats = x[1].floats = 0;
        const half_bits *embedding = group == 0
            ? (const half_bits *)p.codec_table + (long long)code * p.ld_table
            : (const half_bits *)p.group_tables + ((long long)(group - 1) * p.vocabulary + code) * p.ld_table;
        x[0].halves = x[1].halves = embedding;
        if (group == 0) x[0].floats = (const float *)p.hidden + (long long)session.slot * p.ld_hidden;
        float *logits = (float *)p.all_logits + (long long)group * p.ld_table_logits;
#pragma unroll 1
        for (int index = p.has_projection ? -1 : 0; index <= 4 * p.stack.layer_count; index++)
            block.operation(p, index, x, 0, position, rows, logits, 0);
        chosen_from = logits;
    }
    // Only now: until the first barrier, other blocks read it.
    if (blockIdx.x == 0 && threadIdx.x == 0 && p.seen)
        ((unsigned char *)p.seen)[(long long)session.slot * p.talker_vocabulary + code0] = 1;
}
