#ifndef KERNEL_ARGUMENTS_H
#define KERNEL_ARGUMENTS_H

// Arguments of the kernels: the one description that the host and the kernels share, so it includes nothing.
// Every kernel takes one structure. Addresses are of device memory; 0 means absent. "Half" stands for bfloat16 in the
// talker and code predictor, for float16 in the codec. Widths are padded to multiples of 32 with zeros.

typedef unsigned long long mk_address;

enum {
    /// Positions in a page of a KV cache; attention sums page by page.
    MK_PAGE = 64,
    /// Inputs in one chunk of packed weights: two tensor-core products.
    MK_CHUNK = 32,
    /// Outputs in one tile of packed weights.
    MK_TILE = 8,
    /// Warps of a block, and parts of the longest sums.
    MK_WARPS = 16,
    MK_THREADS = 512,
    /// Ids that the sampler handles.
    MK_MAX_VOCABULARY = 8192,
    /// Width of a head, at most: four values a lane.
    MK_MAX_HEAD = 128,
    /// Query heads that share a key head, at most.
    MK_MAX_GROUP = 8,
    /// Rows that a team of a persistent kernel takes, at most: those of one product.
    MK_TEAM_ROWS = 8,
    /// Tiles that a block of a persistent kernel finishes together, at most.
    MK_GATHER = 8,
    /// Parts of a long product's operands that are under way or in use at a time.
    MK_TILE_STAGES = 4,
    /// Bytes of a column that one block keeps.
    MK_ROLL_BYTES = 256,
    /// Groups of positions that a head's attention is summed in, and positions that a lane loads at once.
    MK_FRAME_GROUPS = 8,
    MK_FRAME_BATCH = 9,
    /// Threads that finish them: four for each of 32 pairs of tile and row.
    MK_FINISHERS = 128,
    /// Bytes of shared memory that the sampler works in: words, then a session and a rule (mk_sample_arguments).
    MK_SAMPLER_SESSION = 2192,
    MK_SAMPLER_RULE = 2272,
    MK_SAMPLER_BYTES = 2432,
};

enum { MK_LINEAR = 0, MK_SILU = 1, MK_GELU = 2, MK_SWIGLU = 3 };
enum { MK_BF16 = 0, MK_F16 = 1, MK_F32 = 2 };

/// One session of a batch.
typedef struct {
    int slot;
    /// Index of the frame, for random numbers.
    int frame;
    /// Position of the talker's input row.
    int position;
    /// Tokens of code 0 sampled so far.
    int sampled;
    /// Float row that is added to the talker's input.
    mk_address text_row;
    unsigned seed_low, seed_high;
    float repetition_penalty;
    /// Rules of the talker [0] and of the code predictor [1].
    float temperature[2];
    float top_p[2];
    int top_k[2];
    int samples[2];
    int unused;
} mk_session;

/// Keys and values: pages of [layers][2][kv_heads][MK_PAGE][dim] floats.
typedef struct {
    /// mk_address [slots][stride]: where pages begin.
    mk_address pages;
    int stride;
    /// Pages that are used in turn; 0 if every page has its own entry.
    int ring;
    int layer;
    int kv_heads;
    int dim;
    int unused;
} mk_cache;

/// Outputs = epilogue(W · inputs): a linear layer or a causal convolution over channel-last columns.
typedef struct {
    /// Half [tiles][chunks][MK_TILE][MK_CHUNK], and what rounding to half lost, or 0.
    mk_address weights, weights_low;
    int tiles, chunks;
    /// Parts of each sum: 1, 4 or 16.
    int splits;
    int rows;
    /// Half [rows][ld_input], and what rounding lost, or 0. Bfloat16: [chunks][⌈rows / 8⌉][2][8][MK_CHUNK], high and low.
    mk_address input, input_low;
    int ld_input;
    /// Of a convolution; a linear layer has one tap.
    int taps, chunks_per_tap, dilation;
    /// Rows of one session; rows before its first are in its history [slot][(taps - 1) · dilation][ld_input].
    int columns;
    int history_stride;
    mk_address history, history_low;
    mk_address slots;
    // Epilogue, in this order.
    mk_address row_scale;
    /// Of bfloat16 rows in its place: an RMSNorm's of so many inputs, from the squares of each eight: float [rows][4 · chunks].
    mk_address squares;
    int norm_width;
    float epsilon;
    mk_address bias;
    mk_address scale;
    /// Float [rows][ld_raw].
    mk_address residual;
    mk_address raw;
    /// Row of `raw` that each row goes to, or 0.
    mk_address raw_rows;
    int ld_raw;
    /// Outputs that `raw` takes.
    int stored;
    mk_address output, output_low;
    int ld_output;
    int activation;
    /// SnakeBeta on `output`, per channel. Of bfloat16, alpha is the gain of the RMSNorm that `output` goes to, with zeros from
    /// `stored` on, and squares for it go to float [rows][tiles].
    mk_address alpha, inverse_beta, output_squares;
    /// Bias, alpha and inverse_beta repeat after so many outputs.
    int period;
    int clamp;
} mk_gemm_arguments;

/// Splits float rows into halves and what rounding lost, for a layer behind an RMSNorm: x · gain, with 1 / rms aside.
typedef struct {
    mk_address x;
    /// Which rows, or 0 for all in order.
    mk_address row_index;
    int ld, width, rows, chunks;
    mk_address gain;
    float epsilon;
    int half;
    mk_address output, output_low;
    int ld_output;
    int ld_normed;
    /// 1 / rms, or of bfloat16 the squares that it follows from, as mk_gemm_arguments has them.
    mk_address row_scale, squares;
    /// Float rows of the normed values, in rows `normed_rows`, or 0.
    mk_address normed, normed_rows;
} mk_prepare_arguments;

/// Norms and rotates queries in place; norms and rotates keys and stores them with the values.
typedef struct {
    /// Float rows: queries, keys, values.
    mk_address qkv;
    int ld, rows, heads;
    float epsilon;
    mk_address query_norm, key_norm, frequencies;
    mk_address row_slots, row_positions;
    mk_cache cache;
} mk_rope_arguments;

/// Attention of each row, page by page.
typedef struct {
    mk_address qkv;
    int ld, rows, heads, window;
    mk_address row_slots, row_positions;
    mk_cache cache;
    /// Whether each row is the only one of its session: its queries are not normed and rotated yet, and its key and value
    /// are not in the cache, where they are put.
    int is_alone;
    float epsilon;
    mk_address query_norm, key_norm, frequencies;
    /// Of rows with several pages: partial sums [rows][heads][pages][dim + 2], and int [rows][kv_heads], zeros between launches.
    mk_address partials, counters;
    int pages;
    int half;
    /// Half rows and what rounding lost.
    mk_address output, output_low;
    int ld_output;
    int unused;
} mk_attention_arguments;

/// A row whose head is asked: which row of queries, whose cache, from which position up to which.
typedef struct {
    int query, slot, first, end;
} mk_focus_row;

/// Where one query head of some rows looks.
typedef struct {
    /// Float rows, normed and rotated: the head's own.
    mk_address queries;
    int ld, key_head;
    /// mk_focus_row [rows].
    mk_address rows;
    mk_cache cache;
    /// int [slots]: the position, or -1 if none was in question.
    mk_address looks;
} mk_focus_arguments;

/// x = Σ embeddings of the last frame's codes + the text row.
typedef struct {
    /// bfloat16 [vocabulary 0][ld_table] and [groups - 1][vocabulary][ld_table].
    mk_address codec_table, group_tables;
    int vocabulary, groups, ld_table, width;
    mk_address sessions;
    /// int [slots][groups].
    mk_address codes;
    mk_address x;
    int ld, batch;
} mk_embed_arguments;

/// Rows of a prompt: Σ of the embeddings of codes, a float row, and a text row.
typedef struct {
    mk_address codec_table, group_tables;
    int vocabulary, groups, ld_table, width;
    /// int [rows][groups], less than 0 for none.
    mk_address codes;
    /// int [rows]: row of `vectors` and of `texts`, less than 0 for none.
    mk_address vector_index, text_index;
    mk_address vectors, texts;
    mk_address x;
    int ld, rows;
} mk_prompt_arguments;

/// Copies bfloat16 rows by id to halves; the lost part is 0.
typedef struct {
    mk_address table;
    mk_address ids;
    int ld_table, rows;
    mk_address output, output_low;
    int ld_output, unused;
} mk_gather_arguments;

/// Rows of the code predictor's input: the talker's hidden state, or embeddings of the code just chosen.
typedef struct {
    mk_address hidden;
    int ld_hidden, width;
    mk_address codec_table, group_tables;
    int vocabulary, groups, ld_table, batch;
    mk_address sessions, codes;
    /// Group whose code is embedded; 0 makes two rows: hidden state, code 0.
    int group;
    int ld;
    mk_address x;
    int tables_unused, unused;
} mk_predictor_input_arguments;

/// Chooses one code of every session from its logits.
typedef struct {
    mk_address sessions;
    int batch, codebook;
    /// Float rows by slot (`by_slot`) or by place in the batch.
    mk_address logits;
    int ld, vocabulary;
    int by_slot;
    /// Ids at and above `speakable` are banned, but for `eos`; both only for codebook 0.
    int speakable, eos;
    int groups;
    /// Byte [slots][vocabulary]: ids of code 0 so far; only for codebook 0.
    mk_address seen;
    /// int [slots][groups].
    mk_address codes;
    /// If given: int [batch][groups] that decide instead of the logits (teacher forcing).
    mk_address forced;
} mk_sample_arguments;

/// A linear layer behind an RMSNorm, over few float rows: what mk_prepare_arguments and mk_gemm_arguments say together.
typedef struct {
    /// Without input; it has 16 splits.
    mk_gemm_arguments product;
    /// Float [rows][ld_x].
    mk_address x, gain;
    int ld_x, width;
    float epsilon;
    int unused;
} mk_normed_arguments;

/// Attention of the codec's transformer over the last `window` positions, heads without norm, each with its own keys.
typedef struct {
    /// Float rows: queries, keys, values; not rotated.
    mk_address qkv;
    int ld, rows, heads, window;
    /// Rows of one session, one position after the other.
    int columns, ld_output;
    mk_address frequencies;
    mk_address row_slots, row_positions;
    mk_cache cache;
    /// Half rows and what rounding lost.
    mk_address output, output_low;
} mk_frame_attention_arguments;

/// Sums of codebook rows: halves [rows][ld_output], first codebook and then the others' sum.
typedef struct {
    /// int [rows][groups].
    mk_address codes;
    /// Float [groups][entries][width].
    mk_address tables;
    int rows, groups, entries, width;
    mk_address output, output_low;
    int ld_output, unused;
} mk_codebook_arguments;

/// LayerNorm(causal depthwise convolution of 7 taps).
typedef struct {
    mk_address x, history, slots;
    int ld, width, rows, columns;
    int history_stride;
    float epsilon;
    /// Float [7][ld], [ld], [width], [width].
    mk_address weights, bias, norm_weight, norm_bias;
    mk_address output, output_low;
    int ld_output, unused;
} mk_depthwise_arguments;

/// Keeps the last columns of a convolution's input for the next packet: of each column some bytes.
typedef struct {
    mk_address history, fresh;
    /// Bytes: of a slot's history; from column to column; of a column here, MK_ROLL_BYTES at most.
    int history_stride, column_bytes, width;
    /// Columns.
    int kept, columns;
    int unused;
} mk_roll_entry;

typedef struct {
    mk_address entries, slots;
    int count, sessions;
} mk_roll_arguments;

/// Packs a tensor: element (n, tap, c) is source[offset + n · stride_n + c · stride_c + tap · stride_tap].
typedef struct {
    mk_address source;
    int type;
    int outputs, taps, channels, padded_channels, chunks;
    long long stride_n, stride_c, stride_tap, offset;
    mk_address output, output_low;
    /// Output n goes to row first + n · step.
    int first, step;
    int half;
    int unused;
} mk_pack_arguments;

/// Pseudo-random halves or floats in ± amplitude, for measurements without a checkpoint.
typedef struct {
    mk_address output;
    long long count;
    float amplitude;
    unsigned seed;
    int type;
    int unused;
} mk_noise_arguments;

/// One layer of a persistent kernel's schedule: tiles in units of one or two neighbours.
typedef struct {
    mk_address weights;
    int units;
    unsigned short unit, chunks;
} mk_stream_entry;

/// A transformer stack of a persistent kernel: schedule entries are query-key-value, output, gate-up, down.
typedef struct {
    /// Float [layer_count][2][chunks · MK_CHUNK], then the final norm's: of input and post norm.
    mk_address gains;
    /// Float [layer_count][2][dim]: of query and key norm.
    mk_address head_gains;
    mk_address frequencies;
    int layer_count, width, chunks, heads;
    int intermediate_chunks;
    float epsilon;
    mk_cache cache;
} mk_stack;

/// What an operation of a persistent kernel did (kind + 1; 0 is nothing), and clocks of a block's first thread: at its
/// begin, when its input was there, after its sums, at its end.
typedef struct {
    unsigned kind, clocks[4];
} mk_trace;

/// A layer as a persistent kernel takes it: units of tiles, chunks, chunks of a warp, where in the work memory its input
/// is.
typedef struct {
    int units, chunks, run, input_at;
} mk_step_layer;

/// Operations of the persistent kernels: layers of the schedule, attention, and sampling with the next input.
enum {
    MK_QKV = 0,
    MK_OUTPUT = 1,
    MK_GATE_UP = 2,
    MK_DOWN = 3,
    MK_HEAD = 4,
    MK_PROJECT = 5,
    MK_ATTEND = 6,
    MK_INPUT = 7,
};

/// Talker step or code predictor frame of some sessions, in one cooperative launch.
typedef struct {
    mk_stack stack;
    /// mk_stream_entry []; this launch takes those from `schedule_first` on.
    mk_address schedule;
    int schedule_first, schedule_count;
    mk_address sessions;
    /// Sessions are shared out evenly to teams of `blocks` blocks; a team has at most `rows` rows in a pass.
    int batch, teams, blocks, rows;
    /// ⌈2³² / blocks⌉.
    unsigned blocks_inverse;
    int is_predictor, unused;
    /// Tag of the launch before its first operation.
    unsigned tag;
    /// Work memory of each team, zeros at first: units of 16 bytes, three words and a tag. Where in it, bytes:
    /// units of records [width / 32][rows][3][4] of the inputs of the projection, the stack's layers, output and down layers;
    /// pairs of floats [rows][width / 2] of the stack's input, of queries, keys and values, and of logits.
    mk_address work;
    long long work_stride;
    int input_at, x_at, attended_at, inner_at, entry_at, qkv_at, logits_at;
    /// By kind of operation, MK_QKV to MK_PROJECT.
    mk_step_layer layers[6];
    /// Tiles that a block finishes together (a multiple of 4, at most MK_GATHER), chunks of activations that a warp holds
    /// (even), and the least power of two that holds all rows.
    int gather, piece, row_places, row_places_log;
    /// Places for the sums that a block finishes together: 32, 64 or 128.
    int finishers_log;
    int ld_qkv;
    /// Partial sums of attention by team: units [rows][heads][pages][dim / 2 + 1].
    mk_address partials;
    long long partials_stride;
    int pages;
    // Offsets in shared memory.
    int run_sums_at, residual_at, turns_at, places_at, words_at, schedule_at, area_at;
    /// In the area: units of a warp's activations, and where sums are, in bytes.
    int stage_units, partials_in_area;
    /// Attention: query heads of an item and of a key head, items of a page; ⌈2³² / n⌉ of these and of half a head.
    int item_heads, key_queries, head_items;
    unsigned key_queries_inverse, head_items_inverse, half_inverse;
    /// Rows of the ring of each warp, and where in shared memory is what it copies next.
    int ring, streams_at;
    // Embeddings.
    int vocabulary, groups, ld_table, talker_chunks;
    mk_address codec_table, group_tables, codes;
    /// Of the talker: float rows [batch][ld_table] to take in place of embeddings, or 0.
    mk_address x;
    // Outputs by slot.
    mk_address hidden, logits;
    int ld_hidden, ld_logits;
    /// Outputs of the head.
    int head_outputs;
    // Code predictor: projection from the talker's width, its bias.
    int has_projection;
    mk_address projection_bias;
    /// Whether hidden state and code 0 go in one pass.
    int together;
    // Sampling.
    int speakable, eos, talker_vocabulary;
    mk_address seen, forced;
    /// Logits of all passes [groups - 1][all_batch][ld_pass_logits].
    mk_address all_logits;
    int all_batch, ld_pass_logits;
    /// For measurements, if `traced` is 1 and not 0: mk_trace [operations][grid].
    mk_address trace;
    int traced, yet_unused;
    /// Of the talker: float [batch][dim] for the queries of one head of one layer, normed and rotated, or 0.
    mk_address focus;
    int focus_layer, focus_head;
} mk_step_arguments;

#endif
