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
#define MK_RING 20
#elif __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 870
#define MK_RING 12
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

DEVICE float input_value(const row_input &row, int k) {
    return row.floats ? load_shared_data(row.floats + k) : float_from_bf16(row.halves[k]);
}

// The producer's place in the schedule.
struct weight_stream {
    const mk_stream_entry *schedule;
    int count, next, chunks;
    int tiles, first, batch, begin, end, chunk, place;
    const char *at;
    char *ring;
    int slot;

    DEVICE_MEMBER void open_entry() {
        const int grid = gridDim.x, block = blockIdx.x, warp = threadIdx.x >> 5;
        tiles = 0;
        while (next < count) {
            const mk_stream_entry entry = schedule[next++];
            const int run = ceiling(entry.chunks, MK_WARPS);
            begin = min(entry.chunks, warp * run);
            end = min(entry.chunks, begin + run);
            if (begin >= end || block >= entry.tiles) continue;
            tiles = (entry.tiles - block + grid - 1) / grid;
            chunks = entry.chunks;
            at = (const char *)entry.weights + (long long)block * chunks * 512 + (threadIdx.x & 31) * 16;
            first = 0;
            batch = min(MK_BATCH, tiles);
            chunk = begin;
            place = 0;
            return;
        }
    }

    // Starts the copy of one chunk, or of none at the end: a group either way.
    DEVICE_MEMBER void issue() {
        if (tiles > 0) {
            copy_async(
                ring + slot * 512 + (threadIdx.x & 31) * 16,
                at + ((long long)(first + place) * gridDim.x * chunks + chunk) * 512);
            if (++place == batch) {
                place = 0;
                if (++chunk == end) {
                    chunk = begin;
                    first += MK_BATCH;
                    batch = min(MK_BATCH, tiles - first);
                    if (first >= tiles) open_entry();
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
        shared += 2 * MK_WARPS * 4;
        partial = (float *)shared;
        attention = (float *)shared;
        stream.schedule = (const mk_stream_entry *)p.schedule;
        stream.count = p.schedule_count;
        stream.next = 0;
        stream.slot = 0;
        stream.tiles = 0;
        taken = 0;
        barrier = (unsigned *)p.barrier;
        barrier_target = p.barrier_base;
        stream.open_entry();
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
        const row_input (&x)[MK_STEP_ROWS], int rows, int width, int chunks, const float *gain) {
        const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        int begin, end;
        run_of(chunks, begin, end);
        for (int item = lane; item < (end - begin) * rows * 4; item += 32) {
            const int c = item / (rows * 4), row = item / 4 % rows, t = item & 3;
            const int k0 = (begin + c) * MK_CHUNK + t * 8;
            const row_input &source = row == 0 ? x[0] : x[1];
            float v[8], y[8];
            if (k0 + 8 <= width && source.floats) {
                const float4 low = load_shared_data((const float4 *)(source.floats + k0));
                const float4 high = load_shared_data((const float4 *)(source.floats + k0 + 4));
                v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
                v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
            } else {
#pragma unroll
                for (int i = 0; i < 8; i++) v[i] = k0 + i < width ? input_value(source, k0 + i) : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < 8; i++) y[i] = gain && k0 + i < width ? v[i] * gain[k0 + i] : v[i];
            squares[item] = sum_of_squares(v);
            keep(item, y);
        }
        __syncwarp();
        if (lane < rows) {
            float sum = 0;
            for (int c = 0; c < end - begin; c++) {
                const float *s = squares + (c * rows + lane) * 4;
                sum += (s[0] + s[1]) + (s[2] + s[3]);
            }
            run_sums[lane * MK_WARPS + warp] = sum;
        }
    }

    // This warp's run of rows that are split already.
    DEVICE_MEMBER void load_halves(const half_bits *high, const half_bits *low, int ld, int rows, int chunks) {
        int begin, end;
        run_of(chunks, begin, end);
        for (int item = threadIdx.x & 31; item < (end - begin) * rows * 4; item += 32) {
            const int c = item / (rows * 4), row = item / 4 % rows, t = item & 3;
            const long long at = (long long)row * ld + (begin + c) * MK_CHUNK + t * 8;
            activations[item * 2] = load_shared_data((const uint4 *)(high + at));
            activations[item * 2 + 1] = load_shared_data((const uint4 *)(low + at));
        }
        __syncwarp();
    }

    // This warp's run of the attention's output, summed over pages.
    DEVICE_MEMBER void load_attention(const mk_step_arguments &p, int pages, int rows, int chunks) {
        const int dim = p.stack.cache.dim;
        int begin, end;
        run_of(chunks, begin, end);
        for (int item = threadIdx.x & 31; item < (end - begin) * rows * 4; item += 32) {
            const int c = item / (rows * 4), row = item / 4 % rows, t = item & 3;
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

    // Takes this layer's weights from the ring and hands each pair of sums to `finish(row, n, v0, v1)`.
    template <class Finish>
    DEVICE_MEMBER void product(int tiles, int chunks, int rows, Finish finish) {
        const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
        const int grid = gridDim.x, block = blockIdx.x;
        const int own = block < tiles ? (tiles - block + grid - 1) / grid : 0;
        const uint4 zero = make_uint4(0, 0, 0, 0);
        int begin, end;
        run_of(chunks, begin, end);
        for (int gather = 0; gather < own; gather += MK_GATHER) {
            const int gathered = min(MK_GATHER, own - gather);
            for (int first = 0; first < gathered; first += MK_BATCH) {
                float sums[MK_BATCH][4];
#pragma unroll
                for (int i = 0; i < MK_BATCH; i++)
#pragma unroll
                    for (int k = 0; k < 4; k++) sums[i][k] = 0;
                for (int c = 0; c < end - begin; c++) {
                    const uint4 *a = activations + ((c * rows + g) * 4 + t) * 2;
                    const uint4 a0 = g < rows ? a[0] : zero, a1 = g < rows ? a[1] : zero;
#pragma unroll
                    for (int i = 0; i < MK_BATCH; i++) {
                        if (first + i < gathered) {
                            copy_async_wait<MK_RING - 1>();
                            const uint4 b = *(const uint4 *)(stream.ring + taken * 512 + lane * 16);
                            multiply<MK_BF16>(sums[i], a0.x, a1.x, a0.y, a1.y, b.x, b.y);
                            multiply<MK_BF16>(sums[i], a0.z, a1.z, a0.w, a1.w, b.z, b.w);
                            stream.issue();
                            taken = taken + 1 == MK_RING ? 0 : taken + 1;
                        }
                    }
                }
                if (g < rows) {
#pragma unroll
                    for (int i = 0; i < MK_BATCH; i++) {
                        if (first + i < gathered) {
                            float2 *to = (float2 *)partial + ((first + i) * MK_WARPS + warp) * rows * 4 + lane;
                            *to = make_float2(sums[i][0] + sums[i][2], sums[i][1] + sums[i][3]);
                        }
                    }
                }
            }
            __syncthreads();
            for (int item = threadIdx.x; item < gathered * rows * 4; item += MK_THREADS) {
                const int i = item / (rows * 4), place = item - i * rows * 4;
                float v0 = 0, v1 = 0;
#pragma unroll
                for (int w = 0; w < MK_WARPS; w++) {
                    const float2 v = ((const float2 *)partial)[(i * MK_WARPS + w) * rows * 4 + place];
                    v0 += v.x;
                    v1 += v.y;
                }
                finish(place >> 2, (block + (gather + i) * grid) * MK_TILE + (place & 3) * 2, v0, v1);
            }
            if (gather + MK_GATHER < own) __syncthreads();
        }
    }

    DEVICE_MEMBER void prefetch(const float *p, int count) {
        if (!p) return;
        for (int i = threadIdx.x * 32; i < count; i += MK_THREADS * 32) prefetch_l2(p + i);
    }

    // Queries, keys and values of the rows → partial sums of attention. Blocks take (key head, page).
    DEVICE_MEMBER void attend(
        const mk_step_arguments &p, const mk_layer_entry &layer, const mk_cache &cache, int slot, int position,
        int rows) {
        const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
        const int dim = cache.dim, kv = cache.kv_heads, heads = p.stack.heads, group = heads / kv;
        const int pages = (position + rows - 1) / MK_PAGE + 1;
        const int area = group * (3 * dim + MK_PAGE + 2);
        const float *qkv = (const float *)p.qkv, *frequencies = (const float *)p.stack.frequencies;
        for (int item = blockIdx.x; item < kv * pages; item += gridDim.x) {
            const int head = item % kv, page = item / kv;
            float *keys = page_keys(cache, cache_page(cache, slot, page), head);
            float *values = keys + value_offset(cache);
            for (int job = warp; job < rows * (group + 2); job += MK_WARPS) {
                const int row = job / (group + 2), part = job - row * (group + 2), at = position + row;
                const float *source = qkv + (long long)row * p.ld_qkv;
                if (part < group) {
                    norm_rope(
                        source + (head * group + part) * dim, attention + row * area + part * dim, dim,
                        (const float *)layer.query_norm, p.stack.epsilon, frequencies, at);
                } else if (at / MK_PAGE == page) {
                    if (part == group) {
                        norm_rope(
                            source + (heads + head) * dim, keys + (at % MK_PAGE) * dim, dim,
                            (const float *)layer.key_norm, p.stack.epsilon, frequencies, at);
                    } else {
                        for (int d = lane; d < dim; d += 32)
                            values[(at % MK_PAGE) * dim + d] = load_shared_data(source + (heads + kv + head) * dim + d);
                    }
                }
            }
            __syncthreads();
            for (int row = 0; row < rows; row++) {
                const int last = min(MK_PAGE - 1, position + row - page * MK_PAGE);
                if (last >= 0) {
                    float *out = (float *)p.partials
                        + ((long long)(row * heads + head * group) * p.pages + page) * (dim + 2);
                    attend_page(
                        attention + row * area, keys, values, group, dim, 0, last, out, p.pages * (dim + 2));
                }
            }
            __syncthreads();
        }
    }

    // All layers; leaves the residual stream in p.x.
    DEVICE_MEMBER void layers(
        const mk_step_arguments &p, row_input (&x)[MK_STEP_ROWS], int slot, int position, int rows) {
        const mk_stack &s = p.stack;
        float *residual = (float *)p.x;
        const int ld = s.chunks * MK_CHUNK;
        mk_cache cache = s.cache;
        const int query_chunks = ceiling(s.heads * cache.dim, MK_CHUNK);
        const int wide = s.heads * cache.dim + 2 * cache.kv_heads * cache.dim;
        for (int index = 0; index < s.layer_count; index++) {
            const mk_layer_entry layer = ((const mk_layer_entry *)s.layers)[index];
            cache.layer = index;
            prefetch((const float *)layer.query_norm, cache.dim);
            prefetch((const float *)layer.key_norm, cache.dim);
            load_rows(x, rows, s.width, s.chunks, (const float *)layer.input_gain);
            product(ceiling(wide, MK_TILE), s.chunks, rows, [&](int row, int n, float v0, float v1) {
                const float scale = inverse_rms(run_sums + row * MK_WARPS, s.width, s.epsilon);
                *(float2 *)((float *)p.qkv + (long long)row * p.ld_qkv + n) = make_float2(v0 * scale, v1 * scale);
            });
            grid_barrier();
            prefetch((const float *)layer.post_gain, s.width);
            attend(p, layer, cache, slot, position, rows);
            grid_barrier();
            load_attention(p, (position + rows - 1) / MK_PAGE + 1, rows, query_chunks);
            product(s.chunks * (MK_CHUNK / MK_TILE), query_chunks, rows, [&](int row, int n, float v0, float v1) {
                const row_input &source = row == 0 ? x[0] : x[1];
                const float r0 = n < s.width ? input_value(source, n) : 0.0f;
                const float r1 = n + 1 < s.width ? input_value(source, n + 1) : 0.0f;
                *(float2 *)(residual + row * ld + n) = make_float2(v0 + r0, v1 + r1);
            });
#pragma unroll
            for (int row = 0; row < MK_STEP_ROWS; row++) x[row].floats = residual + row * ld;
            grid_barrier();
            const bool is_last = index + 1 == s.layer_count;
            prefetch(
                (const float *)(is_last ? s.final_gain : ((const mk_layer_entry *)s.layers)[index + 1].input_gain),
                s.width);
            load_rows(x, rows, s.width, s.chunks, (const float *)layer.post_gain);
            product(s.intermediate_chunks * (2 * MK_CHUNK / MK_TILE), s.chunks, rows,
                [&](int row, int n, float v0, float v1) {
                    const float scale = inverse_rms(run_sums + row * MK_WARPS, s.width, s.epsilon);
                    half_bits high, low;
                    split_half<MK_BF16>(silu(v0 * scale) * (v1 * scale), high, low);
                    ((half_bits *)p.inner)[(long long)row * p.ld_inner + n / 2] = high;
                    ((half_bits *)p.inner_low)[(long long)row * p.ld_inner + n / 2] = low;
                });
            grid_barrier();
            load_halves((const half_bits *)p.inner, (const half_bits *)p.inner_low, p.ld_inner, rows,
                s.intermediate_chunks);
            product(s.chunks * (MK_CHUNK / MK_TILE), s.intermediate_chunks, rows,
                [&](int row, int n, float v0, float v1) {
                    float *to = residual + row * ld + n;
                    *(float2 *)to = make_float2(v0 + load_shared_data(to), v1 + load_shared_data(to + 1));
                });
            grid_barrier();
        }
    }

    // Final norm and head of one row.
    DEVICE_MEMBER void head(const mk_step_arguments &p, row_input row, int vocabulary, float *logits, float *hidden) {
        const mk_stack &s = p.stack;
        row_input x[MK_STEP_ROWS] = {row, row};
        load_rows(x, 1, s.width, s.chunks, (const float *)s.final_gain);
        product(ceiling(vocabulary, MK_CHUNK) * (MK_CHUNK / MK_TILE), s.chunks, 1, [&](int, int n, float v0, float v1) {
            const float scale = inverse_rms(run_sums, s.width, s.epsilon);
            if (n < vocabulary) logits[n] = v0 * scale;
            if (n + 1 < vocabulary) logits[n + 1] = v1 * scale;
        });
        if (hidden && blockIdx.x == gridDim.x - 1) {
            __syncthreads();
            const float scale = inverse_rms(run_sums, s.width, s.epsilon);
            for (int k = threadIdx.x; k < s.width; k += MK_THREADS)
                hidden[k] = input_value(row, k) * ((const float *)s.final_gain)[k] * scale;
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
    block.layers(p, x, session.slot, session.position, 1);
    block.head(
        p, x[0], p.talker_vocabulary, (float *)p.logits + (long long)session.slot * p.ld_logits,
        (float *)p.hidden + (long long)session.slot * p.ld_hidden);
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
    rule.vocabulary = p.talker_vocabulary;
    rule.speakable = p.speakable;
    rule.eos = p.eos;
    rule.seen = p.seen;
    rule.codebook = 0;
    const int code0 =
        choose(rule, session, 0, (const float *)p.logits + (long long)session.slot * p.ld_logits, block.words);
    rule.vocabulary = p.vocabulary;
    int *codes = (int *)p.codes + session.slot * p.groups;
    if (blockIdx.x == 0 && threadIdx.x == 0) codes[0] = code0;
    int code = code0;
    const int ld = p.stack.chunks * MK_CHUNK;
    for (int group = 1; group < p.groups; group++) {
        const int rows = group == 1 ? 2 : 1, position = group == 1 ? 0 : group;
        row_input x[MK_STEP_ROWS];
        x[0].floats = x[1].floats = 0;
        x[0].halves = x[1].halves = 0;
        // In range whatever the talker's vocabulary is: its control ids have rows too.
        const half_bits *embedding = group == 1
            ? (const half_bits *)p.codec_table + (long long)code * p.ld_table
            : (const half_bits *)p.group_tables + ((long long)(group - 2) * p.vocabulary + code) * p.ld_table;
        if (group == 1) {
            x[0].floats = (const float *)p.hidden + (long long)session.slot * p.ld_hidden;
            x[1].halves = embedding;
        } else {
            x[0].halves = embedding;
        }
        if (p.has_projection) {
            block.load_rows(x, rows, p.talker_width, p.talker_chunks, 0);
            block.product(p.stack.chunks * (MK_CHUNK / MK_TILE), p.talker_chunks, rows,
                [&](int row, int n, float v0, float v1) {
                    const float *bias = (const float *)p.projection_bias + n;
                    *(float2 *)((float *)p.x + row * ld + n) = make_float2(v0 + bias[0], v1 + bias[1]);
                });
            x[0].floats = (const float *)p.x;
            x[1].floats = (const float *)p.x + ld;
            block.grid_barrier();
        }
        block.layers(p, x, 0, position, rows);
        float *logits = (float *)p.all_logits + (long long)(group - 1) * p.ld_table_logits;
        block.head(p, x[rows - 1], p.vocabulary, logits, 0);
        block.grid_barrier();
        rule.codebook = group;
        code = choose(rule, session, 0, logits, block.words);
        if (blockIdx.x == 0 && threadIdx.x == 0) codes[group] = code;
    }
    // Only now: until the first barrier, other blocks read it.
    if (blockIdx.x == 0 && threadIdx.x == 0 && p.seen)
        ((unsigned char *)p.seen)[(long long)session.slot * p.talker_vocabulary + code0] = 1;
}
