// Linear layers over many split bfloat16 rows: the sums of linear.cu to the bit, by blocks whose warps share inputs and
// weights in shared memory.
//
// A block takes 16 · WM rows by 8 · WN · T outputs. Its warps are KG groups of WM · WN; group k sums runs k, k + KG … of the
// chunks, each warp two groups of rows by T tiles. With several groups of warps the sums of KG runs meet in shared memory,
// where they are added in order; a single group adds its runs in registers. Inputs lie as they are used, so that a copy of
// a chunk of a block's rows is one span of memory.

template <int WM, int WN, int T, int KG, int DEPTH, int STAGES>
struct row_tiling {
    static const int groups = 2 * WM, rows = 8 * groups, tiles = WN * T, columns = tiles * MK_TILE;
    /// Floats of a row in shared memory: no two rows of a store meet in a bank.
    static const int ld = columns + MK_TILE;
    /// Pieces of 16 bytes in a stage: DEPTH chunks of each group of warps.
    static const int inputs = KG * DEPTH * groups * 64, weights = KG * DEPTH * tiles * 32;
    static const int stage_bytes = (inputs + weights) * 16;
    static const int input_places = inputs / MK_THREADS;
    static const int weight_places = (weights + MK_THREADS - 1) / MK_THREADS;
    static const int pairs = rows * columns / 2, pair_places = (pairs + MK_THREADS - 1) / MK_THREADS;
    /// Whether sums may take the place of stages: they come once, at the end.
    static const bool shares = KG == 1 || KG == MK_WARPS;
    static const int sum_bytes = KG * rows * ld * 4;
    static const int work_bytes =
        shares ? STAGES * stage_bytes > sum_bytes ? STAGES * stage_bytes : sum_bytes : STAGES * stage_bytes + sum_bytes;
};

// Grid: x blocks of rows, y blocks of tiles. Shared memory: STAGES stages and KG · rows · ld floats, or the greater of both, and
// MK_WARPS + 1 floats for each row.
template <int WM, int WN, int T, int KG, int DEPTH, int STAGES>
DEVICE void gemm_rows(const mk_gemm_arguments &p) {
    typedef row_tiling<WM, WN, T, KG, DEPTH, STAGES> form;
    let_next_launch_begin();
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    // Rows last: where some are missing, no scheduler (of every fourth warp) is idle.
    const int k = warp % KG, warp_tile = warp / KG % WN * T, warp_group = warp / KG / WN * 2;
    const int group0 = blockIdx.x * form::groups, tile0 = blockIdx.y * form::tiles;
    const int groups = ceiling(p.rows, 8);
    const int run = ceiling(p.chunks, p.splits);
    // Steps of DEPTH chunks; with several groups of warps, of each group's run, whose last may have fewer.
    const int run_steps = KG == 1 ? 1 : ceiling(run, DEPTH);
    const int steps = KG == 1 ? ceiling(p.chunks, DEPTH) : ceiling(p.chunks, KG * run) * run_steps;
    char *stages = dynamic_shared();
    float *gathered = (float *)(form::shares ? stages : stages + STAGES * form::stage_bytes);
    float *run_sums = (float *)(stages + form::work_bytes), *scales = run_sums + form::rows * MK_WARPS;
    // Which the compiler cannot know.
    const unsigned zero = (unsigned)p.splits >> 30;
    const bool has_rows = group0 + warp_group < groups;

    // Where this thread copies from, and of which chunk, counted from a step's first.
    unsigned input_at[form::input_places], weight_at[form::weight_places];
    int input_chunk[form::input_places], weight_chunk[form::weight_places];
#pragma unroll
    for (int place = 0; place < form::input_places; place++) {
        const int piece = threadIdx.x + place * MK_THREADS, part = piece / (form::groups * 64);
        const int rest = piece % (form::groups * 64);
        input_chunk[place] = part / DEPTH * run + part % DEPTH;
        input_at[place] = (unsigned)((input_chunk[place] * groups + group0) * 64 + rest) * 16u;
        if (group0 + rest / 64 >= groups) input_chunk[place] = p.chunks;
    }
#pragma unroll
    for (int place = 0; place < form::weight_places; place++) {
        const int piece = threadIdx.x + place * MK_THREADS, part = piece / (form::tiles * 32);
        const int tile = tile0 + piece / 32 % form::tiles;
        weight_chunk[place] = part / DEPTH * run + part % DEPTH;
        weight_at[place] = (unsigned)((tile * p.chunks + weight_chunk[place]) * 32 + lane) * 16u;
        if (piece >= form::weights || tile >= p.tiles) weight_chunk[place] = p.chunks;
    }
    // A step's first chunk, and the step's place in its runs; goes on by so many chunks.
    int input_first = 0, input_in_run = 0, weight_first = 0, weight_in_run = 0;
    auto advance = [&](int &first, int &in_run) {
        int by = DEPTH;
        if (KG > 1 && ++in_run == run_steps) {
            in_run = 0;
            by = KG * run - (run_steps - 1) * DEPTH;
        }
        first += by;
        return (unsigned)by;
    };
    auto copy_inputs = [&](char *to) {
        const int left = p.chunks - input_first;
        const unsigned by = advance(input_first, input_in_run) * groups * 1024u;
#pragma unroll
        for (int place = 0; place < form::input_places; place++) {
            if (input_chunk[place] < left)
                copy_async(to + (threadIdx.x + place * MK_THREADS) * 16, (const char *)p.input + input_at[place]);
            input_at[place] += by;
        }
    };
    auto copy_weights = [&](char *to) {
        const int left = p.chunks - weight_first;
        const unsigned by = advance(weight_first, weight_in_run) * 512u;
#pragma unroll
        for (int place = 0; place < form::weight_places; place++) {
            if (weight_chunk[place] < left)
                copy_async(
                    to + (form::inputs + threadIdx.x + place * MK_THREADS) * 16,
                    (const char *)p.weights + weight_at[place]);
            weight_at[place] += by;
        }
    };
    // Weights of the first stages; they belong to the first group of copies.
    for (int i = 0; i < STAGES - 1; i++)
        if (i < steps) copy_weights(stages + i * form::stage_bytes);
    wait_for_launches();
    int copied = 0;
    char *copy_to = stages;

    // Totals: with one group of warps of a lane's own sums, else of pairs dealt out to threads.
    float sums[T][2][4], totals[KG == 1 ? T : 1][2][2], pairs[KG == 1 ? 1 : form::pair_places][2];
#pragma unroll
    for (int i = 0; i < T; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
#pragma unroll
            for (int v = 0; v < 4; v++) sums[i][j][v] = 0;
            if (KG == 1) totals[i][j][0] = totals[i][j][1] = 0;
        }
#pragma unroll
    for (int i = 0; i < (KG == 1 ? 1 : form::pair_places); i++) pairs[i][0] = pairs[i][1] = 0;

    int first = 0, in_run = 0;
    const char *stage = stages;
#pragma unroll 1
    for (int step = 1 - STAGES; step < steps; step++) {
        if (step >= 0) {
            copy_async_wait<STAGES - 2>();
            __syncthreads();
        }
        if (copied < steps) {
            copy_inputs(copy_to);
            if (step >= 0) copy_weights(copy_to);
            copied++;
            copy_to = copied % STAGES == 0 ? stages : copy_to + form::stage_bytes;
        }
        copy_async_commit();
        if (step < 0) {
            if (step == -1 && p.squares) sum_runs(p, run_sums, group0 * 8, form::rows);
            continue;
        }
        if (step == 0 && p.squares && threadIdx.x < form::rows)
            scales[threadIdx.x] = inverse_rms(run_sums + threadIdx.x * MK_WARPS, p.norm_width, p.epsilon);
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            const int in_step = KG == 1 ? d : in_run + d;
            if (has_rows && first + (KG == 1 ? d : k * run + in_step) < p.chunks && (KG == 1 || in_step < run)) {
                const char *inputs = stage + ((k * DEPTH + d) * form::groups + warp_group) * 1024 + lane * 16;
                const char *weights =
                    stage + form::inputs * 16 + ((k * DEPTH + d) * form::tiles + warp_tile) * 512 + lane * 16;
                uint4 a0[1][2], a1[1][2], b[1][T];
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    a0[0][j] = renewed(*(const uint4 *)(inputs + j * 1024), zero);
                    a1[0][j] = renewed(*(const uint4 *)(inputs + j * 1024 + 512), zero);
                }
#pragma unroll
                for (int i = 0; i < T; i++) b[0][i] = *(const uint4 *)(weights + i * 512);
                multiply_chunks<MK_BF16, T, 2, 1>(sums, a0, a1, b);
            }
            if (KG > 1 || ++in_run < run) continue;
            in_run = 0;
#pragma unroll
            for (int i = 0; i < T; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float *s = sums[i][j], *to = totals[KG == 1 ? i : 0][j];
                    to[0] += s[0] + s[2];
                    to[1] += s[1] + s[3];
                    s[0] = s[1] = s[2] = s[3] = 0;
                }
        }
        stage = (step + 1) % STAGES == 0 ? stages : stage + form::stage_bytes;
        if (KG == 1) {
            first += DEPTH;
            continue;
        }
        in_run += DEPTH;
        if (in_run < run) continue;
        // The ends of KG runs.
        in_run = 0;
        first += KG * run;
        if (form::shares) __syncthreads();
#pragma unroll
        for (int i = 0; i < T; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                float *s = sums[i][j];
                const int row = (warp_group + j) * 8 + g;
                *(float2 *)(gathered + (k * form::rows + row) * form::ld + (warp_tile + i) * MK_TILE + t * 2) =
                    make_float2(s[0] + s[2], s[1] + s[3]);
                s[0] = s[1] = s[2] = s[3] = 0;
            }
        // The barrier of the next step comes before the next stores.
        __syncthreads();
#pragma unroll
        for (int place = 0; place < form::pair_places; place++) {
            const int pair = threadIdx.x + place * MK_THREADS;
            if (pair >= form::pairs) continue;
            const float *at = gathered + pair / (form::columns / 2) * form::ld + pair % (form::columns / 2) * 2;
#pragma unroll
            for (int i = 0; i < KG; i++) {
                const float2 v = *(const float2 *)(at + i * form::rows * form::ld);
                pairs[KG == 1 ? 0 : place][0] += v.x;
                pairs[KG == 1 ? 0 : place][1] += v.y;
            }
        }
    }

    if (KG == 1) {
        // What is left of a run that is not full.
        __syncthreads();
#pragma unroll
        for (int i = 0; i < T; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float *s = sums[i][j], *total = totals[KG == 1 ? i : 0][j];
                const bool is_open = in_run > 0;
                *(float2 *)(gathered + ((warp_group + j) * 8 + g) * form::ld + (warp_tile + i) * MK_TILE + t * 2) =
                    make_float2(
                        is_open ? total[0] + (s[0] + s[2]) : total[0], is_open ? total[1] + (s[1] + s[3]) : total[1]);
            }
        __syncthreads();
    } else {
#pragma unroll
        for (int place = 0; place < form::pair_places; place++) {
            const int pair = threadIdx.x + place * MK_THREADS;
            if (pair >= form::pairs) continue;
            // Only this thread reads and writes it.
            *(float2 *)(gathered + pair / (form::columns / 2) * form::ld + pair % (form::columns / 2) * 2) =
                make_float2(pairs[KG == 1 ? 0 : place][0], pairs[KG == 1 ? 0 : place][1]);
        }
    }
#pragma unroll 1
    for (int pair = threadIdx.x; pair < form::pairs; pair += MK_THREADS) {
        const int row = group0 * 8 + pair / (form::columns / 2), column = pair % (form::columns / 2) * 2;
        const int n = tile0 * MK_TILE + column;
        const bool live = row < p.rows && n < p.tiles * MK_TILE;
        float values[2] = {0, 0};
        if (live) {
            const float2 v = *(const float2 *)(gathered + (row - group0 * 8) * form::ld + column);
            values[0] = v.x;
            values[1] = v.y;
            row_terms<2> own;
            own.load(p, row, n);
            if (p.squares) own.scale = scales[row - group0 * 8];
            finish<MK_BF16>(p, row, n, n, values, distant_terms{p}, own);
        }
        if (p.output_squares) put_squares(p, live, row, n, values);
    }
}

KERNEL gemm_bf16_split_rows64x96(const mk_gemm_arguments p) { gemm_rows<4, 4, 3, 1, 4, 3>(p); }
KERNEL gemm_bf16_split_rows64x48(const mk_gemm_arguments p) { gemm_rows<4, 2, 3, 2, 2, 4>(p); }
KERNEL gemm_bf16_split_rows64x32(const mk_gemm_arguments p) { gemm_rows<4, 1, 4, 4, 2, 2>(p); }
KERNEL gemm_bf16_split_rows32x64(const mk_gemm_arguments p) { gemm_rows<2, 2, 4, 4, 2, 2>(p); }
KERNEL gemm_bf16_split_rows32x32(const mk_gemm_arguments p) { gemm_rows<2, 1, 4, 8, 1, 3>(p); }
KERNEL gemm_bf16_split_rows16x32(const mk_gemm_arguments p) { gemm_rows<1, 1, 4, 16, 1, 3>(p); }
