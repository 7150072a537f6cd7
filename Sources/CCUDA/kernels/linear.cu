// Linear layers and causal convolutions on tensor cores.
//
// A tile is 8 outputs, a chunk 32 inputs. The weights of (tile, chunk) lie together, so that a lane's 16 bytes hold
// 8 consecutive inputs of one output. Each sum is cut into `splits` runs of chunks, each summed in order by one warp;
// the runs are added in order. Nothing else about a launch (rows, tiles and rows a block takes) touches a sum.
//
// Split rows (SPLIT): a float is two halves, x = high + low, in rows g and g + 8 of one product, so that activations
// keep 16 (bfloat16) or 22 (float16) bits. Plain rows: 16 different rows. Bfloat16 rows are always split, and lie in the
// order of products.

struct row_source {
    const half_bits *high;
    const half_bits *low;
};

// Where row `row`, tap `tap` begins; the zero column if there is no such row.
DEVICE row_source find_row(const mk_gemm_arguments &p, int row, int tap) {
    row_source source;
    int session = row / p.columns;
    int column = row - session * p.columns - (p.taps - 1 - tap) * p.dilation;
    if (column >= 0) {
        long long at = (long long)(session * p.columns + column) * p.ld_input;
        source.high = (const half_bits *)p.input + at;
        source.low = (const half_bits *)p.input_low + at;
    } else {
        int slot = ((const int *)p.slots)[session];
        long long at = (long long)slot * p.history_stride
            + (long long)(column + (p.taps - 1) * p.dilation) * p.ld_input;
        source.high = (const half_bits *)p.history + at;
        source.low = (const half_bits *)p.history_low + at;
    }
    return source;
}

// Where split bfloat16 rows keep value k of a row, in halves: as products take them, [chunks][groups of 8 rows][high, low]
// [row][MK_CHUNK]. What rounding lost lies a piece of 256 further.
DEVICE long long packed_place(int rows, int row, int k) {
    return (((long long)(k / MK_CHUNK) * ceiling(rows, 8) + row / 8) * 2) * 256 + row % 8 * MK_CHUNK + k % MK_CHUNK;
}

// Where value k of an output row goes.
template <int HALF>
DEVICE long long output_place(int rows, int row, int k, int ld) {
    return HALF == MK_BF16 ? packed_place(rows, row, k) : (long long)row * ld + k;
}

DEVICE uint4 load_half_row(const half_bits *p) { return *(const uint4 *)p; }

// What the epilogue reads beside the sums. Loaded before them where that can be: one after the other these loads would take
// longer than the sums.
//
// Of the layer, for COLUMNS outputs of a block, in shared memory: bias, scale, alpha, 1 / beta, [4][COLUMNS].
template <int COLUMNS>
struct layer_terms {
    const float *at;

    // Copies, as part of the thread's next group, those of outputs from n on.
    DEVICE_MEMBER void copy(const mk_gemm_arguments &p, int n) const {
        const int piece = threadIdx.x, array = piece / (COLUMNS / 4);
        if (piece >= COLUMNS) return;
        n += piece % (COLUMNS / 4) * 4;
        const mk_address from = array == 0 ? p.bias : array == 1 ? p.scale : array == 2 ? p.alpha : p.inverse_beta;
        if (from && n < p.tiles * MK_TILE)
            copy_async((char *)at + piece * 16, (const float *)from + (array == 1 ? n : n % p.period));
    }

    DEVICE_MEMBER float2 load(int array, int column) const { return *(const float2 *)(at + array * COLUMNS + column); }
    DEVICE_MEMBER float2 bias(int column) const { return load(0, column); }
    DEVICE_MEMBER float2 scale(int column) const { return load(1, column); }
    DEVICE_MEMBER float2 alpha(int column) const { return load(2, column); }
    DEVICE_MEMBER float2 inverse_beta(int column) const { return load(3, column); }
};

// The same from where they are; `column` is the output.
struct distant_terms {
    const mk_gemm_arguments &p;

    DEVICE_MEMBER float2 load(mk_address from, int n) const { return *(const float2 *)((const float *)from + n); }
    DEVICE_MEMBER float2 bias(int n) const { return load(p.bias, n % p.period); }
    DEVICE_MEMBER float2 scale(int n) const { return load(p.scale, n); }
    DEVICE_MEMBER float2 alpha(int n) const { return load(p.alpha, n % p.period); }
    DEVICE_MEMBER float2 inverse_beta(int n) const { return load(p.inverse_beta, n % p.period); }
};

// Of N neighbouring outputs, from n on, of a row; N divides n.
template <int N>
struct row_terms {
    float scale, residual[N];

    DEVICE_MEMBER void load(const mk_gemm_arguments &p, int row, int n) {
        load_scale(p, row);
        if (p.residual) {
            const float *from = (const float *)p.residual + (long long)row * p.ld_raw + n;
#pragma unroll
            for (int i = 0; i < N; i += 2) set(i, *(const float2 *)(from + i));
        } else {
#pragma unroll
            for (int i = 0; i < N; i += 2) set(i, make_float2(0, 0));
        }
    }

    DEVICE_MEMBER void load_scale(const mk_gemm_arguments &p, int row) {
        scale = p.row_scale ? ((const float *)p.row_scale)[row] : 1.0f;
    }

    DEVICE_MEMBER void set(int i, float2 v) {
        residual[i] = v.x;
        residual[i + 1] = v.y;
    }
};

template <int N>
DEVICE void store_halves(mk_address to, long long at, const half_bits (&h)[N]) {
    half_bits *p = (half_bits *)to + at;
    if (N == 1) *p = h[0];
    if (N == 2) *(unsigned *)p = pair(h[0], h[N > 1 ? 1 : 0]);
    if (N == 4) *(uint2 *)p = make_uint2(pair(h[0], h[N > 1 ? 1 : 0]), pair(h[N > 2 ? 2 : 0], h[N > 3 ? 3 : 0]));
}

// Outputs n to n + N - 1 of a row from their sums; N is 2 or 4 and divides n, and `column` is the place of n among the
// block's outputs.
template <int HALF, int N, class TERMS>
DEVICE void finish(
    const mk_gemm_arguments &p, int row, int n, int column, float (&v)[N], const TERMS &layer,
    const row_terms<N> &own) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        if (HALF == MK_BF16 ? p.squares != 0 : p.row_scale != 0) {
            v[i] *= own.scale;
            v[i + 1] *= own.scale;
        }
        if (p.bias) {
            const float2 bias = layer.bias(column + i);
            v[i] += bias.x;
            v[i + 1] += bias.y;
        }
    }
    if (p.activation == MK_SWIGLU) {
        half_bits high[N / 2], low[N / 2];
#pragma unroll
        for (int i = 0; i < N / 2; i++) split_half<HALF>(silu(v[2 * i]) * v[2 * i + 1], high[i], low[i]);
        const long long at = output_place<HALF>(p.rows, row, n / 2, p.ld_output);
        store_halves(p.output, at, high);
        if (p.output_low) store_halves(p.output_low, at, low);
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (p.activation == MK_SILU) {
            v[i] = silu(v[i]);
        } else if (p.activation == MK_GELU) {
            v[i] = gelu(v[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        if (p.scale) {
            const float2 scale = layer.scale(column + i);
            v[i] *= scale.x;
            v[i + 1] *= scale.y;
        }
        if (p.residual) {
            v[i] += own.residual[i];
            v[i + 1] += own.residual[i + 1];
        }
    }
    if (p.raw) {
        const int to = p.raw_rows ? ((const int *)p.raw_rows)[row] : row;
        float *r = (float *)p.raw + (long long)to * p.ld_raw + n;
        float stored[N];
#pragma unroll
        for (int i = 0; i < N; i++) stored[i] = p.clamp ? fminf(1.0f, fmaxf(-1.0f, v[i])) : v[i];
        if (n + N <= p.stored && p.ld_raw % N == 0) {
            if (N == 4) {
                *(float4 *)r = make_float4(stored[0], stored[1], stored[N > 2 ? 2 : 0], stored[N > 3 ? 3 : 0]);
            } else {
                *(float2 *)r = make_float2(stored[0], stored[1]);
            }
        } else {
#pragma unroll
            for (int i = 0; i < N; i++)
                if (n + i < p.stored) r[i] = stored[i];
        }
    }
    if (p.output) {
        half_bits high[N], low[N];
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            float y[2] = {v[i], v[i + 1]};
            if (p.alpha) {
                const float2 alpha = layer.alpha(column + i);
                if (HALF == MK_BF16) {
                    y[0] = n + i < p.stored ? y[0] * alpha.x : 0.0f;
                    y[1] = n + i + 1 < p.stored ? y[1] * alpha.y : 0.0f;
                } else {
                    const float2 inverse_beta = layer.inverse_beta(column + i);
                    y[0] = snake_beta(y[0], alpha.x, inverse_beta.x);
                    y[1] = snake_beta(y[1], alpha.y, inverse_beta.y);
                }
            }
            split_half<HALF>(y[0], high[i], low[i]);
            split_half<HALF>(y[1], high[i + 1], low[i + 1]);
        }
        const long long at = output_place<HALF>(p.rows, row, n, p.ld_output);
        store_halves(p.output, at, high);
        if (p.output_low) store_halves(p.output_low, at, low);
    }
}

// Σ over a chunk's 32 squares, given each lane's sum over its own 8: lanes t = 0…3 of a row, in one order.
DEVICE float sum_of_four(float v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    v += __shfl_xor_sync(0xffffffffu, v, 2);
    return v;
}

// Σ of eight squares: pairs first, as the persistent kernels' threads have them.
DEVICE float sum_of_squares(const float (&v)[8]) {
    float pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) pairs[i] = fmaf(v[2 * i + 1], v[2 * i + 1], v[2 * i] * v[2 * i]);
    return (pairs[0] + pairs[1]) + (pairs[2] + pairs[3]);
}

DEVICE float inverse_rms(float squares, int width, float epsilon) {
    return inverse_root(quotient(squares, (float)width) + epsilon);
}

DEVICE float inverse_rms(const float *run_sums, int width, float epsilon) {
    float s = 0;
#pragma unroll
    for (int w = 0; w < MK_WARPS; w += 4) {
        const float4 sums = *(const float4 *)(run_sums + w);
        s = (((s + sums.x) + sums.y) + sums.z) + sums.w;
    }
    return inverse_rms(s, width, epsilon);
}

// Σ of a row's squares, in prepare_rows' order: pairs of each eight, eights of each chunk, chunks of each run, runs.
//
// All lanes: Σ of a tile's outputs, of which lane t of each four has two, n and n + 1.
DEVICE void put_squares(const mk_gemm_arguments &p, bool live, int row, int n, const float (&v)[2]) {
    const float a = live && n < p.stored ? v[0] : 0.0f, b = live && n + 1 < p.stored ? v[1] : 0.0f;
    const float sum = sum_of_four(fmaf(b, b, a * a));
    if (live && n % MK_TILE == 0) ((float *)p.output_squares)[(long long)row * p.tiles + n / MK_TILE] = sum;
}

// A block: of each run of `count` rows' inputs, → sums [count][MK_WARPS].
DEVICE void sum_runs(const mk_gemm_arguments &p, float *sums, int row0, int count) {
    const int run = ceiling(p.chunks, MK_WARPS);
#pragma unroll 1
    for (int item = threadIdx.x; item < count * MK_WARPS; item += MK_THREADS) {
        const int row = row0 + item / MK_WARPS;
        if (row >= p.rows) return;
        const int begin = min(p.chunks, item % MK_WARPS * run), end = min(p.chunks, begin + run);
        const float4 *from = (const float4 *)p.squares + (long long)row * p.chunks;
        float sum = 0;
#pragma unroll 4
        for (int c = begin; c < end; c++) {
            const float4 v = from[c];
            sum += (v.x + v.y) + (v.z + v.w);
        }
        sums[item] = sum;
    }
}

// Asynchronous copies of a warp's run of chunks, for tiles [tile0, tile0 + T) and G groups of 8 (split) or 16 (plain) rows
// from row0. A stage holds a chunk of the rows, [G][2][32] units of 16 bytes, and of the tiles, [T][32]; a lane reads back
// what it copied itself. What belongs to no row or tile is not copied: its sums are nobody's.
template <int HALF, int SPLIT, int T, int G>
struct chunk_copies {
    static const int stage_bytes = G * 1024 + T * 512;
    int tile0, row0, begin, count;
    int tap, within;
    const half_bits *first[G], *second[G];

    // Steps from `count` on go through the run again, for what rounding the weights lost.
    DEVICE_MEMBER void weights(const mk_gemm_arguments &p, char *stage, int step) const {
        const bool low = step >= count;
        const int chunk = begin + (low ? step - count : step);
        const half_bits *from = (const half_bits *)(low ? p.weights_low : p.weights) + (threadIdx.x & 31) * 8;
#pragma unroll
        for (int i = 0; i < T; i++)
            if (tile0 + i < p.tiles)
                copy_async(
                    stage + G * 1024 + i * 512,
                    from + ((long long)(tile0 + i) * p.chunks + chunk) * (MK_TILE * MK_CHUNK));
    }

    // Steps come in order.
    DEVICE_MEMBER void inputs(const mk_gemm_arguments &p, char *stage, int step) {
        const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
        if (HALF == MK_BF16) {
            const int chunk = begin + (step >= count ? step - count : step);
#pragma unroll
            for (int i = 0; i < G; i++) {
                const int row = row0 + i * 8;
                const half_bits *from =
                    (const half_bits *)p.input + packed_place(p.rows, row, chunk * MK_CHUNK) + lane * 8;
                if (row + g >= p.rows) continue;
                copy_async(stage + i * 1024, from);
                copy_async(stage + i * 1024 + 512, from + 256);
            }
            return;
        }
        bool is_new = false;
        if (step == 0 || step == count) {
            tap = begin / p.chunks_per_tap;
            within = begin - tap * p.chunks_per_tap;
            is_new = true;
        } else if (++within == p.chunks_per_tap) {
            within = 0;
            tap++;
            is_new = true;
        }
        if (is_new) {
#pragma unroll
            for (int i = 0; i < G; i++) {
                const int row = row0 + i * (SPLIT ? 8 : 16) + g;
                first[i] = second[i] = 0;
                if (row < p.rows) {
                    const row_source source = find_row(p, row, tap);
                    first[i] = source.high;
                    if (SPLIT) second[i] = source.low;
                }
                if (!SPLIT && row + 8 < p.rows) second[i] = find_row(p, row + 8, tap).high;
            }
        }
        const int at = within * MK_CHUNK + t * 8;
#pragma unroll
        for (int i = 0; i < G; i++) {
            if (first[i]) copy_async(stage + i * 1024, first[i] + at);
            if (second[i]) copy_async(stage + i * 1024 + 512, second[i] + at);
        }
    }
};

// Which outputs the `item`-th pair of a block of gemm are, and the first of the warps that have their runs.
template <int SPLIT, int T, int G>
struct gemm_pair {
    int row, column, n, first_warp, at;
    bool live;

    DEVICE_MEMBER gemm_pair(const mk_gemm_arguments &p, int item) {
        const int halves = SPLIT ? 1 : 2, group_rows = SPLIT ? 8 : 16, sets = MK_WARPS / p.splits;
        const int half = item % halves, lane = item / halves % 32, group = item / (halves * 32);
        const int j = group % G, i = group / G % T, set = group / (G * T), tile = blockIdx.y * T + i;
        row = ((blockIdx.x * sets + set) * G + j) * group_rows + (lane >> 2) + half * 8;
        column = i * MK_TILE + (lane & 3) * 2;
        n = blockIdx.y * T * MK_TILE + column;
        live = set < sets && row < p.rows && tile < p.tiles;
        first_warp = set * p.splits;
        at = ((i * G + j) * 32 + lane) * halves + half;
    }
};

// Grid: x blocks of rows, y blocks of T tiles. Shared memory: STAGES stages for each warp, the layer's terms, and [MK_WARPS]
// floats for each row.
template <int HALF, int SPLIT, int T, int G, int STAGES>
DEVICE void gemm(const mk_gemm_arguments &p) {
    typedef chunk_copies<HALF, SPLIT, T, G> copies_of_run;
    typedef gemm_pair<SPLIT, T, G> output_pair;
    let_next_launch_begin();
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int splits = p.splits, set = warp / splits;
    const int run = ceiling(p.chunks, splits), ring_bytes = STAGES * copies_of_run::stage_bytes;
    char *ring = dynamic_shared() + warp * ring_bytes + lane * 16;

    copies_of_run copies;
    copies.tile0 = blockIdx.y * T;
    copies.row0 = (blockIdx.x * (MK_WARPS / splits) + set) * G * (SPLIT ? 8 : 16);
    copies.begin = min(p.chunks, warp % splits * run);
    copies.count = copies.row0 < p.rows ? min(p.chunks, copies.begin + run) - copies.begin : 0;
    const int steps = p.weights_low ? 2 * copies.count : copies.count;
#pragma unroll
    for (int i = 0; i < STAGES; i++)
        if (i < steps) copies.weights(p, ring + i * copies_of_run::stage_bytes, i);
    const layer_terms<T * MK_TILE> layer = {(const float *)(dynamic_shared() + MK_WARPS * ring_bytes)};
    layer.copy(p, copies.tile0 * MK_TILE);
    wait_for_launches();
#pragma unroll
    for (int i = 0; i < STAGES; i++) {
        if (i < steps) copies.inputs(p, ring + i * copies_of_run::stage_bytes, i);
        copy_async_commit();
    }
    float *run_sums = (float *)layer.at + 4 * T * MK_TILE;
    const int block_rows = MK_WARPS / splits * G * (SPLIT ? 8 : 16);
    if (HALF == MK_BF16 && p.squares) sum_runs(p, run_sums, blockIdx.x * block_rows, block_rows);
    // Of this thread's first pair of outputs, often its only one.
    row_terms<2> own;
    const output_pair first(p, threadIdx.x);
    if (first.live) own.load(p, first.row, first.n);

    float sums[T][G][4];
#pragma unroll
    for (int i = 0; i < T; i++)
#pragma unroll
        for (int j = 0; j < G; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) sums[i][j][k] = 0;
    char *stage = ring;
    for (int step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 1>();
        uint4 a0[1][G], a1[1][G];
#pragma unroll
        for (int i = 0; i < G; i++) {
            a0[0][i] = *(const uint4 *)(stage + i * 1024);
            a1[0][i] = *(const uint4 *)(stage + i * 1024 + 512);
        }
        // As many tiles at a time as registers hold.
        const int part = T * G > 8 ? 2 : T;
#pragma unroll
        for (int tile = 0; tile < T; tile += part) {
            uint4 b[1][part];
#pragma unroll
            for (int i = 0; i < part; i++) b[0][i] = *(const uint4 *)(stage + G * 1024 + (tile + i) * 512);
            multiply_chunks<HALF, part, G, 1>(*(float(*)[part][G][4])sums[tile], a0, a1, b);
        }
        if (step + STAGES < steps) {
            copies.weights(p, stage, step + STAGES);
            copies.inputs(p, stage, step + STAGES);
        }
        copy_async_commit();
        stage += copies_of_run::stage_bytes;
        if (stage == ring + ring_bytes) stage = ring;
    }

    // In place of the ring: [T][G][32] sums of each lane.
    copy_async_wait<0>();
    __syncwarp();
    float *partial = (float *)(dynamic_shared() + warp * ring_bytes);
#pragma unroll
    for (int i = 0; i < T; i++) {
#pragma unroll
        for (int j = 0; j < G; j++) {
            const float *s = sums[i][j];
            const int at = (i * G + j) * 32 + lane;
            if (SPLIT) {
                ((float2 *)partial)[at] = make_float2(s[0] + s[2], s[1] + s[3]);
            } else {
                ((float4 *)partial)[at] = make_float4(s[0], s[1], s[2], s[3]);
            }
        }
    }
    __syncthreads();
    const int items = MK_WARPS / splits * T * G * 32 * (SPLIT ? 1 : 2);
    for (int item = threadIdx.x; item < items; item += MK_THREADS) {
        const output_pair out(p, item);
        float v[2] = {0, 0};
        if (out.live) {
            if (item >= MK_THREADS) own.load(p, out.row, out.n);
            if (HALF == MK_BF16 && p.squares)
                own.scale =
                    inverse_rms(run_sums + (out.row - blockIdx.x * block_rows) * MK_WARPS, p.norm_width, p.epsilon);
            const char *runs = dynamic_shared() + out.first_warp * ring_bytes;
            for (int s = 0; s < splits; s++) {
                const float2 part = ((const float2 *)(runs + s * ring_bytes))[out.at];
                v[0] += part.x;
                v[1] += part.y;
            }
            finish<HALF>(p, out.row, out.n, out.column, v, layer, own);
        }
        if (HALF == MK_BF16 && p.output_squares) put_squares(p, out.live, out.row, out.n, v);
    }
}

// Stages (ProductForm): what fits 96 KiB, so that two blocks find room.
KERNEL_PAIRED gemm_bf16_split_narrow(const mk_gemm_arguments p) { gemm<MK_BF16, 1, 1, 1, 4>(p); }
KERNEL_PAIRED gemm_f16_split_narrow(const mk_gemm_arguments p) { gemm<MK_F16, 1, 1, 1, 4>(p); }
KERNEL_PAIRED gemm_f16_plain_narrow(const mk_gemm_arguments p) { gemm<MK_F16, 0, 1, 1, 4>(p); }
KERNEL gemm_bf16_split_wide(const mk_gemm_arguments p) { gemm<MK_BF16, 1, 2, 4, 2>(p); }
KERNEL gemm_bf16_split_wide4(const mk_gemm_arguments p) { gemm<MK_BF16, 1, 4, 4, 2>(p); }
KERNEL gemm_f16_split_wide(const mk_gemm_arguments p) { gemm<MK_F16, 1, 2, 4, 2>(p); }
KERNEL gemm_f16_plain_wide(const mk_gemm_arguments p) { gemm<MK_F16, 0, 2, 4, 2>(p); }

// Few rows, two or four tiles a block: where one tile a block made more blocks than multiprocessors.
KERNEL_PAIRED gemm_f16_plain_narrow2(const mk_gemm_arguments p) { gemm<MK_F16, 0, 2, 1, 3>(p); }
KERNEL_PAIRED gemm_f16_plain_narrow4(const mk_gemm_arguments p) { gemm<MK_F16, 0, 4, 1, 2>(p); }
KERNEL_PAIRED gemm_f16_split_narrow4(const mk_gemm_arguments p) { gemm<MK_F16, 1, 4, 1, 2>(p); }

// Grid: rows. Shared memory: chunks + MK_WARPS floats.
template <int HALF>
DEVICE void prepare(const mk_prepare_arguments &p) {
    let_next_launch_begin();
    wait_for_launches();
    const int row = blockIdx.x, source = p.row_index ? ((const int *)p.row_index)[row] : row;
    const float *x = (const float *)p.x + (long long)source * p.ld, *gain = (const float *)p.gain;
    float *run_sums = (float *)dynamic_shared(), *chunk_sums = run_sums + MK_WARPS;
    const int pieces = p.chunks * (MK_CHUNK / 8);
    // Eight values a thread; lanes without any take part in the exchanges.
#pragma unroll 1
    for (int first = (threadIdx.x & ~31u); first < pieces; first += MK_THREADS) {
        const int piece = first + (threadIdx.x & 31), k = piece * 8;
        float v[8], y[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = y[i] = 0;
        if (k + 8 <= p.width) {
            const float4 a = *(const float4 *)(x + k), b = *(const float4 *)(x + k + 4);
            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (k + i < p.width) v[i] = x[k + i];
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (k + i < p.width) y[i] = gain ? v[i] * gain[k + i] : v[i];
        const float eight = sum_of_squares(v), sum = sum_of_four(eight);
        if (piece >= pieces) continue;
        if (p.squares) ((float *)p.squares)[(long long)row * pieces + piece] = eight;
        if (piece % 4 == 0) chunk_sums[piece / 4] = sum;
        uint4 high, low;
        split_eight<HALF>(y, high, low);
        const long long at = output_place<HALF>(p.rows, row, k, p.ld_output);
        *(uint4 *)((half_bits *)p.output + at) = high;
        *(uint4 *)((half_bits *)p.output_low + at) = low;
    }
    if (!p.row_scale && !p.normed) return;
    __syncthreads();
    // Run w of the chunks, as the layer behind it has them.
    if (threadIdx.x < MK_WARPS) {
        const int run = ceiling(p.chunks, MK_WARPS);
        const int begin = min(p.chunks, (int)threadIdx.x * run), end = min(p.chunks, begin + run);
        float sum = 0;
        for (int c = begin; c < end; c++) sum += chunk_sums[c];
        run_sums[threadIdx.x] = sum;
    }
    __syncthreads();
    if (threadIdx.x > 0 && !p.normed) return;
    const float scale = inverse_rms(run_sums, p.width, p.epsilon);
    if (p.row_scale && threadIdx.x == 0) ((float *)p.row_scale)[row] = scale;
    if (!p.normed) return;
    float *to = (float *)p.normed + (long long)(p.normed_rows ? ((const int *)p.normed_rows)[row] : row) * p.ld_normed;
    for (int k = threadIdx.x; k < p.width; k += MK_THREADS) to[k] = x[k] * gain[k] * scale;
}

KERNEL prepare_rows(const mk_prepare_arguments p) {
    if (p.half == MK_BF16) {
        prepare<MK_BF16>(p);
    } else {
        prepare<MK_F16>(p);
    }
}
