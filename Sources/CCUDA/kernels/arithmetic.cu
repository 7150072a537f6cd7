// Small arithmetic that several kernels share.

DEVICE float4 load_shared_data(const float4 *p) {
    uint4 v = load_shared_data((const uint4 *)p);
    return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), __uint_as_float(v.w));
}

DEVICE float float_from_bf16(half_bits h) { return __uint_as_float((unsigned)h << 16); }

// To nearest, ties to even.
DEVICE half_bits bf16_from_float(float x) {
    unsigned u = __float_as_uint(x);
    return (half_bits)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

template <int HALF>
DEVICE half_bits half_from_float(float x) {
    return HALF == MK_BF16 ? bf16_from_float(x) : f16_from_float(x);
}

template <int HALF>
DEVICE float float_from_half(half_bits h) {
    return HALF == MK_BF16 ? float_from_bf16(h) : float_from_f16(h);
}

// x = high + low, each rounded to half.
template <int HALF>
DEVICE void split_half(float x, half_bits &high, half_bits &low) {
    high = half_from_float<HALF>(x);
    low = half_from_float<HALF>(x - float_from_half<HALF>(high));
}

DEVICE unsigned pair(half_bits a, half_bits b) { return (unsigned)a | (unsigned)b << 16; }

// Two floats to two bfloat16 and what rounding lost.
DEVICE void split_pair(float2 v, unsigned &high, unsigned &low) {
    high = bf16_pair(v.x, v.y);
    low = bf16_pair(v.x - __uint_as_float(high << 16), v.y - __uint_as_float(high & 0xffff0000u));
}

// Eight floats to eight halves and eight remainders.
template <int HALF>
DEVICE void split_eight(const float (&v)[8], uint4 &high, uint4 &low) {
    half_bits h[8], l[8];
#pragma unroll
    for (int i = 0; i < 8; i++) split_half<HALF>(v[i], h[i], l[i]);
    high = make_uint4(pair(h[0], h[1]), pair(h[2], h[3]), pair(h[4], h[5]), pair(h[6], h[7]));
    low = make_uint4(pair(l[0], l[1]), pair(l[2], l[3]), pair(l[4], l[5]), pair(l[6], l[7]));
}

DEVICE float silu(float x) { return quotient(x, 1.0f + expf(-x)); }

DEVICE float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// sin² of a number up to 10⁶ within 3e-7: its remainder of a multiple of π, in two steps, and a polynomial. Half of the
// instructions of sinf, none of its memory.
DEVICE float sine_squared(float x) {
    const float whole = 12582912.0f;  // Added, it leaves no fraction.
    const float k = fmaf(x, 0.318309886f, whole) - whole;
    const float r = fmaf(k, 8.74227766e-8f, fmaf(k, -3.14159274f, x)), s = r * r;
    const float p = fmaf(fmaf(fmaf(2.60005459e-6f, s, -1.98066147e-4f), s, 8.33301712e-3f), s, -0.166666567f);
    const float v = fmaf(r * s, p, r);
    return fminf(v * v, 1.0f);
}

DEVICE float snake_beta(float x, float alpha, float inverse_beta) {
    return fmaf(sine_squared(x * alpha), inverse_beta, x);
}

DEVICE int ceiling(int a, int b) { return (a + b - 1) / b; }
