"""SnakeBeta, x + sin²(x e^alpha) / (e^beta + 1e-9), and its gradients as one kernel each."""
from __future__ import annotations

import torch
import triton
import triton.language as tl

PROGRAMS = 1056  # of the backward kernel, each with a share of the sums over the rows


@triton.jit
def forward_kernel(x, alpha, beta, y, rows, C: tl.constexpr, R: tl.constexpr):
    r = tl.program_id(0) * R + tl.arange(0, R)
    c = tl.arange(0, C)
    at = r[:, None] * C + c[None, :]
    inside = r[:, None] < rows
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.sin(v * tl.exp(tl.load(alpha + c))[None, :])
    v += s * s / (tl.exp(tl.load(beta + c)) + 1e-9)[None, :]
    tl.store(y + at, v.to(y.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(x, alpha, beta, g, dx, da, db, rows, step, C: tl.constexpr, R: tl.constexpr):
    c = tl.arange(0, C)
    ea = tl.exp(tl.load(alpha + c))
    eb = tl.exp(tl.load(beta + c))
    inv = 1.0 / (eb + 1e-9)
    sum_a = tl.zeros([C], tl.float32)
    sum_b = tl.zeros([C], tl.float32)
    for start in range(tl.program_id(0) * R, rows, step):
        r = start + tl.arange(0, R)
        at = r[:, None] * C + c[None, :]
        inside = r[:, None] < rows
        v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        d = tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
        s = tl.sin(v * ea[None, :])
        slope = 2.0 * s * tl.cos(v * ea[None, :]) * (ea * inv)[None, :]
        tl.store(dx + at, (d * (1.0 + slope)).to(dx.dtype.element_ty), mask=inside)
        sum_a += tl.sum(d * slope * v, 0)
        sum_b -= tl.sum(d * s * s, 0) * inv * inv * eb
    tl.store(da + tl.program_id(0) * C + c, sum_a)
    tl.store(db + tl.program_id(0) * C + c, sum_b)


class Snake(torch.autograd.Function):
    """x [..., C], alpha and beta float32 [C]; C a power of two."""

    @staticmethod
    def forward(ctx, x, alpha, beta):
        x = x.contiguous()
        c = x.shape[-1]
        rows, r = x.numel() // c, max(1, 2048 // c)
        y = torch.empty_like(x)
        forward_kernel[(triton.cdiv(rows, r),)](x, alpha, beta, y, rows, C=c, R=r)
        ctx.save_for_backward(x, alpha, beta)
        return y

    @staticmethod
    def backward(ctx, g):
        x, alpha, beta = ctx.saved_tensors
        g = g.contiguous()
        c = x.shape[-1]
        rows, r = x.numel() // c, max(1, 2048 // c)
        programs = min(PROGRAMS, triton.cdiv(rows, r))
        dx = torch.empty_like(x)
        da, db = torch.empty(2, programs, c, device=x.device).unbind(0)
        backward_kernel[(programs,)](x, alpha, beta, g, dx, da, db, rows, programs * r, C=c, R=r)
        return dx, da.sum(0), db.sum(0)
