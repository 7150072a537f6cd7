// What the codec decoder needs beside convolutions: codebook sums, its transformer's attention and norms, the ConvNeXt
// front, histories.

// Grid: rows. Shared memory: the row's codes.
KERNEL sum_codebooks(const mk_codebook_arguments p) {
    let_next_launch_begin();
    wait_for_launches();
    const int row = blockIdx.x;
    int *codes = (int *)dynamic_shared();
    for (int g = threadIdx.x; g < p.groups; g += MK_THREADS)
        codes[g] = min(max(((const int *)p.codes)[row * p.groups + g], 0), p.entries - 1);
    __syncthreads();
    for (int k = threadIdx.x; k < p.ld_output; k += MK_THREADS) {
        float sum = 0;
        if (k < p.width) {
            sum = ((const float *)p.tables)[(long long)codes[0] * p.width + k];
        } else if (k < 2 * p.width) {
            for (int base = 1; base < p.groups; base += 8) {
                float v[8];
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const int g = min(base + i, p.groups - 1);
                    v[i] = ((const float *)p.tables)[((long long)g * p.entries + codes[g]) * p.width + k - p.width];
                }
#pragma unroll
                for (int i = 0; i < 8; i++)
                    if (base + i < p.groups) sum += v[i];
            }
        }
        half_bits high, low;
        split_half<MK_F16>(sum, high, low);
        ((half_bits *)p.output)[(long long)row * p.ld_output + k] = high;
        ((half_bits *)p.output_low)[(long long)row * p.ld_output + k] = low;
    }
}

DEVICE float block_total(float v, float *shared) {
    v = sum_of_lanes(v);
    if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = v;
    __syncthreads();
    float s = 0;
#pragma unroll
    for (int w = 0; w < MK_WARPS; w++) s += shared[w];
    __syncthreads();
    return s;
}

// Grid: rows. Shared memory: (MK_WARPS + ld) floats.
KERNEL depthwise_norm(const mk_depthwise_arguments p) {
    let_next_launch_begin();
    const float *weights = (const float *)p.weights;
    for (int c = threadIdx.x; c < p.width; c += MK_THREADS) {
#pragma unroll
        for (int tap = 0; tap < 7; tap++) prefetch_l2(weights + tap * p.ld + c);
        prefetch_l2((const float *)p.bias + c);
        prefetch_l2((const float *)p.norm_weight + c);
        prefetch_l2((const float *)p.norm_bias + c);
    }
    wait_for_launches();
    const int row = blockIdx.x, session = row / p.columns, column = row - session * p.columns;
    const int slot = ((const int *)p.slots)[session];
    float *shared = (float *)dynamic_shared(), *y = shared + MK_WARPS;
    float sum = 0;
    for (int c = threadIdx.x; c < p.width; c += MK_THREADS) {
        float v = ((const float *)p.bias)[c], x[7];
#pragma unroll
        for (int tap = 0; tap < 7; tap++) {
            const int from = column - 6 + tap;
            const float *at = from >= 0
                ? (const float *)p.x + (long long)(session * p.columns + from) * p.ld
                : (const float *)p.history + (long long)slot * p.history_stride + (long long)(from + 6) * p.ld;
            x[tap] = at[c];
        }
#pragma unroll
        for (int tap = 0; tap < 7; tap++) v = fmaf(weights[tap * p.ld + c], x[tap], v);
        y[c] = v;
        sum += v;
    }
    const float mean = block_total(sum, shared) / (float)p.width;
    sum = 0;
    for (int c = threadIdx.x; c < p.width; c += MK_THREADS) {
        float d = y[c] - mean;
        sum = fmaf(d, d, sum);
    }
    const float scale = 1.0f / sqrtf(block_total(sum, shared) / (float)p.width + p.epsilon);
    for (int c = threadIdx.x; c < p.ld_output; c += MK_THREADS) {
        float v = 0;
        if (c < p.width)
            v = fmaf((y[c] - mean) * scale, ((const float *)p.norm_weight)[c], ((const float *)p.norm_bias)[c]);
        half_bits high, low;
        split_half<MK_F16>(v, high, low);
        ((half_bits *)p.output)[(long long)row * p.ld_output + c] = high;
        if (p.output_low) ((half_bits *)p.output_low)[(long long)row * p.ld_output + c] = low;
    }
}

// Grid: x entries, y sessions. The new history is the end of (history, fresh columns); it may overlap the old one, and
// is copied towards older columns.
KERNEL roll_histories(const mk_roll_arguments p) {
    let_next_launch_begin();
    wait_for_launches();
    const mk_roll_entry e = ((const mk_roll_entry *)p.entries)[blockIdx.x];
    const int slot = ((const int *)p.slots)[blockIdx.y];
    char *history = (char *)e.history + (long long)slot * e.history_stride;
    const char *fresh = (const char *)e.fresh + (long long)blockIdx.y * e.columns * e.column_bytes;
    // A thread has 16 bytes of a column.
    const int pieces = MK_ROLL_BYTES / 16, columns = MK_THREADS / pieces;
    const int column = threadIdx.x / pieces, byte = threadIdx.x % pieces * 16;
    for (int base = 0; base < e.kept; base += columns) {
        const int to = base + column, from = to + e.columns;
        const bool live = to < e.kept && byte < e.width;
        uint4 v;
        if (live) {
            const char *source = from < e.kept ? history + (long long)from * e.column_bytes
                                               : fresh + (long long)(from - e.kept) * e.column_bytes;
            v = *(const uint4 *)(source + byte);
        }
        __syncthreads();
        if (live) *(uint4 *)(history + (long long)to * e.column_bytes + byte) = v;
        __syncthreads();
    }
}

// Eight floats of a row from element k on, zeros behind `width`; rows begin at multiples of 16 bytes.
DEVICE void load_eight(const float *row, int k, int width, float (&v)[8]) {
    if (k + 8 <= width) {
        const float4 a = *(const float4 *)(row + k), b = *(const float4 *)(row + k + 4);
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = k + i < width ? row[k + i] : 0.0f;
    }
}

// Tiles [T · y, T · y + T) of a linear layer behind an RMSNorm: prepare and gemm of linear.cu in one, to the bit. A
// warp takes its run's chunks from the float rows themselves.
// Grid: x blocks of 8 rows, y blocks of T tiles. Shared memory: MK_WARPS · (T · 64 + 8) floats, and the layer's terms.
template <int T>
DEVICE void gemm_normed(const mk_normed_arguments &p) {
    let_next_launch_begin();
    const mk_gemm_arguments &product = p.product;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    const int row0 = blockIdx.x * 8, row = row0 + g, tile0 = blockIdx.y * T;
    const int run = ceiling(product.chunks, MK_WARPS);
    const int begin = min(product.chunks, warp * run), end = min(product.chunks, begin + run);
    float *partial = (float *)dynamic_shared(), *run_sums = partial + MK_WARPS * T * 64;
    uint4 b[1][T];
    float gains[8];
    const half_bits *weights = (const half_bits *)product.weights + lane * 8;
    auto load_layer = [&](int c) {
#pragma unroll
        for (int i = 0; i < T; i++) {
            b[0][i] = make_uint4(0, 0, 0, 0);
            if (tile0 + i < product.tiles)
                b[0][i] = load_half_row(weights + ((long long)(tile0 + i) * product.chunks + c) * (MK_TILE * MK_CHUNK));
        }
        load_eight((const float *)p.gain, c * MK_CHUNK + t * 8, p.width, gains);
    };
    if (begin < end) load_layer(begin);
    // The pair of outputs that this thread finishes.
    const int out_tile = threadIdx.x >> 5, out_row = (threadIdx.x & 31) >> 2;
    const int column = out_tile * MK_TILE + (threadIdx.x & 3) * 2, n = tile0 * MK_TILE + column;
    const bool finishes = out_tile < T && row0 + out_row < product.rows && tile0 + out_tile < product.tiles;
    const layer_terms<T * MK_TILE> layer = {run_sums + MK_WARPS * 8};
    layer.copy(product, tile0 * MK_TILE);
    wait_for_launches();
    row_terms<2> own;
    if (finishes) own.load(product, row0 + out_row, n);

    float sums[T][1][4], squares = 0;
#pragma unroll
    for (int i = 0; i < T; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][0][j] = 0;
    for (int c = begin; c < end; c++) {
        uint4 high[1][1], low[1][1];
        float v[8], y[8];
        load_eight(
            (const float *)p.x + (long long)row * p.ld_x, c * MK_CHUNK + t * 8, row < product.rows ? p.width : 0, v);
#pragma unroll
        for (int i = 0; i < 8; i++) y[i] = v[i] * gains[i];
        squares += sum_of_four(sum_of_squares(v));
        split_eight<MK_F16>(y, high[0][0], low[0][0]);
        multiply_chunks<MK_F16, T, 1, 1>(sums, high, low, b);
        if (c + 1 < end) load_layer(c + 1);
    }
#pragma unroll
    for (int i = 0; i < T; i++)
        ((float2 *)partial)[(warp * T + i) * 32 + lane] =
            make_float2(sums[i][0][0] + sums[i][0][2], sums[i][0][1] + sums[i][0][3]);
    if (t == 0) run_sums[g * MK_WARPS + warp] = squares;
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    if (!finishes) return;
    float v[2] = {0, 0};
#pragma unroll
    for (int s = 0; s < MK_WARPS; s++) {
        const float2 part = ((const float2 *)partial)[s * T * 32 + threadIdx.x];
        v[0] += part.x;
        v[1] += part.y;
    }
    const float scale = inverse_rms(run_sums + out_row * MK_WARPS, p.width, p.epsilon);
    v[0] *= scale;
    v[1] *= scale;
    finish<MK_F16>(product, row0 + out_row, n, column, v, layer, own);
}

KERNEL_PAIRED gemm_f16_normed1(const mk_normed_arguments p) { gemm_normed<1>(p); }
KERNEL_PAIRED gemm_f16_normed2(const mk_normed_arguments p) { gemm_normed<2>(p); }
KERNEL_PAIRED gemm_f16_normed4(const mk_normed_arguments p) { gemm_normed<4>(p); }

// The same to the bit for many rows: blocks of G groups of 8 rows. There are at most MK_WARPS chunks, one for each warp.
// Grid: x blocks of 8 · G rows, y blocks of T tiles. Shared memory: MK_WARPS · G · (T · 64 + 8) floats, and the layer's terms.
template <int T, int G>
DEVICE void gemm_normed_rows(const mk_normed_arguments &p) {
    let_next_launch_begin();
    const mk_gemm_arguments &product = p.product;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    const int row0 = blockIdx.x * 8 * G, tile0 = blockIdx.y * T, k = warp * MK_CHUNK + t * 8;
    const bool has_chunk = warp < product.chunks;
    float *partial = (float *)dynamic_shared(), *run_sums = partial + MK_WARPS * G * T * 64;
    uint4 b[1][T];
    float gains[8];
    const half_bits *weights = (const half_bits *)product.weights + lane * 8;
#pragma unroll
    for (int i = 0; i < T; i++) {
        b[0][i] = make_uint4(0, 0, 0, 0);
        if (has_chunk && tile0 + i < product.tiles)
            b[0][i] = load_half_row(weights + ((long long)(tile0 + i) * product.chunks + warp) * (MK_TILE * MK_CHUNK));
    }
    load_eight((const float *)p.gain, k, has_chunk ? p.width : 0, gains);
    const layer_terms<T * MK_TILE> layer = {run_sums + MK_WARPS * G * 8};
    layer.copy(product, tile0 * MK_TILE);
    copy_async_commit();
    wait_for_launches();
#pragma unroll 2
    for (int j = 0; j < G; j++) {
        const int row = row0 + j * 8 + g;
        uint4 high[1][1], low[1][1];
        float v[8], y[8], sums[T][1][4];
        load_eight((const float *)p.x + (long long)row * p.ld_x, k, has_chunk && row < product.rows ? p.width : 0, v);
#pragma unroll
        for (int i = 0; i < T; i++)
#pragma unroll
            for (int c = 0; c < 4; c++) sums[i][0][c] = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) y[i] = v[i] * gains[i];
        const float squares = sum_of_four(sum_of_squares(v));
        split_eight<MK_F16>(y, high[0][0], low[0][0]);
        multiply_chunks<MK_F16, T, 1, 1>(sums, high, low, b);
#pragma unroll
        for (int i = 0; i < T; i++)
            ((float2 *)partial)[((warp * T + i) * G + j) * 32 + lane] =
                make_float2(sums[i][0][0] + sums[i][0][2], sums[i][0][1] + sums[i][0][3]);
        if (t == 0) run_sums[(j * 8 + g) * MK_WARPS + warp] = squares;
    }
    copy_async_wait<0>();
    __syncthreads();
#pragma unroll 1
    for (int item = threadIdx.x; item < T * G * 32; item += MK_THREADS) {
        const int i = item / (G * 32), row = item / 32 % G * 8 + (item & 31) / 4;
        const int column = i * MK_TILE + (item & 3) * 2, n = tile0 * MK_TILE + column;
        if (row0 + row >= product.rows || tile0 + i >= product.tiles) continue;
        row_terms<2> own;
        own.load(product, row0 + row, n);
        float v[2] = {0, 0};
#pragma unroll
        for (int s = 0; s < MK_WARPS; s++) {
            const float2 part = ((const float2 *)partial)[s * T * G * 32 + item];
            v[0] += part.x;
            v[1] += part.y;
        }
        const float scale = inverse_rms(run_sums + row * MK_WARPS, p.width, p.epsilon);
        v[0] *= scale;
        v[1] *= scale;
        finish<MK_F16>(product, row0 + row, n, column, v, layer, own);
    }
}

KERNEL_PAIRED gemm_f16_normed_rows2(const mk_normed_arguments p) { gemm_normed_rows<2, 8>(p); }
KERNEL_PAIRED gemm_f16_normed_rows3(const mk_normed_arguments p) { gemm_normed_rows<3, 8>(p); }

// Attention of one row and two heads: rotates, keeps keys and values, attends. A head has MK_FRAME_GROUPS warps; warp s
// takes the positions ≡ s (mod MK_FRAME_GROUPS) of the window, oldest first, and their sums are added in order: the
// row's position alone decides which. Keys of the packet's own rows are rotated anew by every row behind them. A lane
// holds elements l and dim / 2 + l of a head. VALUES_EARLY: values are loaded together with keys, for more registers.
// Grid: x rows, y pairs of heads. Shared memory: columns · dim / 2 pairs, then [MK_WARPS][dim + 2] floats.
template <bool VALUES_EARLY>
DEVICE void attend(const mk_frame_attention_arguments &p) {
    let_next_launch_begin();
    const int dim = p.cache.dim, half = dim / 2, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int row = blockIdx.x, column = row % p.columns, group = warp % MK_FRAME_GROUPS;
    const int head = blockIdx.y * (MK_WARPS / MK_FRAME_GROUPS) + warp / MK_FRAME_GROUPS;
    const int slot = ((const int *)p.row_slots)[row], position = ((const int *)p.row_positions)[row];
    const int start = position - column;
    float2 *turns = (float2 *)dynamic_shared();
    float *sums = (float *)(turns + p.columns * half);
    for (int i = threadIdx.x; i < (column + 1) * half; i += MK_THREADS)
        turns[i] = rotation(start + i / half, ((const float *)p.frequencies)[i % half]);

    const bool live = lane < half && head < p.heads;
    const int oldest = max(0, position - p.window + 1);
    const int first = oldest + ((group - oldest) & (MK_FRAME_GROUPS - 1));
    float k0[MK_FRAME_BATCH], k1[MK_FRAME_BATCH], v0[MK_FRAME_BATCH], v1[MK_FRAME_BATCH];
    // Slots and positions come from the host. Positions before the packet's were kept by passes that ended before this
    // one's first launch began. So these need no wait.
    //
    // A lane knows a page of the window; a key's address comes from the lane that knows its page.
    const int oldest_page = oldest / MK_PAGE;
    const unsigned long long page =
        (unsigned long long)cache_page(p.cache, slot, min(oldest_page + lane, position / MK_PAGE));
    auto key_of = [&](int j) {
        const int at = j / MK_PAGE - oldest_page;
        const unsigned low = __shfl_sync(0xffffffffu, (unsigned)page, at);
        const unsigned high = __shfl_sync(0xffffffffu, (unsigned)(page >> 32), at);
        float *keys = page_keys(p.cache, (float *)((unsigned long long)high << 32 | low), head);
        return keys + j % MK_PAGE * dim + lane;
    };
    auto load_kept = [&](int base, bool with_keys, bool with_values) {
#pragma unroll
        for (int i = 0; i < MK_FRAME_BATCH; i++) {
            const int j = base + i * MK_FRAME_GROUPS;
            if (with_keys) k0[i] = k1[i] = 0;
            if (with_values) v0[i] = v1[i] = 0;
            if (j >= start) continue;
            const float *at = key_of(j);
            if (!live) continue;
            if (with_keys) {
                k0[i] = at[0];
                k1[i] = at[half];
            }
            if (with_values) {
                v0[i] = at[value_offset(p.cache)];
                v1[i] = at[value_offset(p.cache) + half];
            }
        }
    };
    load_kept(first, true, VALUES_EARLY);
    wait_for_launches();
    __syncthreads();

    const float *own = (const float *)p.qkv + (long long)row * p.ld + head * dim + lane;
    const int keys = p.heads * dim, values = 2 * keys;
    float q0 = 0, q1 = 0;
    if (live) {
        const float2 turn = turns[column * half + lane];
        q0 = own[0] * turn.x - own[half] * turn.y;
        q1 = own[half] * turn.x + own[0] * turn.y;
    }
    const float scale = 1.0f / sqrtf((float)dim);
    float maximum = -INFINITY, total = 0, sum0 = 0, sum1 = 0;
    for (int base = first; base <= position; base += MK_FRAME_GROUPS * MK_FRAME_BATCH) {
        float scores[MK_FRAME_BATCH];
        if (base != first) load_kept(base, true, VALUES_EARLY);
#pragma unroll
        for (int i = 0; i < MK_FRAME_BATCH; i++) {
            const int j = base + i * MK_FRAME_GROUPS;
            if (!live || j < start || j > position) continue;
            const float *at = own - (long long)(position - j) * p.ld;
            k0[i] = at[keys];
            k1[i] = at[keys + half];
            if (VALUES_EARLY) {
                v0[i] = at[values];
                v1[i] = at[values + half];
            }
        }
        float highest = maximum;
#pragma unroll
        for (int i = 0; i < MK_FRAME_BATCH; i++) {
            const int j = base + i * MK_FRAME_GROUPS;
            if (live && j >= start && j <= position) {
                const float2 turn = turns[(j - start) * half + lane];
                const float a = k0[i], b = k1[i];
                k0[i] = a * turn.x - b * turn.y;
                k1[i] = b * turn.x + a * turn.y;
            }
            const float dot = sum_of_lanes(fmaf(k1[i], q1, k0[i] * q0));
            scores[i] = j <= position ? dot * scale : -INFINITY;
            highest = fmaxf(highest, scores[i]);
            if (j == position) {
                float *at = key_of(j);
                if (live) {
                    at[0] = k0[i];
                    at[half] = k1[i];
                }
            }
        }
        if (!VALUES_EARLY) {
            load_kept(base, false, true);
#pragma unroll
            for (int i = 0; i < MK_FRAME_BATCH; i++) {
                const int j = base + i * MK_FRAME_GROUPS;
                if (!live || j < start || j > position) continue;
                const float *at = own - (long long)(position - j) * p.ld + values;
                v0[i] = at[0];
                v1[i] = at[half];
            }
        }
        const float factor = expf(maximum - highest);
        total *= factor;
        sum0 *= factor;
        sum1 *= factor;
#pragma unroll
        for (int i = 0; i < MK_FRAME_BATCH; i++) {
            const int j = base + i * MK_FRAME_GROUPS;
            const float weight = expf(scores[i] - highest);
            total += weight;
            sum0 = fmaf(weight, v0[i], sum0);
            sum1 = fmaf(weight, v1[i], sum1);
            if (j == position) {
                float *at = key_of(j) + value_offset(p.cache);
                if (live) {
                    at[0] = v0[i];
                    at[half] = v1[i];
                }
            }
        }
        maximum = highest;
    }
    float *at = sums + warp * (dim + 2);
    if (lane == 0) {
        at[0] = maximum;
        at[1] = total;
    }
    if (lane < half) {
        at[2 + lane] = sum0;
        at[2 + half + lane] = sum1;
    }
    __syncthreads();
    const int out_head = threadIdx.x / dim, d = threadIdx.x % dim;
    const int to = blockIdx.y * (MK_WARPS / MK_FRAME_GROUPS) + out_head;
    if (out_head >= MK_WARPS / MK_FRAME_GROUPS || to >= p.heads) return;
    const float *parts = sums + out_head * MK_FRAME_GROUPS * (dim + 2);
    float highest = -INFINITY, all = 0, v = 0;
    for (int s = 0; s < MK_FRAME_GROUPS; s++) highest = fmaxf(highest, parts[s * (dim + 2)]);
    for (int s = 0; s < MK_FRAME_GROUPS; s++) {
        const float *part = parts + s * (dim + 2);
        const float factor = expf(part[0] - highest);
        all = fmaf(part[1], factor, all);
        v = fmaf(part[2 + d], factor, v);
    }
    half_bits high, low;
    split_half<MK_F16>(v / all, high, low);
    const long long out = (long long)row * p.ld_output + to * dim + d;
    ((half_bits *)p.output)[out] = high;
    ((half_bits *)p.output_low)[out] = low;
}

KERNEL attend_frames(const mk_frame_attention_arguments p) { attend<true>(p); }
// For more blocks than multiprocessors.
KERNEL_PAIRED attend_many_frames(const mk_frame_attention_arguments p) { attend<false>(p); }
