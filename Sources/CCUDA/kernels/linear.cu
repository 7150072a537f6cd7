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

// Two neighbouring outputs n and n + 1 of a row.
template <int HALF>
DEVICE void finish(const mk_gemm_arguments &p, int row, int n, float v0, float v1) {
    if (p.row_scale) {
        float s = ((const float *)p.row_scale)[row];
        v0 *= s;
        v1 *= s;
    }
    int channel = n % p.period;
    if (p.bias) {
        v0 += ((const float *)p.bias)[channel];
        v1 += ((const float *)p.bias)[channel + 1];
    }
    if (p.activation == MK_SWIGLU) {
        half_bits high, low;
        split_half<HALF>(silu(v0) * v1, high, low);
        long long at = output_place<HALF>(p.rows, row, n / 2, p.ld_output);
        ((half_bits *)p.output)[at] = high;
        if (p.output_low) ((half_bits *)p.output_low)[at] = low;
        return;
    }
    if (p.activation == MK_SILU) {
        v0 = silu(v0);
        v1 = silu(v1);
    } else if (p.activation == MK_GELU) {
        v0 = gelu(v0);
        v1 = gelu(v1);
    }
    if (p.scale) {
        v0 *= ((const float *)p.scale)[n];
        v1 *= ((const float *)p.scale)[n + 1];
    }
    if (p.residual) {
        const float *r = (const float *)p.residual + (long long)row * p.ld_raw + n;
        v0 += r[0];
        v1 += r[1];
    }
    if (p.raw) {
        int to = p.raw_rows ? ((const int *)p.raw_rows)[row] : row;
        float *r = (float *)p.raw + (long long)to * p.ld_raw + n;
        if (n < p.stored) r[0] = p.clamp ? fminf(1.0f, fmaxf(-1.0f, v0)) : v0;
        if (n + 1 < p.stored) r[1] = p.clamp ? fminf(1.0f, fmaxf(-1.0f, v1)) : v1;
    }
    if (p.output) {
        if (p.alpha) {
            v0 = snake_beta(v0, ((const float *)p.alpha)[channel], ((const float *)p.inverse_beta)[channel]);
            v1 = snake_beta(v1, ((const float *)p.alpha)[channel + 1], ((const float *)p.inverse_beta)[channel + 1]);
        }
        half_bits h0, l0, h1, l1;
        split_half<HALF>(v0, h0, l0);
        split_half<HALF>(v1, h1, l1);
        long long at = output_place<HALF>(p.rows, row, n, p.ld_output);
        *(unsigned *)((half_bits *)p.output + at) = pair(h0, h1);
        if (p.output_low) *(unsigned *)((half_bits *)p.output_low + at) = pair(l0, l1);
    }
}

// Tiles [tile0, tile0 + T) and G groups of 8 (split) or 16 (plain) rows from row0, for one run of chunks.
template <int HALF, int SPLIT, int T, int G, int DEPTH>
DEVICE void accumulate(
    const mk_gemm_arguments &p, const half_bits *weights, int tile0, int row0, int begin, int end,
    float (&sums)[T][G][4]) {
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int group_rows = SPLIT ? 8 : 16;
    const int chunks_per_tap = p.chunks_per_tap;
    const uint4 zero = make_uint4(0, 0, 0, 0);
    int tap = begin / chunks_per_tap, within = begin - tap * chunks_per_tap;
    const half_bits *first[G], *second[G];
    bool fresh = true;
    for (int c = begin; c < end; c += DEPTH) {
        uint4 a0[DEPTH][G], a1[DEPTH][G], b[DEPTH][T];
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            bool live = c + d < end;
            if (HALF != MK_BF16 && live && fresh) {
#pragma unroll
                for (int i = 0; i < G; i++) {
                    int row = row0 + i * group_rows + g;
                    first[i] = second[i] = 0;
                    if (SPLIT) {
                        if (row < p.rows) {
                            row_source source = find_row(p, row, tap);
                            first[i] = source.high;
                            second[i] = source.low;
                        }
                    } else {
                        if (row < p.rows) first[i] = find_row(p, row, tap).high;
                        if (row + 8 < p.rows) second[i] = find_row(p, row + 8, tap).high;
                    }
                }
                fresh = false;
            }
            int at = within * MK_CHUNK + t * 8;
#pragma unroll
            for (int i = 0; i < G; i++) {
                if (HALF == MK_BF16) {
                    const int row = row0 + i * group_rows;
                    const half_bits *piece =
                        (const half_bits *)p.input + packed_place(p.rows, row, (c + d) * MK_CHUNK) + lane * 8;
                    const bool there = live && row + g < p.rows;
                    a0[d][i] = there ? load_half_row(piece) : zero;
                    a1[d][i] = there ? load_half_row(piece + 256) : zero;
                    continue;
                }
                a0[d][i] = live && first[i] ? load_half_row(first[i] + at) : zero;
                a1[d][i] = live && second[i] ? load_half_row(second[i] + at) : zero;
            }
#pragma unroll
            for (int i = 0; i < T; i++) {
                const half_bits *w = weights + ((long long)(tile0 + i) * p.chunks + c + d) * (MK_TILE * MK_CHUNK);
                b[d][i] = live && tile0 + i < p.tiles ? load_half_row(w + lane * 8) : zero;
            }
            if (HALF != MK_BF16 && live && ++within == chunks_per_tap) {
                within = 0;
                tap++;
                fresh = true;
            }
        }
        multiply_chunks<HALF, T, G, DEPTH>(sums, a0, a1, b);
    }
}

// Grid: x blocks of rows, y blocks of T tiles. Shared memory: MK_WARPS · T · G · 32 · (SPLIT ? 2 : 4) floats.
template <int HALF, int SPLIT, int T, int G, int DEPTH>
DEVICE void gemm(const mk_gemm_arguments &p) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int splits = p.splits, sets = MK_WARPS / splits;
    const int split = warp % splits, set = warp / splits;
    const int group_rows = SPLIT ? 8 : 16, values = SPLIT ? 2 : 4;
    const int set_rows = G * group_rows;
    const int tile0 = blockIdx.y * T;
    const int run = ceiling(p.chunks, splits);
    const int begin = min(p.chunks, split * run), end = min(p.chunks, begin + run);
    float *partial = (float *)dynamic_shared();

    float sums[T][G][4];
#pragma unroll
    for (int i = 0; i < T; i++)
#pragma unroll
        for (int j = 0; j < G; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) sums[i][j][k] = 0;
    const int row0 = (blockIdx.x * sets + set) * set_rows;
    if (row0 < p.rows) {
        accumulate<HALF, SPLIT, T, G, DEPTH>(p, (const half_bits *)p.weights, tile0, row0, begin, end, sums);
        if (p.weights_low)
            accumulate<HALF, SPLIT, T, G, DEPTH>(p, (const half_bits *)p.weights_low, tile0, row0, begin, end, sums);
    }
    // partial[set][split][tile][group][lane][values]
#pragma unroll
    for (int i = 0; i < T; i++) {
#pragma unroll
        for (int j = 0; j < G; j++) {
            float *at = partial + (((warp * T + i) * G + j) * 32 + lane) * values;
            if (SPLIT) {
                at[0] = sums[i][j][0] + sums[i][j][2];
                at[1] = sums[i][j][1] + sums[i][j][3];
            } else {
#pragma unroll
                for (int k = 0; k < 4; k++) at[k] = sums[i][j][k];
            }
        }
    }
    __syncthreads();
    const int halves = values / 2;
    const int items = sets * T * G * 32 * halves;
    for (int item = threadIdx.x; item < items; item += MK_THREADS) {
        int rest = item;
        int half = rest % halves;
        rest /= halves;
        int source_lane = rest % 32;
        rest /= 32;
        int j = rest % G;
        rest /= G;
        int i = rest % T;
        int item_set = rest / T;
        int row = (blockIdx.x * sets + item_set) * set_rows + j * group_rows + (source_lane >> 2) + half * 8;
        if (row >= p.rows || tile0 + i >= p.tiles) continue;
        float v0 = 0, v1 = 0;
        for (int s = 0; s < splits; s++) {
            const float *at =
                partial + ((((item_set * splits + s) * T + i) * G + j) * 32 + source_lane) * values + half * 2;
            v0 += at[0];
            v1 += at[1];
        }
        finish<HALF>(p, row, (tile0 + i) * MK_TILE + (source_lane & 3) * 2, v0, v1);
    }
}

KERNEL gemm_bf16_split_narrow(const mk_gemm_arguments p) { gemm<MK_BF16, 1, 1, 1, 4>(p); }
KERNEL gemm_bf16_split_wide(const mk_gemm_arguments p) { gemm<MK_BF16, 1, 2, 4, 1>(p); }
KERNEL gemm_f16_split_narrow(const mk_gemm_arguments p) { gemm<MK_F16, 1, 1, 1, 4>(p); }
KERNEL gemm_f16_split_wide(const mk_gemm_arguments p) { gemm<MK_F16, 1, 2, 4, 1>(p); }
KERNEL gemm_f16_plain_narrow(const mk_gemm_arguments p) { gemm<MK_F16, 0, 1, 1, 4>(p); }
KERNEL gemm_f16_plain_wide(const mk_gemm_arguments p) { gemm<MK_F16, 0, 2, 4, 1>(p); }

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

DEVICE float inverse_rms(const float *run_sums, int width, float epsilon) {
    float s = 0;
#pragma unroll
    for (int w = 0; w < MK_WARPS; w += 4) {
        const float4 sums = *(const float4 *)(run_sums + w);
        s = (((s + sums.x) + sums.y) + sums.z) + sums.w;
    }
    return inverse_root(quotient(s, (float)width) + epsilon);
}

// Grid: rows. Shared memory: chunks + MK_WARPS floats.
template <int HALF>
DEVICE void prepare(const mk_prepare_arguments &p) {
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
        const float sum = sum_of_four(sum_of_squares(v));
        if (piece >= pieces) continue;
        if (piece % 4 == 0) chunk_sums[piece / 4] = sum;
        uint4 high, low;
        split_eight<HALF>(y, high, low);
        const long long at = output_place<HALF>(p.rows, row, k, p.ld_output);
        *(uint4 *)((half_bits *)p.output + at) = high;
        *(uint4 *)((half_bits *)p.output_low + at) = low;
    }
    if (!gain) return;
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
