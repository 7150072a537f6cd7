// Linear layers and convolutions of many rows: the sums of linear.cu to the bit, by blocks whose warps share inputs and
// weights in shared memory.
//
// A block takes `rows` rows by `tiles` tiles. Its warps are KG groups of WM · WN; group k sums runs k, k + KG … of the
// chunks, each warp two groups of rows by T tiles. After every KG runs these are added in order. Chunks come by
// asynchronous copies, MK_TILE_STAGES at a time; those of a block's next part of the outputs begin before the last one's
// epilogue, whose residual came meanwhile.

template <int SPLIT, int WM, int WN, int T, int KG>
struct tiling {
    static const int group_rows = SPLIT ? 8 : 16;
    static const int groups = 2 * WM, rows = groups * group_rows;
    static const int tiles = WN * T, columns = tiles * MK_TILE;
    /// Floats of a row in shared memory: no two rows of a store meet in a bank.
    static const int ld = columns + MK_TILE;
    /// Pieces of 16 bytes in a stage: of 8 rows' or 8 outputs' part of a chunk there are 32.
    static const int inputs = KG * groups * 64, weights = KG * tiles * 32;
    static const int stage_bytes = (inputs + weights) * 16;
    static const int input_places = (inputs + MK_THREADS - 1) / MK_THREADS;
    static const int weight_places = (weights + MK_THREADS - 1) / MK_THREADS;
    /// Four neighbouring outputs of a row.
    static const int quads = rows * columns / 4, quad_places = (quads + MK_THREADS - 1) / MK_THREADS;
};

// Where thread `threadIdx.x` copies from, chunk after chunk.
template <int SPLIT, int WM, int WN, int T, int KG>
struct tile_copies {
    typedef tiling<SPLIT, WM, WN, T, KG> form;
    const half_bits *from[form::input_places];
    int tap[form::input_places], within[form::input_places];
    int row0, tile0, copied, round, step;

    DEVICE_MEMBER void begin(const mk_gemm_arguments &p, int block) {
        const int row_blocks = ceiling(p.rows, form::rows);
        row0 = block % row_blocks * form::rows;
        tile0 = block / row_blocks * form::tiles;
        copied = round = step = 0;
    }

    // The thread's next group: what comes next of `steps` steps, if anything.
    DEVICE_MEMBER void next(const mk_gemm_arguments &p, char *stages, int run, int steps) {
        if (copied < steps) {
            issue(p, stages + copied % MK_TILE_STAGES * form::stage_bytes, run, step);
            copied++;
            if (++step == run) {
                step = 0;
                round++;
            }
        }
    }

    // Copies step `i` of a run.
    DEVICE_MEMBER void issue(const mk_gemm_arguments &p, char *stage, int run, int i) {
#pragma unroll
        for (int place = 0; place < form::input_places; place++) {
            const int piece = threadIdx.x + place * MK_THREADS;
            const int k = piece / (form::groups * 64), rest = piece % (form::groups * 64), lane = rest & 31;
            const int half = rest >> 5 & 1;
            const int row = row0 + (rest >> 6) * form::group_rows + (SPLIT ? 0 : half * 8) + (lane >> 2);
            const int chunk = (round * KG + k) * run + i;
            if (piece >= form::inputs || row >= p.rows || chunk >= p.chunks) continue;
            bool is_new = i == 0;
            if (is_new) {
                tap[place] = chunk / p.chunks_per_tap;
                within[place] = chunk - tap[place] * p.chunks_per_tap;
            } else if (++within[place] == p.chunks_per_tap) {
                within[place] = 0;
                tap[place]++;
                is_new = true;
            }
            if (is_new) {
                const row_source source = find_row(p, row, tap[place]);
                from[place] = SPLIT && half ? source.low : source.high;
            }
            copy_async_cached(stage + piece * 16, from[place] + within[place] * MK_CHUNK + (lane & 3) * 8);
        }
        char *weights = stage + form::inputs * 16;
#pragma unroll
        for (int place = 0; place < form::weight_places; place++) {
            const int piece = threadIdx.x + place * MK_THREADS;
            const int k = piece / (form::tiles * 32), tile = tile0 + piece / 32 % form::tiles;
            const int chunk = (round * KG + k) * run + i;
            if (piece >= form::weights || tile >= p.tiles || chunk >= p.chunks) continue;
            const long long at = ((long long)tile * p.chunks + chunk) * (MK_TILE * MK_CHUNK) + (piece & 31) * 8;
            copy_async(weights + piece * 16, (const half_bits *)p.weights + at);
        }
    }
};

// The same words, but new to the compiler, which may then compute them where a product wants its operand: four registers
// in a row, of two loads. Else it copies them there for every tile.
DEVICE uint4 renewed(uint4 v, unsigned zero) { return make_uint4(v.x ^ zero, v.y ^ zero, v.z ^ zero, v.w ^ zero); }

// Grid: at most as many blocks as there are parts of `rows` rows by `tiles` tiles; a block takes every gridDim.x-th. Shared
// memory: MK_TILE_STAGES stages, KG · rows · ld floats of sums, rows · columns of the residual, and the layer's terms.
template <int HALF, int SPLIT, int WM, int WN, int T, int KG>
DEVICE void gemm_tiles(const mk_gemm_arguments &p) {
    typedef tiling<SPLIT, WM, WN, T, KG> form;
    let_next_launch_begin();
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    const int k = warp / (WM * WN), warp_group = warp / WN % WM * 2, warp_tile = warp % WN * T;
    const int run = ceiling(p.chunks, p.splits), runs = ceiling(p.chunks, run);
    const int rounds = ceiling(runs, KG), steps = rounds * run;
    const int parts = ceiling(p.rows, form::rows) * ceiling(p.tiles, form::tiles);
    char *stages = dynamic_shared();
    float *gathered = (float *)(stages + MK_TILE_STAGES * form::stage_bytes);
    float *residual = gathered + KG * form::rows * form::ld;
    const layer_terms<form::columns> layer = {residual + form::rows * form::columns};
    // Which the compiler cannot know.
    const unsigned zero = (unsigned)p.splits >> 30;
    wait_for_launches();

    tile_copies<SPLIT, WM, WN, T, KG> copies;
    copies.begin(p, blockIdx.x);
#pragma unroll 1
    for (int i = 0; i < MK_TILE_STAGES - 1; i++) {
        copies.next(p, stages, run, steps);
        copy_async_commit();
    }
#pragma unroll 1
    for (int part = blockIdx.x; part < parts; part += gridDim.x) {
        const int row0 = copies.row0, tile0 = copies.tile0;
        const bool has_rows = row0 + warp_group * form::group_rows < p.rows;
        // Totals: with one group of warps of a lane's own sums, else of quads dealt out to threads.
        float sums[T][2][4], totals[KG == 1 ? T : 1][2][SPLIT ? 2 : 4], quads[KG == 1 ? 1 : form::quad_places][4];
#pragma unroll
        for (int i = 0; i < T; i++)
#pragma unroll
            for (int j = 0; j < 2; j++)
#pragma unroll
                for (int v = 0; v < 4; v++) {
                    sums[i][j][v] = 0;
                    if (KG == 1 && v < (SPLIT ? 2 : 4)) totals[KG == 1 ? i : 0][j][v] = 0;
                }
#pragma unroll
        for (int i = 0; i < (KG == 1 ? 1 : form::quad_places); i++)
#pragma unroll
            for (int v = 0; v < 4; v++) quads[i][v] = 0;

        int round = 0, in_run = 0;
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
            copy_async_wait<MK_TILE_STAGES - 2>();
            __syncthreads();
            copies.next(p, stages, run, steps);
            // Behind the last chunks: no step waits for it.
            if (step == max(0, steps - MK_TILE_STAGES + 1)) {
                layer.copy(p, tile0 * MK_TILE);
                if (p.residual) {
#pragma unroll 1
                    for (int quad = threadIdx.x; quad < form::quads; quad += MK_THREADS) {
                        const int row = row0 + quad / (form::columns / 4);
                        const int n = tile0 * MK_TILE + quad % (form::columns / 4) * 4;
                        if (row < p.rows && n < p.tiles * MK_TILE)
                            copy_async(residual + quad * 4, (const float *)p.residual + (long long)row * p.ld_raw + n);
                    }
                }
            }
            copy_async_commit();
            if (has_rows && (round * KG + k) * run + in_run < p.chunks) {
                const char *stage = stages + step % MK_TILE_STAGES * form::stage_bytes + lane * 16;
                const char *inputs = stage + (k * form::groups + warp_group) * 1024;
                const char *weights = stage + form::inputs * 16 + (k * form::tiles + warp_tile) * 512;
                uint4 a0[1][2], a1[1][2], b[1][T];
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    a0[0][j] = renewed(*(const uint4 *)(inputs + j * 1024), zero);
                    a1[0][j] = renewed(*(const uint4 *)(inputs + j * 1024 + 512), zero);
                }
#pragma unroll
                for (int i = 0; i < T; i++) b[0][i] = *(const uint4 *)(weights + i * 512);
                multiply_chunks<HALF, T, 2, 1>(sums, a0, a1, b);
            }
            if (++in_run < run) continue;
            // The ends of KG runs.
            in_run = 0;
            round++;
#pragma unroll
            for (int i = 0; i < T; i++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float *s = sums[i][j];
                    if (SPLIT) {
                        s[0] += s[2];
                        s[1] += s[3];
                    }
#pragma unroll
                    for (int v = 0; v < (SPLIT ? 2 : 4); v += 2) {
                        const int row = (warp_group + j) * form::group_rows + g + v * 4;
                        float *at = gathered + (k * form::rows + row) * form::ld + (warp_tile + i) * MK_TILE + t * 2;
                        if (KG == 1) {
                            totals[KG == 1 ? i : 0][j][v] += s[v];
                            totals[KG == 1 ? i : 0][j][v + 1] += s[v + 1];
                        } else {
                            *(float2 *)at = make_float2(s[v], s[v + 1]);
                        }
                    }
#pragma unroll
                    for (int v = 0; v < 4; v++) s[v] = 0;
                }
            }
            if (KG == 1) continue;
            // The barrier of the next step, or that before the epilogue, comes before the next stores.
            __syncthreads();
#pragma unroll
            for (int place = 0; place < form::quad_places; place++) {
                const int quad = threadIdx.x + place * MK_THREADS;
                if (quad >= form::quads) continue;
                const float *at = gathered + quad / (form::columns / 4) * form::ld + quad % (form::columns / 4) * 4;
#pragma unroll
                for (int i = 0; i < KG; i++) {
                    const float4 v = *(const float4 *)(at + i * form::rows * form::ld);
                    float *to = quads[KG == 1 ? 0 : place];
                    to[0] += v.x, to[1] += v.y, to[2] += v.z, to[3] += v.w;
                }
            }
        }

        if (KG == 1) {
#pragma unroll
            for (int i = 0; i < T; i++)
#pragma unroll
                for (int j = 0; j < 2; j++)
#pragma unroll
                    for (int v = 0; v < (SPLIT ? 2 : 4); v += 2) {
                        const int row = (warp_group + j) * form::group_rows + g + v * 4;
                        const float *total = totals[KG == 1 ? i : 0][j];
                        *(float2 *)(gathered + row * form::ld + (warp_tile + i) * MK_TILE + t * 2) =
                            make_float2(total[v], total[v + 1]);
                    }
        } else {
#pragma unroll
            for (int place = 0; place < form::quad_places; place++) {
                const int quad = threadIdx.x + place * MK_THREADS;
                if (quad >= form::quads) continue;
                const float *v = quads[KG == 1 ? 0 : place];
                // Only this thread reads and writes it.
                *(float4 *)(gathered + quad / (form::columns / 4) * form::ld + quad % (form::columns / 4) * 4) =
                    make_float4(v[0], v[1], v[2], v[3]);
            }
        }
        // Residual and terms are there; sums too, and no warp reads a stage.
        copy_async_wait<0>();
        __syncthreads();
        if (part + (int)gridDim.x < parts) {
            copies.begin(p, part + gridDim.x);
#pragma unroll 1
            for (int i = 0; i < MK_TILE_STAGES - 1; i++) {
                copies.next(p, stages, run, steps);
                copy_async_commit();
            }
        }
#pragma unroll 1
        for (int quad = threadIdx.x; quad < form::quads; quad += MK_THREADS) {
            const int row = quad / (form::columns / 4), column = quad % (form::columns / 4) * 4;
            const int n = tile0 * MK_TILE + column;
            if (row0 + row >= p.rows || n >= p.tiles * MK_TILE) continue;
            const float4 sum = *(const float4 *)(gathered + row * form::ld + column);
            float v[4] = {sum.x, sum.y, sum.z, sum.w};
            row_terms<4> own;
            own.load_scale(p, row0 + row);
            own.set(0, *(const float2 *)(residual + quad * 4));
            own.set(2, *(const float2 *)(residual + quad * 4 + 2));
            finish<HALF>(p, row0 + row, n, column, v, layer, own);
        }
    }
}

KERNEL gemm_f16_plain_rows128(const mk_gemm_arguments p) { gemm_tiles<MK_F16, 0, 4, 4, 3, 1>(p); }
KERNEL gemm_f16_plain_rows64(const mk_gemm_arguments p) { gemm_tiles<MK_F16, 0, 2, 2, 4, 4>(p); }
KERNEL gemm_f16_split_rows64(const mk_gemm_arguments p) { gemm_tiles<MK_F16, 1, 4, 1, 4, 4>(p); }

// Bands: plain rows through blocks of WM · 32 rows by 96 outputs. Warp (m, n) of WM · 3 sums 32 rows by 32 outputs, DEPTH
// chunks of one tap between two barriers; where a tap's rows begin is found once for the block. A lane finishes its own
// sums, so that no warp waits for another behind the last chunk.
// A step of the chunks of a part is a stage of shared memory: rows in planes of a chunk, [DEPTH][rows][MK_CHUNK], then weights,
// [tiles][DEPTH][MK_TILE][MK_CHUNK].

template <int WM, int DEPTH>
struct band {
    static const int rows = WM * 32, tiles = 12, columns = tiles * MK_TILE, stages = 3;
    /// Pieces of 16 bytes.
    static const int inputs = DEPTH * rows * 4, weights = tiles * DEPTH * 32;
    static const int stage_bytes = (inputs + weights) * 16;
    static const int input_places = (inputs + MK_THREADS - 1) / MK_THREADS;
    static const int weight_places = (weights + MK_THREADS - 1) / MK_THREADS;
};

// What a block copies: step after step of part after part.
template <int WM, int DEPTH>
struct band_copies {
    typedef band<WM, DEPTH> form;
    /// In shared memory: where the rows of a tap begin, of two taps in turn, [2][rows].
    const half_bits **places;
    int part, parts, column_parts, row0, tap, within, turn;
    /// Where the next step's weights begin, and pieces from there to this thread's.
    const uint4 *weights;
    int weight_at[form::weight_places];

    DEVICE_MEMBER void begin(const mk_gemm_arguments &p) {
#pragma unroll
        for (int place = 0; place < form::weight_places; place++) {
            const int piece = threadIdx.x + place * MK_THREADS, tile = piece / (DEPTH * 32);
            weight_at[place] = tile * p.chunks * 32 + piece - tile * (DEPTH * 32);
        }
        column_parts = p.tiles / form::tiles;
        parts = ceiling(p.rows, form::rows) * column_parts;
        turn = 0;
        begin_part(p, blockIdx.x);
    }

    DEVICE_MEMBER void begin_part(const mk_gemm_arguments &p, int new_part) {
        part = new_part;
        tap = within = 0;
        row0 = part / column_parts * form::rows;
        weights = (const uint4 *)p.weights + (long long)(part % column_parts * form::tiles) * p.chunks * 32;
        locate(p);
    }

    // For the steps behind the next barrier. Behind the last row comes the last row: its sums are nobody's.
    DEVICE_MEMBER void locate(const mk_gemm_arguments &p) {
        if (threadIdx.x < form::rows && part < parts)
            places[turn * form::rows + threadIdx.x] = find_row(p, min(row0 + (int)threadIdx.x, p.rows - 1), tap).high;
    }

    // The thread's next group: the next step, if there is one. A barrier lies between two calls.
    DEVICE_MEMBER void next(const mk_gemm_arguments &p, char *stage) {
        if (part < parts) {
            const half_bits *const *from = places + turn * form::rows;
#pragma unroll
            for (int place = 0; place < form::input_places; place++) {
                const int piece = threadIdx.x + place * MK_THREADS;
                if ((place + 1) * MK_THREADS > form::inputs && piece >= form::inputs) continue;
                const int plane = piece / (form::rows * 4);
                copy_async_cached(
                    stage + piece * 16,
                    from[piece / 4 - plane * form::rows] + (within + plane) * MK_CHUNK + (piece & 3) * 8);
            }
#pragma unroll
            for (int place = 0; place < form::weight_places; place++) {
                const int piece = threadIdx.x + place * MK_THREADS;
                if ((place + 1) * MK_THREADS > form::weights && piece >= form::weights) continue;
                copy_async(stage + (form::inputs + piece) * 16, weights + weight_at[place]);
            }
            weights += DEPTH * 32;
            within += DEPTH;
            if (within == p.chunks_per_tap) {
                within = 0;
                turn ^= 1;
                if (++tap == p.taps) {
                    begin_part(p, part + gridDim.x);
                } else {
                    locate(p);
                }
            }
        }
        copy_async_commit();
    }
};

// Four words of each of four neighbouring lanes: lane t gets word t of each.
DEVICE uint4 across_four_lanes(unsigned (&w)[4]) {
    const bool odd = (threadIdx.x & 1) != 0, upper = (threadIdx.x & 2) != 0;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const unsigned other = __shfl_xor_sync(0xffffffffu, odd ? w[i] : w[i + 1], 1);
        if (odd) {
            w[i] = other;
        } else {
            w[i + 1] = other;
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const unsigned other = __shfl_xor_sync(0xffffffffu, upper ? w[i] : w[i + 2], 2);
        if (upper) {
            w[i] = other;
        } else {
            w[i + 2] = other;
        }
    }
    return make_uint4(w[0], w[1], w[2], w[3]);
}

DEVICE float2 load_term(mk_address from, int n) {
    return from ? *(const float2 *)((const float *)from + n) : make_float2(0, 0);
}

// A warp's sums of 32 rows from `row0` on and 32 outputs from `n0` on, as products leave them; `finish` of linear.cu but for
// SwiGLU, clamps and lower halves.
DEVICE void finish_band(const mk_gemm_arguments &p, int row0, int n0, const float (&sums)[4][2][4]) {
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int n = n0 + t * 2, channel = n0 % p.period + t * 2;
    float2 bias[4];
#pragma unroll
    for (int i = 0; i < 4; i++) bias[i] = load_term(p.bias, channel + i * MK_TILE);
#pragma unroll
    for (int j = 0; j < 2; j++) {
        float2 residual[2][4];
        if (p.residual) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = min(row0 + j * 16 + half * 8 + g, p.rows - 1);
                const float *from = (const float *)p.residual + (long long)row * p.ld_raw + n;
#pragma unroll
                for (int i = 0; i < 4; i++) residual[half][i] = *(const float2 *)(from + i * MK_TILE);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = row0 + j * 16 + half * 8 + g;
            const bool is_there = row < p.rows;
            float2 v[4];
#pragma unroll
            for (int i = 0; i < 4; i++) v[i] = make_float2(sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
            if (p.row_scale) {
                const float scale = is_there ? ((const float *)p.row_scale)[row] : 1.0f;
#pragma unroll
                for (int i = 0; i < 4; i++) v[i] = make_float2(v[i].x * scale, v[i].y * scale);
            }
            if (p.bias) {
#pragma unroll
                for (int i = 0; i < 4; i++) v[i] = make_float2(v[i].x + bias[i].x, v[i].y + bias[i].y);
            }
            if (p.activation == MK_SILU) {
#pragma unroll
                for (int i = 0; i < 4; i++) v[i] = make_float2(silu(v[i].x), silu(v[i].y));
            } else if (p.activation == MK_GELU) {
#pragma unroll
                for (int i = 0; i < 4; i++) v[i] = make_float2(gelu(v[i].x), gelu(v[i].y));
            }
            if (p.scale) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float2 scale = load_term(p.scale, n + i * MK_TILE);
                    v[i] = make_float2(v[i].x * scale.x, v[i].y * scale.y);
                }
            }
            if (p.residual) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    v[i] = make_float2(v[i].x + residual[half][i].x, v[i].y + residual[half][i].y);
            }
            if (p.raw && is_there) {
                float *raw =
                    (float *)p.raw + (long long)(p.raw_rows ? ((const int *)p.raw_rows)[row] : row) * p.ld_raw + n;
#pragma unroll
                for (int i = 0; i < 4; i++) *(float2 *)(raw + i * MK_TILE) = v[i];
            }
            if (!p.output) continue;
            if (p.alpha) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float2 alpha = load_term(p.alpha, channel + i * MK_TILE);
                    const float2 inverse_beta = load_term(p.inverse_beta, channel + i * MK_TILE);
                    v[i] = make_float2(
                        snake_beta(v[i].x, alpha.x, inverse_beta.x), snake_beta(v[i].y, alpha.y, inverse_beta.y));
                }
            }
            unsigned words[4];
#pragma unroll
            for (int i = 0; i < 4; i++) words[i] = f16_pair(v[i].x, v[i].y);
            const uint4 own = across_four_lanes(words);
            if (is_there) *(uint4 *)((half_bits *)p.output + (long long)row * p.ld_output + n0 + t * MK_TILE) = own;
        }
    }
}

// Grid: at most as many blocks as there are parts of `rows` rows by 96 outputs; a block takes every gridDim.x-th. Tiles are a
// multiple of 12, a tap's chunks of DEPTH. Shared memory: three stages, and 2 · rows places.
template <int WM, int DEPTH>
DEVICE void gemm_bands(const mk_gemm_arguments &p) {
    typedef band<WM, DEPTH> form;
    let_next_launch_begin();
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warp_row = warp / 3, warp_column = warp % 3;
    const int run = ceiling(p.chunks, p.splits), steps = p.chunks / DEPTH;
    const unsigned zero = (unsigned)p.splits >> 30;  // Which the compiler cannot know.
    char *stages = dynamic_shared();
    band_copies<WM, DEPTH> copies;
    copies.places = (const half_bits **)(stages + form::stages * form::stage_bytes);
    copies.begin(p);
    __syncthreads();
    wait_for_launches();
    copies.next(p, stages);
    __syncthreads();
    copies.next(p, stages + form::stage_bytes);
    int slot = 0;
#pragma unroll 1
    for (int part = blockIdx.x; part < copies.parts; part += gridDim.x) {
        const int row0 = part / copies.column_parts * form::rows + warp_row * 32;
        const int n0 = part % copies.column_parts * form::columns + warp_column * 32;
        const bool is_live = warp_row < WM && row0 < p.rows;
        float sums[4][2][4], totals[4][2][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 2; j++)
#pragma unroll
                for (int v = 0; v < 4; v++) sums[i][j][v] = totals[i][j][v] = 0;
        int in_run = 0;
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
            copy_async_wait<1>();
            __syncthreads();
            copies.next(p, stages + (slot == 0 ? 2 : slot - 1) * form::stage_bytes);
            const char *inputs = stages + slot * form::stage_bytes + warp_row * 2048 + lane * 16;
            const char *weights =
                stages + slot * form::stage_bytes + form::inputs * 16 + warp_column * 4 * DEPTH * 512 + lane * 16;
            slot = slot == 2 ? 0 : slot + 1;
            if (!is_live) continue;
            // Operands are read a tile, rows a chunk ahead of the products.
            uint4 rows[2][4], tile[2];
#pragma unroll
            for (int q = 0; q < 4; q++) rows[0][q] = *(const uint4 *)(inputs + q * 512);
            tile[0] = *(const uint4 *)weights;
#pragma unroll
            for (int d = 0; d < DEPTH; d++) {
                uint4 a0[1][2], a1[1][2];
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    a0[0][j] = renewed(rows[d & 1][j * 2], zero);
                    a1[0][j] = renewed(rows[d & 1][j * 2 + 1], zero);
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if (i < 3) {
                        tile[(i + 1) & 1] = *(const uint4 *)(weights + ((i + 1) * DEPTH + d) * 512);
                    } else if (d + 1 < DEPTH) {
                        tile[0] = *(const uint4 *)(weights + (d + 1) * 512);
                    }
                    if (d + 1 < DEPTH)
                        rows[(d + 1) & 1][i] = *(const uint4 *)(inputs + (d + 1) * form::rows * 64 + i * 512);
                    const uint4 b[1][1] = {{tile[i & 1]}};
                    multiply_chunks<MK_F16, 1, 2, 1>(*(float(*)[1][2][4])sums[i], a0, a1, b);
                }
                if (++in_run < run) continue;
                in_run = 0;
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 2; j++)
#pragma unroll
                        for (int v = 0; v < 4; v++) {
                            totals[i][j][v] += sums[i][j][v];
                            sums[i][j][v] = 0;
                        }
            }
        }
        if (!is_live) continue;
        if (in_run > 0) {
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 2; j++)
#pragma unroll
                    for (int v = 0; v < 4; v++) totals[i][j][v] += sums[i][j][v];
        }
        finish_band(p, row0, n0, totals);
    }
}

KERNEL gemm_f16_plain_band160(const mk_gemm_arguments p) { gemm_bands<5, 3>(p); }
