"""Dimensions of the voice and the configuration files of the released layout."""
from __future__ import annotations

ADDED_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>",
    "</think>", "<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>",
    "<tts_text_bos_single>", "<|audio_pad|>"]
NOT_SPECIAL = set(ADDED_TOKENS[14:26])
TOKEN_REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")

BOOK = 512  # entries of each of the 16 codebooks
CODEC_IDS = {k: BOOK + v for k, v in dict(
    codec_pad_id=100, codec_bos_id=101, codec_eos_token_id=102, codec_think_id=106, codec_nothink_id=107,
    codec_think_bos_id=108, codec_think_eos_id=109).items()}
LANGUAGES = {"english": BOOK + 2}
SPEAKERS = {name: BOOK + 900 + i for i, name in enumerate(("linnet", "heron", "merlin"))}

# The heads are exported so many times larger: what is sampled at 0.9, the usual temperature, the network said at 0.6.
SHARPNESS = 1.5
GENERATION = dict(do_sample=True, repetition_penalty=1.0, temperature=0.9, top_p=1.0, top_k=50, subtalker_dosample=True,
                  subtalker_temperature=0.9, subtalker_top_p=1.0, subtalker_top_k=50, max_new_tokens=1024)

GUIDED = 2  # the talker's layer whose first head is led to the place in the text that is spoken

TALKER = dict(hidden=320, inter=768, layers=6, heads=5, kv=1, head_dim=64, text_hidden=256)
PREDICTOR = dict(hidden=192, inter=448, layers=3, heads=3, kv=1, head_dim=64)


def main_config(ids: dict, text_vocab: int) -> dict:
    """config.json. ids: token ids of `assistant` and the added tokens."""
    t, p = TALKER, PREDICTOR
    predictor = dict(
        model_type="qwen3_tts_talker_code_predictor", attention_bias=False, attention_dropout=0,
        head_dim=p["head_dim"], hidden_act="silu", hidden_size=p["hidden"], initializer_range=0.02,
        intermediate_size=p["inter"], layer_types=["full_attention"] * p["layers"], max_length=20,
        max_position_embeddings=65536, max_window_layers=28, num_attention_heads=p["heads"], num_code_groups=16,
        num_hidden_layers=p["layers"], num_key_value_heads=p["kv"], rms_norm_eps=1e-06, rope_scaling=None,
        rope_theta=1000000, sliding_window=None, tie_word_embeddings=False, use_cache=True, use_sliding_window=False,
        vocab_size=BOOK)
    talker = dict(
        model_type="qwen3_tts_talker", attention_bias=False, attention_dropout=0, code_predictor_config=predictor,
        codec_language_id=LANGUAGES, head_dim=t["head_dim"], hidden_act="silu", hidden_size=t["hidden"],
        initializer_range=0.02, intermediate_size=t["inter"], max_position_embeddings=32768,
        num_attention_heads=t["heads"], num_code_groups=16, num_hidden_layers=t["layers"],
        num_key_value_heads=t["kv"], position_id_per_seconds=13, rms_norm_eps=1e-06,
        rope_scaling=dict(interleaved=True, mrope_section=[12, 10, 10], rope_type="default", type="default"),
        rope_theta=1000000, sliding_window=None, text_hidden_size=t["text_hidden"], text_vocab_size=text_vocab,
        use_cache=True, use_sliding_window=False, vocab_size=BOOK + 1024, pad_token_id=CODEC_IDS["codec_pad_id"],
        spk_id=SPEAKERS, spk_is_dialect={k: False for k in SPEAKERS}, **CODEC_IDS)
    return dict(
        architectures=["Qwen3TTSForConditionalGeneration"], assistant_token_id=ids["assistant"],
        im_end_token_id=ids["<|im_end|>"], im_start_token_id=ids["<|im_start|>"],
        tts_bos_token_id=ids["<tts_text_bos>"], tts_eos_token_id=ids["<tts_text_eod>"],
        tts_pad_token_id=ids["<tts_pad>"], model_type="qwen3_tts", tokenizer_type="qwen3_tts_tokenizer_12hz",
        tts_model_size="0b6", tts_model_type="custom_voice", martlet_text_normalizer="english",
        martlet_alignment_head=dict(layer=GUIDED, head=0),
        talker_config=talker, transformers_version="4.57.3")


def codec_config() -> dict:
    """speech_tokenizer/config.json."""
    dec = dict(
        attention_bias=False, attention_dropout=0.0, latent_dim=256, codebook_dim=128, codebook_size=BOOK,
        decoder_dim=512, hidden_act="silu", hidden_size=256, intermediate_size=512, layer_scale_initial_scale=0.1,
        max_position_embeddings=8000, head_dim=64, num_attention_heads=4, num_hidden_layers=3, num_key_value_heads=4,
        num_quantizers=16, num_semantic_quantizers=1, rms_norm_eps=1e-05, rope_theta=10000,
        semantic_codebook_size=BOOK, sliding_window=72, upsample_rates=[8, 5, 4, 3], upsampling_ratios=[2, 2],
        vector_quantization_hidden_dimension=128)
    enc = dict(
        _frame_rate=12.5, attention_bias=False, attention_dropout=0.0, audio_channels=1, codebook_dim=64,
        codebook_size=BOOK, compress=2, dilation_growth_rate=2, dtype="float32", head_dim=64, hidden_act="gelu",
        hidden_size=256, initializer_range=0.02, intermediate_size=512, kernel_size=7, last_kernel_size=3,
        layer_scale_initial_scale=0.1, max_position_embeddings=8000, norm_eps=1e-05, normalize=False,
        num_attention_heads=4, num_filters=32, num_hidden_layers=2, num_key_value_heads=4, num_quantizers=16,
        num_residual_layers=1, num_semantic_quantizers=1, pad_mode="constant", residual_kernel_size=3,
        rope_theta=10000.0, sampling_rate=24000, sliding_window=250, transformers_version="4.57.0.dev0",
        trim_right_ratio=1.0, upsample_groups=256, upsampling_ratios=[8, 6, 5, 4], use_cache=False,
        use_causal_conv=True, use_conv_shortcut=False, use_streaming=False, vector_quantization_hidden_dimension=64)
    return dict(architectures=["Qwen3TTSTokenizerV2Model"], model_type="qwen3_tts_tokenizer_12hz",
                encoder_valid_num_quantizers=16, input_sample_rate=24000, output_sample_rate=24000,
                decode_upsample_rate=1920, encode_downsample_rate=1920, decoder_config=dec, encoder_config=enc,
                transformers_version="4.57.3")
