// Talker steps and code predictor frames of a few sessions in one cooperative launch: all layers, and all passes with
// sampling.
//
// Weights do not depend on activations. So every warp streams its share of all layers, in the order of use, through a
// ring of its own in shared memory, with asynchronous copies that run ahead across layers: memory does not wait for
// arithmetic. A lane reads back the 16 bytes that it copied itself; no barrier guards the ring.
//
// Blocks form teams; a team takes up to MK_TEAM_ROWS rows through all layers, which cost its products no more than one.
// Blocks of a team hand over values without a barrier: a unit of 16 bytes is three words and a tag, written and read as
// one. Tags grow with every operation of every launch, so whoever reads a unit with the tag of the operation before
// has its values, and whoever does not reads again. Why nobody overwrites what another still needs: an operation that
// writes some memory again has, through the operations between, waited for all that read it.
//
// Sums are cut and added as in linear.cu: warp w takes run w of the chunks of every tile. A record of three units holds
// eight neighbouring values, split into halves once by the one who made them, and their Σ x²; the 1 / rms of an RMSNorm
// is applied to the finished sum.

// Rows of the ring of each warp, 2 KiB each: as many as shared memory holds.
#ifdef MK_RING
#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000
#define MK_RING 4
#else
#define MK_RING 2
#endif
#define MK_RING_ROW 2048

// Chunks of activations that a lane holds.
#define MK_PIECE 4

// Lanes of a warp that look whether values have come, at most 4.
#ifndef MK_AWAIT_LANES
#define MK_AWAIT_LANES 4
#endif

// Some seconds of reading in vain: a block is missing.
#define MK_MOST_TRIES (1u << 24)

// Times of an operation.
struct stopwatch {
    unsigned from[4];

    DEVICE_MEMBER void stop(const mk_step_arguments &p, int part) {
        if (p.trace) from[part] = cycles();
    }

    DEVICE_MEMBER void write(const mk_step_arguments &p, int kind, unsigned tag) {
        if (!p.trace || threadIdx.x != 0) return;
        mk_trace &entry = ((mk_trace *)p.trace)[(tag - p.tag - 1) * gridDim.x + blockIdx.x];
        entry.kind = kind + 1;
        entry.wait = from[1] - from[0];
        entry.work = from[2] - from[1];
        entry.finish = cycles() - from[2];
    }
};

// The k-th tile of a block; `unit` neighbouring tiles belong to one block.
DEVICE int own_tile(int k, int unit, int place, int blocks) {
    return unit == 1 ? place + k * blocks : (place + (k >> 1) * blocks) * 2 + (k & 1);
}

// `inverse`: ⌈2³² / blocks⌉, for counts below 65536; a team of one block has none.
DEVICE int own_tiles(int units, int unit, int place, int blocks, unsigned inverse) {
    if (blocks == 1) return units * unit;
    return place < units ? (int)__umulhi((unsigned)(units - place + blocks - 1), inverse) * unit : 0;
}

DEVICE void run_of(int chunks, int &begin, int &end) {
    const int run = ceiling(chunks, MK_WARPS);
    begin = min(chunks, (int)(threadIdx.x >> 5) * run);
    end = min(chunks, begin + run);
}

// The producer's place in the schedule. A row of the ring holds two tiles by two chunks, or four chunks of a block's
// only tile.
struct weight_stream {
    uint4 coming;  // the next entry, loaded ahead
    int next, slot;
    // Tiles and chunks that are left of the open entry; all chunks of this warp's run.
    int left, chunks, run;
    // Bytes to a pair's second tile, 0 if there is but one tile, and to the next pair.
    unsigned second, advance;
    const char *base;

    DEVICE_MEMBER void open_entry(const mk_step_arguments &p, int place) {
        left = 0;
        while (next < p.schedule_count) {
            const uint4 entry = coming;
            if (++next < p.schedule_count) coming = ((const uint4 *)p.schedule)[next];
            const int unit = (int)(entry.w & 0xffff), all = (int)(entry.w >> 16);
            const int own = own_tiles((int)entry.z, unit, place, p.blocks, p.blocks_inverse);
            int begin, end;
            run_of(all, begin, end);
            if (begin >= end || own == 0) continue;
            left = own;
            run = chunks = end - begin;
            second = own > 1 ? (unit == 1 ? p.blocks : 1) * all * 512 : 0;
            advance = 2 * p.blocks * all * 512;
            base = (const char *)((unsigned long long)entry.x | (unsigned long long)entry.y << 32)
                + ((long long)place * unit * all + begin) * 512 + (threadIdx.x & 31) * 16;
            return;
        }
    }

    // Starts the copy of one row, or of none at the end: a group either way.
    DEVICE_MEMBER void issue(const mk_step_arguments &p, int place, char *ring) {
        if (left > 0) {
            char *to = ring + slot * MK_RING_ROW;
            const char *at = base + (run - chunks) * 512;
            copy_async(to, at);
            if (second) {
                if (left > 1) copy_async(to + 512, at + second);
                if (chunks > 1) {
                    copy_async(to + 1024, at + 512);
                    if (left > 1) copy_async(to + 1536, at + 512 + second);
                }
                chunks -= 2;
            } else {
                if (chunks > 1) copy_async(to + 512, at + 512);
                if (chunks > 2) copy_async(to + 1024, at + 1024);
                if (chunks > 3) copy_async(to + 1536, at + 1536);
                chunks -= 4;
            }
            if (chunks <= 0) {
                chunks = run;
                left -= 2;
                base += advance;
                if (left <= 0) open_entry(p, place);
            }
        }
        copy_async_commit();
        slot = slot + 1 == MK_RING ? 0 : slot + 1;
    }
};

// Reads COUNT units until the first `live` of them have the tag: unit i is at (i / RUN) · stride + i % RUN.
template <int COUNT, int RUN>
DEVICE void await_units(const uint4 *at, int stride, int live, unsigned tag, uint4 (&units)[COUNT]) {
    unsigned tries = 0;
    bool ready;
    do {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            if (i < live) units[i] = load_tagged(at + (i / RUN) * stride + i % RUN);
        ready = true;
#pragma unroll
        for (int i = 0; i < COUNT; i++) ready = ready && (i >= live || units[i].w == tag);
        if (++tries == MK_MOST_TRIES) give_up();
    } while (!ready);
}

DEVICE uint4 pair_unit(float2 v, unsigned tag) {
    return make_uint4(__float_as_uint(v.x), __float_as_uint(v.y), 0, tag);
}

DEVICE float2 pair_of(uint4 unit) { return make_float2(__uint_as_float(unit.x), __uint_as_float(unit.y)); }

// Writes a record. Lanes that are multiples of `step` (1 or 2) hold its words j = lane / step % 4: high and low halves
// of two values. All lanes call.
DEVICE void publish(uint4 *record, bool live, int step, unsigned high, unsigned low, float squares, unsigned tag) {
    const int lane = threadIdx.x & 31, j = (lane / step) & 3;
    const unsigned next_high = __shfl_xor_sync(0xffffffffu, high, step);
    const unsigned other_low = __shfl_xor_sync(0xffffffffu, low, 2 * step);
    if (!live || (lane & (step - 1)) != 0) return;
    if ((j & 1) == 0) store_tagged(record + j / 2, make_uint4(high, low, next_high, tag));
    if (j == 1) store_tagged(record + 2, make_uint4(low, other_low, __float_as_uint(squares), tag));
}

// The same of two floats, for a layer behind an RMSNorm: Σ x² is of the values before the gain.
DEVICE void publish_pair(uint4 *record, bool live, float2 v, float2 gain, unsigned tag) {
    half_bits h0, l0, h1, l1;
    split_half<MK_BF16>(v.x * gain.x, h0, l0);
    split_half<MK_BF16>(v.y * gain.y, h1, l1);
    publish(record, live, 1, pair(h0, h1), pair(l0, l1), sum_of_four(fmaf(v.y, v.y, v.x * v.x)), tag);
}

// A session's place in the caches.
struct session_place {
    int slot, position;
};

// A block's place among its team, and the rows of a pass.
struct team_rows {
    int team, place, first, sessions;
    // Rows of this pass, and of each session.
    int rows, each;
    // Of the operation under way.
    unsigned tag;

    // Lanes that have written wait for those that have not: they may wait for what those write.
    DEVICE_MEMBER void begin_operation() {
        __syncwarp();
        tag++;
    }

    // Shared memory: rotations of each session of the talker, of each position of the code predictor.
    DEVICE_MEMBER float2 *turns(const mk_step_arguments &p) { return (float2 *)(dynamic_shared() + p.turns_at); }
    DEVICE_MEMBER session_place *places(const mk_step_arguments &p) {
        return (session_place *)(dynamic_shared() + p.places_at);
    }
    // Sums of a round [2][MK_WARPS][MK_GATHER][rows][4] float2, or attention.
    DEVICE_MEMBER char *area(const mk_step_arguments &p) { return dynamic_shared() + p.area_at; }
    // Work memory of the team.
    DEVICE_MEMBER uint4 *units(const mk_step_arguments &p, int offset) {
        return (uint4 *)((char *)p.work + team * p.work_stride + offset);
    }
};

DEVICE void publish_attended(
    uint4 *attended, bool live, int row, int n, int width, float2 sum, float total, unsigned tag) {
    half_bits h0, l0, h1, l1;
    split_half<MK_BF16>(sum.x / total, h0, l0);
    split_half<MK_BF16>(sum.y / total, h1, l1);
    publish(
        attended + ((long long)row * (width / MK_TILE) + n / MK_TILE) * 3, live, 1, pair(h0, h1), pair(l0, l1), 0,
        tag);
}

// Sums over pages. Blocks take (session, key head), after all that they owe others.
DEVICE_CALL void add_pages(
    const mk_step_arguments &p, team_rows t, const uint4 *partials, uint4 *attended, int kv, int group, int dim,
    bool live, int h, int d) {
    float2 *totals = (float2 *)t.area(p);  // [group][pages]
    const int heads = p.stack.heads, stride = dim / 2 + 1;
#pragma unroll 1
    for (int item = t.place; item < t.sessions * kv; item += p.blocks) {
        const int s = item / kv, head = item - s * kv, pages = t.places(p)[s].position / MK_PAGE + 1;
        if (pages == 1) continue;
        const uint4 *from = partials + (long long)(s * heads + head * group) * p.pages * stride;
        for (int at = threadIdx.x; at < group * pages; at += MK_THREADS) {
            uint4 unit[1];
            await_units<1, 1>(
                from + ((long long)(at / pages) * p.pages + at % pages) * stride, 0, 1, t.tag, unit);
            totals[at] = pair_of(unit[0]);
        }
        __syncthreads();
        float maximum = -INFINITY, total = 0;
        float2 sum = make_float2(0, 0);
        if (live) {
            for (int b = 0; b < pages; b++) maximum = fmaxf(maximum, totals[h * pages + b].x);
            from += (long long)h * p.pages * stride + 1 + d / 2;
#pragma unroll 1
            for (int b = 0; b < pages; b += 4) {
                uint4 values[4];
                await_units<4, 1>(from + (long long)b * stride, stride, min(4, pages - b), t.tag, values);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if (b + i >= pages) continue;
                    const float2 page = totals[h * pages + b + i], v = pair_of(values[i]);
                    const float factor = expf(page.x - maximum);
                    total = fmaf(page.y, factor, total);
                    sum.x = fmaf(v.x, factor, sum.x);
                    sum.y = fmaf(v.y, factor, sum.y);
                }
            }
        }
        __syncwarp();
        publish_attended(
            attended, live, s, (head * group + h) * dim + d, heads * dim, sum, live ? total : 1.0f, t.tag);
        __syncthreads();
    }
}

// Attention of the team's rows → records. Blocks take (session, key head, page); positions before `position` (of
// the code predictor) or the session's are in the cache.
DEVICE_CALL void attend(const mk_step_arguments &p, team_rows t, int layer, int predictor_position) {
    mk_cache cache = p.stack.cache;
    cache.layer = layer;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int dim = cache.dim, kv = cache.kv_heads, heads = p.stack.heads, group = heads / kv, half = dim / 2;
    const float *gains = (const float *)p.stack.head_gains + cache.layer * 2 * dim;
    const uint4 *qkv = t.units(p, p.qkv_at);
    uint4 *attended = t.units(p, p.attended_at);
    const int blocks = p.blocks;
    uint4 *partials = (uint4 *)((char *)p.partials + t.team * p.partials_stride);
    float *queries = (float *)t.area(p), *fresh_keys = queries + t.each * group * dim;
    float *fresh_values = fresh_keys + t.each * dim, *page_work = fresh_values + t.each * dim;
    // A pair of this thread.
    const int h = (int)threadIdx.x / half, d = ((int)threadIdx.x - h * half) * 2;
    const bool live = (int)threadIdx.x < group * half;
    int base = 0;
    bool has_pages = false;
#pragma unroll 1
    for (int s = 0; s < t.sessions; s++) {
        const int position = p.is_predictor ? predictor_position : t.places(p)[s].position;
        const int pages = (position + t.each - 1) / MK_PAGE + 1;
        has_pages = has_pages || pages > 1;
        int item = t.place - base % blocks;
        if (item < 0) item += blocks;
        base += kv * pages;
#pragma unroll 1
        for (; item < kv * pages; item += blocks) {
            const int head = item % kv, page = item / kv;
            float *keys = page_keys(cache, cache_page(cache, t.places(p)[s].slot, page), head);
            float *values = keys + value_offset(cache);
            const int fresh_from = max(0, position - page * MK_PAGE);
            stopwatch watch;
            watch.stop(p, 0);
            page_values part;
            load_page(part, keys, values, 0, MK_PAGE - 1, fresh_from, dim);
            __syncthreads();
#pragma unroll 1
            for (int job = warp; job < t.each * (group + 2); job += MK_WARPS) {
                const int turn = job / (group + 2), which = job - turn * (group + 2), at = position + turn;
                const bool is_query = which < group;
                if (!is_query && at / MK_PAGE != page) continue;
                const int column =
                    is_query ? head * group + which : heads + head + (which == group ? 0 : kv);
                uint4 pairs[2];
                await_units<2, 1>(
                    qkv + ((s * t.each + turn) * p.ld_qkv + column * dim) / 2 + lane, half / 2,
                    2 * lane < half ? 2 : 0, t.tag - 1, pairs);
                __syncwarp();
                const int m = 2 * lane;
                const float2 zero = make_float2(0, 0);
                head_values x = {zero, zero};
                if (m < half) x = {pair_of(pairs[0]), pair_of(pairs[1])};
                if (which <= group) {
                    norm_rope(
                        x, is_query ? queries + (turn * group + which) * dim : fresh_keys + turn * dim,
                        is_query ? 0 : keys + (at % MK_PAGE) * dim, dim, gains + (is_query ? 0 : dim),
                        p.stack.epsilon, t.turns(p) + (p.is_predictor ? at : s) * half);
                } else if (m < half) {
                    float *fresh = fresh_values + turn * dim + m, *kept = values + (at % MK_PAGE) * dim + m;
                    *(float2 *)kept = *(float2 *)fresh = x.low;
                    *(float2 *)(kept + half) = *(float2 *)(fresh + half) = x.high;
                }
            }
            __syncthreads();
            watch.stop(p, 1);
            take_fresh(part, fresh_keys, fresh_values, fresh_from, position + t.each - 1 - page * MK_PAGE, dim);
#pragma unroll 1
            for (int turn = 0; turn < t.each; turn++) {
                const int row = s * t.each + turn, last = min(MK_PAGE - 1, position + turn - page * MK_PAGE);
                attend_page(part, queries + turn * group * dim, page_work, group, dim, 0, last);
                watch.stop(p, 2);
                const float2 sum = live ? page_sums(page_work, group, dim, h, d) : make_float2(0, 0);
                const int n = (head * group + h) * dim + d;
                if (pages == 1) {
                    const float total = live ? page_totals(page_work, group, dim, h).y : 1.0f;
                    publish_attended(attended, live, row, n, heads * dim, sum, total, t.tag);
                } else if (live) {
                    uint4 *to =
                        partials + ((long long)(row * heads + head * group + h) * p.pages + page) * (half + 1);
                    store_tagged(to + 1 + d / 2, pair_unit(sum, t.tag));
                    if (d == 0) store_tagged(to, pair_unit(page_totals(page_work, group, dim, h), t.tag));
                }
                __syncthreads();
            }
            watch.write(p, MK_ATTEND, t.tag);
        }
    }
    if (has_pages) add_pages(p, t, partials, attended, kv, group, dim, live, h, d);
}

struct step_block : team_rows {
    weight_stream stream;
    int round, phase;

    // Shared memory: this lane's part of its warp's ring, and what follows all rings.
    DEVICE_MEMBER char *ring() {
        return dynamic_shared() + (threadIdx.x >> 5) * (MK_RING * MK_RING_ROW) + (threadIdx.x & 31) * 16;
    }
    // Σ x² [2][rows][MK_WARPS] of each run.
    DEVICE_MEMBER float *run_sums(const mk_step_arguments &p) {
        return (float *)(dynamic_shared() + p.run_sums_at) + phase * p.rows * MK_WARPS;
    }
    // [own tiles][rows][4]: the residual stream belongs to who computes it.
    DEVICE_MEMBER float2 *residual(const mk_step_arguments &p) { return (float2 *)(dynamic_shared() + p.residual_at); }

    DEVICE_MEMBER void open(const mk_step_arguments &p) {
        const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, half = p.stack.cache.dim / 2;
        team = blockIdx.x / p.blocks;
        place = blockIdx.x - team * p.blocks;
        first = team * p.batch / p.teams;
        sessions = (team + 1) * p.batch / p.teams - first;
        stream.next = p.schedule_first;
        stream.coming = ((const uint4 *)p.schedule)[stream.next];
        stream.slot = 0;
        stream.open_entry(p, place);
#pragma unroll 1
        for (int i = 0; i < MK_RING; i++) stream.issue(p, place, ring());
        round = phase = 0;
        rows = sessions;
        each = 1;
        tag = p.tag;
        const mk_session *all = (const mk_session *)p.sessions + first;
        for (int s = threadIdx.x; s < sessions; s += MK_THREADS) {
            places(p)[s].slot = p.is_predictor ? first + s : all[s].slot;
            places(p)[s].position = all[s].position;
        }
#pragma unroll 1
        for (int s = warp; s < (p.is_predictor ? p.groups : sessions); s += MK_WARPS) {
            const int position = p.is_predictor ? s : all[s].position;
#pragma unroll 1
            for (int m = lane; m < half; m += 32)
                turns(p)[s * half + m] = rotation(position, ((const float *)p.stack.frequencies)[m]);
        }
        __syncthreads();
    }

    // Waits for a few units of this warp's run, so that whoever waits long does not keep the L2 cache busy with reads in
    // vain: load_piece then finds all or nearly all.
    DEVICE_MEMBER void await_run(const uint4 *records, int chunk) {
        if ((threadIdx.x & 31) < MK_AWAIT_LANES) {
            uint4 unit[1];
            await_units<1, 1>(records + (chunk * 4 + (threadIdx.x & 31)) * 3, 0, 1, tag - 1, unit);
        }
        __syncwarp();
    }

    // Chunks chunk…chunk + n - 1 of this lane's row, as the products take them; Σ x² is added to `squares`.
    DEVICE_MEMBER void load_piece(
        const uint4 *records, bool live, int chunk, int n, uint4 (&first)[MK_PIECE], uint4 (&second)[MK_PIECE],
        float &squares) {
        const uint4 *at = records + (chunk * 4 + (threadIdx.x & 3)) * 3;
        const int count = live ? n : 0;
        uint4 rest[MK_PIECE] = {};
        unsigned tries = 0;
        bool ready;
        do {
#pragma unroll
            for (int c = 0; c < MK_PIECE; c++) {
                if (c < count) {
                    first[c] = load_tagged(at + c * 12);
                    second[c] = load_tagged(at + c * 12 + 1);
                    rest[c] = load_tagged(at + c * 12 + 2);
                }
            }
            ready = true;
#pragma unroll
            for (int c = 0; c < MK_PIECE; c++)
                ready = ready
                    && (c >= count || (first[c].w == tag - 1 && second[c].w == tag - 1 && rest[c].w == tag - 1));
            if (++tries == MK_MOST_TRIES) give_up();
        } while (!ready);
        __syncwarp();
#pragma unroll
        for (int c = 0; c < MK_PIECE; c++) {
            first[c].w = rest[c].x;
            second[c].w = rest[c].y;
            if (c < n) squares += sum_of_four(__uint_as_float(rest[c].z));
        }
    }

    // The next row of the ring, as this lane copied it.
    DEVICE_MEMBER const uint4 *take_row() {
        copy_async_wait<MK_RING - 1>();
        return (const uint4 *)(ring() + stream.slot * MK_RING_ROW);
    }

    // Fills the row that was taken.
    DEVICE_MEMBER void give_row(const mk_step_arguments &p) { stream.issue(p, place, ring()); }

    // sums += a chunk of the rows · a chunk of a tile.
    DEVICE_MEMBER void multiply_chunk(float (&sums)[1][1][4], const uint4 &first, const uint4 &second, const uint4 &b) {
        const uint4 high[1][1] = {{make_uint4(first.x, first.z, second.x, second.z)}};
        const uint4 low[1][1] = {{make_uint4(first.y, first.w, second.y, second.w)}};
        const uint4 weights[1][1] = {{b}};
        multiply_chunks<MK_BF16, 1, 1, 1>(sums, high, low, weights);
    }

    DEVICE_MEMBER float2 sum_of_halves(const float (&sums)[1][1][4]) {
        return make_float2(sums[0][0][0] + sums[0][0][2], sums[0][0][1] + sums[0][0][3]);
    }

    // One operation: all sums of this block's tiles of a layer, and what becomes of them.
    DEVICE_MEMBER void product(const mk_step_arguments &p, int kind, int layer, bool keeps_hidden) {
        const mk_stack &s = p.stack;
        const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2;
        const int ld = s.chunks * MK_CHUNK, stack_tiles = s.chunks * (MK_CHUNK / MK_TILE);
        const bool is_head = kind == MK_HEAD, is_residual = kind == MK_OUTPUT || kind == MK_DOWN || kind == MK_PROJECT;
        const int unit = kind == MK_GATE_UP ? 2 : 1;
        // The layer: units of tiles, chunks; its input.
        int layer_units = stack_tiles, chunks = s.chunks, input_at = p.x_at;
        if (kind == MK_QKV) layer_units = ceiling((s.heads + 2 * s.cache.kv_heads) * s.cache.dim, MK_TILE);
        if (kind == MK_GATE_UP) layer_units = s.intermediate_chunks * (MK_CHUNK / MK_TILE);
        if (is_head) layer_units = ceiling(p.head_outputs, MK_CHUNK) * (MK_CHUNK / MK_TILE);
        if (kind == MK_OUTPUT) {
            chunks = s.heads * s.cache.dim / MK_CHUNK;
            input_at = p.attended_at;
        }
        if (kind == MK_DOWN) {
            chunks = s.intermediate_chunks;
            input_at = p.inner_at;
        }
        if (kind == MK_PROJECT) {
            chunks = p.talker_chunks;
            input_at = p.input_at;
        }
        const int blocks = p.blocks, own = own_tiles(layer_units, unit, place, blocks, p.blocks_inverse);
        if (own == 0) return;
        stopwatch watch;
        watch.stop(p, 0);

        // A head takes the last row of each session.
        const int row_count = is_head ? sessions : rows;
        const int row = is_head ? g * each + each - 1 : g;
        const uint4 *records = units(p, input_at) + row * chunks * (MK_CHUNK / MK_TILE * 3);
        phase ^= 1;
        float *sums_of_runs = run_sums(p);
        int begin, end;
        run_of(chunks, begin, end);
        // Lanes of rows that are not there leave theirs as they are: they reach no sum of others.
        uint4 first_half[MK_PIECE] = {}, second_half[MK_PIECE] = {};
        float squares = 0;
        const bool is_long = end - begin > MK_PIECE;

        // This thread's sum of a round: tile i, row r, outputs 2j and 2j + 1.
        const int item = threadIdx.x >> (1 + unit), r = item % row_count, j = threadIdx.x & 3;
        const int i = unit == 1 ? item / row_count : item / row_count * 2 + ((threadIdx.x >> 2) & 1);
        // Gain of the norm that follows.
        const float *gains = (const float *)s.gains
            + (kind == MK_OUTPUT ? layer * 2 + 1 : kind == MK_DOWN ? (layer + 1) * 2 : 0) * ld;

#pragma unroll 1
        for (int gather = 0; gather < own; gather += MK_GATHER) {
            const int gathered = min((int)MK_GATHER, own - gather);
            float2 *partial = (float2 *)area(p) + round * (MK_WARPS * MK_GATHER * 4) * p.rows;
            round ^= 1;
            const bool live = i < gathered;
            const int n = own_tile(gather + i, unit, place, blocks) * MK_TILE + 2 * j;
            float2 gain = make_float2(0, 0), old = gain;
            float2 *kept = residual(p) + ((gather + i) * row_count + r) * 4 + j;
            if (live && is_residual) {
                gain = *(const float2 *)(gains + n);
                if (kind == MK_PROJECT) {
                    old = *(const float2 *)((const float *)p.projection_bias + n);
                } else if (kind == MK_OUTPUT && layer == 0 && !p.has_projection) {
                    // The input, three operations ago.
                    uint4 entry[1];
                    await_units<1, 1>(
                        units(p, p.entry_at) + (r * ld + n) / 2, 0, 1, tag - 3, entry);
                    old = pair_of(entry[0]);
                } else {
                    old = *kept;
                }
            }
            __syncwarp();
            if (gather == 0 && begin < end)
                await_run(units(p, input_at) + (is_head ? each - 1 : 0) * chunks * (MK_CHUNK / MK_TILE * 3), begin);
            if (gather == 0) watch.stop(p, 1);
#pragma unroll 1
            for (int k = 0; k < gathered; k += 2) {
                float sums[2][1][1][4] = {};
#pragma unroll 1
                for (int chunk = begin; chunk < end; chunk += MK_PIECE) {
                    const int c = end - chunk;
                    if (is_long || gather + k == 0) {
                        float sum = squares;
                        load_piece(records, g < row_count, chunk, min(MK_PIECE, c), first_half, second_half, sum);
                        if (gather + k == 0) squares = sum;
                    }
                    const uint4 *b = take_row();
                    multiply_chunk(sums[0], first_half[0], second_half[0], b[0]);
                    if (own > 1) {
                        multiply_chunk(sums[1], first_half[0], second_half[0], b[32]);
                        if (c > 1) {
                            multiply_chunk(sums[0], first_half[1], second_half[1], b[64]);
                            multiply_chunk(sums[1], first_half[1], second_half[1], b[96]);
                        }
                        if (c > 2) {
                            give_row(p);
                            b = take_row();
                            multiply_chunk(sums[0], first_half[2], second_half[2], b[0]);
                            multiply_chunk(sums[1], first_half[2], second_half[2], b[32]);
                            if (c > 3) {
                                multiply_chunk(sums[0], first_half[3], second_half[3], b[64]);
                                multiply_chunk(sums[1], first_half[3], second_half[3], b[96]);
                            }
                        }
                    } else {
                        if (c > 1) multiply_chunk(sums[0], first_half[1], second_half[1], b[32]);
                        if (c > 2) multiply_chunk(sums[0], first_half[2], second_half[2], b[64]);
                        if (c > 3) multiply_chunk(sums[0], first_half[3], second_half[3], b[96]);
                    }
                    give_row(p);
                }
                if (g < row_count) {
                    float2 *to = partial + (warp * MK_GATHER + k) * row_count * 4 + lane;
                    to[0] = sum_of_halves(sums[0]);
                    if (k + 1 < gathered)
                        to[row_count * 4] = sum_of_halves(sums[1]);
                }
            }
            if (gather == 0 && (lane & 3) == 0 && g < row_count) sums_of_runs[g * MK_WARPS + warp] = squares;
            __syncthreads();
            watch.stop(p, 2);
            // Whole warps, for the exchanges in `publish`.
            if ((int)(threadIdx.x & ~31u) >= gathered * row_count * 4) continue;
            float2 v = make_float2(0, 0);
            if (live) {
#pragma unroll
                for (int w = 0; w < MK_WARPS; w++) {
                    const float2 part = partial[(w * MK_GATHER + i) * row_count * 4 + r * 4 + j];
                    v.x += part.x;
                    v.y += part.y;
                }
            }
            if (is_residual) {
                v.x += old.x;
                v.y += old.y;
                if (live) *kept = v;
                publish_pair(units(p, p.x_at) + (r * stack_tiles + n / MK_TILE) * 3, live, v, gain, tag);
                continue;
            }
            const float scale = live ? inverse_rms(sums_of_runs + r * MK_WARPS, s.width, s.epsilon) : 0.0f;
            v.x *= scale;
            v.y *= scale;
            if (kind == MK_GATE_UP) {
                half_bits own_high, own_low;
                split_half<MK_BF16>(silu(v.x) * v.y, own_high, own_low);
                const unsigned both = pair(own_high, own_low), other = __shfl_xor_sync(0xffffffffu, both, 1);
                publish(
                    units(p, p.inner_at)
                        + (r * s.intermediate_chunks * (MK_CHUNK / MK_TILE) + n / (2 * MK_TILE)) * 3,
                    live, 2, (both & 0xffff) | other << 16, both >> 16 | (other & 0xffff0000u), 0, tag);
            } else if (!live) {
                continue;
            } else if (kind == MK_QKV) {
                store_tagged(units(p, p.qkv_at) + (r * p.ld_qkv + n) / 2, pair_unit(v, tag));
            } else if (p.is_predictor) {
                store_tagged(units(p, p.logits_at) + (r * p.ld_pass_logits + n) / 2, pair_unit(v, tag));
            } else {
                *(float2 *)((float *)p.logits + (long long)places(p)[r].slot * p.ld_logits + n) = v;
            }
        }
        watch.write(p, kind, tag);
        if (!keeps_hidden) return;
        __syncthreads();
        gains = (const float *)s.gains + layer * 2 * ld;
        const int values = own_tiles(stack_tiles, 1, place, blocks, p.blocks_inverse) * rows * 4;
        for (int at = threadIdx.x; at < values; at += MK_THREADS) {
            const int to = (at >> 2) % rows, n = (place + (at >> 2) / rows * blocks) * MK_TILE + (at & 3) * 2;
            const float scale = inverse_rms(sums_of_runs + to * MK_WARPS, s.width, s.epsilon);
            const float2 v = residual(p)[at], gain = *(const float2 *)(gains + n);
            *(float2 *)((float *)p.hidden + (long long)places(p)[to].slot * p.ld_hidden + n) =
                make_float2(v.x * gain.x * scale, v.y * gain.y * scale);
        }
    }

    // A row of the input: floats for the residual stream, and a record for each tile. `value` gives two of `ld` values.
    template <class Value>
    DEVICE_MEMBER void publish_row(const mk_step_arguments &p, int row, bool is_projected, Value value) {
        const int ld = (is_projected ? p.talker_chunks : p.stack.chunks) * MK_CHUNK;
        uint4 *records = units(p, is_projected ? p.input_at : p.x_at) + row * (ld / MK_TILE) * 3;
        uint4 *entry = units(p, p.entry_at) + row * (ld / 2);
        const float *gains = (const float *)p.stack.gains;
#pragma unroll 1
        for (int begin = threadIdx.x & ~31u; begin < ld / 2; begin += MK_THREADS) {
            const int at = begin + (threadIdx.x & 31);
            const bool live = at < ld / 2;
            const float2 zero = make_float2(0, 0);
            const float2 v = live ? value(2 * at) : zero;
            const float2 gain =
                is_projected ? make_float2(1, 1) : live ? *(const float2 *)(gains + 2 * at) : zero;
            publish_pair(records + at / 4 * 3, live, v, gain, tag);
            if (live && !is_projected) store_tagged(entry + at, pair_unit(v, tag));
        }
    }

    // All layers of the stack over the team's rows, and, if wanted, the head.
    DEVICE_MEMBER void run_stack(const mk_step_arguments &p, int position, bool has_head) {
        const int dim = p.stack.cache.dim, layers = p.stack.layer_count;
#pragma unroll 1
        for (int index = p.has_projection ? -1 : 0; index < 4 * layers + (has_head ? 1 : 0); index++) {
            const int layer = index >> 2;
            const int kind = index < 0 ? MK_PROJECT : index == 4 * layers ? MK_HEAD : index & 3;
            if (kind == MK_QKV && threadIdx.x < (unsigned)dim / 16)
                prefetch_l2((const float *)p.stack.head_gains + layer * 2 * dim + threadIdx.x * 32);
            begin_operation();
            product(p, kind, layer, kind == MK_HEAD && !p.is_predictor);
            if (kind == MK_QKV) {
                begin_operation();
                attend(p, *this, layer, position);
            }
        }
    }
};

DEVICE float2 float_pair(unsigned halves) {
    return make_float2(float_from_bf16((half_bits)(halves & 0xffff)), float_from_bf16((half_bits)(halves >> 16)));
}

// One position of each session: Σ embeddings of its last codes + its text row → hidden state and logits of its slot.
KERNEL talker_step(KERNEL_ARGUMENT mk_step_arguments p) {
    step_block block;
    block.open(p);
    block.begin_operation();
#pragma unroll 1
    for (int s = block.place; s < block.sessions; s += p.blocks) {
        const mk_session &session = ((const mk_session *)p.sessions)[block.first + s];
        const int *codes = (const int *)p.codes + session.slot * p.groups;
        const float *text = (const float *)session.text_row, *given = (const float *)p.x;
        block.publish_row(p, s, false, [&](int k) {
            if (given) return *(const float2 *)(given + (long long)(block.first + s) * p.ld_table + k);
            float2 sum = make_float2(0, 0);
            for (int g = 0; g < p.groups; g++) {
                const half_bits *table = g == 0
                    ? (const half_bits *)p.codec_table + (long long)codes[0] * p.ld_table
                    : (const half_bits *)p.group_tables
                        + ((long long)(g - 1) * p.vocabulary + codes[g]) * p.ld_table;
                const float2 v = float_pair(*(const unsigned *)(table + k));
                sum.x += v.x;
                sum.y += v.y;
            }
            if (text) {
                sum.x += text[k];
                sum.y += text[k + 1];
            }
            return sum;
        });
    }
    block.run_stack(p, 0, true);
}

// One frame of each session: code 0 from the talker's logits, then the other codes, a pass for each. A session's codes
// are chosen by one block, which makes the next pass's input of them. The first pass has two rows a session, the
// talker's hidden state and code 0; where the team has no room for both, they are two passes.
KERNEL predictor_frame(KERNEL_ARGUMENT mk_step_arguments p) {
    step_block block;
    block.open(p);
    mk_sample_arguments rule = {};
    rule.groups = p.groups;
    rule.forced = p.forced;
    rule.speakable = p.speakable;
    rule.eos = p.eos;
    rule.seen = p.seen;
#pragma unroll 1
    for (int pass = p.together ? 0 : -1; pass < p.groups; pass++) {
        const bool is_first = pass < 0 || (pass == 0 && p.together);
        const int group = max(0, pass);
        block.begin_operation();
#pragma unroll 1
        for (int s = block.place; s < block.sessions; s += p.blocks) {
            const mk_session session = ((const mk_session *)p.sessions)[block.first + s];
            int *codes = (int *)p.codes + session.slot * p.groups;
            stopwatch watch;
            watch.stop(p, 0);
            int code;
            if (is_first || pass > 0) {
                const float *chosen_from = (const float *)p.logits + (long long)session.slot * p.ld_logits;
                if (pass > 0) {
                    // The sampler wants plain floats.
                    float *plain = (float *)p.all_logits
                        + ((long long)(pass - 1) * p.all_batch + block.first + s) * p.ld_pass_logits;
                    const uint4 *from = block.units(p, p.logits_at) + s * p.ld_pass_logits / 2;
                    const int pairs = p.ld_pass_logits / 2;
#pragma unroll 1
                    for (int at = threadIdx.x; at < pairs; at += 2 * MK_THREADS) {
                        uint4 pair[2];
                        const int live = at + MK_THREADS < pairs ? 2 : 1;
                        await_units<2, 1>(from + at, MK_THREADS, live, block.tag - 1, pair);
                        *(float2 *)(plain + 2 * at) = pair_of(pair[0]);
                        if (live > 1) *(float2 *)(plain + 2 * (at + MK_THREADS)) = pair_of(pair[1]);
                    }
                    chosen_from = plain;
                }
                __syncthreads();
                watch.stop(p, 1);
                rule.codebook = group;
                rule.vocabulary = pass > 0 ? p.vocabulary : p.talker_vocabulary;
                unsigned *words = (unsigned *)(dynamic_shared() + p.words_at);
                code = choose(rule, session, block.first + s, chosen_from, words);
                watch.stop(p, 2);
                if (threadIdx.x == 0) {
                    codes[group] = code;
                    if (pass <= 0 && p.seen)
                        ((unsigned char *)p.seen)[(long long)session.slot * p.talker_vocabulary + code] = 1;
                }
                if (pass + 1 == p.groups) continue;
            } else {
                // Chosen in the pass before, whose last layer nobody else waits for.
                code = load_shared_data(codes);
                const int tiles = p.stack.chunks * (MK_CHUNK / MK_TILE);
                for (int at = threadIdx.x; at < tiles * 3; at += MK_THREADS) {
                    uint4 unit[1];
                    await_units<1, 1>(
                        block.units(p, p.x_at) + s * tiles * 3 + at, 0, 1, block.tag - 1, unit);
                }
                __syncthreads();
            }
            const float *hidden = (const float *)p.hidden + (long long)session.slot * p.ld_hidden;
            const half_bits *embedding = group == 0
                ? (const half_bits *)p.codec_table + (long long)code * p.ld_table
                : (const half_bits *)p.group_tables + ((long long)(group - 1) * p.vocabulary + code) * p.ld_table;
            const int each = pass == 0 && p.together ? 2 : 1;
#pragma unroll 1
            for (int turn = 0; turn < each; turn++) {
                const bool is_hidden = is_first && turn == 0;
                block.publish_row(p, s * each + turn, p.has_projection, [&](int k) {
                    return is_hidden ? *(const float2 *)(hidden + k) : float_pair(*(const unsigned *)(embedding + k));
                });
            }
            if (pass != 0 || p.together) watch.write(p, MK_INPUT, block.tag);
        }
        if (pass + 1 == p.groups) break;
        block.each = pass == 0 && p.together ? 2 : 1;
        block.rows = block.sessions * block.each;
        block.run_stack(p, is_first ? 0 : pass + 1, pass >= 0);
    }
}
