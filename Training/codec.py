"""The 12.5 Hz codec (encoder, residual vector quantiser, causal decoder) with the released tensor names.

Activations are [batch, time, channels]; for the convolutions that is the channels-last layout tensor cores want.
Every layer is causal: frame t yields samples 1920 t … 1920 t + 1919.
"""
from __future__ import annotations

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def snake(x, alpha, beta):
    if x.is_cuda:
        from snake_kernel import Snake as fused
        return fused.apply(x, alpha, beta)
    y = x.float()
    t = torch.sin(y * alpha.exp())
    return (y + t * t / (beta.exp() + 1e-9)).to(x.dtype)


class Weights(nn.Module):
    """A convolution's weight and bias, [out, in / groups, k] (transposed: [in, out, k])."""

    def __init__(self, *shape, bias=None, fan=None):
        super().__init__()
        fan = fan or shape[1] * shape[2]
        self.weight = nn.Parameter(torch.randn(shape) / math.sqrt(fan))
        if bias:
            self.bias = nn.Parameter(torch.zeros(bias))


class Conv(nn.Module):
    def __init__(self, cin, cout, k, dilation=1, stride=1, groups=1, bias=True, pad="zero"):
        super().__init__()
        self.conv = Weights(cout, cin // groups, k, bias=cout if bias else None)
        self.k, self.d, self.s, self.g, self.pad = k, dilation, stride, groups, pad

    def forward(self, x):
        w, b = self.conv.weight, getattr(self.conv, "bias", None)
        if self.k == 1:
            return F.linear(x, w[..., 0], b)
        left = (self.k - 1) * self.d + 1 - self.s
        if x.is_cuda and self.k == 7 and w.shape[0] == w.shape[1] and self.pad == "zero":
            import conv_kernel
            if conv_kernel.kernel_for.get((w.shape[0], self.d)) and torch.is_autocast_enabled("cuda"):
                return conv_kernel.CausalConv.apply(x.bfloat16(), w, b, self.d)
        if self.pad == "zero":
            x = F.pad(x, (0, 0, left, 0))
        else:
            x = torch.cat([x[:, :1].expand(-1, left, -1), x], 1)
        if not x.is_cuda:
            return F.conv1d(x.transpose(1, 2), w, b, self.s, 0, self.d, self.g).transpose(1, 2)
        t = x.shape[1] - left
        # what convolution libraries do slowly, as matrix products
        if w.shape[1] == 1 and self.g == 1:  # from samples
            return F.linear(x[..., 0].unfold(1, self.k, 1), w[:, 0], b)
        if w.shape[0] == 1:  # to samples
            z = x @ w[0]
            return sum(z[:, k:k + t, k] for k in range(self.k))[..., None] + b
        if self.k == 2 * self.s:  # downsampling: this block and the one before
            x = x.reshape(x.shape[0], -1, self.s * x.shape[2])
            x = torch.cat([x[:, :-1], x[:, 1:]], -1)
            return F.linear(x, w.transpose(1, 2).reshape(w.shape[0], -1), b)
        y = F.conv2d(x.transpose(1, 2).unsqueeze(2), w.unsqueeze(2), b, (1, self.s), 0, (1, self.d), self.g)
        return y.squeeze(2).transpose(1, 2)


class TConv(nn.Module):
    """Causal transposed convolution, kernel s or 2 s: one matrix product on (x_t, x_{t-1})."""

    def __init__(self, cin, cout, k, s):
        super().__init__()
        self.conv = Weights(cin, cout, k, bias=cout, fan=cin * k // s)
        self.k, self.s = k, s

    def forward(self, x):
        b, t, cin = x.shape
        w = self.conv.weight.permute(0, 2, 1)  # [in, k, out]
        m = w[:, : self.s].reshape(cin, -1)
        if self.k > self.s:
            m = torch.cat([m, w[:, self.s:].reshape(cin, -1)])
            x = torch.cat([x, F.pad(x, (0, 0, 1, 0))[:, :-1]], -1)
        return (x @ m).view(b, t * self.s, -1) + self.conv.bias


class Snake(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.zeros(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x):
        return snake(x, self.alpha, self.beta)


def rope(x, theta, pos=None):
    """x [B, T, heads, D], rotation of the two halves; pos [B, T] or 0..T-1."""
    d = x.shape[-1]
    inv = theta ** (-torch.arange(0, d, 2, device=x.device, dtype=torch.float32) / d)
    pos = torch.arange(x.shape[1], device=x.device)[None] if pos is None else pos
    ang = pos[..., None].float() * inv
    cos, sin = ang.cos()[:, :, None].to(x.dtype), ang.sin()[:, :, None].to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class RMSNorm(nn.Module):
    def __init__(self, n, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(n)), eps

    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


class Scale(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.scale = nn.Parameter(torch.full((n,), 0.1))

    def forward(self, x):
        return x * self.scale


def linear(cin, cout, bias=False):
    m = nn.Linear(cin, cout, bias=bias)
    nn.init.normal_(m.weight, std=1 / math.sqrt(cin))
    if bias:
        nn.init.zeros_(m.bias)
    return m


class Attention(nn.Module):
    def __init__(self, width, heads, dim, theta):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (linear(width, heads * dim) for _ in range(3))
        self.o_proj = linear(heads * dim, width)
        self.h, self.d, self.theta = heads, dim, theta

    def forward(self, x, mask):
        b, t, _ = x.shape
        q, k, v = (p(x).view(b, t, self.h, self.d) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rope(q, self.theta), rope(k, self.theta)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        a = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=mask)
        return self.o_proj(a.transpose(1, 2).reshape(b, t, -1))


class SwiGLU(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(width, inner), linear(width, inner), linear(inner, width)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class GeluMLP(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.fc1, self.fc2 = linear(width, inner), linear(inner, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class CodecLayer(nn.Module):
    def __init__(self, width, heads, dim, inner, theta, encoder):
        super().__init__()
        norm = (lambda: nn.LayerNorm(width, 1e-5)) if encoder else (lambda: RMSNorm(width, 1e-5))
        self.input_layernorm, self.post_attention_layernorm = norm(), norm()
        self.self_attn = Attention(width, heads, dim, theta)
        self.mlp = (GeluMLP if encoder else SwiGLU)(width, inner)
        self.self_attn_layer_scale, self.mlp_layer_scale = Scale(width), Scale(width)

    def forward(self, x, mask):
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), mask))
        return x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x)))


def causal_mask(t, window, device):
    i = torch.arange(t, device=device)
    return (i[None] <= i[:, None]) & (i[None] > i[:, None] - window)


# ------------------------------------------------------------------------------------------------ decoder
class ConvNeXt(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.dwconv = Conv(c, c, 7, groups=c)
        self.norm = nn.LayerNorm(c, 1e-6)
        self.pwconv1, self.pwconv2 = linear(c, 4 * c, True), linear(4 * c, c, True)
        self.gamma = nn.Parameter(torch.full((c,), 0.2))

    def forward(self, x):
        return x + self.gamma * self.pwconv2(F.gelu(self.pwconv1(self.norm(self.dwconv(x)))))


class ResUnit(nn.Module):
    def __init__(self, c, d):
        super().__init__()
        self.act1, self.conv1, self.act2, self.conv2 = Snake(c), Conv(c, c, 7, d), Snake(c), Conv(c, c, 1)
        self.conv2.conv.weight.data *= 0.5

    def forward(self, x):
        return x + self.conv2(self.act2(self.conv1(self.act1(x))))


class Block(nn.Module):
    def __init__(self, cin, cout, r):
        super().__init__()
        self.block = nn.ModuleList([Snake(cin), TConv(cin, cout, 2 * r, r)] + [ResUnit(cout, d) for d in (1, 3, 9)])

    def forward(self, x):
        for m in self.block:
            x = m(x)
        return x


class PreTransformer(nn.Module):
    def __init__(self, c):
        super().__init__()
        w = c["hidden_size"]
        self.input_proj, self.output_proj = linear(c["latent_dim"], w, True), linear(w, c["latent_dim"], True)
        self.layers = nn.ModuleList(CodecLayer(w, c["num_attention_heads"], c["head_dim"], c["intermediate_size"],
                                               c["rope_theta"], False) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(w, c["rms_norm_eps"])
        self.window = c["sliding_window"]

    def forward(self, x):
        x = self.input_proj(x)
        mask = causal_mask(x.shape[1], self.window, x.device)
        for layer in self.layers:
            x = layer(x, mask)
        return self.output_proj(self.norm(x))


class Decoder(nn.Module):
    """Latents [B, T, codebook_dim] -> waveform [B, 1920 T]."""

    def __init__(self, c):
        super().__init__()
        lat, dim = c["latent_dim"], c["decoder_dim"]
        self.pre_conv = Conv(c["codebook_dim"], lat, 3)
        self.pre_transformer = PreTransformer(c)
        self.upsample = nn.ModuleList(nn.ModuleList([TConv(lat, lat, f, f), ConvNeXt(lat)])
                                      for f in c["upsampling_ratios"])
        blocks = [Block(dim >> i, dim >> i + 1, r) for i, r in enumerate(c["upsample_rates"])]
        last = dim >> len(blocks)
        self.decoder = nn.ModuleList([Conv(lat, dim, 7)] + blocks + [Snake(last), Conv(last, 1, 7)])
        self.decoder[-1].conv.weight.data *= 0.1

    def forward(self, x):
        x = self.pre_transformer(self.pre_conv(x))
        for up, net in self.upsample:
            x = net(up(x))
        for m in self.decoder[:-1]:
            x = m(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.decoder[-1](x.float())[..., 0]


# ------------------------------------------------------------------------------------------------ encoder
class EncoderRes(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.block = nn.ModuleList([nn.Identity(), Conv(c, c // 2, 3), nn.Identity(), Conv(c // 2, c, 1)])

    def forward(self, x):
        return x + self.block[3](F.elu(self.block[1](F.elu(x))))


class Encoder(nn.Module):
    """Waveform [B, n], n a multiple of 1920 -> [B, n / 1920, hidden]."""

    def __init__(self, c):
        super().__init__()
        f, hid = c["num_filters"], c["hidden_size"]
        layers = [Conv(1, f, 7)]
        for r in reversed(c["upsampling_ratios"]):
            layers += [EncoderRes(f), nn.Identity(), Conv(f, 2 * f, 2 * r, stride=r)]
            f *= 2
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(layers + [nn.Identity(), Conv(f, hid, 3)])
        self.encoder_transformer = nn.Module()
        self.encoder_transformer.layers = nn.ModuleList(
            CodecLayer(hid, c["num_attention_heads"], c["head_dim"], c["intermediate_size"], c["rope_theta"], True)
            for _ in range(c["num_hidden_layers"]))
        self.downsample = Conv(hid, hid, 4, stride=2, bias=False, pad="replicate")

    def forward(self, wav):
        x = wav[..., None]
        n = len(self.encoder.layers)
        for i, m in enumerate(self.encoder.layers):
            if isinstance(m, nn.Identity):
                continue
            x = m(F.elu(x) if isinstance(m, Conv) and i else x)
        mask = causal_mask(x.shape[1], 1 << 30, x.device)
        for layer in self.encoder_transformer.layers:
            x = layer(x, mask)
        return self.downsample(x)


# ------------------------------------------------------------------------------------------------ quantiser
class Codebooks(nn.Module):
    """`levels` residual codebooks kept by exponential averages of the vectors assigned to them."""

    def __init__(self, levels, size, dim, decay=0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("embed", torch.randn(levels, size, dim))
        self.register_buffer("count", torch.ones(levels, size))
        self.register_buffer("total", self.embed.clone())

    def forward(self, x, train=False):
        """x [N, dim] float32 -> (sum of the entries, codes [N, levels], commitment loss, residual of every level)"""
        size = self.embed.shape[1]
        res, out, codes, loss, seen = x, 0, [], 0, []
        for level in range(self.embed.shape[0]):
            e = self.embed[level]
            idx = ((e * e).sum(-1) - 2 * res.detach() @ e.T).argmin(-1)
            q = F.embedding(idx, e)
            codes.append(idx)
            if train:
                seen.append(res.detach())
                loss = loss + F.mse_loss(res, q)
                hot = F.one_hot(idx, size).float()
                self.count[level].mul_(self.decay).add_(hot.sum(0), alpha=1 - self.decay)
                self.total[level].mul_(self.decay).add_(hot.T @ res.detach(), alpha=1 - self.decay)
            res, out = res - q, out + q
        if train:
            self.embed.copy_(self.total / self.count.clamp(min=1e-3)[..., None])
        return out, torch.stack(codes, -1), loss, seen

    @torch.no_grad()
    def initialise(self, x, per_step: int, rounds=8):
        """k-means on x [N, dim], level by level. per_step: vectors of one step of the training."""
        for level in range(self.embed.shape[0]):
            size = self.embed.shape[1]
            e = x[torch.randperm(len(x), device=x.device)[:size]].clone()
            for _ in range(rounds):
                idx = ((e * e).sum(-1) - 2 * x @ e.T).argmin(-1)
                hot = F.one_hot(idx, size).float()
                n = hot.sum(0)
                e = torch.where(n[:, None] > 0, hot.T @ x / n.clamp(min=1)[:, None],
                                x[torch.randint(len(x), (size,), device=x.device)])
            self.embed[level] = e
            self.count[level] = n.clamp(min=0.5) * (per_step / len(x))
            self.total[level] = e * self.count[level][:, None]
            x = x - e[((e * e).sum(-1) - 2 * x @ e.T).argmin(-1)]

    @torch.no_grad()
    def revive(self, seen, least=0.05):
        """Replaces entries that are hardly used by recent residuals; seen: list of [N, dim]."""
        for level, res in enumerate(seen):
            dead = self.count[level] < least
            new = res[torch.randint(len(res), dead.shape, device=res.device)]
            self.embed[level] = torch.where(dead[:, None], new, self.embed[level])
            self.count[level] = torch.where(dead, torch.full_like(self.count[level], 4 * least), self.count[level])
            self.total[level] = torch.where(dead[:, None], new * 4 * least, self.total[level])


class Quantizer(nn.Module):
    """One semantic codebook and 15 acoustic residual ones on the same latent; the sum of both output projections."""

    def __init__(self, hidden, width, dim, size, levels):
        super().__init__()
        self.in_first, self.in_rest = linear(hidden, dim), linear(hidden, dim)
        self.out_first, self.out_rest = linear(dim, width), linear(dim, width)
        self.first, self.rest = Codebooks(1, size, dim), Codebooks(levels - 1, size, dim)

    def forward(self, h, train=False, bypass=False):
        """h [B, T, hidden] -> latents [B, T, width], codes [B, T, levels], loss, semantic vector, seen residuals

        With `bypass` nothing is quantised, and there are no codes."""
        with torch.autocast(h.device.type, enabled=False):
            h = h.float()
            b, t, _ = h.shape
            a, r = self.in_first(h), self.in_rest(h)
            if bypass:  # the loss keeps the latents where k-means finds them
                return self.out_first(a) + self.out_rest(r), None, 0.04 * (a.square().mean() + r.square().mean()), a, None
            qa, ca, la, sa = self.first(a.reshape(b * t, -1), train)
            qr, cr, lr, sr = self.rest(r.reshape(b * t, -1), train)
            qa = a + (qa.view_as(a) - a).detach()
            qr = r + (qr.view_as(r) - r).detach()
            codes = torch.cat([ca, cr], -1).view(b, t, -1)
            return self.out_first(qa) + self.out_rest(qr), codes, la + lr, qa, (sa, sr)

    def decode(self, codes):
        """codes [B, T, levels] -> latents [B, T, width]"""
        a = F.embedding(codes[..., 0], self.first.embed[0])
        r = sum(F.embedding(codes[..., i + 1], self.rest.embed[i]) for i in range(self.rest.embed.shape[0]))
        return self.out_first(a) + self.out_rest(r)


class Codec(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        d, e = cfg["decoder_config"], cfg["encoder_config"]
        self.cfg = cfg
        self.encoder, self.decoder = Encoder(e), Decoder(d)
        self.quantizer = Quantizer(e["hidden_size"], d["codebook_dim"], d["codebook_dim"] // 2, d["codebook_size"],
                                   d["num_quantizers"])

    def encode(self, wav):
        return self.quantizer(self.encoder(wav))[1]

    def decode(self, codes):
        return self.decoder(self.quantizer.decode(codes)).clamp(-1, 1)

    def released_state(self):
        """Every tensor under its released name."""
        out = {}
        for name, value in self.state_dict().items():
            if not name.startswith("quantizer."):
                out[name] = value
        q = self.quantizer
        for part, enc, books, win, wout in (("first", "semantic", q.first, q.in_first, q.out_first),
                                            ("rest", "acoustic", q.rest, q.in_rest, q.out_rest)):
            d, e = f"decoder.quantizer.rvq_{part}.", f"encoder.quantizer.{enc}_residual_vector_quantizer."
            for prefix, inner in ((d, "vq.layers.{}._codebook."), (e, "layers.{}.codebook.")):
                # the decoder's input projection and the encoder's output projection are in the layout but never used
                out[prefix + "input_proj.weight"] = win.weight[: , : (wout.weight.shape[0] if prefix == d else None), None]
                out[prefix + "output_proj.weight"] = wout.weight[..., None] if prefix == d else win.weight.T[..., None]
                for i in range(books.embed.shape[0]):
                    n = prefix + inner.format(i)
                    out[n + "cluster_usage"] = torch.ones(books.embed.shape[1])
                    out[n + ("embedding_sum" if prefix == d else "embed_sum")] = books.embed[i]
                    if prefix == e:
                        out[n + "initialized"] = torch.ones(1)
        return out
