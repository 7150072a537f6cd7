// What the codec decoder needs beside convolutions: codebook sums, the ConvNeXt front, histories.

// Grid: rows.
KERNEL sum_codebooks(const mk_codebook_arguments p) {
    const int row = blockIdx.x;
    const int *codes = (const int *)p.codes + row * p.groups;
    for (int k = threadIdx.x; k < p.ld_output; k += MK_THREADS) {
        float sum = 0;
        if (k < p.width) {
            int code = min(max(codes[0], 0), p.entries - 1);
            sum = ((const float *)p.tables)[(long long)code * p.width + k];
        } else if (k < 2 * p.width) {
            for (int g = 1; g < p.groups; g++) {
                int code = min(max(codes[g], 0), p.entries - 1);
                sum += ((const float *)p.tables)[((long long)g * p.entries + code) * p.width + k - p.width];
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
    const int row = blockIdx.x, session = row / p.columns, column = row - session * p.columns;
    const int slot = ((const int *)p.slots)[session];
    float *shared = (float *)dynamic_shared(), *y = shared + MK_WARPS;
    const float *weights = (const float *)p.weights;
    float sum = 0;
    for (int c = threadIdx.x; c < p.width; c += MK_THREADS) {
        float v = ((const float *)p.bias)[c];
        for (int tap = 0; tap < 7; tap++) {
            int from = column - 6 + tap;
            float x = from >= 0
                ? ((const float *)p.x)[(long long)(session * p.columns + from) * p.ld + c]
                : ((const float *)p.history)[(long long)slot * p.history_stride + (long long)(from + 6) * p.ld + c];
            v = fmaf(weights[tap * p.ld + c], x, v);
        }
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
// is copied towards lower addresses.
KERNEL roll_histories(const mk_roll_arguments p) {
    const mk_roll_entry e = ((const mk_roll_entry *)p.entries)[blockIdx.x];
    const int slot = ((const int *)p.slots)[blockIdx.y];
    char *history = (char *)e.history + (long long)slot * e.history_stride;
    const char *fresh = (const char *)e.fresh + (long long)blockIdx.y * e.columns * e.column_bytes;
    const int total = e.kept * e.column_bytes / 16, moved = e.columns * e.column_bytes / 16;
    for (int base = 0; base < total; base += MK_THREADS) {
        int i = base + threadIdx.x;
        uint4 v;
        if (i < total) {
            int from = i + moved;
            v = from < total ? ((const uint4 *)history)[from] : ((const uint4 *)fresh)[from - total];
        }
        __syncthreads();
        if (i < total) ((uint4 *)history)[i] = v;
        __syncthreads();
    }
}
