// Choosing a code, in the reference's order: penalty, bans, temperature, top-k (ties kept), top-p, softmax, one draw.
// Random numbers are those of the CPU: Philox 4×32-10 (Salmon et al., SC 2011) at counter (frame, codebook, 0, 0).

DEVICE float uniform(unsigned seed_low, unsigned seed_high, int frame, int codebook) {
    unsigned c0 = frame, c1 = codebook, c2 = 0, c3 = 0;
    for (int round = 0; round < 10; round++) {
        if (round > 0) {
            seed_low += 0x9E3779B9u;
            seed_high += 0xBB67AE85u;
        }
        unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ seed_low;
        c1 = low1;
        c2 = high0 ^ c3 ^ seed_high;
        c3 = low0;
    }
    return (float)(c0 >> 8) * 5.9604644775390625e-8f;
}

// Floats in an order of unsigned integers; -infinity is the least.
DEVICE unsigned ordered(float x) {
    unsigned u = __float_as_uint(x);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

DEVICE float from_ordered(unsigned u) { return __uint_as_float(u & 0x80000000u ? u & 0x7fffffffu : ~u); }

// Shared work memory of the block-wide sums: 2 · MK_WARPS words used in turn, so that one barrier a sum is enough.
struct block_sums {
    unsigned *words;
    int turn;
};

DEVICE unsigned block_sum(block_sums &b, unsigned v) {
    v = __reduce_add_sync(0xffffffffu, v);
    unsigned *at = b.words + b.turn * MK_WARPS;
    b.turn ^= 1;
    if ((threadIdx.x & 31) == 0) at[threadIdx.x >> 5] = v;
    __syncthreads();
    unsigned s = 0;
#pragma unroll
    for (int w = 0; w < MK_WARPS; w++) s += at[w];
    return s;
}

DEVICE unsigned block_maximum(block_sums &b, unsigned v) {
    v = __reduce_max_sync(0xffffffffu, v);
    unsigned *at = b.words + b.turn * MK_WARPS;
    b.turn ^= 1;
    if ((threadIdx.x & 31) == 0) at[threadIdx.x >> 5] = v;
    __syncthreads();
    unsigned s = 0;
#pragma unroll
    for (int w = 0; w < MK_WARPS; w++) s = max(s, at[w]);
    return s;
}

DEVICE float block_sum(block_sums &b, float v) {
    v = sum_of_lanes(v);
    unsigned *at = b.words + b.turn * MK_WARPS;
    b.turn ^= 1;
    if ((threadIdx.x & 31) == 0) at[threadIdx.x >> 5] = __float_as_uint(v);
    __syncthreads();
    float s = 0;
#pragma unroll
    for (int w = 0; w < MK_WARPS; w++) s += __uint_as_float(at[w]);
    return s;
}

// Candidates that kth_largest ranks at once.
#define MK_CANDIDATES 512
#define MK_SAMPLER_WORDS (2 * MK_WARPS + MK_CANDIDATES + 2)

// The k-th largest of all scores (ordered), k from 1 to the vocabulary.
//
// In every one of the W warps that are full of scores, the r-th largest of the lanes' own maxima, r = ⌈k / W⌉, has r
// scores at or above it; so the least of the W has k. Only scores at or above that one can be the k-th; they are few,
// and ranked by counting.
template <int EACH>
DEVICE unsigned kth_largest(
    block_sums &sums, const float (&s)[EACH], int base, int vocabulary, int k, unsigned *words) {
    const int lane = threadIdx.x & 31;
    unsigned own = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (base + i < vocabulary) own = max(own, ordered(s[i]));
    unsigned floor = 0;
    const int full = min((int)MK_WARPS, vocabulary / (32 * EACH));
    const int rounds = full > 0 ? ceiling(k, full) : MK_THREADS;
    if (rounds <= 8) {
        unsigned rest = own;
        for (int r = 0; r < rounds; r++) {
            floor = __reduce_max_sync(0xffffffffu, rest);
            // The lowest lane that holds it leaves.
            const unsigned holder = __reduce_max_sync(0xffffffffu, rest == floor ? 32 - lane : 0);
            if (lane == 32 - (int)holder) rest = 0;
        }
        floor = ~block_maximum(sums, (int)(threadIdx.x >> 5) < full ? ~floor : 0);
    }
    unsigned count = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) count += base + i < vocabulary && ordered(s[i]) >= floor;
    const unsigned all = block_sum(sums, count);
    unsigned *candidates = words + 2 * MK_WARPS;  // [MK_CANDIDATES], then the answer and the number placed
    unsigned *placed = candidates + MK_CANDIDATES;
    if (rounds > 8 || all > MK_CANDIDATES) {
        // Bit by bit.
        unsigned threshold = 0;
        for (int bit = 31; bit >= 0; bit--) {
            const unsigned candidate = threshold | 1u << bit;
            count = 0;
#pragma unroll
            for (int i = 0; i < EACH; i++) count += base + i < vocabulary && ordered(s[i]) >= candidate;
            if (block_sum(sums, count) >= (unsigned)k) threshold = candidate;
        }
        return threshold;
    }
    if (threadIdx.x == 0) placed[1] = 0;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (base + i < vocabulary && ordered(s[i]) >= floor) candidates[atomicAdd(placed + 1, 1u)] = ordered(s[i]);
    __syncthreads();
    if (threadIdx.x < all) {
        const unsigned mine = candidates[threadIdx.x];
        unsigned above = 0, equal = 0;
#pragma unroll 4
        for (unsigned c = 0; c < all; c++) {
            above += candidates[c] > mine;
            equal += candidates[c] == mine;
        }
        // Equal ones write the same.
        if (above < (unsigned)k && (unsigned)k <= above + equal) placed[0] = mine;
    }
    __syncthreads();
    return placed[0];
}

// One block; a thread holds EACH scores of consecutive ids. Logits lie in global or shared memory. `words`:
// MK_SAMPLER_WORDS of shared memory. Every thread gets the code.
template <int EACH>
DEVICE_CALL int choose_of(
    const mk_sample_arguments &p, const mk_session &session, int place, const float *logits, unsigned *words) {
    const int base = threadIdx.x * EACH;
    const int rule = p.codebook == 0 ? 0 : 1, vocabulary = p.vocabulary, top_k = session.top_k[rule];
    const bool samples = session.samples[rule];
    const float temperature = session.temperature[rule], penalty = session.repetition_penalty;
    block_sums sums = {words, 0};
    float s[EACH];
    const unsigned char *seen =
        p.codebook == 0 && p.seen ? (const unsigned char *)p.seen + (long long)session.slot * vocabulary : 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int id = base + i;
        s[i] = -INFINITY;
        if (id >= vocabulary) continue;
        float x = logits[id];
        if (seen) {
            if (seen[id] && penalty != 1.0f)
                x = x < 0 ? x * penalty : x / penalty;
            if (id == p.eos ? session.sampled < 2 : id >= p.speakable) x = -INFINITY;
        }
        if (samples) x = x / temperature;
        s[i] = x;
    }
    unsigned largest = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++)
        largest = max(largest, ordered(s[i]));
    largest = block_maximum(sums, largest);
    const float maximum = from_ordered(largest);

    unsigned chosen = 0;  // complement of the lowest wanted id, so that a maximum finds it
    if (!samples) {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (base + i < vocabulary && s[i] == maximum) chosen = max(chosen, ~(unsigned)(base + i));
    } else {
        if (top_k > 0 && top_k < vocabulary) {
            const unsigned threshold = kth_largest<EACH>(sums, s, base, vocabulary, top_k, words);
#pragma unroll
            for (int i = 0; i < EACH; i++)
                if (ordered(s[i]) < threshold) s[i] = -INFINITY;
        }
        float e[EACH];
        float total = 0;
        if (session.top_p[rule] < 1.0f) {
            float own = 0;
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                e[i] = s[i] > -INFINITY ? expf(s[i] - maximum) : 0.0f;
                own += e[i];
            }
            total = block_sum(sums, own);
            const float limit = 1.0f - session.top_p[rule];
            // The largest score below which at most `limit` lies: everything below it goes.
            unsigned threshold = 0;
            for (int bit = 31; bit >= 0; bit--) {
                unsigned candidate = threshold | 1u << bit;
                own = 0;
#pragma unroll
                for (int i = 0; i < EACH; i++)
                    if (ordered(s[i]) < candidate) own += e[i] / total;
                if (block_sum(sums, own) <= limit) threshold = candidate;
            }
            threshold = min(threshold, largest);
            float below = 0;
            unsigned ties = 0;
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                if (base + i >= vocabulary) continue;
                if (ordered(s[i]) < threshold) {
                    below += e[i] / total;
                    s[i] = -INFINITY;
                } else if (ordered(s[i]) == threshold) {
                    ties++;
                }
            }
            below = block_sum(sums, below);
            const unsigned all_ties = block_sum(sums, ties);
            if (all_ties > 1) {
                // Equal scores go by id, lowest first; the last of the highest stays.
                unsigned gone = 0;
                float weight = expf(from_ordered(threshold) - maximum) / total;
                while (gone + 1 < all_ties + (threshold == largest ? 0u : 1u) && below + weight <= limit) {
                    below += weight;
                    gone++;
                }
                // How many ties have lower ids than this thread's.
                unsigned before = ties;
                const int lane = threadIdx.x & 31;
#pragma unroll
                for (int step = 1; step < 32; step <<= 1) {
                    unsigned other = __shfl_up_sync(0xffffffffu, before, step);
                    if (lane >= step) before += other;
                }
                unsigned *at = words + sums.turn * MK_WARPS;
                sums.turn ^= 1;
                if (lane == 31) at[threadIdx.x >> 5] = before;
                __syncthreads();
                before -= ties;
                for (int w = 0; w < (int)(threadIdx.x >> 5); w++) before += at[w];
#pragma unroll
                for (int i = 0; i < EACH; i++) {
                    if (base + i < vocabulary && ordered(s[i]) == threshold) {
                        if (before < gone) s[i] = -INFINITY;
                        before++;
                    }
                }
            }
        }
        // Cumulative sums in order of id: within a thread, over the lanes, over the warps.
        float own = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            e[i] = s[i] > -INFINITY ? expf(s[i] - maximum) : 0.0f;
            own += e[i];
        }
        const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        float through = own;
#pragma unroll
        for (int step = 1; step < 32; step <<= 1) {
            float other = __shfl_up_sync(0xffffffffu, through, step);
            if (lane >= step) through += other;
        }
        unsigned *at = words + sums.turn * MK_WARPS;
        sums.turn ^= 1;
        if (lane == 31) at[warp] = __float_as_uint(through);
        __syncthreads();
        float before = 0;
        total = 0;
        for (int w = 0; w < MK_WARPS; w++) {
            if (w == warp) before = total;
            total += __uint_as_float(at[w]);
        }
        float reached = __shfl_up_sync(0xffffffffu, through, 1);
        reached = before + (lane == 0 ? 0.0f : reached);
        const float target = uniform(session.seed_low, session.seed_high, session.frame, p.codebook) * total;
        unsigned last = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            if (!(s[i] > -INFINITY)) continue;
            reached += e[i];
            if (reached > target) chosen = max(chosen, ~(unsigned)(base + i));
            last = max(last, (unsigned)(base + i));
        }
        chosen = block_maximum(sums, chosen);
        last = block_maximum(sums, last);
        // Rounding can leave the target unreached: then the last possible id.
        if (chosen == 0) chosen = ~last;
    }
    int code = (int)~block_maximum(sums, chosen);
    if (p.forced) {
        const int given = ((const int *)p.forced)[place * p.groups + p.codebook];
        if (given >= 0) code = given;
    }
    return min(max(code, 0), vocabulary - 1);
}

DEVICE int choose(
    const mk_sample_arguments &p, const mk_session &session, int place, const float *logits, unsigned *words) {
    if (p.vocabulary <= 6 * MK_THREADS) return choose_of<6>(p, session, place, logits, words);
    return choose_of<MK_MAX_VOCABULARY / MK_THREADS>(p, session, place, logits, words);
}

// Grid: sessions.
KERNEL sample_codes(KERNEL_ARGUMENT mk_sample_arguments p) {
    const mk_session &session = ((const mk_session *)p.sessions)[blockIdx.x];
    const float *logits =
        (const float *)p.logits + (long long)(p.by_slot ? session.slot : (int)blockIdx.x) * p.ld;
    int code = choose(p, session, blockIdx.x, logits, (unsigned *)dynamic_shared());
    if (threadIdx.x == 0) {
        ((int *)p.codes)[session.slot * p.groups + p.codebook] = code;
        if (p.codebook == 0 && p.seen) ((unsigned char *)p.seen)[(long long)session.slot * p.vocabulary + code] = 1;
    }
}
