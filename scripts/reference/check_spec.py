#!/usr/bin/env python3
"""The model as plain tensor operations, checked against a checkpoint's goldens.

The executable form of docs/model.md: it imports neither the reference package nor transformers.
It covers prompt assembly, talker, code predictor, greedy loop, sampler, codec decoder (whole,
chunked as the reference does, and streaming frame by frame with explicit per-layer state), codec
encoder, mel front end and speaker encoder.  Prints the largest error of each stage; exits 1 on a
miss.  A stage whose goldens the folder does not hold is skipped.

    check_spec.py --model Tests/Fixtures/tiny-custom-voice
"""
import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


# ---------------------------------------------------------------- transformer pieces
def rms(x, w, eps):
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def rope(x, pos, theta):
    """x: [T, H, D]; the two halves of D rotate against each other (NeoX style)."""
    d = x.shape[-1]
    inv = 1.0 / theta ** (torch.arange(0, d, 2, dtype=torch.float32) / d)
    ang = pos[:, None].float() * inv
    cos, sin = ang.cos()[:, None], ang.sin()[:, None]
    a, b = x[..., : d // 2], x[..., d // 2:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Stack:
    """Pre-norm decoder stack with a KV cache: talker, predictor and codec pre-transformer."""

    def __init__(self, w, prefix, layers, heads, kv, head_dim, theta, eps, window=None):
        self.w, self.p, self.n = w, prefix, layers
        self.heads, self.kv, self.d, self.theta, self.eps, self.window = heads, kv, head_dim, theta, eps, window
        self.reset()

    def reset(self):
        self.k, self.v = [None] * self.n, [None] * self.n
        self.pos = 0

    def __call__(self, x, collect=None):
        t = x.shape[0]
        pos = torch.arange(self.pos, self.pos + t)
        for i in range(self.n):
            if collect is not None:
                collect.append(x)
            g = lambda s: self.w[f"{self.p}layers.{i}.{s}"]
            opt = lambda s: self.w.get(f"{self.p}layers.{i}.{s}")
            h = rms(x, g("input_layernorm.weight"), self.eps)
            q = (h @ g("self_attn.q_proj.weight").T).view(t, self.heads, self.d)
            k = (h @ g("self_attn.k_proj.weight").T).view(t, self.kv, self.d)
            v = (h @ g("self_attn.v_proj.weight").T).view(t, self.kv, self.d)
            if opt("self_attn.q_norm.weight") is not None:
                q, k = rms(q, g("self_attn.q_norm.weight"), self.eps), rms(k, g("self_attn.k_norm.weight"), self.eps)
            q, k = rope(q, pos, self.theta), rope(k, pos, self.theta)
            first = max(0, self.pos - (self.k[i].shape[0] if self.k[i] is not None else 0))
            k = torch.cat([self.k[i], k]) if self.k[i] is not None else k
            v = torch.cat([self.v[i], v]) if self.v[i] is not None else v
            kpos = torch.arange(first, first + k.shape[0])
            mask = kpos[None] <= pos[:, None]
            if self.window:
                mask &= kpos[None] > pos[:, None] - self.window       # the last `window` keys, self included
            rep = self.heads // self.kv
            s = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(rep, 1)) / math.sqrt(self.d)
            s = s.masked_fill(~mask, -math.inf).softmax(-1)
            a = torch.einsum("hqk,khd->qhd", s, v.repeat_interleave(rep, 1)).reshape(t, -1)
            a = a @ g("self_attn.o_proj.weight").T
            ls = opt("self_attn_layer_scale.scale")
            x = x + (a if ls is None else ls * a)
            h = rms(x, g("post_attention_layernorm.weight"), self.eps)
            m = F.silu(h @ g("mlp.gate_proj.weight").T) * (h @ g("mlp.up_proj.weight").T)
            m = m @ g("mlp.down_proj.weight").T
            ls = opt("mlp_layer_scale.scale")
            x = x + (m if ls is None else ls * m)
            keep = (self.window - 1) if self.window else None          # ring of window-1 past keys is enough
            self.k[i], self.v[i] = (k[-keep:], v[-keep:]) if keep else (k, v)
        self.pos += t
        x = rms(x, self.w[self.p + "norm.weight"], self.eps)
        if collect is not None:
            collect.append(x)
        return x


# ---------------------------------------------------------------- talker and predictor
class Model:
    def __init__(self, path):
        self.cfg = json.loads((path / "config.json").read_text())
        self.w = {k: v.float() for k, v in load_file(str(path / "model.safetensors")).items()}
        t = self.t = self.cfg["talker_config"]
        p = self.p = t["code_predictor_config"]
        self.talker = Stack(self.w, "talker.model.", t["num_hidden_layers"], t["num_attention_heads"],
                            t["num_key_value_heads"], t["head_dim"], t["rope_theta"], t["rms_norm_eps"])
        self.pred = Stack(self.w, "talker.code_predictor.model.", p["num_hidden_layers"], p["num_attention_heads"],
                          p["num_key_value_heads"], p["head_dim"], p["rope_theta"], p["rms_norm_eps"])

    def text(self, ids):
        w, n = self.w, "talker.text_projection.linear_fc"
        h = F.embedding(torch.as_tensor(ids).long(), w["talker.model.text_embedding.weight"])
        h = F.silu(h @ w[n + "1.weight"].T + w[n + "1.bias"])
        return h @ w[n + "2.weight"].T + w[n + "2.bias"]

    def codec(self, ids):
        return self.w["talker.model.codec_embedding.weight"][torch.as_tensor(ids).long()]

    def group(self, g, ids):          # g = 1..15
        return self.w[f"talker.code_predictor.model.codec_embedding.{g - 1}.weight"][torch.as_tensor(ids).long()]

    def frame_embed(self, codes):     # codes [n, 16]
        return self.codec(codes[:, 0]) + sum(self.group(g, codes[:, g]) for g in range(1, 16))

    def prefill(self, ids, language="auto", speaker=None, spk_embed=None, instruct_ids=None, ref_ids=None,
                ref_codes=None, stream=False):
        t, c = self.t, self.cfg
        bos, eos, pad = self.text([c["tts_bos_token_id"], c["tts_eos_token_id"], c["tts_pad_token_id"]])[:, None]
        lang = None if language.lower() == "auto" else t["codec_language_id"][language.lower()]
        if speaker:
            dialect = t["spk_is_dialect"][speaker.lower()]
            if language.lower() in ("auto", "chinese") and dialect:
                lang = t["codec_language_id"][dialect]
            spk_embed = self.codec([t["spk_id"][speaker.lower()]])
        tags = ([t["codec_nothink_id"], t["codec_think_bos_id"], t["codec_think_eos_id"]] if lang is None else
                [t["codec_think_id"], t["codec_think_bos_id"], lang, t["codec_think_eos_id"]])
        head = self.codec(tags) if spk_embed is None else torch.cat([self.codec(tags), spk_embed.view(1, -1)])
        cpad, cbos = self.codec([t["codec_pad_id"]]), self.codec([t["codec_bos_id"]])
        rows = [] if instruct_ids is None else [self.text(instruct_ids)]
        rows += [self.text(ids[:3]), head + pad, cpad + bos]
        body = ids[3:-5]
        if ref_codes is not None:
            text = torch.cat([self.text(ref_ids[3:-2]), self.text(body), eos])
            codec = torch.cat([cbos, self.frame_embed(ref_codes.long())])
            if not stream:
                rows += [text + cpad, codec + pad]
                trailing = pad
            elif len(text) > len(codec):
                rows.append(text[: len(codec)] + codec)
                trailing = text[len(codec):]
            else:
                rows.append(torch.cat([text, pad.expand(len(codec) - len(text), -1)]) + codec)
                trailing = pad
        elif stream:
            rows.append(self.text(ids[3:4]) + cbos)
            trailing = torch.cat([self.text(ids[4:-5]), eos])
        else:
            rows += [torch.cat([self.text(body), eos]) + cpad, pad + cbos]
            trailing = pad
        return torch.cat(rows), trailing, pad

    def predict(self, hidden, code0):
        """The 15 remaining codes of one frame; returns (codes, logits[15])."""
        w, n = self.w, "talker.code_predictor.small_to_mtp_projection."
        proj = (lambda x: x @ w[n + "weight"].T + w[n + "bias"]) if n + "weight" in w else (lambda x: x)
        self.pred.reset()
        x, codes, all_logits = torch.cat([hidden[None], self.codec([code0])]), [], []
        for g in range(1, 16):
            h = self.pred(proj(x))[-1]
            logits = w[f"talker.code_predictor.lm_head.{g - 1}.weight"] @ h
            codes.append(int(logits.argmax()))
            all_logits.append(logits)
            x = self.group(g, [codes[-1]])
        return codes, torch.stack(all_logits)

    def greedy(self, prefill, trailing, pad, max_new_tokens, penalty, min_new=2):
        t = self.t
        eos, size = t["codec_eos_token_id"], t["vocab_size"]
        banned = [i for i in range(size - 1024, size) if i != eos]
        self.talker.reset()
        out = dict(codes=[], hidden=[], logits=[], sampled=[], sub=[], layers=[])
        x = prefill
        for step in range(max_new_tokens):
            h = self.talker(x, out["layers"] if step == 0 else None)[-1]
            logits = self.w["talker.codec_head.weight"] @ h
            out["hidden"].append(h), out["logits"].append(logits)
            s = logits.clone()
            for tok in set(out["sampled"]):
                s[tok] = s[tok] * penalty if s[tok] < 0 else s[tok] / penalty
            if step < min_new:
                s[eos] = -math.inf
            s[banned] = -math.inf
            code0 = int(s.argmax())
            out["sampled"].append(code0)
            if code0 == eos or step == max_new_tokens - 1:
                break                                   # the last sampled token is never expanded to a frame
            rest, sub = self.predict(h, code0)
            out["codes"].append([code0] + rest), out["sub"].append(sub)
            frame = torch.tensor([[code0] + rest])
            x = self.frame_embed(frame) + (trailing[step:step + 1] if step < len(trailing) else pad)
        return out


# ---------------------------------------------------------------- codec decoder
class Decoder:
    """state=None: whole sequence. Otherwise every layer keeps what the next call needs."""

    def __init__(self, path):
        cfg = json.loads((path / "speech_tokenizer" / "config.json").read_text())["decoder_config"]
        w = load_file(str(path / "speech_tokenizer" / "model.safetensors"))
        self.w = {k[len("decoder."):]: v.float() for k, v in w.items() if k.startswith("decoder.")}
        self.c = cfg
        self.tf = Stack(self.w, "pre_transformer.", cfg["num_hidden_layers"], cfg["num_attention_heads"],
                        cfg["num_key_value_heads"], cfg["head_dim"], cfg["rope_theta"], cfg["rms_norm_eps"],
                        cfg["sliding_window"])
        self.book = {}
        for part, n in (("rvq_first", 1), ("rvq_rest", cfg["num_quantizers"] - 1)):
            for i in range(n):
                b = f"quantizer.{part}.vq.layers.{i}._codebook."
                self.book[part, i] = self.w[b + "embedding_sum"] / self.w[b + "cluster_usage"].clamp(min=1e-5)[:, None]
        self.reset()

    def reset(self):
        self.state = {}
        self.tf.reset()

    def conv(self, x, name, dilation=1, groups=1):
        """Causal conv, stride 1: state = the last (k-1)*dilation input columns (zeros at first)."""
        w, b = self.w[name + ".conv.weight"], self.w[name + ".conv.bias"]
        need = (w.shape[-1] - 1) * dilation
        x = torch.cat([self.state.get(name, torch.zeros(x.shape[0], need)), x], 1)
        self.state[name] = x[:, x.shape[1] - need:]
        return F.conv1d(x[None], w, b, dilation=dilation, groups=groups)[0]

    def tconv(self, x, name, stride):
        """Transposed conv, kernel k, right trim k-stride: state = the k-stride untrimmed tail
        (without bias) that overlaps the next call's first outputs."""
        w, b = self.w[name + ".conv.weight"], self.w[name + ".conv.bias"]
        tail = w.shape[-1] - stride
        y = F.conv_transpose1d(x[None], w, None, stride=stride)[0]
        if tail:
            y[:, :tail] += self.state.get(name, 0)
            self.state[name], y = y[:, -tail:].clone(), y[:, :-tail]
        return y + b[:, None]

    def snake(self, x, name):
        a, b = self.w[name + ".alpha"].exp()[:, None], self.w[name + ".beta"].exp()[:, None]
        return x + torch.sin(x * a).pow(2) / (b + 1e-9)

    def __call__(self, codes, stages=None):
        w, c = self.w, self.c
        note = (lambda n, v: stages.__setitem__(n, v)) if stages is not None else (lambda n, v: None)
        first = self.book["rvq_first", 0][codes[:, 0]]
        rest = sum(self.book["rvq_rest", i][codes[:, i + 1]] for i in range(c["num_quantizers"] - 1))
        x = (w["quantizer.rvq_first.output_proj.weight"][..., 0] @ first.T +
             w["quantizer.rvq_rest.output_proj.weight"][..., 0] @ rest.T)
        note("quantized", x)
        x = self.conv(x, "pre_conv")
        note("pre_conv", x)
        p = "pre_transformer."
        h = self.tf(x.T @ w[p + "input_proj.weight"].T + w[p + "input_proj.bias"])
        x = (h @ w[p + "output_proj.weight"].T + w[p + "output_proj.bias"]).T
        note("pre_transformer", x)
        for i, f in enumerate(c["upsampling_ratios"]):
            x = self.tconv(x, f"upsample.{i}.0", f)
            note(f"upsample.{i}.0", x)
            n = f"upsample.{i}.1."
            y = self.conv(x, n + "dwconv", groups=x.shape[0]).T
            y = F.layer_norm(y, y.shape[-1:], w[n + "norm.weight"], w[n + "norm.bias"], 1e-6)
            y = F.gelu(y @ w[n + "pwconv1.weight"].T + w[n + "pwconv1.bias"])          # exact (erf) GELU
            y = y @ w[n + "pwconv2.weight"].T + w[n + "pwconv2.bias"]
            x = x + (w[n + "gamma"] * y).T
            note(f"upsample.{i}.1", x)
        x = self.conv(x, "decoder.0")
        note("decoder.0", x)
        for i, r in enumerate(c["upsample_rates"], 1):
            x = self.tconv(self.snake(x, f"decoder.{i}.block.0"), f"decoder.{i}.block.1", r)
            for j, d in ((2, 1), (3, 3), (4, 9)):
                n = f"decoder.{i}.block.{j}."
                y = self.conv(self.snake(x, n + "act1"), n + "conv1", dilation=d)
                x = x + self.conv(self.snake(y, n + "act2"), n + "conv2")
            note(f"decoder.{i}", x)
        n = len(c["upsample_rates"]) + 1
        x = self.snake(x, f"decoder.{n}")
        note(f"decoder.{n}", x)
        x = self.conv(x, f"decoder.{n + 1}")
        note("pre_clamp", x)
        return x.clamp(-1, 1)[0]

    def whole(self, codes, stages=None):
        self.reset()
        return self(codes, stages)

    def chunked(self, codes, chunk, context):
        out, at = [], 0
        while at < len(codes):
            end = min(at + chunk, len(codes))
            ctx = context if at - context > 0 else at
            out.append(self.whole(codes[at - ctx:end])[ctx * 1920:])
            at = end
        return torch.cat(out)

    def streamed(self, codes, sizes):
        self.reset()
        out, at, i = [], 0, 0
        while at < len(codes):
            n = sizes[i % len(sizes)]
            out.append(self(codes[at:at + n]))
            at, i = at + n, i + 1
        return torch.cat(out)


# ---------------------------------------------------------------- codec encoder
class Encoder:
    def __init__(self, path):
        self.c = json.loads((path / "speech_tokenizer" / "config.json").read_text())["encoder_config"]
        w = load_file(str(path / "speech_tokenizer" / "model.safetensors"))
        self.w = {k[len("encoder."):]: v.float() for k, v in w.items() if k.startswith("encoder.")}

    def conv(self, x, name, stride=1, dilation=1, mode="constant"):
        w, b = self.w[name + ".conv.weight"], self.w.get(name + ".conv.bias")
        eff = (w.shape[-1] - 1) * dilation + 1
        left, right = eff - stride, -x.shape[1] % stride
        x = F.pad(x[None], (left, right), mode=mode)
        return F.conv1d(x, w, b, stride=stride, dilation=dilation)[0]

    def __call__(self, wav):
        c, w, st = self.c, self.w, {}
        x = self.conv(wav[None], "encoder.layers.0")
        i = 1
        for r in reversed(c["upsampling_ratios"]):
            y = self.conv(F.elu(x), f"encoder.layers.{i}.block.1")
            x = x + self.conv(F.elu(y), f"encoder.layers.{i}.block.3")
            x = self.conv(F.elu(x), f"encoder.layers.{i + 2}", stride=r)
            i += 3
        x = st["seanet"] = self.conv(F.elu(x), f"encoder.layers.{i + 1}")
        x = st["transformer"] = self.transformer(x.T).T
        x = st["downsample"] = self.conv(x, "downsample", stride=2, mode="replicate")
        codes, margins = [], []
        for part, n in (("semantic", 1), ("acoustic", 15)):
            p = f"quantizer.{part}_residual_vector_quantizer."
            res = (w[p + "input_proj.weight"][..., 0] @ x).T
            for l in range(n):
                b = f"{p}layers.{l}.codebook."
                emb = w[b + "embed_sum"] / w[b + "cluster_usage"].clamp(min=1e-5)[:, None]
                idx = (res[:, None] - emb[None]).pow(2).sum(-1).argmin(-1)
                codes.append(idx)
                res = res - emb[idx]
        frames = -(-len(wav) // 1920)
        return torch.stack(codes, 1)[:frames], st

    def transformer(self, x):
        c, w = self.c, self.w
        t, heads, d = x.shape[0], c["num_attention_heads"], c["head_dim"]
        pos = torch.arange(t)
        for i in range(c["num_hidden_layers"]):
            g = lambda s: w[f"encoder_transformer.layers.{i}.{s}"]
            ln = lambda v, s: F.layer_norm(v, v.shape[-1:], g(s + ".weight"), g(s + ".bias"), c["norm_eps"])
            h = ln(x, "input_layernorm")
            q, k, v = ((h @ g(f"self_attn.{n}_proj.weight").T).view(t, heads, d) for n in "qkv")
            q, k = rope(q, pos, c["rope_theta"]), rope(k, pos, c["rope_theta"])
            s = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(d)
            # Causal without a window: on CPU the reference does not apply the configured 250.
            s = s.masked_fill(pos[None] > pos[:, None], -math.inf).softmax(-1)
            a = torch.einsum("hqk,khd->qhd", s, v).reshape(t, -1) @ g("self_attn.o_proj.weight").T
            x = x + g("self_attn_layer_scale.scale") * a
            h = F.gelu(ln(x, "post_attention_layernorm") @ g("mlp.fc1.weight").T) @ g("mlp.fc2.weight").T
            x = x + g("mlp_layer_scale.scale") * h
        return x


# ---------------------------------------------------------------- speaker encoder
def slaney_mel(sr=24000, n_fft=1024, n_mels=128, fmin=0.0, fmax=12000.0):
    to_mel = lambda f: f / (200 / 3) if f < 1000 else 15 + math.log(f / 1000) / (math.log(6.4) / 27)
    to_hz = lambda m: m * (200 / 3) if m < 15 else 1000 * math.exp((m - 15) * (math.log(6.4) / 27))
    edges = np.array([to_hz(m) for m in np.linspace(to_mel(fmin), to_mel(fmax), n_mels + 2)])
    freq = np.arange(n_fft // 2 + 1) * sr / n_fft
    up = (freq[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - freq[None]) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def mel_features(wav):
    x = np.pad(np.asarray(wav, np.float64), 384, mode="reflect")
    n = (len(x) - 1024) // 256 + 1
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)             # periodic Hann
    frames = np.stack([x[i * 256:i * 256 + 1024] * window for i in range(n)])
    mag = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 + 1e-9)
    return torch.from_numpy(np.log(np.maximum(slaney_mel() @ mag.T, 1e-5))).float()     # [128, n]


def speaker_embedding(w, cfg, mel):
    ch = cfg.get("enc_channels", [512, 512, 512, 512, 1536])
    dil = cfg.get("enc_dilations", [1, 2, 3, 4, 1])
    scale = cfg.get("enc_res2net_scale", 8)

    def conv(x, name, d=1):
        wt = w[f"speaker_encoder.{name}.weight"]
        total = (wt.shape[-1] - 1) * d
        if total:
            x = F.pad(x[None], (total // 2, total - total // 2), mode="reflect")[0]
        return F.conv1d(x[None], wt, w[f"speaker_encoder.{name}.bias"], dilation=d)[0]

    tdnn = lambda x, name, d=1: F.relu(conv(x, name + ".conv", d))
    x = tdnn(mel, "blocks.0", dil[0])
    outs = []
    for i in range(1, len(ch) - 1):
        n = f"blocks.{i}"
        y = tdnn(x, n + ".tdnn1")
        parts, prev = list(y.chunk(scale)), None
        for j in range(1, scale):
            prev = tdnn(parts[j] if j == 1 else parts[j] + prev, f"{n}.res2net_block.blocks.{j - 1}", dil[i])
            parts[j] = prev
        y = tdnn(torch.cat(parts), n + ".tdnn2")
        s = torch.sigmoid(conv(F.relu(conv(y.mean(1, keepdim=True), n + ".se_block.conv1")), n + ".se_block.conv2"))
        x = x + y * s
        outs.append(x)
    x = tdnn(torch.cat(outs), "mfa", dil[-1])

    def stats(a):
        mean = (a * x).sum(1)
        return mean, (a * (x - mean[:, None]).pow(2)).sum(1).clamp(min=1e-12).sqrt()

    mean, std = stats(torch.full_like(x, 1 / x.shape[1]))
    y = torch.cat([x, mean[:, None].expand_as(x), std[:, None].expand_as(x)])
    a = conv(torch.tanh(tdnn(y, "asp.tdnn")), "asp.conv").softmax(1)
    return conv(torch.cat(stats(a))[:, None], "fc")[:, 0]


# ---------------------------------------------------------------- checks
def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", type=Path, required=True)
    args = ap.parse_args()
    torch.set_grad_enabled(False)
    meta = json.loads((args.model / "golden" / "golden.json").read_text())
    bad = []

    def report(name, got, want, tol=1e-4):
        if isinstance(got, bool):
            ok, text = got, "equal" if got else "DIFFERENT"
        else:
            err = float((got.float() - want.float()).abs().max()) if got.numel() else 0.0
            size = max(1.0, float(want.abs().max())) if want.numel() else 1.0
            ok, text = got.shape == want.shape and err <= tol * size, f"max abs {err:.2e}  (values up to {size:.3g})"
        bad.extend([] if ok else [name])
        print(f"{'ok ' if ok else 'BAD'} {name:48s} {text}")

    m = Model(args.model)
    enc = None
    if "encoder" in meta:
        enc = load_file(str(args.model / "golden" / "encoder.safetensors"))
        codes, st = Encoder(args.model)(enc["wav"])
        for k in ("seanet", "transformer", "downsample"):
            report("encoder." + k, st[k], enc[k])
        report("encoder.codes", bool(torch.equal(codes.int(), enc["codes"])), None)
        mel = mel_features(enc["wav"].numpy())
        report("mel", mel, enc["mel"], 1e-3)
        report("speaker embedding", speaker_embedding(m.w, m.cfg["speaker_encoder_config"], mel),
               enc["speaker_embedding"], 1e-3)
    for name, case in meta["cases"].items():
        g = load_file(str(args.model / "golden" / f"case_{name}.safetensors"))
        a = case["arguments"]
        clone = case["method"] == "generate_voice_clone"
        stream = not a.get("non_streaming_mode", not clone)
        pre, trailing, pad = m.prefill(
            g["input_ids"], a["language"], a.get("speaker"), enc["speaker_embedding"] if clone else None,
            g.get("instruct_ids"), g.get("ref_ids"), g.get("ref_codes"), stream)
        report(f"{name}: prefill", pre, g["prefill_embeds"])
        report(f"{name}: trailing text", trailing, g["trailing_text_hidden"])
        for rp in (1.0, 1.05):
            o = m.greedy(pre, trailing, pad, meta["frames_requested"] + 1, rp)
            codes = torch.tensor(o["codes"], dtype=torch.int32)
            report(f"{name}: codes rp{rp:.2f}", bool(torch.equal(codes, g[f"codes_rp{rp:.2f}"])), None)
            report(f"{name}: hidden rp{rp:.2f}", torch.stack(o["hidden"]), g[f"talker_hidden_rp{rp:.2f}"], 1e-3)
            if rp == 1.0:
                k = len(g["talker_logits"])
                report(f"{name}: talker logits", torch.stack(o["logits"][:k]), g["talker_logits"], 1e-3)
                k = len(g["predictor_logits"])
                report(f"{name}: predictor logits", torch.stack(o["sub"][:k]), g["predictor_logits"], 1e-3)
                if "prefill_layer_hidden" in g:
                    report(f"{name}: prefill layers", torch.stack(o["layers"]), g["prefill_layer_hidden"], 1e-3)
    if "decoder" in meta:
        d = Decoder(args.model)
        g = load_file(str(args.model / "golden" / "decoder.safetensors"))
        codes, st = g["codes"].long(), {}
        d.whole(codes[: meta["decoder"]["stage_frames"]], st)
        for k in st:
            report("decoder." + k, st[k], g["stage." + k])
        report("decoder pcm, whole", d.whole(codes), g["pcm"])
        report("decoder pcm, chunked as the reference",
               d.chunked(codes, meta["decoder"]["chunk"], meta["decoder"]["chunk_context"]), g["pcm_chunked"])
        report("decoder pcm, streamed 1 frame at a time", d.streamed(codes, [1]), g["pcm"])
        report("decoder pcm, streamed 1,4,2,7.. frames", d.streamed(codes, [1, 4, 2, 7]), g["pcm"])
    if "sampler" in meta:
        s = load_file(str(args.model / "golden" / "sampler.safetensors"))
        eos, size = m.t["codec_eos_token_id"], m.t["vocab_size"]
        for i, c in enumerate(meta["sampler"]):
            x = s[f"logits.{i}"].clone()
            for tok in set(c["history"]):
                x[tok] = x[tok] * c["repetition_penalty"] if x[tok] < 0 else x[tok] / c["repetition_penalty"]
            if len(c["history"]) < 2:
                x[eos] = -math.inf
            x[[j for j in range(size - 1024, size) if j != eos]] = -math.inf
            x = x / c["temperature"]
            if c["top_k"]:
                x[x < x.topk(min(c["top_k"], size)).values[-1]] = -math.inf
            if c["top_p"] < 1:
                v, idx = x.sort()                                       # ascending
                x[idx[:-1][v.softmax(-1).cumsum(-1)[:-1] <= 1 - c["top_p"]]] = -math.inf
            report(f"sampler case {i}", x.softmax(-1), s[f"probs.{i}"], 1e-6)
    print("FAILED: " + ", ".join(bad) if bad else "all checks passed")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
