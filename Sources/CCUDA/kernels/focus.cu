// Where a query head looks in the text: which of some positions has the greatest score, of equal ones the first.

// Grid: rows. Shared memory: a float and an int for each warp.
KERNEL focus_rows(const mk_focus_arguments p) {
    const int warp = threadIdx.x >> 5, d = (threadIdx.x & 31) * 4, dim = p.cache.dim;
    const mk_focus_row row = ((const mk_focus_row *)p.rows)[blockIdx.x];
    const float4 zero = make_float4(0, 0, 0, 0);
    const float *query = (const float *)p.queries + (long long)row.query * p.ld;
    const float4 q = d < dim ? *(const float4 *)(query + d) : zero;
    float best = -INFINITY;
    int found = -1;
    for (int position = row.first + warp; position < row.end; position += MK_WARPS) {
        float *page = cache_page(p.cache, row.slot, position / MK_PAGE);
        const float *key = page_keys(p.cache, page, p.key_head) + position % MK_PAGE * dim;
        const float4 k = d < dim ? *(const float4 *)(key + d) : zero;
        const float score = sum_of_lanes(fmaf(k.w, q.w, fmaf(k.z, q.z, fmaf(k.y, q.y, k.x * q.x))));
        if (score > best) {
            best = score;
            found = position;
        }
    }
    float *scores = (float *)dynamic_shared();
    int *positions = (int *)(scores + MK_WARPS);
    if (d == 0) {
        scores[warp] = best;
        positions[warp] = found;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < MK_WARPS; w++) {
        const bool is_first = scores[w] == best && positions[w] >= 0 && positions[w] < found;
        if (!(scores[w] > best) && !is_first) continue;
        best = scores[w];
        found = positions[w];
    }
    ((int *)p.looks)[row.slot] = found;
}
