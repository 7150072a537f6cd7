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

    DEVICE_MEMBER unsigned *next() {
        unsigned *at = words + turn * MK_WARPS;
        turn ^= 1;
        return at;
    }
};

// A word of every warp, of which lane w takes that of warp w, others `none`.
DEVICE unsigned share(block_sums &b, unsigned v, unsigned none) {
    const int lane = threadIdx.x & 31;
    unsigned *at = b.next();
    if (lane == 0) at[threadIdx.x >> 5] = v;
    __syncthreads();
    return lane < MK_WARPS ? at[lane] : none;
}

DEVICE unsigned block_sum(block_sums &b, unsigned v) {
    return __reduce_add_sync(0xffffffffu, share(b, __reduce_add_sync(0xffffffffu, v), 0));
}

DEVICE unsigned block_maximum(block_sums &b, unsigned v) {
    return __reduce_max_sync(0xffffffffu, share(b, __reduce_max_sync(0xffffffffu, v), 0));
}

// Σ of the warps' floats in their order, after those of the warps before this one.
DEVICE float sum_of_warps(const unsigned *at, float &before) {
    const int warp = threadIdx.x >> 5;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < MK_WARPS; w += 4) {
        const float4 v = *(const float4 *)(at + w);
        before = w == warp ? sum : before;
        sum += v.x;
        before = w + 1 == warp ? sum : before;
        sum += v.y;
        before = w + 2 == warp ? sum : before;
        sum += v.z;
        before = w + 3 == warp ? sum : before;
        sum += v.w;
    }
    return sum;
}

DEVICE float block_sum(block_sums &b, float v) {
    v = sum_of_lanes(v);
    unsigned *at = b.next();
    if ((threadIdx.x & 31) == 0) at[threadIdx.x >> 5] = __float_as_uint(v);
    __syncthreads();
    float before = 0;
    return sum_of_warps(at, before);
}

// Candidates that kth_largest ranks at once.
#define MK_CANDIDATES 512
#define MK_SAMPLER_WORDS (2 * MK_WARPS + MK_CANDIDATES + 3)

// Of the sampler's words, behind the block-wide sums: [MK_CANDIDATES], then the k-th largest, how many candidates there
// are, and the random number.
DEVICE unsigned *candidates_of(unsigned *words) { return words + 2 * MK_WARPS; }

// The largest of all scores, and the k-th largest if k > 0 (to the vocabulary). Before the call, no candidates are counted,
// and a barrier was passed since then.
//
// In every one of the W warps that are full of scores, the r-th largest of the lanes' own maxima, r = ⌈k / W⌉, has r
// scores at or above it; so the least of the W has k. Only scores at or above that one can be the k-th; they are few,
// and ranked by counting.
template <int EACH>
DEVICE unsigned kth_largest(
    block_sums &sums, const unsigned (&s)[EACH], int vocabulary, int k, unsigned *words, unsigned &largest) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    unsigned own = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) own = max(own, s[i]);
    largest = block_maximum(sums, own);
    if (k == 0) return 0;
    const int full = min((int)MK_WARPS, vocabulary / (32 * EACH));
    const int rounds = full > 0 ? ceiling(k, full) : MK_THREADS;
    unsigned *candidates = candidates_of(words), *placed = candidates + MK_CANDIDATES;
    unsigned all = MK_CANDIDATES + 1;
    if (rounds <= 8) {
        unsigned rest = own, floor = 0;
#pragma unroll 1
        for (int r = 0; r < rounds; r++) {
            floor = __reduce_max_sync(0xffffffffu, rest);
            // The lowest lane that holds it leaves.
            const unsigned holder = __reduce_max_sync(0xffffffffu, rest == floor ? 32 - lane : 0);
            if (lane == 32 - (int)holder) rest = 0;
        }
        floor = ~block_maximum(sums, warp < full ? ~floor : 0);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            if (s[i] < floor) continue;
            const unsigned place = atomicAdd(placed + 1, 1u);
            if (place < MK_CANDIDATES) candidates[place] = s[i];
        }
        __syncthreads();
        all = placed[1];
    }
    if (all > MK_CANDIDATES) {
        // Bit by bit.
        unsigned threshold = 0;
#pragma unroll 1
        for (int bit = 31; bit >= 0; bit--) {
            const unsigned candidate = threshold | 1u << bit;
            unsigned count = 0;
#pragma unroll
            for (int i = 0; i < EACH; i++) count += s[i] >= candidate;
            if (block_sum(sums, count) >= (unsigned)k) threshold = candidate;
        }
        return threshold;
    }
    // Four lanes count for one candidate.
#pragma unroll 1
    for (unsigned base = 0; base < all; base += MK_THREADS / 4) {
        const unsigned own_place = base + (threadIdx.x >> 2);
        // Above and equal, in the halves of a word.
        unsigned counts = 0, mine = 0;
        if (own_place < all) {
            mine = candidates[own_place];
#pragma unroll 4
            for (unsigned c = threadIdx.x & 3; c < all; c += 4) {
                const unsigned other = candidates[c];
                counts += other > mine ? 0x10000u : other == mine ? 1u : 0u;
            }
        }
        counts += __shfl_xor_sync(0xffffffffu, counts, 1);
        counts += __shfl_xor_sync(0xffffffffu, counts, 2);
        const unsigned above = counts >> 16, equal = counts & 0xffffu;
        // Equal ones write the same.
        if (own_place < all && above < (unsigned)k && (unsigned)k <= above + equal) placed[0] = mine;
    }
    __syncthreads();
    return placed[0];
}

// One block; a thread holds EACH scores of consecutive ids. Logits lie in global or shared memory. `words`:
// MK_SAMPLER_WORDS of shared memory. Every thread gets the code.
template <int EACH>
DEVICE_CALL int choose_of(
    const mk_sample_arguments &p, const mk_session &session, int place, const float *logits, unsigned *words) {
    const int base = threadIdx.x * EACH, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int rule = p.codebook == 0 ? 0 : 1, vocabulary = p.vocabulary, top_k = session.top_k[rule];
    const bool samples = session.samples[rule];
    const float temperature = session.temperature[rule], penalty = session.repetition_penalty;
    block_sums sums = {words, 0};
    unsigned *placed = candidates_of(words) + MK_CANDIDATES;
    if (threadIdx.x == MK_THREADS - 32) {
        placed[1] = 0;
        placed[2] =
            __float_as_uint(uniform(session.seed_low, session.seed_high, session.frame, p.codebook));
    }
    // Scores in an order of unsigned integers; 0 where there is no id, and where one is out of the question.
    unsigned s[EACH];
    const unsigned banned = ordered(-INFINITY);
    const unsigned char *seen =
        p.codebook == 0 && p.seen ? (const unsigned char *)p.seen + (long long)session.slot * vocabulary : 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int id = base + i;
        s[i] = 0;
        if (id >= vocabulary) continue;
        float x = logits[id];
        if (seen) {
            if (seen[id] && penalty != 1.0f)
                x = x < 0 ? x * penalty : x / penalty;
            if (id == p.eos ? session.sampled < 2 : id >= p.speakable) x = -INFINITY;
        }
        if (samples) x = x / temperature;
        // Zeros are equal.
        s[i] = ordered(x + 0.0f);
    }
    unsigned largest;
    const bool cuts = samples && top_k > 0 && top_k < vocabulary;
    const unsigned kth = kth_largest<EACH>(sums, s, vocabulary, cuts ? top_k : 0, words, largest);
    const float maximum = from_ordered(largest);

    unsigned chosen = 0;  // complement of the lowest wanted id, so that a maximum finds it
    if (!samples) {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (s[i] == largest) chosen = max(chosen, ~(unsigned)(base + i));
        chosen = block_maximum(sums, chosen);
    } else {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (s[i] < kth) s[i] = 0;
        float e[EACH];
        float total = 0;
        if (session.top_p[rule] < 1.0f) {
            float own = 0;
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                e[i] = s[i] > banned ? expf(from_ordered(s[i]) - maximum) : 0.0f;
                own += e[i];
            }
            total = block_sum(sums, own);
            const float limit = 1.0f - session.top_p[rule];
            // The largest score below which at most `limit` lies: everything below it goes.
            unsigned threshold = 0;
#pragma unroll 1
            for (int bit = 31; bit >= 0; bit--) {
                unsigned candidate = threshold | 1u << bit;
                own = 0;
#pragma unroll
                for (int i = 0; i < EACH; i++)
                    if (s[i] < candidate) own += e[i] / total;
                if (block_sum(sums, own) <= limit) threshold = candidate;
            }
            threshold = min(threshold, largest);
            float below = 0;
            unsigned ties = 0;
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                if (s[i] < threshold) {
                    below += e[i] / total;
                    s[i] = 0;
                } else if (s[i] == threshold) {
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
#pragma unroll
                for (int step = 1; step < 32; step <<= 1) {
                    unsigned other = __shfl_up_sync(0xffffffffu, before, step);
                    if (lane >= step) before += other;
                }
                unsigned *at = sums.next();
                if (lane == 31) at[warp] = before;
                __syncthreads();
                before -= ties;
                for (int w = 0; w < warp; w++) before += at[w];
#pragma unroll
                for (int i = 0; i < EACH; i++) {
                    if (s[i] == threshold) {
                        if (before < gone) s[i] = 0;
                        before++;
                    }
                }
            }
        }
        // Cumulative sums in order of id: within a thread, over the lanes, over the warps.
        float own = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            e[i] = s[i] > banned ? expf(from_ordered(s[i]) - maximum) : 0.0f;
            own += e[i];
        }
        float through = own;
#pragma unroll
        for (int step = 1; step < 32; step <<= 1) {
            float other = __shfl_up_sync(0xffffffffu, through, step);
            if (lane >= step) through += other;
        }
        unsigned *at = sums.next();
        if (lane == 31) at[warp] = __float_as_uint(through);
        __syncthreads();
        float before = 0;
        total = sum_of_warps(at, before);
        float reached = __shfl_up_sync(0xffffffffu, through, 1);
        reached = before + (lane == 0 ? 0.0f : reached);
        const float target = __uint_as_float(placed[2]) * total;
        unsigned last = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            if (s[i] <= banned) continue;
            reached += e[i];
            if (reached > target) chosen = max(chosen, ~(unsigned)(base + i));
            last = max(last, (unsigned)(base + i));
        }
        chosen = block_maximum(sums, chosen);
        // Rounding can leave the target unreached: then the last possible id.
        if (chosen == 0) chosen = ~block_maximum(sums, last);
    }
    int code = (int)~chosen;
    if (p.forced) {
        const int given = ((const int *)p.forced)[place * p.groups + p.codebook];
        if (given >= 0) code = given;
    }
    return min(max(code, 0), vocabulary - 1);
}

DEVICE int choose(
    const mk_sample_arguments &p, const mk_session &session, int place, const float *logits, unsigned *words) {
    if (p.vocabulary <= 4 * MK_THREADS) return choose_of<4>(p, session, place, logits, words);
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
