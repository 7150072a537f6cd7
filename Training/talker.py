"""Talker and code predictor with the released tensor names, for training and for batched generation."""
from __future__ import annotations

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import configs
from codec import RMSNorm, SwiGLU, linear, rope

ABSENT = 256  # zero rows that stand for "nothing added here" (several, so that their gradients do not collide)


class EmbedSum(torch.autograd.Function):
    """Sum over k of table[idx[:, k]]."""

    @staticmethod
    def forward(ctx, table, idx):
        ctx.save_for_backward(idx)
        ctx.shape = table.shape
        return F.embedding_bag(idx, table, mode="sum")

    @staticmethod
    def backward(ctx, g):
        idx, = ctx.saved_tensors
        grad = torch.zeros(ctx.shape, device=g.device)
        g = g.float()
        for k in range(idx.shape[1]):
            grad.index_add_(0, idx[:, k], g)
        return grad, None


class Attention(nn.Module):
    def __init__(self, width, heads, kv, dim, theta=1e6):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (linear(width, n * dim) for n in (heads, kv, kv))
        self.o_proj = linear(heads * dim, width)
        self.q_norm, self.k_norm = RMSNorm(dim, 1e-6), RMSNorm(dim, 1e-6)
        self.h, self.kv, self.d, self.theta = heads, kv, dim, theta

    def forward(self, x, pos, mask, cache=None, scores=False):
        """With `scores` also the first head's scores, [B, T, T] before the mask."""
        b, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, self.h, self.d))
        k = self.k_norm(self.k_proj(x).view(b, t, self.kv, self.d))
        v = self.v_proj(x).view(b, t, self.kv, self.d)
        q, k = rope(q, self.theta, pos).transpose(1, 2), rope(k, self.theta, pos).transpose(1, 2)
        v = v.transpose(1, 2)
        if cache is not None:
            k, v = cache.add(self, k, v)
        n = self.h // self.kv
        k, v = k.repeat_interleave(n, 1), v.repeat_interleave(n, 1).to(q.dtype)
        a = F.scaled_dot_product_attention(q, k.to(q.dtype), v, attn_mask=mask, is_causal=mask is None and t > 1)
        y = self.o_proj(a.transpose(1, 2).reshape(b, t, -1))
        return (y, q[:, 0] @ k[:, 0].to(q.dtype).transpose(1, 2) / math.sqrt(self.d)) if scores else y


class Layer(nn.Module):
    def __init__(self, c, dropout=0.0):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(c["hidden"], 1e-6), RMSNorm(c["hidden"], 1e-6)
        self.self_attn = Attention(c["hidden"], c["heads"], c["kv"], c["head_dim"])
        self.mlp = SwiGLU(c["hidden"], c["inter"])
        for w in (self.self_attn.o_proj.weight, self.mlp.down_proj.weight):
            w.data *= 1 / math.sqrt(2 * c["layers"])
        self.p = dropout

    def forward(self, x, pos, mask, cache=None, scores=False):
        y = self.self_attn(self.input_layernorm(x), pos, mask, cache, scores)
        y, s = y if scores else (y, None)
        x = x + F.dropout(y, self.p, self.training)
        x = x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.p, self.training)
        return (x, s) if scores else x


class Cache:
    """Keys and values of the positions so far, per attention module."""

    def __init__(self):
        self.store = {}

    def add(self, who, k, v):
        if who in self.store:
            k, v = torch.cat([self.store[who][0], k], 2), torch.cat([self.store[who][1], v], 2)
        self.store[who] = (k, v)
        return k, v


class Talker(nn.Module):
    def __init__(self, text_vocab: int, dropout=0.0):
        super().__init__()
        t, p = configs.TALKER, configs.PREDICTOR
        h = t["hidden"]
        self.text_vocab = text_vocab
        self.text_embedding = nn.Parameter(torch.randn(text_vocab, t["text_hidden"]))
        self.fc1, self.fc2 = linear(t["text_hidden"], t["text_hidden"], True), linear(t["text_hidden"], h, True)
        self.codec_embedding = nn.Parameter(torch.randn(configs.BOOK + 1024, h) * 0.3)
        self.group_embedding = nn.Parameter(torch.randn(15, configs.BOOK, h) * 0.15)
        self.layers = nn.ModuleList(Layer(t, dropout) for _ in range(t["layers"]))
        self.norm = RMSNorm(h, 1e-6)
        self.codec_head = linear(h, configs.BOOK + 1024)
        self.proj = linear(h, p["hidden"], True)
        self.predictor_layers = nn.ModuleList(Layer(p, dropout * 0.5) for _ in range(p["layers"]))
        self.predictor_norm = RMSNorm(p["hidden"], 1e-6)
        self.heads = nn.Parameter(torch.randn(15, configs.BOOK, p["hidden"]) / math.sqrt(p["hidden"]))
        self.register_buffer("absent", torch.zeros(ABSENT, h), persistent=False)

    def table(self):
        """Every row that can be an input, [text | codec | groups 1..15 | absent]."""
        text = self.fc2(F.silu(self.fc1(self.text_embedding)))
        return torch.cat([text.float(), self.codec_embedding, self.group_embedding.flatten(0, 1), self.absent])

    def offsets(self):
        """Index in `table` of the codec rows, of group 1 and of the absent rows."""
        codec = self.text_vocab
        group = codec + configs.BOOK + 1024
        return codec, group, group + 15 * configs.BOOK

    def hidden(self, x, pos, mask, cache=None, guided=None):
        """With `guided`, the number of a layer, also that layer's scores, see `Attention`."""
        scores = None
        for i, layer in enumerate(self.layers):
            if i == guided:
                x, scores = layer(x, pos, mask, cache, True)
            else:
                x = layer(x, pos, mask, cache)
        return (self.norm(x), scores) if guided is not None else self.norm(x)

    def predict_logits(self, hidden, c0_rows, rest_rows):
        """hidden [N, H], c0_rows [N, H], rest_rows [N, 14, H] -> logits [15, N, BOOK]"""
        x = torch.cat([hidden[:, None], c0_rows[:, None].to(hidden.dtype), rest_rows.to(hidden.dtype)], 1)
        x = self.proj(x)
        pos = torch.arange(16, device=x.device)[None]
        for layer in self.predictor_layers:
            x = layer(x, pos, None)
        x = self.predictor_norm(x)[:, 1:]
        return torch.bmm(x.transpose(0, 1), self.heads.to(x.dtype).transpose(1, 2))

    # -------------------------------------------------------------------------------------------- generation
    @torch.no_grad()
    def generate(self, prompts, trailing, greedy=False, temperature=0.9, top_k=50, max_frames=170, seed=0):
        """prompts: list of [L_i, H] rows; trailing: list of [n_i, H] rows (the last one is PAD, repeated).

        Returns a list of code tensors [T_i, 16] and a list of booleans: ended by EOS."""
        dev, n = self.codec_embedding.device, len(prompts)
        table = self.table()
        codec, group, _ = self.offsets()
        gen = torch.Generator(device=dev).manual_seed(seed)
        eos, size = configs.CODEC_IDS["codec_eos_token_id"], configs.BOOK

        def choose(logits):
            if greedy:
                return logits.argmax(-1)
            v, i = (logits.float() / temperature).topk(min(top_k, logits.shape[-1]), -1)
            return i.gather(-1, torch.multinomial(v.softmax(-1), 1, generator=gen))[..., 0]

        longest = max(len(p) for p in prompts)
        x = torch.zeros(n, longest, table.shape[1], device=dev)
        lead = torch.tensor([longest - len(p) for p in prompts], device=dev)
        for i, p in enumerate(prompts):
            x[i, longest - len(p):] = p
        tail = torch.stack([torch.cat([t, t[-1:].expand(max_frames + 1 - len(t), -1)]) if len(t) <= max_frames
                            else t[: max_frames + 1] for t in trailing])
        pos = (torch.arange(longest, device=dev)[None] - lead[:, None]).clamp(min=0)
        at = torch.arange(longest, device=dev)
        mask = (at[None, :, None] >= at[None, None]) & (at[None, None] >= lead[:, None, None])
        mask = (mask | torch.eye(longest, dtype=torch.bool, device=dev))[:, None]
        cache, out, done = Cache(), [], torch.zeros(n, dtype=torch.bool, device=dev)
        ended = torch.full((n,), -1, device=dev)
        for step in range(max_frames + 1):
            h = self.hidden(x, pos, mask, cache)[:, -1]
            logits = self.codec_head(h).float()
            logits[:, size:eos] = -math.inf
            logits[:, eos + 1:] = -math.inf
            if step < 2:
                logits[:, eos] = -math.inf
            c0 = choose(logits)
            ended = torch.where((c0 == eos) & ~done, step, ended)
            done |= c0 == eos
            if step == max_frames or (step % 8 == 0 and bool(done.all())):
                break
            c0 = c0.clamp(max=size - 1)
            row = table[codec + c0]
            frame, codes, small = row.clone(), [c0], Cache()
            y = self.proj(torch.stack([h, row.to(h.dtype)], 1))
            ppos = torch.arange(2, device=dev)[None]
            for g in range(15):
                for layer in self.predictor_layers:
                    y = layer(y, ppos, None, small)
                c = choose(self.predictor_norm(y)[:, -1] @ self.heads[g].to(y.dtype).T)
                codes.append(c)
                row = table[group + g * size + c]
                frame += row
                y, ppos = self.proj(row[:, None].to(h.dtype)), torch.tensor([[g + 2]], device=dev)
            out.append(torch.stack(codes, -1))
            x = (frame + tail[:, step])[:, None]
            pos = (longest + step - lead)[:, None]
            k = torch.arange(longest + step + 1, device=dev)
            mask = (k[None] >= lead[:, None])[:, None, None]
        out = torch.stack(out, 1)
        ends = ended.tolist()
        return [out[i, : e if e >= 0 else None].cpu() for i, e in enumerate(ends)], [e >= 0 for e in ends]

    def prompt(self, tokens, body, speaker, language="auto", stream=False):
        """Rows and trailing rows of one text, as the specification's tails A and B. tokens: text.Tokens."""
        t = self.table()
        codec, _, _ = self.offsets()
        ids = configs.CODEC_IDS
        text = lambda i: t[torch.as_tensor(i, device=t.device)]
        code = lambda i: t[codec + torch.as_tensor(i, device=t.device)]
        tags = prefix_tags(language) + [configs.SPEAKERS[speaker]]
        pad = text([tokens.pad])
        rows = [text(tokens.role), code(tags) + pad, code([ids["codec_pad_id"]]) + text([tokens.bos])]
        if stream:
            rows.append(text(body[:1]) + code([ids["codec_bos_id"]]))
            return torch.cat(rows), torch.cat([text(body[1:] + [tokens.eos]), pad])
        rows += [text(body + [tokens.eos]) + code([ids["codec_pad_id"]]), pad + code([ids["codec_bos_id"]])]
        return torch.cat(rows), pad

    def released_state(self):
        s, out = self.state_dict(), {}
        for name, v in s.items():
            if name.startswith("layers.") or name.startswith("norm."):
                out["talker.model." + name] = v
            elif name.startswith("predictor_layers."):
                out["talker.code_predictor.model.layers." + name[len("predictor_layers."):]] = v
            elif name.startswith(("fc1.", "fc2.")):
                out["talker.text_projection.linear_" + name] = v
            elif name.startswith("proj."):
                out["talker.code_predictor.small_to_mtp_projection." + name[5:]] = v
        out["talker.model.text_embedding.weight"] = s["text_embedding"]
        out["talker.model.codec_embedding.weight"] = s["codec_embedding"]
        out["talker.codec_head.weight"] = s["codec_head.weight"]
        out["talker.code_predictor.model.norm.weight"] = s["predictor_norm.weight"]
        for g in range(15):
            out[f"talker.code_predictor.model.codec_embedding.{g}.weight"] = s["group_embedding"][g]
            out[f"talker.code_predictor.lm_head.{g}.weight"] = s["heads"][g]
        return out


def prefix_tags(language: str):
    ids = configs.CODEC_IDS
    if language == "auto":
        return [ids["codec_nothink_id"], ids["codec_think_bos_id"], ids["codec_think_eos_id"]]
    return [ids["codec_think_id"], ids["codec_think_bos_id"], configs.LANGUAGES[language], ids["codec_think_eos_id"]]
