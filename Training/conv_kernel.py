"""Causal dilated convolution of channels-last rows as Triton kernels, for the narrow layers of the codec's decoder.

`choose(layer shapes)` times them against the library's convolution on this device and keeps what is faster; a kernel
that fails or disagrees is never used.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

ROWS = 64  # positions in a tile


@triton.jit(do_not_specialize=["D"])
def data_kernel(x, w, bias, y, T, D, SIGN: tl.constexpr, K: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr,
                R: tl.constexpr, BIAS: tl.constexpr):
    """y[n, t] = sum over k of x[n, t + SIGN (K - 1 - k) D] @ w[k] (+ bias); positions outside are zero."""
    t = tl.program_id(0) * R + tl.arange(0, R)
    ci, co = tl.arange(0, CI), tl.arange(0, CO)
    x += tl.program_id(1).to(tl.int64) * T * CI
    y += tl.program_id(1).to(tl.int64) * T * CO
    acc = tl.zeros([R, CO], tl.float32)
    for k in range(K):
        at = t + SIGN * (K - 1 - k) * D
        v = tl.load(x + at[:, None] * CI + ci[None, :], mask=((at >= 0) & (at < T))[:, None], other=0.0)
        acc += tl.dot(v, tl.load(w + k * CI * CO + ci[:, None] * CO + co[None, :]))
    if BIAS:
        acc += tl.load(bias + co)[None, :].to(tl.float32)
    tl.store(y + t[:, None] * CO + co[None, :], acc.to(y.dtype.element_ty), mask=(t < T)[:, None])


@triton.jit(do_not_specialize=["D"])
def weight_kernel(x, g, dw, T, D, tiles, per_row, K: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr,
                  R: tl.constexpr):
    """dw[split, k] = sum over this split's tiles of x[t - (K - 1 - k) D]ᵀ @ g[t]"""
    k, split = tl.program_id(0), tl.program_id(1)
    ci, co = tl.arange(0, CI), tl.arange(0, CO)
    acc = tl.zeros([CI, CO], tl.float32)
    for tile in range(split, tiles, tl.num_programs(1)):
        n = (tile // per_row).to(tl.int64)
        t = (tile % per_row) * R + tl.arange(0, R)
        at = t - (K - 1 - k) * D
        v = tl.load(x + n * T * CI + at[:, None] * CI + ci[None, :], mask=((at >= 0) & (t < T))[:, None], other=0.0)
        d = tl.load(g + n * T * CO + t[:, None] * CO + co[None, :], mask=(t < T)[:, None], other=0.0)
        acc += tl.dot(tl.trans(v), d)
    tl.store(dw + (split * K + k) * CI * CO + ci[:, None] * CO + co[None, :], acc)


class CausalConv(torch.autograd.Function):
    """x [N, T, CI], weight [CO, CI, K], bias [CO]; CI and CO powers of two from 16 to 128."""

    @staticmethod
    def forward(ctx, x, weight, bias, d):
        x = x.contiguous()
        n, t, ci = x.shape
        co, _, k = weight.shape
        w = weight.permute(2, 1, 0).to(x.dtype).contiguous()
        y = torch.empty(n, t, co, dtype=x.dtype, device=x.device)
        data_kernel[(triton.cdiv(t, ROWS), n)](x, w, bias, y, t, d, SIGN=-1, K=k, CI=ci, CO=co, R=ROWS, BIAS=True)
        ctx.save_for_backward(x, weight)
        ctx.d, ctx.kind = d, bias.dtype
        return y

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        n, t, ci = x.shape
        co, _, k = weight.shape
        g = g.to(x.dtype).contiguous()
        w = weight.permute(2, 0, 1).to(x.dtype).contiguous()
        dx = torch.empty_like(x)
        data_kernel[(triton.cdiv(t, ROWS), n)](g, w, w, dx, t, ctx.d, SIGN=1, K=k, CI=co, CO=ci, R=ROWS, BIAS=False)
        per_row = triton.cdiv(t, ROWS)
        splits = min(n * per_row, 128)
        dw = torch.empty(splits, k, ci, co, device=x.device)
        weight_kernel[(k, splits)](x, g, dw, t, ctx.d, n * per_row, per_row, K=k, CI=ci, CO=co, R=ROWS)
        return dx, dw.sum(0).permute(2, 1, 0).to(weight.dtype), g.float().sum((0, 1)).to(ctx.kind), None


def library(x, weight, bias, d):
    k = weight.shape[-1]
    x = F.pad(x, (0, 0, (k - 1) * d, 0)).transpose(1, 2).unsqueeze(2)
    return F.conv2d(x, weight.to(x.dtype).unsqueeze(2), bias.to(x.dtype), 1, 0, (1, d)).squeeze(2).transpose(1, 2)


kernel_for = {}  # (channels, dilation) -> whether the kernel is used


def choose(rows: int, layers) -> str:
    """layers: (channels, dilation, positions) of convolutions with 7 taps. Returns what was found, in words."""
    found = []
    for c, d, t in layers:
        times, outcome = [], []
        try:
            torch.manual_seed(0)
            x = torch.randn(rows, t, c, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            w = (torch.randn(c, c, 7, device="cuda") / (7 * c) ** 0.5).requires_grad_()
            b = torch.randn(c, device="cuda").requires_grad_()
            g = torch.randn_like(x)
            for f in (library, CausalConv.apply):
                once = lambda: torch.autograd.grad(f(x, w, b, d), (x, w, b), g)
                outcome.append([f(x, w, b, d), *once()])
                for _ in range(2):
                    once()
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                for _ in range(5):
                    once()
                end.record()
                torch.cuda.synchronize()
                times.append(begin.elapsed_time(end) / 5)
            error = max(float((p.float() - q.float()).norm() / p.float().norm()) for p, q in zip(*outcome))
            kernel_for[c, d] = error < 0.02 and times[1] < times[0]
            found.append(f"{c}/{d}: {times[0]:.2f} ms, kernel {times[1]:.2f} ms, error {error:.4f}")
        except Exception as e:  # a kernel that does not compile here is a slower start, not the end of a training
            kernel_for[c, d] = False
            found.append(f"{c}/{d}: kernel failed ({type(e).__name__})")
    return "; ".join(found)
