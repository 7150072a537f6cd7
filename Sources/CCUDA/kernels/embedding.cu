// Rows of embeddings: the talker's next input, prompts, text ids, the code predictor's input.

DEVICE float table_value(mk_address table, long long row, int ld, int k) {
    return float_from_bf16(((const half_bits *)table)[row * ld + k]);
}

// Group g's embedding of a code, g from 0.
DEVICE float code_value(
    mk_address codec_table, mk_address group_tables, int vocabulary, int ld, int group, int code, int k) {
    return group == 0 ? table_value(codec_table, code, ld, k)
                      : table_value(group_tables, (long long)(group - 1) * vocabulary + code, ld, k);
}

// Grid: x columns in blocks, y sessions.
KERNEL embed_frames(const mk_embed_arguments p) {
    const int k = blockIdx.x * MK_THREADS + threadIdx.x;
    if (k >= p.width) return;
    const mk_session &session = ((const mk_session *)p.sessions)[blockIdx.y];
    const int *codes = (const int *)p.codes + session.slot * p.groups;
    float sum = 0;
    for (int g = 0; g < p.groups; g++)
        sum += code_value(p.codec_table, p.group_tables, p.vocabulary, p.ld_table, g, codes[g], k);
    if (session.text_row) sum += ((const float *)session.text_row)[k];
    ((float *)p.x)[(long long)blockIdx.y * p.ld + k] = sum;
}

// Grid: x columns in blocks, y rows.
KERNEL embed_prompt(const mk_prompt_arguments p) {
    const int k = blockIdx.x * MK_THREADS + threadIdx.x, row = blockIdx.y;
    if (k >= p.width) return;
    const int *codes = (const int *)p.codes + row * p.groups;
    float sum = 0;
    for (int g = 0; g < p.groups; g++)
        if (codes[g] >= 0)
            sum += code_value(p.codec_table, p.group_tables, p.vocabulary, p.ld_table, g, codes[g], k);
    const int vector = ((const int *)p.vector_index)[row], text = ((const int *)p.text_index)[row];
    if (vector >= 0) sum += ((const float *)p.vectors)[(long long)vector * p.ld + k];
    if (text >= 0) sum += ((const float *)p.texts)[(long long)text * p.ld + k];
    ((float *)p.x)[(long long)row * p.ld + k] = sum;
}

// Grid: rows.
KERNEL gather_halves(const mk_gather_arguments p) {
    const int id = ((const int *)p.ids)[blockIdx.x];
    for (int k = threadIdx.x; k < p.ld_table; k += MK_THREADS) {
        const long long at = packed_place(p.rows, blockIdx.x, k);
        ((half_bits *)p.output)[at] = ((const half_bits *)p.table)[(long long)id * p.ld_table + k];
        ((half_bits *)p.output_low)[at] = 0;
    }
}

// Grid: x columns in blocks, y sessions.
KERNEL predictor_input(const mk_predictor_input_arguments p) {
    const int k = blockIdx.x * MK_THREADS + threadIdx.x;
    if (k >= p.width) return;
    const mk_session &session = ((const mk_session *)p.sessions)[blockIdx.y];
    const int code = ((const int *)p.codes)[session.slot * p.groups + p.group];
    const float value = code_value(p.codec_table, p.group_tables, p.vocabulary, p.ld_table, p.group, code, k);
    float *x = (float *)p.x;
    if (p.group == 0) {
        x[(long long)(2 * blockIdx.y) * p.ld + k] =
            ((const float *)p.hidden)[(long long)session.slot * p.ld_hidden + k];
        x[(long long)(2 * blockIdx.y + 1) * p.ld + k] = value;
    } else {
        x[(long long)blockIdx.y * p.ld + k] = value;
    }
}
