// Talker steps and code predictor frames of a few sessions in one cooperative launch: all layers, and all passes with
// sampling.
//
// Weights do not depend on activations. So every warp streams its share of all layers, in the order of use, through a
// ring of its own in shared memory, with asynchronous copies that run ahead across layers: memory does not wait for
// arithmetic. With bulk copies one lane asks for a row of the ring, and a barrier for each row counts its bytes. Without
// them, a lane reads back the 16 bytes that it copied itself, and no barrier guards the ring.
//
// Blocks form teams; a team takes up to MK_TEAM_ROWS rows through all layers, which cost its products no more than one.
// Blocks of a team hand over values without a barrier: a unit of 16 bytes is three words and a tag, written and read as
// one. Tags grow with every operation of every launch, so whoever reads a unit with the tag of the operation before
// has its values, and whoever does not reads again. Why nobody overwrites what another still needs: an operation that
// writes some memory again has, through the operations between, waited for all that read it.
//
// Sums are cut and added as in linear.cu: warp w takes run w of the chunks of every tile. A record of three units holds
// eight neighbouring values, split into halves once by the one who made them, and their Σ x²; the 1 / rms of an RMSNorm
// is applied to the finished sum. Units of records lie [chunk][row][3][4], so that what a warp needs is one span of memory
// and what its lanes take together is 64 bytes of it.
//
// An operation is a chain of small latencies, so nothing is done in it that can be done beside it: who has added its
// products fills the ring again behind the block's barrier, while others finish the sums and hand them over.
//
// Registers are short: 128 a thread. What is the same for a whole block lies in shared memory or among the arguments.

// A row of the ring of each warp, and rows that a ring may have.
#define MK_RING_ROW 2048
#define MK_MOST_ROWS 5

// Whether rows come by bulk copies, which do not keep polls waiting as others do.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define MK_BULK 0
#else
#define MK_BULK 1
#endif

// Tiles whose sums a warp holds in registers.
#define MK_GROUP 4

// Units that a lane reads together.
#define MK_BATCH 6

// Some seconds of reading in vain: a block is missing.
#define MK_MOST_TRIES (1u << 24)

// Times of an operation, by the block's first thread, straight to memory: measuring keeps no register. Who does not
// measure passes a loop of no turns: of a branch the compiler would make twelve predicated instructions.
DEVICE void stop_watch(const mk_step_arguments &p, unsigned tag, int part) {
#pragma unroll 1
    for (int i = 0; i < p.traced; i++)
        if (threadIdx.x == 0)
            ((mk_trace *)p.trace)[(tag - p.tag - 1) * gridDim.x + blockIdx.x].clocks[part] = cycles();
}

DEVICE void end_watch(const mk_step_arguments &p, unsigned tag, int kind) {
#pragma unroll 1
    for (int i = 0; i < p.traced; i++) {
        if (threadIdx.x != 0) continue;
        mk_trace &entry = ((mk_trace *)p.trace)[(tag - p.tag - 1) * gridDim.x + blockIdx.x];
        entry.kind = kind + 1;
        entry.clocks[3] = cycles();
    }
}

// n / by, given ⌈2³² / by⌉, for n and by below 65536.
DEVICE int divided(int n, int by, unsigned inverse) { return by == 1 ? n : (int)__umulhi((unsigned)n, inverse); }

// The k-th tile of a block; `unit` neighbouring tiles belong to one block.
DEVICE int own_tile(int k, int unit, int place, int blocks) {
    return unit == 1 ? place + k * blocks : (place + (k >> 1) * blocks) * 2 + (k & 1);
}

DEVICE int own_tiles(int units, int unit, int place, int blocks, unsigned inverse) {
    return place < units ? divided(units - place + blocks - 1, blocks, inverse) * unit : 0;
}

DEVICE void run_of(int chunks, int warp, int &begin, int &end) {
    const int run = ceiling(chunks, MK_WARPS);
    begin = min(chunks, warp * run);
    end = min(chunks, begin + run);
}

// The producer's place in the schedule. Tiles are taken MK_GROUP at a time; all tiles of a group for two chunks, then
// for the next two. A row of the ring holds two tiles by two chunks, or four chunks of a block's only tile.
//
// It is the same for a warp, lies in shared memory, and is in registers only while rows are filled.
struct alignas(16) weight_stream {
    int next, slot;
    // Left of the open entry: tiles from this group's first on, tiles of this sweep, chunks from this sweep's on.
    int own, tiles, chunks;
    // Of the entry: bytes to a pair's second tile, 0 if there is but one tile, and to the next pair.
    unsigned second, advance;
    // Of the entry: chunks of a run.
    int run;
    // The first byte of this sweep and of the next row; a lane's bytes are 16 · lane behind.
    const char *sweep, *at;

    DEVICE_MEMBER void open_entry(const mk_step_arguments &p, int place) {
        own = 0;
        while (next < p.schedule_count) {
            const uint4 entry = ((const uint4 *)(dynamic_shared() + p.schedule_at))[next - p.schedule_first];
            next++;
            const int unit = (int)(entry.w & 0xffff), all = (int)(entry.w >> 16);
            own = own_tiles((int)entry.z, unit, place, p.blocks, p.blocks_inverse);
            int begin, end;
            run_of(all, (int)threadIdx.x >> 5, begin, end);
            if (begin >= end) own = 0;
            if (own == 0) continue;
            tiles = min((int)MK_GROUP, own);
            run = chunks = end - begin;
            second = own > 1 ? (unit == 1 ? p.blocks : 1) * all * 512 : 0;
            advance = 2 * p.blocks * all * 512;
            sweep = at = (const char *)((unsigned long long)entry.x | (unsigned long long)entry.y << 32)
                + ((long long)place * unit * all + begin) * 512;
            return;
        }
    }

    // Starts the copy of one row, or of none at the end: a group either way.
    DEVICE_MEMBER void issue(
        const mk_step_arguments &p, int place, char *ring, unsigned long long *barriers) {
        if (own > 0) {
#if MK_BULK
            if ((threadIdx.x & 31) == 0) {
                char *to = ring + slot * MK_RING_ROW;
                const unsigned bytes = min(chunks, second ? 2 : 4) * 512, copies = second && tiles > 1 ? 2 : 1;
                bulk_expect(barriers + slot, copies * bytes);
                bulk_copy(to, at, bytes, barriers + slot);
                if (copies == 2) bulk_copy(to + 1024, at + second, bytes, barriers + slot);
            }
#else
            char *to = ring + slot * MK_RING_ROW;
            const char *from = at + (threadIdx.x & 31) * 16;
            copy_async(to, from);
            if (second) {
                if (chunks > 1) copy_async(to + 512, from + 512);
                if (tiles > 1) copy_async(to + 1024, from + second);
                if (tiles > 1 && chunks > 1) copy_async(to + 1536, from + 512 + second);
            } else {
                if (chunks > 1) copy_async(to + 512, from + 512);
                if (chunks > 2) copy_async(to + 1024, from + 1024);
                if (chunks > 3) copy_async(to + 1536, from + 1536);
            }
#endif
            tiles -= 2;
            at += advance;
            if (tiles <= 0) next_sweep(p, place);
        }
        if (!MK_BULK) copy_async_commit();
        slot = slot + 1 == p.ring ? 0 : slot + 1;
    }

    DEVICE_MEMBER void next_sweep(const mk_step_arguments &p, int place) {
        const int step = second ? 2 : 4;
        chunks -= step;
        sweep += step * 512;
        if (chunks <= 0) {
            own -= MK_GROUP;
            if (own <= 0) {
                open_entry(p, place);
                return;
            }
            chunks = run;
            // Where this sweep ended, less what its group's sweeps went through.
            sweep = at - (run - 1) / 2 * 1024;
        }
        tiles = min((int)MK_GROUP, own);
        at = sweep;
    }
};

// Reads COUNT units until the first `live` of them have the tag: unit i is at (i / RUN) · stride + i % RUN.
template <int COUNT, int RUN>
DEVICE void await_units(const uint4 *at, int stride, int live, unsigned tag, uint4 (&units)[COUNT]) {
    unsigned tries = 0;
    bool ready;
    // Values that are set in some cases only would take registers everywhere.
#pragma unroll
    for (int i = 0; i < COUNT; i++) units[i] = make_uint4(0, 0, 0, 0);
    do {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            if (i < live) units[i] = load_tagged(at + (i / RUN) * stride + i % RUN);
        ready = true;
#pragma unroll
        for (int i = 0; i < COUNT; i++) ready = ready && (i >= live || units[i].w == tag);
        give_up_if(++tries == MK_MOST_TRIES);
    } while (!ready);
}

DEVICE uint4 pair_unit(float2 v, unsigned tag) {
    return make_uint4(__float_as_uint(v.x), __float_as_uint(v.y), 0, tag);
}

DEVICE float2 pair_of(uint4 unit) { return make_float2(__uint_as_float(unit.x), __uint_as_float(unit.y)); }

// Writes a record: units 0, 4 and 8 from there. Lanes that are multiples of `step` (1 or 2) hold its words j = lane / step % 4: high and low halves
// of two values. All lanes call.
DEVICE void publish(uint4 *record, bool live, int step, unsigned high, unsigned low, float squares, unsigned tag) {
    const int lane = threadIdx.x & 31, j = (lane / step) & 3;
    const unsigned next_high = __shfl_xor_sync(0xffffffffu, high, step);
    const unsigned other_low = __shfl_xor_sync(0xffffffffu, low, 2 * step);
    if (!live || (lane & (step - 1)) != 0) return;
    if ((j & 1) == 0) store_tagged(record + j * 2, make_uint4(high, low, next_high, tag));
    if (j == 1) store_tagged(record + 8, make_uint4(low, other_low, __float_as_uint(squares), tag));
}

// The same of two floats, for a layer behind an RMSNorm: Σ x² is of the values before the gain.
DEVICE void publish_pair(uint4 *record, bool live, float2 v, float2 gain, unsigned tag) {
    unsigned high, low;
    split_pair(make_float2(v.x * gain.x, v.y * gain.y), high, low);
    publish(record, live, 1, high, low, sum_of_four(fmaf(v.y, v.y, v.x * v.x)), tag);
}

// A session's place in the caches.
struct session_place {
    int slot, position;
};

// A block's place among its team, and the rows of a pass.
struct team_rows {
    int place;
    // Rows of this pass, and of each session.
    int rows, each;
    // Of the operation under way.
    unsigned tag;
    // threadIdx.x
    int thread;

    // Lanes that have written wait for those that have not: they may wait for what those write. The compiler must not
    // compute ahead for all operations what each of them needs: registers are too few.
    DEVICE_MEMBER void begin_operation() {
        __syncwarp();
        tag++;
        thread = opaque((int)threadIdx.x);
        place = opaque(place);
        rows = opaque(rows);
    }

    // Shared memory, behind `places`: the team, its first session of the batch, how many it has, and from the fourth on
    // its work memory's address and the block's tiles by kind of operation.
    DEVICE_MEMBER int *team_words(const mk_step_arguments &p) {
        return (int *)(dynamic_shared() + p.places_at) + 2 * p.rows;
    }
    DEVICE_MEMBER int team(const mk_step_arguments &p) { return team_words(p)[0]; }
    DEVICE_MEMBER int first(const mk_step_arguments &p) { return team_words(p)[1]; }
    DEVICE_MEMBER int sessions(const mk_step_arguments &p) { return team_words(p)[2]; }
    // Shared memory: rotations of each session of the talker, of each position of the code predictor.
    DEVICE_MEMBER float2 *turns(const mk_step_arguments &p) { return (float2 *)(dynamic_shared() + p.turns_at); }
    DEVICE_MEMBER session_place *places(const mk_step_arguments &p) {
        return (session_place *)(dynamic_shared() + p.places_at);
    }
    // Activations of each warp and sums of a round [2][MK_WARPS][finishers] float2, or attention, or logits.
    DEVICE_MEMBER char *area(const mk_step_arguments &p) { return dynamic_shared() + p.area_at; }
    // Work memory of the team.
    DEVICE_MEMBER char *&work(const mk_step_arguments &p) { return *(char **)(team_words(p) + 4); }
    DEVICE_MEMBER uint4 *units(const mk_step_arguments &p, int offset) { return (uint4 *)(work(p) + offset); }
    DEVICE_MEMBER int &own(const mk_step_arguments &p, int kind) { return team_words(p)[6 + kind]; }
    // A tile's place among the records of a layer's input.
    DEVICE_MEMBER int record_unit(int row, int tile) { return ((tile >> 2) * rows + row) * 12 + (tile & 3); }
};

DEVICE void publish_attended(
    const mk_step_arguments &p, team_rows t, bool live, int row, int n, float2 sum, float total) {
    unsigned high, low;
    split_pair(make_float2(quotient(sum.x, total), quotient(sum.y, total)), high, low);
    publish(t.units(p, p.attended_at) + t.record_unit(row, n / MK_TILE), live, 1, high, low, 0, t.tag);
}

// Sums over pages. Blocks take (session, key head), after all that they owe others.
DEVICE void add_pages(
    const mk_step_arguments &p, team_rows t, const uint4 *partials, int kv, int group, int dim) {
    t.thread = opaque((int)threadIdx.x);
    // A pair of this thread.
    const int h = divided(t.thread, dim / 2, p.half_inverse), d = (t.thread - h * (dim / 2)) * 2;
    const bool live = t.thread < group * (dim / 2);
    float2 *totals = (float2 *)t.area(p);  // [group][pages]
    const int heads = p.stack.heads, stride = dim / 2 + 1;
#pragma unroll 1
    for (int item = t.place; item < t.sessions(p) * kv; item += p.blocks) {
        const int s = item / kv, head = item - s * kv, pages = t.places(p)[s].position / MK_PAGE + 1;
        if (pages == 1) continue;
        const uint4 *from = partials + (long long)(s * heads + head * group) * p.pages * stride;
        for (int at = t.thread; at < group * pages; at += MK_THREADS) {
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
        publish_attended(p, t, live, s, (head * group + h) * dim + d, sum, live ? total : 1.0f);
        __syncthreads();
    }
}

// Attention of the team's rows → records. Blocks take (session, page, key head, part of its queries), the last ones first:
// they have fewer tiles of other operations. Positions before `position` (of the code predictor) or the session's are in
// the cache.
DEVICE void attend(const mk_step_arguments &p, team_rows t, int layer, int predictor_position) {
    mk_cache cache = p.stack.cache;
    cache.layer = layer;
    const int dim = cache.dim, kv = cache.kv_heads, heads = p.stack.heads, half = dim / 2;
    // Queries of an item, and items of a page.
    const int group = p.item_heads, head_items = p.head_items;
    const float *gains = (const float *)p.stack.head_gains + cache.layer * 2 * dim;
    const uint4 *qkv = t.units(p, p.qkv_at);
    const int blocks = p.blocks;
    uint4 *partials = (uint4 *)((char *)p.partials + t.team(p) * p.partials_stride);
    float *queries = (float *)t.area(p), *fresh_keys = queries + t.each * group * dim;
    float *fresh_values = fresh_keys + t.each * dim, *page_work = fresh_values + t.each * dim;
    int base = 0;
    bool has_pages = false;
#pragma unroll 1
    for (int s = 0; s < t.sessions(p); s++) {
        const int position = p.is_predictor ? predictor_position : t.places(p)[s].position;
        const int pages = (position + t.each - 1) / MK_PAGE + 1;
        has_pages = has_pages || pages > 1;
        int item = blocks - 1 - t.place - base;
        if (item < 0) item += blocks;
        base += head_items * pages;
        while (base >= blocks) base -= blocks;
#pragma unroll 1
        for (; item < head_items * pages; item += blocks) {
            // As in begin_operation.
            t.thread = opaque((int)threadIdx.x);
            const int lane = t.thread & 31, warp = t.thread >> 5;
            // A pair of this thread.
            const int h = divided(t.thread, half, p.half_inverse), d = (t.thread - h * half) * 2;
            const bool live = t.thread < group * half;
            const int page = divided(item, head_items, p.head_items_inverse);
            const int first_head = (item - page * head_items) * group;
            const int head = divided(first_head, p.key_queries, p.key_queries_inverse);
            // One of the blocks that share a key head keeps it.
            const bool keeps = first_head == head * p.key_queries;
            float *keys = page_keys(cache, cache_page(cache, t.places(p)[s].slot, page), head);
            float *values = keys + value_offset(cache);
            const int fresh_from = max(0, position - page * MK_PAGE);
            stop_watch(p, t.tag, 0);
            page_values part;
            load_page(part, keys, values, 0, MK_PAGE - 1, fresh_from, dim);
            __syncthreads();
#pragma unroll 1
            for (int job = warp; job < t.each * (group + 2); job += MK_WARPS) {
                // A session has one row or two.
                const int turn = job >= group + 2 ? 1 : 0, which = job - turn * (group + 2), at = position + turn;
                const bool is_query = which < group;
                if (!is_query && at / MK_PAGE != page) continue;
                const int column =
                    is_query ? first_head + which : heads + head + (which == group ? 0 : kv);
                const int m = 2 * lane;
                const bool has_values = m < half;
                const float2 zero = make_float2(0, 0);
                const float *gain = gains + (is_query ? 0 : dim) + m;
                const float2 low_gain = has_values ? *(const float2 *)gain : zero;
                const float2 high_gain = has_values ? *(const float2 *)(gain + half) : zero;
                uint4 pairs[2];
                await_units<2, 1>(
                    qkv + ((s * t.each + turn) * p.ld_qkv + column * dim) / 2 + lane, half / 2, has_values ? 2 : 0,
                    t.tag - 1, pairs);
                __syncwarp();
                head_values x = {zero, zero};
                if (has_values) x = {pair_of(pairs[0]), pair_of(pairs[1])};
                if (which <= group) {
                    float *kept = keeps ? keys + (at % MK_PAGE) * dim : 0;
                    if (is_query) {
                        const bool is_asked = layer == p.focus_layer && column == p.focus_head && page == 0;
                        kept = p.focus && is_asked ? (float *)p.focus + (t.first(p) + s) * dim : 0;
                    }
                    norm_rope(
                        x, is_query ? queries + (turn * group + which) * dim : fresh_keys + turn * dim,
                        kept, dim, true, low_gain, high_gain, p.stack.epsilon,
                        t.turns(p) + (p.is_predictor ? at : s) * half);
                } else if (has_values) {
                    float *fresh = fresh_values + turn * dim + m, *kept = values + (at % MK_PAGE) * dim + m;
                    *(float2 *)fresh = x.low;
                    *(float2 *)(fresh + half) = x.high;
                    if (keeps) {
                        *(float2 *)kept = x.low;
                        *(float2 *)(kept + half) = x.high;
                    }
                }
            }
            __syncthreads();
            stop_watch(p, t.tag, 1);
            take_fresh(part, fresh_keys, fresh_values, fresh_from, position + t.each - 1 - page * MK_PAGE, dim);
#pragma unroll 1
            for (int turn = 0; turn < t.each; turn++) {
                const int row = s * t.each + turn, last = min(MK_PAGE - 1, position + turn - page * MK_PAGE);
                attend_page(part, queries + turn * group * dim, page_work, group, dim, 0, last);
                stop_watch(p, t.tag, 2);
                // Whole warps, for the exchanges in `publish`.
                if (warp * 32 < group * half) {
                    const int own_head = min(h, group - 1);
                    const float2 sum = page_sums(page_work, group, dim, own_head, d, last / 4 + 1);
                    const float2 totals = page_totals(page_work, group, dim, own_head);
                    if (pages == 1) {
                        publish_attended(p, t, live, row, (first_head + h) * dim + d, sum, totals.y);
                    } else if (live) {
                        uint4 *to =
                            partials + ((long long)(row * heads + first_head + h) * p.pages + page) * (half + 1);
                        store_tagged(to + 1 + d / 2, pair_unit(sum, t.tag));
                        if (d == 0) store_tagged(to, pair_unit(totals, t.tag));
                    }
                }
                __syncthreads();
            }
            end_watch(p, t.tag, MK_ATTEND);
        }
    }
    if (has_pages) add_pages(p, t, partials, kv, p.key_queries, dim);
}

struct step_block : team_rows {
    // Rounds of finishing so far, and rows of the ring that are to be filled.
    int round, owed;
#if MK_BULK
    // Of the phase of the next row's barrier.
    unsigned parity;
#endif

    // Shared memory: this lane's part of its warp's ring, and what follows all rings.
    DEVICE_MEMBER char *ring(const mk_step_arguments &p) {
        return dynamic_shared() + (thread >> 5) * p.ring * MK_RING_ROW + (MK_BULK ? 0 : (thread & 31) * 16);
    }
    DEVICE_MEMBER weight_stream &stream(const mk_step_arguments &p) {
        return ((weight_stream *)(dynamic_shared() + p.streams_at))[thread >> 5];
    }

    // Of each row of the ring, if it comes by bulk copies.
    DEVICE_MEMBER unsigned long long *barriers(const mk_step_arguments &p) {
        return (unsigned long long *)(dynamic_shared() + p.streams_at + MK_WARPS * sizeof(weight_stream))
            + (thread >> 5) * MK_MOST_ROWS;
    }

    // Fills rows of the ring that were taken, so many at most.
    DEVICE_MEMBER void fill_rows(const mk_step_arguments &p, int most) {
        if (owed == 0) return;
        weight_stream ahead = stream(p);
        __syncwarp();
#pragma unroll 1
        for (most = min(most, owed), owed -= most; most > 0; most--)
            ahead.issue(p, place, ring(p), barriers(p));
        stream(p) = ahead;
        __syncwarp();
    }

    // Σ x² [rows][MK_WARPS] of each run. Who has the input of another layer knows that all sums of the layer before are
    // published, so nobody reads these any more.
    DEVICE_MEMBER float *run_sums(const mk_step_arguments &p) { return (float *)(dynamic_shared() + p.run_sums_at); }
    // [own tiles][rows][4]: the residual stream belongs to who computes it.
    DEVICE_MEMBER float2 *residual(const mk_step_arguments &p) { return (float2 *)(dynamic_shared() + p.residual_at); }

    DEVICE_MEMBER void open(const mk_step_arguments &p) {
        thread = (int)threadIdx.x;
        const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, half = p.stack.cache.dim / 2;
        const int team = blockIdx.x / p.blocks, first = team * p.batch / p.teams;
        const int sessions = (team + 1) * p.batch / p.teams - first;
        place = blockIdx.x - team * p.blocks;
        if (threadIdx.x == 0) {
            team_words(p)[0] = team;
            team_words(p)[1] = first;
            team_words(p)[2] = sessions;
            work(p) = (char *)p.work + team * p.work_stride;
            for (int kind = MK_QKV; kind <= MK_PROJECT; kind++)
                own(p, kind) = own_tiles(
                    p.layers[kind].units, kind == MK_GATE_UP ? 2 : 1, place, p.blocks, p.blocks_inverse);
        }
        for (int i = threadIdx.x; i < p.schedule_count - p.schedule_first; i += MK_THREADS)
            ((uint4 *)(dynamic_shared() + p.schedule_at))[i] = ((const uint4 *)p.schedule)[p.schedule_first + i];
        __syncthreads();
        weight_stream first_rows;
        first_rows.next = p.schedule_first;
        first_rows.slot = 0;
        first_rows.open_entry(p, place);
        stream(p) = first_rows;
#if MK_BULK
        parity = 0;
        if (lane < MK_MOST_ROWS) bulk_open(barriers(p) + lane);
#endif
        __syncwarp();
        owed = p.ring;
        fill_rows(p, owed);
        round = 0;
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

    // This warp's activations: units as they are in memory.
    DEVICE_MEMBER uint4 *stage(const mk_step_arguments &p) {
        return (uint4 *)area(p) + (thread >> 5) * p.stage_units;
    }

    // `count` units of the operation before, at most 32 · N, → to. Lanes without a unit take the last. While a reading is
    // under way, a row of the ring is filled: one, as the next reading may have to wait for what was asked for before.
    template <int N>
    DEVICE_MEMBER void fetch(const mk_step_arguments &p, const uint4 *from, uint4 *to, int count) {
        const int lane = thread & 31;
        uint4 unit[N];
        unsigned tries = 0;
        bool ready;
#pragma unroll
        for (int i = 1; i < N; i++) unit[i] = make_uint4(0, 0, 0, tag - 1);
#pragma unroll 1
        do {
#pragma unroll
            for (int i = 0; i < N; i++)
                if (i == 0 || 32 * i < count) unit[i] = load_tagged(from + min(lane + 32 * i, count - 1));
            if (N <= 3) fill_rows(p, 1);
            ready = true;
#pragma unroll
            for (int i = 0; i < N; i++) ready = ready && unit[i].w == tag - 1;
            give_up_if(++tries == MK_MOST_TRIES);
        } while (!all_lanes(ready));
#pragma unroll
        for (int i = 0; i < N; i++)
            if (i == 0 || 32 * i < count) to[min(lane + 32 * i, count - 1)] = unit[i];
    }

    // Brings `count` units of the operation before, one after the other in memory, to the stage.
    DEVICE_MEMBER void fill_stage(const mk_step_arguments &p, const uint4 *from, int count) {
        uint4 *to = stage(p);
        if (count <= 96) {
            fetch<3>(p, from, to, count);
            fill_rows(p, owed);
        } else {
            fill_rows(p, owed);
#pragma unroll 1
            for (int at = 0; at < count; at += 32 * MK_BATCH)
                fetch<MK_BATCH>(p, from + at, to + at, min(32 * (int)MK_BATCH, count - at));
        }
        __syncwarp();
    }

    // A record of the stage as the products take it; its Σ x².
    DEVICE_MEMBER float take_record(const uint4 *at, uint4 &high, uint4 &low) {
        const uint4 a = at[0], b = at[4], c = at[8];
        high = make_uint4(a.x, a.z, b.x, b.z);
        low = make_uint4(a.y, c.x, b.y, c.y);
        return __uint_as_float(c.z);
    }

    // Fills a row that was taken just now.
    DEVICE_MEMBER void fill_row(const mk_step_arguments &p) {
        owed = 1;
        fill_rows(p, 1);
    }

    // Waits until at most `pending` rows of the ring are under way.
    DEVICE_MEMBER void await_rows(int pending) {
        if (MK_BULK) return;
        if (pending >= 4) {
            copy_async_wait<4>();
        } else if (pending == 3) {
            copy_async_wait<3>();
        } else if (pending == 2) {
            copy_async_wait<2>();
        } else if (pending == 1) {
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
    }

    // A row of the ring, as this lane copied it; then the slot of the row behind it.
    DEVICE_MEMBER const uint4 *take_row(const mk_step_arguments &p, int &slot) {
        const uint4 *row = (const uint4 *)(ring(p) + slot * MK_RING_ROW) + (MK_BULK ? thread & 31 : 0);
#if MK_BULK
        bulk_wait(barriers(p) + slot, parity);
        if (slot + 1 == p.ring) parity ^= 1;
#endif
        slot = slot + 1 == p.ring ? 0 : slot + 1;
        return row;
    }

    // A thread's sum of a round: tile i, row r, outputs 2j and 2j + 1.
    struct finished_sum {
        int i, r, j;
        bool live;
    };

    DEVICE_MEMBER int finisher(int turn) { return (thread - turn * MK_FINISHERS) & (MK_THREADS - 1); }

    DEVICE_MEMBER finished_sum sum_of_thread(
        const mk_step_arguments &p, int unit, int turn, int gathered, int row_count) {
        const int place = finisher(turn), item = place >> (1 + unit);
        finished_sum sum;
        sum.r = item & (p.row_places - 1);
        sum.j = place & 3;
        sum.i = item >> p.row_places_log;
        if (unit == 2) sum.i = 2 * sum.i + ((place >> 2) & 1);
        sum.live = sum.i < gathered && sum.r < row_count;
        sum.i = min(sum.i, gathered - 1);
        sum.r = min(sum.r, row_count - 1);
        return sum;
    }

    // A round's sums, as the threads that finish them lie.
    DEVICE_MEMBER float2 *partials(const mk_step_arguments &p, int turn) {
        return (float2 *)(area(p) + p.partials_in_area) + ((turn & 1) * MK_WARPS << p.finishers_log);
    }

    // All warps' parts of one sum, in order, and beside them those of a row's Σ x².
    template <int FINISHERS>
    DEVICE_MEMBER float2 add_parts(const float2 *parts, const float *run_sums, float &squares) {
        float2 sum = make_float2(0, 0);
        squares = 0;
#pragma unroll
        for (int w = 0; w < MK_WARPS; w += 4) {
            const float4 run = *(const float4 *)(run_sums + w);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float2 part = parts[(w + i) * FINISHERS];
                sum.x += part.x;
                sum.y += part.y;
                squares += i == 0 ? run.x : i == 1 ? run.y : i == 2 ? run.z : run.w;
            }
        }
        return sum;
    }

    // The gain of the norm behind a layer with a residual, and what its sum is added to if that is not kept here.
    DEVICE_MEMBER void load_residual(
        const mk_step_arguments &p, int kind, int layer, const finished_sum &sum, int gather, float2 &gain,
        float2 &old) {
        const int n = own_tile(gather + sum.i, 1, place, p.blocks) * MK_TILE + 2 * sum.j;
        const int norm = kind == MK_OUTPUT ? layer * 2 + 1 : kind == MK_DOWN ? (layer + 1) * 2 : 0;
        gain = *(const float2 *)((const float *)p.stack.gains + norm * p.stack.chunks * MK_CHUNK + n);
        if (kind == MK_PROJECT) {
            old = *(const float2 *)((const float *)p.projection_bias + n);
        } else if (kind == MK_OUTPUT && layer == 0 && !p.has_projection) {
            // The input, three operations ago.
            uint4 entry[1];
            await_units<1, 1>(
                units(p, p.entry_at) + (sum.r * p.stack.chunks * MK_CHUNK + n) / 2, 0, 1, tag - 3, entry);
            old = pair_of(entry[0]);
        }
    }

    // One operation: all sums of this block's tiles of a layer, and what becomes of them.
    DEVICE_MEMBER void product(const mk_step_arguments &p, int kind, int layer, bool keeps_hidden) {
        const mk_step_layer &shape = p.layers[kind];
        const int unit = kind == MK_GATE_UP ? 2 : 1, blocks = p.blocks;
        const int own = team_rows::own(p, kind);
        if (own == 0) return;
        stop_watch(p, tag, 0);
        const bool is_head = kind == MK_HEAD, is_residual = kind == MK_OUTPUT || kind == MK_DOWN || kind == MK_PROJECT;
        operation o;
        o.is_head = is_head;
        o.is_only = own == 1;
        o.adds_squares = !is_residual;
        // A head takes the last row of each session.
        o.row_count = is_head ? sessions(p) : rows;
        o.begin = min(shape.chunks, (thread >> 5) * shape.run);
        o.end = min(shape.chunks, o.begin + shape.run);
        o.from = units(p, shape.input_at) + o.begin * rows * 12;
        o.slot = stream(p).slot + owed;
        if (o.slot >= p.ring) o.slot -= p.ring;
        const int chunks = o.end - o.begin;
        o.taken = own == 1 ? (chunks + 3) >> 2 : ((chunks + 1) >> 1) * ((own + 1) >> 1);
        o.refills = o.taken > p.ring;
        float squares = 0;

#pragma unroll 1
        for (int gather = 0; gather < own; gather += p.gather) {
            const int gathered = min(p.gather, own - gather);
            // Rounds are finished by other warps in turn.
            const int turn = round++;
            // Whole warps finish, for the exchanges in `publish`; threads without a sum do as others.
            const bool finishes = (finisher(turn) & ~31) < gathered * p.row_places * 4;
            finished_sum own_sum = {};
            // Gain of the norm that follows, and what the sum is added to.
            float2 gain = make_float2(0, 0), old = gain;
            if (finishes) {
                own_sum = sum_of_thread(p, unit, turn, gathered, o.row_count);
                if (is_residual) load_residual(p, kind, layer, own_sum, gather, gain, old);
            }
#pragma unroll 1
            for (int group = 0; group < gathered; group += MK_GROUP) {
                o.is_first = gather + group == 0;
                add_products(
                    p, o, min((int)MK_GROUP, gathered - group), unit,
                    partials(p, turn) + ((thread >> 5) << p.finishers_log) + (group << p.row_places_log) * 4, squares);
            }
            if (gather == 0 && !is_residual && (thread & 3) == 0 && (thread & 31) >> 2 < o.row_count)
                run_sums(p)[((thread & 31) >> 2) * MK_WARPS + (thread >> 5)] = squares;
            __syncthreads();
            stop_watch(p, tag, 2);
            if (!finishes) continue;
            const int i = own_sum.i, r = own_sum.r, j = own_sum.j;
            const bool live = own_sum.live;
            const int n = own_tile(gather + i, unit, place, blocks) * MK_TILE + 2 * j;
            const float2 *parts = partials(p, turn) + finisher(turn);
            // Where no norm is before the layer, nobody looks at these.
            const float *run_squares = run_sums(p) + r * MK_WARPS;
            float all_squares;
            float2 v = p.finishers_log == 5 ? add_parts<32>(parts, run_squares, all_squares)
                : p.finishers_log == 6      ? add_parts<64>(parts, run_squares, all_squares)
                                            : add_parts<128>(parts, run_squares, all_squares);
            if (is_residual) {
                // Another thread may have left it there, before this operation's barrier.
                float2 *kept = residual(p) + ((gather + i) * o.row_count + r) * 4 + j;
                if (kind != MK_PROJECT && !(kind == MK_OUTPUT && layer == 0 && !p.has_projection)) old = *kept;
                v.x += old.x;
                v.y += old.y;
                if (live) *kept = v;
                publish_pair(units(p, p.x_at) + record_unit(r, n / MK_TILE), live, v, gain, tag);
                continue;
            }
            const float scale = inverse_rms(all_squares, p.stack.width, p.stack.epsilon);
            v.x *= scale;
            v.y *= scale;
            if (kind == MK_GATE_UP) {
                // A lane's value and its neighbour's are the two of a word.
                const float own_value = silu(v.x) * v.y, other = __shfl_xor_sync(0xffffffffu, own_value, 1);
                unsigned high, low;
                split_pair(make_float2(own_value, other), high, low);
                publish(
                    units(p, p.inner_at) + record_unit(r, n / (2 * MK_TILE)), live, 2, high, low, 0, tag);
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
        end_watch(p, tag, kind);
        if (!o.refills) owed += o.taken;
        if (keeps_hidden) keep_hidden(p, layer);
    }

    // What a warp's products of an operation have in common.
    struct operation {
        bool is_head, is_only, adds_squares, is_first;
        // Whether each row of the ring is filled again at once: they are more than the ring has.
        bool refills;
        int row_count;
        // The warp's run of chunks, and the input's units from there on.
        int begin, end;
        const uint4 *from;
        // Of the next row of the ring; rows that are taken in all.
        int slot, taken;
    };

    // Sums of this warp's run over `tiles` tiles, at most MK_GROUP, → partial, and Σ x² of the run.
    DEVICE_MEMBER void add_products(
        const mk_step_arguments &p, operation &o, int tiles, int unit, float2 *partial, float &squares) {
        const int lane = thread & 31, g = lane >> 2, chunks = o.end - o.begin;
        // Lanes of rows that are not there take the first: they reach no sum of others.
        const int row = g < o.row_count ? (o.is_head ? g * each + each - 1 : g) : 0;
        const uint4 *records = stage(p) + row * 12 + (lane & 3), *b = 0;
        float sums[MK_GROUP / 2][2][1][4] = {};
#pragma unroll 1
        for (int piece = 0; piece < chunks; piece += p.piece) {
            const int count = min(p.piece, chunks - piece);
            if (o.is_first || chunks > p.piece) {
                // The records before have been read.
                __syncwarp();
                fill_stage(p, o.from + piece * rows * 12, count * rows * 12);
            }
            if (o.is_first && piece == 0) {
                if (!o.refills) await_rows(p.ring - o.taken);
                stop_watch(p, tag, 1);
            }
#pragma unroll 1
            for (int c = 0; c < count; c += 2) {
                uint4 high[2][1], low[2][1];
                const bool more = c + 1 < count;
                const uint4 *record = records + c * rows * 12;
                float first = take_record(record, high[0][0], low[0][0]);
                float second = take_record(record + (more ? rows * 12 : 0), high[1][0], low[1][0]);
                if (!o.is_only) {
#pragma unroll
                    for (int k = 0; k < MK_GROUP / 2; k++) {
                        if (2 * k >= tiles) break;
                        if (o.refills) await_rows(p.ring - 1);
                        b = take_row(p, o.slot);
                        multiply_chunk(sums[k], high[0], low[0], b[0], b[64]);
                        if (more) multiply_chunk(sums[k], high[1], low[1], b[32], b[96]);
                        if (o.refills) fill_row(p);
                    }
                } else {
                    const int quarter = (piece + c) & 2;
                    if (quarter == 0) {
                        if (o.refills) await_rows(p.ring - 1);
                        b = take_row(p, o.slot);
                    }
                    const uint4 *at = b + quarter * 32;
                    multiply_chunk(sums[0][0], high[0], low[0], at[0]);
                    if (more) multiply_chunk(sums[0][0], high[1], low[1], at[32]);
                    if (o.refills && (quarter != 0 || piece + c + 2 >= chunks)) fill_row(p);
                }
                if (o.is_first && o.adds_squares) {
                    // sum_of_four of both, side by side.
                    first += __shfl_xor_sync(0xffffffffu, first, 1);
                    second += __shfl_xor_sync(0xffffffffu, second, 1);
                    first += __shfl_xor_sync(0xffffffffu, first, 2);
                    second += __shfl_xor_sync(0xffffffffu, second, 2);
                    squares += first;
                    if (more) squares += second;
                }
            }
        }
        if (g >= o.row_count) return;
        // As sum_of_thread finds them.
        float2 *to = partial + g * unit * 4 + (lane & 3);
        const int next_row = 4 << p.row_places_log;
#pragma unroll
        for (int k = 0; k < MK_GROUP; k++) {
            if (k >= tiles) break;
            const float(&sum)[4] = sums[k / 2][k % 2][0];
            to[k / 2 * 2 * next_row + k % 2 * (unit == 2 ? 4 : next_row)] =
                make_float2(sum[0] + sum[2], sum[1] + sum[3]);
        }
    }

    // sums += a chunk of the rows · a chunk of two tiles.
    DEVICE_MEMBER void multiply_chunk(
        float (&sums)[2][1][4], const uint4 (&high)[1], const uint4 (&low)[1], const uint4 &b0, const uint4 &b1) {
        const uint4 a0[1][1] = {{high[0]}}, a1[1][1] = {{low[0]}}, b[1][2] = {{b0, b1}};
        multiply_chunks<MK_BF16, 2, 1, 1>(sums, a0, a1, b);
    }

    // The same of one tile.
    DEVICE_MEMBER void multiply_chunk(
        float (&sum)[1][4], const uint4 (&high)[1], const uint4 (&low)[1], const uint4 &b0) {
        float sums[1][1][4] = {{{sum[0][0], sum[0][1], sum[0][2], sum[0][3]}}};
        const uint4 a0[1][1] = {{high[0]}}, a1[1][1] = {{low[0]}}, b[1][1] = {{b0}};
        multiply_chunks<MK_BF16, 1, 1, 1>(sums, a0, a1, b);
#pragma unroll
        for (int i = 0; i < 4; i++) sum[0][i] = sums[0][0][i];
    }

    // Of the last layer's output: the hidden states of the sessions, normed.
    DEVICE_MEMBER void keep_hidden(const mk_step_arguments &p, int layer) {
        __syncthreads();
        const int ld = p.stack.chunks * MK_CHUNK;
        const float *gains = (const float *)p.stack.gains + layer * 2 * ld;
        const int values = own_tiles(ld / MK_TILE, 1, place, p.blocks, p.blocks_inverse) * rows * 4;
#pragma unroll 1
        for (int at = thread; at < values; at += MK_THREADS) {
            const int to = (at >> 2) % rows, n = (place + (at >> 2) / rows * p.blocks) * MK_TILE + (at & 3) * 2;
            const float scale = inverse_rms(run_sums(p) + to * MK_WARPS, p.stack.width, p.stack.epsilon);
            const float2 v = residual(p)[at], gain = *(const float2 *)(gains + n);
            *(float2 *)((float *)p.hidden + (long long)places(p)[to].slot * p.ld_hidden + n) =
                make_float2(v.x * gain.x * scale, v.y * gain.y * scale);
        }
    }

    // A row of the input: floats for the residual stream, and a record for each tile. `value` gives two of `ld` values.
    template <class Value>
    DEVICE_MEMBER void publish_row(const mk_step_arguments &p, int row, bool is_projected, Value value) {
        const int ld = (is_projected ? p.talker_chunks : p.stack.chunks) * MK_CHUNK;
        uint4 *records = units(p, is_projected ? p.input_at : p.x_at);
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
            publish_pair(records + record_unit(row, at / 4), live, v, gain, tag);
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
                fill_rows(p, owed);
                attend(p, *this, layer, position);
            }
        }
        fill_rows(p, owed);
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
    for (int s = block.place; s < block.sessions(p); s += p.blocks) {
        const mk_session &session = ((const mk_session *)p.sessions)[block.first(p) + s];
        const int *codes = (const int *)p.codes + session.slot * p.groups;
        const float *text = (const float *)session.text_row, *given = (const float *)p.x;
        block.publish_row(p, s, false, [&](int k) {
            if (given) return *(const float2 *)(given + (long long)(block.first(p) + s) * p.ld_table + k);
            float2 sum = make_float2(0, 0);
            // Rows are not in any cache: some are under way together.
#pragma unroll 8
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
    // The rule of sampling and the session that is sampled lie in shared memory, where all threads read them.
    mk_sample_arguments &rule = *(mk_sample_arguments *)(dynamic_shared() + p.words_at + MK_SAMPLER_RULE);
    mk_session &session = *(mk_session *)(dynamic_shared() + p.words_at + MK_SAMPLER_SESSION);
    if (threadIdx.x == 0) {
        rule = {};
        rule.groups = p.groups;
        rule.forced = p.forced;
        rule.speakable = p.speakable;
        rule.eos = p.eos;
        rule.seen = p.seen;
    }
#pragma unroll 1
    for (int pass = p.together ? 0 : -1; pass < p.groups; pass++) {
        const bool is_first = pass < 0 || (pass == 0 && p.together);
        const int group = max(0, pass);
        block.each = pass == 0 && p.together ? 2 : 1;
        block.rows = block.sessions(p) * block.each;
        block.begin_operation();
#pragma unroll 1
        for (int s = block.place; s < block.sessions(p); s += p.blocks) {
            // What was in shared memory is no longer read.
            __syncthreads();
            if (threadIdx.x < sizeof(mk_session) / 4)
                ((int *)&session)[threadIdx.x] = ((const int *)p.sessions)[
                    (block.first(p) + s) * (int)(sizeof(mk_session) / 4) + (int)threadIdx.x];
            if (threadIdx.x == 0) {
                rule.codebook = group;
                rule.vocabulary = pass > 0 ? p.vocabulary : p.talker_vocabulary;
            }
            const int slot = ((const mk_session *)p.sessions)[block.first(p) + s].slot;
            int *codes = (int *)p.codes + slot * p.groups;
            stop_watch(p, block.tag, 0);
            int code;
            if (is_first || pass > 0) {
                const float *chosen_from = (const float *)p.logits + (long long)slot * p.ld_logits;
                if (pass > 0) {
                    // The sampler wants plain floats; the host reads them, too.
                    float *plain = (float *)block.area(p), *kept = (float *)p.all_logits
                        + ((long long)(pass - 1) * p.all_batch + block.first(p) + s) * p.ld_pass_logits;
                    const uint4 *from = block.units(p, p.logits_at) + s * p.ld_pass_logits / 2;
                    const int pairs = p.ld_pass_logits / 2;
#pragma unroll 1
                    for (int at = threadIdx.x; at < pairs; at += 2 * MK_THREADS) {
                        uint4 pair[2];
                        const int live = at + MK_THREADS < pairs ? 2 : 1;
                        await_units<2, 1>(from + at, MK_THREADS, live, block.tag - 1, pair);
                        *(float2 *)(kept + 2 * at) = *(float2 *)(plain + 2 * at) = pair_of(pair[0]);
                        if (live > 1)
                            *(float2 *)(kept + 2 * (at + MK_THREADS)) = *(float2 *)(plain + 2 * (at + MK_THREADS)) =
                                pair_of(pair[1]);
                    }
                    chosen_from = plain;
                }
                __syncthreads();
                stop_watch(p, block.tag, 1);
                unsigned *words = (unsigned *)(dynamic_shared() + p.words_at);
                code = choose(rule, session, block.first(p) + s, chosen_from, words);
                stop_watch(p, block.tag, 2);
                if (threadIdx.x == 0) {
                    codes[group] = code;
                    if (pass <= 0 && p.seen)
                        ((unsigned char *)p.seen)[(long long)slot * p.talker_vocabulary + code] = 1;
                }
                if (pass + 1 == p.groups) continue;
            } else {
                // Chosen in the pass before, whose last layer nobody else waits for.
                code = load_shared_data(codes);
                const int tiles = p.stack.chunks * (MK_CHUNK / MK_TILE);
                for (int at = threadIdx.x; at < tiles * 3; at += MK_THREADS) {
                    uint4 unit[1];
                    await_units<1, 1>(
                        block.units(p, p.x_at) + block.record_unit(s, at / 3) + at % 3 * 4, 0, 1, block.tag - 1,
                        unit);
                }
                __syncthreads();
            }
            const float *hidden = (const float *)p.hidden + (long long)slot * p.ld_hidden;
            const half_bits *embedding = group == 0
                ? (const half_bits *)p.codec_table + (long long)code * p.ld_table
                : (const half_bits *)p.group_tables + ((long long)(group - 1) * p.vocabulary + code) * p.ld_table;
#pragma unroll 1
            for (int turn = 0; turn < block.each; turn++) {
                const bool is_hidden = is_first && turn == 0;
                block.publish_row(p, s * block.each + turn, p.has_projection, [&](int k) {
                    return is_hidden ? *(const float2 *)(hidden + k) : float_pair(*(const unsigned *)(embedding + k));
                });
            }
            if (pass != 0 || p.together) end_watch(p, block.tag, MK_INPUT);
        }
        if (pass + 1 == p.groups) break;
        block.run_stack(p, is_first ? 0 : pass + 1, pass >= 0);
    }
}
