// Weights: from a file's layout to tiles of 8 outputs and chunks of 32 inputs.

DEVICE float source_value(const mk_pack_arguments &p, long long at) {
    if (p.type == MK_F32) return ((const float *)p.source)[at];
    half_bits h = ((const half_bits *)p.source)[at];
    return p.type == MK_BF16 ? float_from_bf16(h) : float_from_f16(h);
}

// Grid: x blocks of inputs, y outputs.
KERNEL pack_weights(const mk_pack_arguments p) {
    const int k = blockIdx.x * MK_THREADS + threadIdx.x, n = blockIdx.y;
    if (k >= p.chunks * MK_CHUNK) return;
    const int tap = k / p.padded_channels, c = k - tap * p.padded_channels;
    float v = 0;
    if (tap < p.taps && c < p.channels && n < p.outputs)
        v = source_value(p, p.offset + n * p.stride_n + c * p.stride_c + tap * p.stride_tap);
    const int row = p.first + n * p.step;
    const long long at = ((long long)(row / MK_TILE) * p.chunks + k / MK_CHUNK) * (MK_TILE * MK_CHUNK)
        + (row % MK_TILE) * MK_CHUNK + k % MK_CHUNK;
    half_bits high, low;
    if (p.half == MK_BF16) {
        split_half<MK_BF16>(v, high, low);
    } else {
        split_half<MK_F16>(v, high, low);
    }
    ((half_bits *)p.output)[at] = high;
    if (p.output_low) ((half_bits *)p.output_low)[at] = low;
}

// Grid: any. Values of a counter-based hash.
KERNEL fill_noise(const mk_noise_arguments p) {
    const long long step = (long long)gridDim.x * MK_THREADS;
    for (long long i = (long long)blockIdx.x * MK_THREADS + threadIdx.x; i < p.count; i += step) {
        unsigned h = (unsigned)i * 2654435761u + p.seed + (unsigned)(i >> 32) * 40503u;
        h ^= h >> 16;
        h *= 0x85ebca6bu;
        h ^= h >> 13;
        h *= 0xc2b2ae35u;
        h ^= h >> 16;
        float v = ((float)(h >> 8) * 1.1920928955078125e-7f - 1.0f) * p.amplitude;
        if (p.type == MK_F32) {
            ((float *)p.output)[i] = v;
        } else {
            ((half_bits *)p.output)[i] = p.type == MK_BF16 ? bf16_from_float(v) : f16_from_float(v);
        }
    }
}
