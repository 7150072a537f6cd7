"""Spectral losses and the discriminators that train the codec."""
from __future__ import annotations

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def mel_bank(n_fft, n_mels, rate=24000):
    hz = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    to_mel = lambda f: 2595 * math.log10(1 + f / 700)
    edges = 700 * (10 ** (torch.linspace(0, to_mel(rate / 2), n_mels + 2, dtype=torch.float64) / 2595) - 1)
    up = (hz[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - hz[None]) / (edges[2:] - edges[1:-1])[:, None]
    bank = torch.minimum(up, down).clamp(min=0)
    return (bank / bank.sum(1, keepdim=True).clamp(min=1e-8)).float()


class SpectrumLoss(nn.Module):
    """Differences of spectra at several resolutions: mean |log mel| plus spectral convergence.

    Spectra are scaled so that white noise keeps its level, and logarithms end softly at FLOOR: below that, -66 dB of
    full scale, nothing is heard, and a loss that goes deeper is mostly about digital silence."""

    SIZES = ((128, 20), (256, 40), (512, 64), (1024, 100), (2048, 160))
    FLOOR = 5e-4

    def __init__(self):
        super().__init__()
        for n, m in self.SIZES:
            self.register_buffer(f"w{n}", torch.hann_window(n), persistent=False)
            self.register_buffer(f"m{n}", mel_bank(n, m), persistent=False)

    def forward(self, x, y):
        """x: what was made, y: what it should be, [B, samples] -> (log mel, convergence)"""
        z, logs, convergence = torch.cat([x, y]), 0, 0
        for n, _ in self.SIZES:
            w = getattr(self, f"w{n}")
            s = torch.view_as_real(torch.stft(z, n, n // 4, window=w / w.square().sum().sqrt(), return_complex=True))
            s = (s.square().sum(-1) + 1e-10).sqrt()
            a, b = (getattr(self, f"m{n}") @ s + self.FLOOR).log().chunk(2)
            logs = logs + (a - b).abs().mean()
            if n >= 512:
                a, b = s.chunk(2)
                convergence = convergence + (a - b).square().sum().sqrt() / (b.square().sum().sqrt() + 1e-3)
        return logs, convergence


class Period(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p
        ch = [1, 16, 64, 128, 256]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in zip(ch, ch[1:]))
        self.mid, self.post = nn.Conv2d(256, 256, (5, 1), 1, (2, 0)), nn.Conv2d(256, 1, (3, 1), 1, (1, 0))

    def forward(self, x):
        x = F.pad(x, (0, -x.shape[1] % self.p), mode="reflect") if x.shape[1] % self.p else x
        x = x.view(x.shape[0], 1, -1, self.p).contiguous(memory_format=torch.channels_last)
        maps = []
        for c in self.convs:
            x = F.leaky_relu(c(x), 0.1)
            maps.append(x)
        x = F.leaky_relu(self.mid(x), 0.1)
        return self.post(x), maps + [x]


class Spectral(nn.Module):
    """Judges the complex spectrum."""

    def __init__(self, n):
        super().__init__()
        self.n = n
        self.register_buffer("w", torch.hann_window(n), persistent=False)
        c = 32
        self.convs = nn.ModuleList([nn.Conv2d(2, c, (3, 9), (1, 2), (1, 4))] +
                                   [nn.Conv2d(c, c, (3, 9), (1, 2), (1, 4)) for _ in range(2)] +
                                   [nn.Conv2d(c, c, (3, 3), 1, 1)])
        self.post = nn.Conv2d(c, 1, (3, 3), 1, 1)

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            s = torch.stft(x.float(), self.n, self.n // 4, window=self.w, return_complex=True, normalized=True)
            s = torch.view_as_real(s)
            s = s * (s.square().sum(-1, keepdim=True) + 1e-6).pow(-0.35)  # compressed magnitude
        x = s.permute(0, 3, 2, 1).contiguous(memory_format=torch.channels_last)
        maps = []
        for c in self.convs:
            x = F.leaky_relu(c(x), 0.1)
            maps.append(x)
        return self.post(x), maps


class Adversary(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([Period(p) for p in (2, 3, 5, 7, 11)] + [Spectral(n) for n in (1024, 512, 256)])

    def forward(self, x):
        return [d(x) for d in self.parts]


def judge_loss(real, fake):
    return sum((1 - r.float()).square().mean() + f.float().square().mean() for (r, _), (f, _) in zip(real, fake))


def deceive_loss(real, fake):
    """(adversarial, feature matching)"""
    adv = sum((1 - f.float()).square().mean() for f, _ in fake)
    feat = sum((a.detach().float() - b.float()).abs().mean() / (a.detach().float().abs().mean() + 1e-3)
               for (_, r), (_, f) in zip(real, fake) for a, b in zip(r, f))
    return adv, feat
