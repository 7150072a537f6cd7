#!/usr/bin/env python3
"""Random-weight Qwen3-TTS (12 Hz) checkpoints and golden outputs of the Python reference.

    make_fixture.py build   --preset tiny --mode custom_voice --seed 1 --out DIR
    make_fixture.py golden  --model DIR            # runs the reference, writes DIR/golden/
    make_fixture.py verify  --model DIR            # reloads and compares with DIR/golden/
    make_fixture.py time    --model DIR            # milliseconds per frame on this CPU, one line of JSON
    make_fixture.py tokenizer --model DIR          # text -> ids cases, one JSON object a line

The reference package (qwen-tts 0.1.1) is imported from the environment that setup.sh makes, or
from the folder given with --reference.  See README.md for what the files contain.
"""
from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import json
import math
import sys
import time
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import fixture_lib as lib  # noqa: E402


# --------------------------------------------------------------------------------------
# Reference import
# --------------------------------------------------------------------------------------
class _Stub(types.ModuleType):
    """Stands in for packages that only the 25 Hz tokenizer of the reference imports."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.__path__ = []

    def __getattr__(self, attr):
        if attr.startswith("__"):
            raise AttributeError(attr)
        return _Stub(f"{self.__name__}.{attr}")


def import_reference(path: str | None):
    if path and Path(path).is_dir():
        sys.path.insert(0, path)
    import transformers  # noqa: F401  (before the stubs: it probes for these packages)
    transformers.logging.set_verbosity_error()
    for name in ("sox", "onnxruntime", "torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi"):
        try:
            importlib.import_module(name)
        except Exception:
            sys.modules[name] = _Stub(name)
    import qwen_tts
    return qwen_tts


# --------------------------------------------------------------------------------------
# build
# --------------------------------------------------------------------------------------
def build(args):
    import torch
    from safetensors.torch import save_file
    import_reference(args.reference)
    from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

    out = Path(args.out)
    (out / "speech_tokenizer").mkdir(parents=True, exist_ok=True)
    ids, text_vocab = lib.write_tokenizer(out, args.preset, Path(args.qwen_tiktoken) if args.qwen_tiktoken else None)
    cfg = lib.main_config(args.preset, args.mode, ids, text_vocab)
    write_json(out / "config.json", cfg)
    write_json(out / "generation_config.json", lib.GENERATION_CONFIG)

    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in
                  Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**json.loads(json.dumps(cfg)))).state_dict().items()}
    dtype = dict(bf16=torch.bfloat16, f32=torch.float32)[args.main_dtype]
    save_file({k: lib.init_main(k, s, args.seed, args.preset).to(dtype).contiguous() for k, s in shapes.items()},
              str(out / "model.safetensors"), metadata={"format": "pt"})

    ccfg = lib.codec_config(args.preset)
    cdir = out / "speech_tokenizer"
    write_json(cdir / "config.json", ccfg)
    write_json(cdir / "preprocessor_config.json", dict(
        chunk_length_s=None, feature_extractor_type="EncodecFeatureExtractor", feature_size=1, overlap=None,
        padding_side="right", padding_value=0.0, return_attention_mask=True, sampling_rate=24000))
    codec = Qwen3TTSTokenizerV2Model(Qwen3TTSTokenizerV2Config(**json.loads(json.dumps(ccfg)))).float().eval()
    state = {k: lib.init_codec(k, tuple(v.shape), args.seed) for k, v in codec.state_dict().items()}
    state = calibrate_codec(codec, state, args.seed)
    save_file({k: v.contiguous() for k, v in state.items()}, str(cdir / "model.safetensors"),
              metadata={"format": "pt"})
    write_json(out / "fixture.json", dict(preset=args.preset, mode=args.mode, seed=args.seed,
                                          main_dtype=args.main_dtype, codec_dtype="f32",
                                          tokenizer="qwen.tiktoken" if args.qwen_tiktoken else "inline corpus"))
    if args.plant_eos or (args.plant_eos is None and args.preset.startswith("tiny")):
        plant_eos(args, out)
    print(f"built {out}: main {sum(math.prod(s) for s in shapes.values()):,} parameters, "
          f"codec {sum(v.numel() for v in state.values()):,}")


def plant_eos(args, out, frames=16):
    """Redraws the EOS row of codec_head until one text ends by itself (and the other
    generation cases do not), so that a parity test can check stopping."""
    import torch
    from safetensors.torch import load_file, save_file
    args.model = out
    tts = load(args)
    tcfg = tts.model.config.talker_config
    eos = tcfg.codec_eos_token_id
    suppress = [i for i in range(tcfg.vocab_size - 1024, tcfg.vocab_size) if i != eos]
    ref = reference_prompt(tts, synthetic_wav(45001, args.seed), 12)[0] if args.mode == "base" else None
    cases = cases_for(args.mode, tts.model.tts_model_size, ref)
    cases.append(("eos",) + cases[0][1:2] + (dict(cases[0][2], text=EOS_TEXT),))
    hidden, best = [], []
    tts.model.talker.codec_head.weight.data[eos] = 0
    for name, method, kw in cases:
        for rp in (1.0, 1.05):
            with Recorder(tts.model) as rec, torch.inference_mode():
                getattr(tts, method)(do_sample=False, subtalker_dosample=False, repetition_penalty=rp,
                                     max_new_tokens=frames + 1, **kw)
            history, top = [], []
            for logits, _ in rec.rows:
                s = process_scores(logits, history, rp, suppress + [eos], eos, 2)
                top.append(float(s.max()))
                history.append(int(s.argmax()))
            hidden.append(torch.stack([h for _, h in rec.rows]))
            best.append(torch.tensor(top))
    g = torch.Generator().manual_seed(args.seed + 31)
    weights = load_file(str(out / "model.safetensors"))
    head = weights["talker.codec_head.weight"]
    for attempt in range(20000):
        row = (torch.randn(head.shape[1], generator=g) * 4.0 / math.sqrt(head.shape[1])).to(head.dtype)
        gap = [h @ row.float() - b for h, b in zip(hidden, best)]
        stop, others = gap[-2][4:14], gap[:-2]
        if stop.max() > 0.3 and gap[-2][2:4].max() < -0.3 and all(o.max() < -0.3 for o in others):
            head[eos] = row
            save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
            fx = json.loads((out / "fixture.json").read_text())
            write_json(out / "fixture.json", dict(fx, eos_text=EOS_TEXT, eos_row_attempt=attempt))
            return
    print("  no EOS row found; the fixture has no EOS case")


EOS_TEXT = "Stop here."


def calibrate_codec(codec, state, seed):
    """Fixes what plain random numbers cannot: codebooks that fit the encoder's own
    residuals (so that codes are varied) and a PCM level around 0.25."""
    import torch
    eps = 1e-5
    for k in [k for k in state if k.endswith("embedding_sum")]:
        usage = state[k.replace("embedding_sum", "cluster_usage")].clamp(min=eps)
        level = int(k.split("vq.layers.")[1].split(".")[0]) if "rvq_rest" in k else 0
        state[k] = state[k] * (0.9 ** level) * usage[:, None]
    with torch.no_grad():
        codec.load_state_dict(state)
        enc = codec.encoder
        wav = torch.from_numpy(synthetic_wav(24000 * 4, seed + 99))[None, None]
        hidden = enc.encoder_transformer(enc.encoder(wav).transpose(1, 2), return_dict=True)[0].transpose(1, 2)
        hidden = enc.downsample(hidden)
        for part in ("semantic", "acoustic"):
            q = getattr(enc.quantizer, f"{part}_residual_vector_quantizer")
            res = q.input_proj(hidden)[0].T                                   # [T, D]
            for i, layer in enumerate(q.layers):
                key = f"encoder.quantizer.{part}_residual_vector_quantizer.layers.{i}.codebook"
                noise = state[f"{key}.embed_sum"]
                emb = res.mean(0) + noise * res.std(0).clamp(min=1e-4) * 0.9
                usage = state[f"{key}.cluster_usage"]
                state[f"{key}.embed_sum"] = emb * usage.clamp(min=eps)[:, None]
                idx = torch.cdist(res, emb).argmin(-1)
                res = res - emb[idx]
        codec.load_state_dict(state)
        cfg = codec.config.decoder_config
        g = torch.Generator().manual_seed(seed + 7)
        codes = torch.randint(0, cfg.codebook_size, (1, 16, 12), generator=g)
        raw = run_decoder_stages(codec.decoder, codes)["pre_clamp"]
        last = f"decoder.decoder.{len(cfg.upsample_rates) + 2}.conv."
        gain = 0.25 / float(raw.std())
        state[last + "weight"] = state[last + "weight"] * gain
        state[last + "bias"] = state[last + "bias"] * gain
    return state


def run_decoder_stages(dec, codes):
    """The reference decoder, stage by stage. codes: [1, 16, T] -> dict of [1, C, T'] tensors."""
    import torch
    st = {}
    with torch.inference_mode():
        x = st["quantized"] = dec.quantizer.decode(codes)
        x = st["pre_conv"] = dec.pre_conv(x)
        x = dec.pre_transformer(inputs_embeds=x.transpose(1, 2)).last_hidden_state.permute(0, 2, 1)
        st["pre_transformer"] = x
        for i, blocks in enumerate(dec.upsample):
            for j, block in enumerate(blocks):
                x = st[f"upsample.{i}.{j}"] = block(x)
        for i, block in enumerate(dec.decoder):
            x = st[f"decoder.{i}"] = block(x)
        st["pre_clamp"] = st.pop(f"decoder.{len(dec.decoder) - 1}")
        st["pcm"] = x.clamp(-1, 1)
    return st


def synthetic_wav(samples: int, seed: int):
    """A deterministic speech-like signal: gliding harmonics, syllabic envelope, some noise."""
    import numpy as np
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 24000.0
    f0 = 120 + 40 * np.sin(2 * np.pi * 0.7 * t) + 25 * np.sin(2 * np.pi * 1.9 * t + 1)
    phase = 2 * np.pi * np.cumsum(f0) / 24000.0
    tone = sum(np.sin(h * phase + rng.uniform(0, 6.28)) * rng.uniform(0.2, 1) / h for h in range(1, 24))
    env = np.clip(np.sin(2 * np.pi * 3.1 * t) + 0.4, 0, 1) ** 1.5
    wav = 0.25 * tone * env + 0.02 * rng.standard_normal(samples) * (0.3 + env)
    return np.clip(wav, -0.95, 0.95).astype(np.float32)


# --------------------------------------------------------------------------------------
# golden
# --------------------------------------------------------------------------------------
def load(args):
    import torch
    qwen_tts = import_reference(args.reference)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return qwen_tts.Qwen3TTSModel.from_pretrained(str(args.model), dtype=torch.float32)


class Recorder:
    """Records what the talker and the predictor see during one generate() call."""

    def __init__(self, model):
        self.talker, self.rows, self.sub, self.prefill = model.talker, [], [], None
        self.codes = []

    def __enter__(self):
        def generate(**kw):
            self.prefill = {k: kw[k].detach().clone() for k in
                            ("inputs_embeds", "attention_mask", "trailing_text_hidden", "tts_pad_embed")}
            self.kwargs = {k: v for k, v in kw.items() if k not in self.prefill}
            return self._generate(**kw)

        self._generate = self.talker.generate
        self.talker.generate = generate

        def on_talker(mod, a, kw, out):
            self.rows.append((out.logits[0, -1].float().clone(), out.past_hidden[0, 0].float().clone()))
            if out.hidden_states[1] is not None:
                self.codes.append(out.hidden_states[1][0].clone())

        def on_model(mod, a, kw, out):
            if len(self.rows) == 0:
                self.prefill_layers = [h[0].clone() for h in (out.hidden_states or ())]
            self.inputs.append(kw["inputs_embeds"][0].clone())
            self.positions.append(kw["position_ids"][0, 0].clone())

        self.inputs, self.positions = [], []
        self.hooks = [
            self.talker.register_forward_hook(on_talker, with_kwargs=True),
            self.talker.model.register_forward_hook(on_model, with_kwargs=True),
            self.talker.code_predictor.register_forward_hook(
                lambda m, a, kw, out: self.sub.append(out.logits[0, -1].float().clone()), with_kwargs=True)]
        return self

    def __exit__(self, *exc):
        self.talker.generate = self._generate
        for h in self.hooks:
            h.remove()


def process_scores(logits, history, penalty, suppress, eos, min_new):
    """What generate() does to the talker's logits before argmax (greedy)."""
    s = logits.clone()
    if penalty != 1.0 and history:
        for tok in set(history):
            s[tok] = s[tok] * penalty if s[tok] < 0 else s[tok] / penalty
    if len(history) < min_new:
        s[eos] = -math.inf
    s[suppress] = -math.inf
    return s


def cases_for(mode: str, size: str, ref):
    """(name, wrapper method, keyword arguments) of the generation cases."""
    en = "Hello world, this is a small test."
    zh = "你好，世界。今天天气很好，我们去公园吧。"
    if mode == "custom_voice":
        c = [("nonstream_en", "generate_custom_voice", dict(text=en, speaker="ryan", language="English")),
             ("stream_auto", "generate_custom_voice",
              dict(text="Guten Morgen, wie geht es Ihnen heute?", speaker="Vivian", language="Auto",
                   non_streaming_mode=False)),
             ("dialect_zh", "generate_custom_voice", dict(text=zh, speaker="eric", language="Chinese"))]
        if size not in "0b6":
            c.append(("instruct", "generate_custom_voice",
                      dict(text=en, speaker="aiden", language="English", instruct="Very happy, with a smile!")))
        return c
    if mode == "voice_design":
        return [("design_en", "generate_voice_design",
                 dict(text=en, instruct="A calm male voice.", language="English")),
                ("design_stream", "generate_voice_design",
                 dict(text=zh, instruct="", language="Auto", non_streaming_mode=False))]
    short, long_text = "Yes.", en + " " + "Numbers such as 3, 14 and 2026 are split into single digits. " * 2
    return [("xvector", "generate_voice_clone",
             dict(text=en, language="English", voice_clone_prompt=[ref(None, True)])),
            ("icl_stream_text_longer", "generate_voice_clone",
             dict(text=long_text, language="English", voice_clone_prompt=[ref("Hello world.", False)])),
            ("icl_stream_codes_longer", "generate_voice_clone",
             dict(text=short, language="Auto", voice_clone_prompt=[ref("Hello.", False)])),
            ("icl_nonstream", "generate_voice_clone",
             dict(text=short, language="English", voice_clone_prompt=[ref("Hello world.", False)],
                  non_streaming_mode=True))]


def golden(args):
    import numpy as np
    import torch
    args.model = Path(args.model)
    tts = load(args)
    model, tok = tts.model, tts.model.speech_tokenizer.model
    tcfg = model.config.talker_config
    out = args.model / "golden"
    out.mkdir(exist_ok=True)
    meta = dict(reference="qwen-tts 0.1.1", torch=torch.__version__,
                transformers=importlib.import_module("transformers").__version__, dtype="float32, CPU",
                frames_requested=args.frames, cases={}, fixture=json.loads((args.model / "fixture.json").read_text()))

    # --- encoder and speaker embedding -------------------------------------------------
    ref = None
    if model.tts_model_type == "base":
        ref, rec = reference_prompt(tts, synthetic_wav(args.ref_samples, meta["fixture"]["seed"]), args.ref_frames)
        save(out / "encoder.safetensors", rec)
        meta["encoder"] = dict(samples=len(rec["wav"]), frames=len(rec["codes"]),
                               min_codebook_margin=float(rec["codebook_margin"].min()))

    # --- generation --------------------------------------------------------------------
    cases = cases_for(model.tts_model_type, model.tts_model_size, ref)
    if "eos_text" in meta["fixture"]:
        cases.append(("eos", cases[0][1], dict(cases[0][2], text=meta["fixture"]["eos_text"])))
    main_codes = None
    for name, method, kw in cases:
        entry, tensors = run_case(tts, method, kw, args, layers=main_codes is None)
        meta["cases"][name] = entry
        save(out / f"case_{name}.safetensors", tensors)
        if main_codes is None:
            main_codes = torch.from_numpy(tensors["codes_rp1.00"]).long()
        print(f"  {name}: {entry['runs']['rp1.00']['frames']} frames, "
              f"min margins talker {entry['runs']['rp1.00']['min_talker_margin']:.4g} "
              f"predictor {entry['runs']['rp1.00']['min_predictor_margin']:.4g}")

    # --- decoder -----------------------------------------------------------------------
    dec = tok.decoder
    g = torch.Generator().manual_seed(1234)
    T = args.decoder_frames
    codes = torch.randint(0, tok.config.decoder_config.codebook_size, (T, 16), generator=g)
    codes[: min(len(main_codes), T // 2)] = main_codes[: T // 2]
    st = run_decoder_stages(dec, codes.T[None])
    stages = run_decoder_stages(dec, codes[: args.stage_frames].T[None])
    tensors = {f"stage.{k}": v[0].numpy() for k, v in stages.items()}
    with torch.inference_mode():
        wavs, sr = model.speech_tokenizer.decode([{"audio_codes": codes}])
        assert np.array_equal(wavs[0], st["pcm"][0, 0].numpy()), "public decode() differs from the stages"
        chunked = dec.chunked_decode(codes.T[None], chunk_size=args.chunk, left_context_size=args.chunk_context)
    tensors.update(codes=codes.numpy().astype(np.int32), pcm=wavs[0], pcm_chunked=chunked[0, 0].numpy())
    save(out / "decoder.safetensors", tensors)
    meta["decoder"] = dict(
        frames=T, stage_frames=args.stage_frames, sample_rate=sr, chunk=args.chunk, chunk_context=args.chunk_context,
        pcm_std=float(st["pcm"].std()), pcm_clipped=int((st["pcm"].abs() >= 1).sum()),
        chunked_vs_full_max_abs=float((chunked[0, 0] - st["pcm"][0, 0]).abs().max()),
        stage_shapes={k: list(v.shape[1:]) for k, v in st.items()})

    save(out / "sampler.safetensors", sampler_golden(meta, tcfg))
    meta["tokenizer_cases"] = tokenizer_golden(tts, args.model)
    write_json(out / "golden.json", meta)
    size = sum(f.stat().st_size for f in args.model.rglob("*") if f.is_file())
    print(f"golden written to {out}; folder total {size / 1e6:.2f} MB")


def run_case(tts, method, kw, args, layers=False):
    """One text, greedily, with repetition_penalty 1.0 and 1.05."""
    import numpy as np
    import torch
    model = tts.model
    tcfg = model.config.talker_config
    entry = dict(method=method, arguments={k: v for k, v in kw.items() if k != "voice_clone_prompt"}, runs={})
    tensors = {}
    token_ids = lambda template: tts._tokenize_texts([template])[0][0].numpy().astype(np.int32)
    tensors["input_ids"] = token_ids(tts._build_assistant_text(kw["text"]))
    if kw.get("instruct"):
        tensors["instruct_ids"] = token_ids(tts._build_instruct_text(kw["instruct"]))
    if kw.get("voice_clone_prompt"):
        item = kw["voice_clone_prompt"][0]
        entry["arguments"].update(ref_text=item.ref_text, x_vector_only_mode=item.x_vector_only_mode)
        if item.ref_code is not None:
            tensors["ref_codes"] = item.ref_code.numpy().astype(np.int32)
            tensors["ref_ids"] = token_ids(tts._build_ref_text(item.ref_text))
    for rp in (1.0, 1.05):
        tag = f"rp{rp:.2f}"
        with Recorder(model) as rec, torch.inference_mode():
            wavs, _ = getattr(tts, method)(do_sample=False, subtalker_dosample=False, repetition_penalty=rp,
                                           max_new_tokens=args.frames + 1, **kw)
        codes = torch.stack(rec.codes) if rec.codes else torch.zeros(0, 16, dtype=torch.long)
        suppress, eos = rec.kwargs["suppress_tokens"], rec.kwargs["eos_token_id"]
        history, margins, tokens = [], [], []
        for logits, _ in rec.rows:      # re-derive every decision from the raw logits
            s = process_scores(logits, history, rp, suppress, eos, rec.kwargs["min_new_tokens"])
            top = s.topk(2)
            margins.append(float(top.values[0] - top.values[1]))
            tokens.append(int(top.indices[0]))
            history.append(tokens[-1])
        n = len(codes)
        assert tokens[:n] == codes[:, 0].tolist(), "logit processing differs from the reference"
        sub = torch.stack(rec.sub).view(n, 15, -1) if n else torch.zeros(0, 15, 1)
        assert torch.equal(sub.argmax(-1), codes[:, 1:]), "predictor argmax differs from the reference"
        subtop = sub.topk(2, dim=-1).values
        submargin = (subtop[..., 0] - subtop[..., 1])
        k = min(args.logit_steps, len(rec.rows))
        hidden = torch.stack([h for _, h in rec.rows])
        entry["runs"][tag] = dict(
            frames=n, sampled_tokens=len(rec.rows), stopped_by_eos=tokens[-1] == eos,
            min_talker_margin=min(margins), min_predictor_margin=float(submargin.min()) if n else None,
            steps_with_margin_below_1e_2=[i for i, m in enumerate(margins) if m < 1e-2],
            substeps_with_margin_below_1e_2=(submargin < 1e-2).nonzero().tolist(),
            distinct_code0=len(set(codes[:, 0].tolist())), distinct_frames=len({tuple(c) for c in codes.tolist()}),
            wav_samples=int(wavs[0].shape[0]))
        tensors[f"codes_{tag}"] = codes.numpy().astype(np.int32)
        tensors[f"sampled_code0_{tag}"] = np.array(tokens, dtype=np.int32)
        tensors[f"talker_margin_{tag}"] = np.array(margins, dtype=np.float32)
        tensors[f"predictor_margin_{tag}"] = submargin.numpy()
        tensors[f"talker_hidden_{tag}"] = hidden.numpy()
        if rp == 1.0:
            pre = rec.prefill
            entry.update(prefill_length=int(pre["inputs_embeds"].shape[1]), eos_token_id=eos,
                         suppress=[suppress[0], suppress[-1]], min_new_tokens=rec.kwargs["min_new_tokens"])
            tensors["prefill_embeds"] = pre["inputs_embeds"][0].numpy()
            tensors["trailing_text_hidden"] = pre["trailing_text_hidden"][0].numpy()
            tensors["tts_pad_embed"] = pre["tts_pad_embed"][0, 0].numpy()
            tensors["positions"] = torch.cat(rec.positions).numpy().astype(np.int32)
            tensors["step_input_embeds"] = (
                torch.cat(rec.inputs[1:1 + k]).numpy() if len(rec.inputs) > 1 else np.zeros((0, 1), np.float32))
            tensors["talker_logits"] = torch.stack([l for l, _ in rec.rows[:k]]).numpy()
            tensors["predictor_logits"] = sub[: args.sub_frames].numpy()
            if layers:
                tensors["prefill_layer_hidden"] = torch.stack(rec.prefill_layers).numpy()
            if method == "generate_voice_clone":
                tensors["wav"] = wavs[0]
    return entry, tensors


def reference_prompt(tts, wav, frames):
    """(factory of VoiceClonePromptItem, encoder goldens) for the synthetic reference wav."""
    import torch
    rec = encode_golden(tts, wav)
    codes, spk = torch.from_numpy(rec["codes"]).long(), torch.from_numpy(rec["speaker_embedding"])

    def make(text, xvec):
        from qwen_tts import VoiceClonePromptItem
        return VoiceClonePromptItem(ref_code=None if xvec else codes[:frames], ref_spk_embedding=spk,
                                    x_vector_only_mode=xvec, icl_mode=not xvec, ref_text=text)
    return make, rec


def encode_golden(tts, wav):
    import numpy as np
    import torch
    from qwen_tts.core.models.modeling_qwen3_tts import mel_spectrogram
    model, tok = tts.model, tts.model.speech_tokenizer.model
    enc = tok.encoder
    with torch.inference_mode():
        codes = model.speech_tokenizer.encode(wav, sr=24000).audio_codes[0]
        x = torch.from_numpy(wav)[None, None]
        seanet = enc.encoder(x)
        hidden = enc.encoder_transformer(seanet.transpose(1, 2), return_dict=True)[0].transpose(1, 2)
        down = enc.downsample(hidden)
        margins = []
        for part, count in (("semantic", 1), ("acoustic", 15)):
            q = getattr(enc.quantizer, f"{part}_residual_vector_quantizer")
            res = q.input_proj(down)[0].T
            for layer in q.layers[:count]:
                d = torch.cdist(res[None], layer.codebook.embed[None])[0]
                top = d.topk(2, dim=-1, largest=False)
                margins.append(top.values[:, 1] - top.values[:, 0])
                res = res - layer.codebook.embed[top.indices[:, 0]]
        mel = mel_spectrogram(torch.from_numpy(wav)[None], n_fft=1024, num_mels=128, sampling_rate=24000,
                              hop_size=256, win_size=1024, fmin=0, fmax=12000)[0]
        spk = model.extract_speaker_embedding(wav, 24000)
    return dict(wav=wav, codes=codes.numpy().astype(np.int32), seanet=seanet[0].numpy(),
                transformer=hidden[0].numpy(), downsample=down[0].numpy(),
                codebook_margin=torch.stack(margins, -1).numpy(), mel=mel.numpy(), speaker_embedding=spk.numpy())


def sampler_golden(meta, tcfg):
    """Full processor chain of generate(do_sample=True) on fixed logits: expected probabilities."""
    import torch
    from transformers.generation.logits_process import (
        LogitsProcessorList, MinNewTokensLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor,
        SuppressTokensLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)
    g = torch.Generator().manual_seed(5)
    V, eos = tcfg.vocab_size, tcfg.codec_eos_token_id
    suppress = [i for i in range(V - 1024, V) if i != eos]
    out, meta["sampler"] = {}, []
    for i, (hist, rp, t, k, p) in enumerate([([], 1.05, 0.9, 50, 1.0), ([3, 7, 7, 11], 1.05, 0.9, 50, 1.0),
                                             ([5, 1, 2, 9], 1.3, 0.7, 20, 0.8), ([4, 6], 1.0, 1.0, 0, 0.5)]):
        logits = torch.randn(V, generator=g) * 3
        chain = [RepetitionPenaltyLogitsProcessor(rp)] if rp != 1.0 else []
        chain += [MinNewTokensLengthLogitsProcessor(0, 2, eos), SuppressTokensLogitsProcessor(suppress),
                  TemperatureLogitsWarper(t)]
        chain += [TopKLogitsWarper(k)] if k else []
        chain += [TopPLogitsWarper(p)] if p < 1 else []
        probs = LogitsProcessorList(chain)(torch.tensor([hist], dtype=torch.long), logits[None].clone())[0].softmax(-1)
        out[f"logits.{i}"], out[f"probs.{i}"] = logits.numpy(), probs.numpy()
        meta["sampler"].append(dict(history=hist, repetition_penalty=rp, temperature=t, top_k=k, top_p=p))
    return out


def tokenizer_golden(tts, path):
    """Text -> ids with Qwen2's own regex, and with the one the wrapper ends up with."""
    from transformers import Qwen2Tokenizer
    plain = Qwen2Tokenizer.from_pretrained(str(path))
    texts = ["Hello world", " leading space", "tabs\tand\n\nnewlines \n end",
             "I'll say they've gone; you'd know, I'M here.", "Numbers 3, 14 and 2026.", "iPhone OpenAI NASA HTTPServer",
             "你好，世界。", "こんにちは、世界。", "안녕하세요",
             "Schöne Grüße, où êtes-vous?", "cafe\u0301 = caf\u00e9", "हिन्दी", "emoji 👩‍💻🎉!", "a//\nb", "  two  spaces  ",
             "<|im_start|>assistant\nHi<|im_end|>\n<|im_start|>assistant\n", "<|im_start|>assistant\n\nHi<|im_end|>\n",
             "<|im_start|>user\nSpeak slowly.<|im_end|>\n", "<tts_pad> literal <think> tags", "x\u00a0y\u3000z",
             "\r\nCRLF\r\n", ""]
    rows = []
    for t in texts:
        ids = plain(t)["input_ids"]
        wrapper = tts.processor(text=t, padding=True)["input_ids"][0]
        rows.append(dict(text=t, ids=ids) if ids == wrapper else dict(text=t, ids=ids, wrapper_ids=wrapper))
    return rows


# --------------------------------------------------------------------------------------
# verify, time, tokenizer
# --------------------------------------------------------------------------------------
def verify(args):
    """Reloads the folder through the reference and compares with the stored goldens."""
    import numpy as np
    import torch
    from safetensors.numpy import load_file
    args.model = Path(args.model)
    meta = json.loads((args.model / "golden" / "golden.json").read_text())
    tts = load(args)
    gold = load_file(args.model / "golden" / "decoder.safetensors")
    wavs, _ = tts.model.speech_tokenizer.decode([{"audio_codes": torch.from_numpy(gold["codes"]).long()}])
    report = {"decoder pcm": float(np.abs(wavs[0] - gold["pcm"]).max())}
    enc = None
    if "encoder" in meta:
        enc = load_file(args.model / "golden" / "encoder.safetensors")
        again = encode_golden(tts, enc["wav"])
        report["encoder codes equal"] = bool((again["codes"] == enc["codes"]).all())
        report["speaker embedding"] = float(np.abs(again["speaker_embedding"] - enc["speaker_embedding"]).max())
    args.frames = meta["frames_requested"]
    args.logit_steps, args.sub_frames = 4, 2
    for name, c in meta["cases"].items():
        kw = dict(c["arguments"])
        t = load_file(args.model / "golden" / f"case_{name}.safetensors")
        if c["method"] == "generate_voice_clone":
            from qwen_tts import VoiceClonePromptItem
            xvec, text = kw.pop("x_vector_only_mode"), kw.pop("ref_text")
            kw["voice_clone_prompt"] = [VoiceClonePromptItem(
                ref_code=None if xvec else torch.from_numpy(t["ref_codes"]).long(),
                ref_spk_embedding=torch.from_numpy(enc["speaker_embedding"]), x_vector_only_mode=xvec,
                icl_mode=not xvec, ref_text=text)]
        _, new = run_case(tts, c["method"], kw, args)
        report[name] = dict(
            codes_equal=all(bool(np.array_equal(new[k], t[k])) for k in t if k.startswith("codes_")),
            prefill_max_abs=float(np.abs(new["prefill_embeds"] - t["prefill_embeds"]).max()),
            logits_max_abs=float(np.abs(new["talker_logits"] - t["talker_logits"]).max()))
    print(json.dumps(report, indent=2))
    bad = [k for k, v in report.items() if v is False or (isinstance(v, dict) and not v["codes_equal"])
           or (isinstance(v, float) and v > 1e-4)]
    print("FAILED: " + ", ".join(bad) if bad else "verify: ok")
    return 1 if bad else 0


def timing(args):
    """Milliseconds per frame of the reference on this machine, stage by stage, as one line of JSON.

    Two lengths are generated and their difference is taken, which leaves out the prefill and the
    start.  The talker's share is all of generate() but the predictor's calls, so it holds what the
    reference spends on sampling and bookkeeping.  The decoder runs once over all frames, its
    fastest way.  Best of --repeat runs each."""
    import torch
    args.model = Path(args.model)
    tts = load(args)
    model = tts.model
    kw = dict(input_ids=[tts._tokenize_texts([tts._build_assistant_text("Hello world, this is a small test.")])[0]],
              languages=["English"], speakers=[None], non_streaming_mode=True, do_sample=False,
              subtalker_dosample=False, repetition_penalty=1.0,
              eos_token_id=model.config.talker_config.vocab_size - 1)      # never sampled: full length
    predictor, dec = model.talker.code_predictor, model.speech_tokenizer.model.decoder
    inside, plain = [], predictor.generate

    def timed(*a, **k):
        t0 = time.perf_counter()
        out = plain(*a, **k)
        inside.append(time.perf_counter() - t0)
        return out

    def generate(frames):
        """(whole, predictor) seconds of the fastest run."""
        runs = []
        for _ in range(args.repeat):
            inside.clear()
            t0 = time.perf_counter()
            model.generate(max_new_tokens=frames + 1, **kw)
            runs.append((time.perf_counter() - t0, sum(inside)))
            assert len(inside) == frames, f"{len(inside)} predictor calls for {frames} frames"
        return min(runs)

    short, long = max(1, args.frames // 4), args.frames
    predictor.generate = timed
    with torch.inference_mode():
        model.generate(max_new_tokens=2, **kw)
        step, predicted = ((b - a) / (long - short) for a, b in zip(generate(short), generate(long)))
        codes = torch.randint(0, dec.config.codebook_size, (1, 16, args.frames))
        dec(codes[..., :2])
        decoded = []
        for _ in range(args.repeat):
            t0 = time.perf_counter()
            dec(codes)
            decoded.append((time.perf_counter() - t0) / args.frames)
    ms = lambda seconds: round(1000 * seconds, 3)
    print(json.dumps(dict(
        stages=[dict(name="talker", ms=ms(step - predicted)), dict(name="predictor", ms=ms(predicted)),
                dict(name="decoder", ms=ms(min(decoded)))],
        frame_ms=ms(step + min(decoded)), threads=args.threads, frames=args.frames,
        torch=torch.__version__, dtype="float32")))


def tokenizer_cases(args):
    """Prints the tokenizer cases of a checkpoint in the form of qwen2-tokenizer-cases.json."""
    args.model = Path(args.model)
    rows = tokenizer_golden(load(args), args.model)
    if args.check:
        same = json.loads(Path(args.check).read_text(encoding="utf-8")) == rows
        print(f"{len(rows)} tokenizer cases {'equal' if same else 'DIFFER from'} {args.check}")
        return 0 if same else 1
    print("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]")


# --------------------------------------------------------------------------------------
def write_json(path: Path, value):
    Path(path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save(path, tensors):
    import numpy as np
    from safetensors.numpy import save_file
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, str(path))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="command", required=True)
    for name, fn in (("build", build), ("golden", golden), ("verify", verify), ("time", timing),
                     ("tokenizer", tokenizer_cases)):
        p = sub.add_parser(name)
        p.set_defaults(fn=fn)
        p.add_argument("--reference", default=None, help="folder holding the qwen_tts package")
        p.add_argument("--threads", type=int, default=2)
        if name == "build":
            p.add_argument("--preset", choices=list(lib.PRESETS), required=True)
            p.add_argument("--mode", choices=["custom_voice", "base", "voice_design"], default="custom_voice")
            p.add_argument("--seed", type=int, default=1)
            p.add_argument("--out", required=True)
            p.add_argument("--main-dtype", choices=["bf16", "f32"], default="bf16",
                           help="storage type of model.safetensors (released: bf16); the codec is always f32")
            p.add_argument("--plant-eos", action=argparse.BooleanOptionalAction, default=None,
                           help="make one text end by itself (default: only for the tiny presets)")
            p.add_argument("--qwen-tiktoken",
                           help="qwen.tiktoken (ships in the dashscope wheel) for the real vocabulary")
        else:
            p.add_argument("--model", required=True)
        if name in ("golden", "time"):
            p.add_argument("--frames", type=int, default=16, help="frames to generate per case")
        if name == "time":
            p.add_argument("--repeat", type=int, default=3, help="runs of each measurement; the fastest counts")
        if name == "tokenizer":
            p.add_argument("--check", help="compare with this file instead of printing")
        if name == "golden":
            p.add_argument("--logit-steps", type=int, default=4, help="talker steps whose full logits are kept")
            p.add_argument("--sub-frames", type=int, default=2, help="frames whose 15 predictor logits are kept")
            p.add_argument("--decoder-frames", type=int, default=26)
            p.add_argument("--stage-frames", type=int, default=5, help="frames of the stored decoder intermediates")
            p.add_argument("--chunk", type=int, default=10, help="chunk_size of the stored chunked_decode")
            p.add_argument("--chunk-context", type=int, default=4)
            p.add_argument("--ref-samples", type=int, default=45001, help="samples of the synthetic reference wav")
            p.add_argument("--ref-frames", type=int, default=12, help="reference code frames used for ICL")
    args = ap.parse_args()
    sys.exit(args.fn(args) or 0)


if __name__ == "__main__":
    main()
