"""Encodes all speech shards with the trained codec.

    encode.py --speech FOLDER --codec codec.pt --out codes.npz [--heldout heldout.npz]

codes.npz: codes uint16 [frames, 16], frames int32 [utterances], text int32 [utterances], voice uint8 [utterances].
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import codec as codec_module
import configs


def load_codec(path: Path, device):
    m = codec_module.Codec(configs.codec_config()).to(device)
    m.load_state_dict({k: v.float() for k, v in torch.load(path, map_location="cpu").items()})
    return m.eval()


@torch.no_grad()
def encode_all(codec, speech: Path, seconds=1e9, budget=6000):
    """Batches of utterances of similar length, `budget` frames each. The encoder is causal: padding changes nothing."""
    device = next(codec.parameters()).device
    begin, codes, frames, text, voice = time.time(), [], [], [], []
    names = list(configs.SPEAKERS)
    for path in sorted(speech.glob("[a-z]*.npz"), key=lambda p: p.name[-9:]):
        if time.time() - begin > seconds:
            break
        with np.load(path) as z:
            pcm, n, t = torch.from_numpy(z["pcm"]).to(device), z["frames"], z["text"]
        start = np.concatenate([[0], np.cumsum(n)[:-1]])
        rows = torch.zeros(int(n.sum()), 16, dtype=torch.int16, device=device)
        order = np.argsort(n)
        i = 0
        while i < len(order):
            k = i
            while k < len(order) and n[order[k]] * (k - i + 1) <= budget:
                k += 1
            k = max(k, i + 1)
            group = order[i:k]
            width = -(-int(n[group].max()) // 16) * 16
            at = torch.from_numpy(start[group]).to(device)
            size = torch.from_numpy(n[group].astype(np.int64)).to(device)
            j = torch.arange(width * 1920, device=device)
            wav = pcm[(at[:, None] * 1920 + j).clamp(max=len(pcm) - 1)].float() / 32768
            wav = wav * (j[None] < size[:, None] * 1920)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                h = codec.encoder(wav)
            c = codec.quantizer(h)[1]
            f = torch.arange(width, device=device)
            keep = f[None] < size[:, None]
            rows[(at[:, None] + f)[keep]] = c[keep].to(torch.int16)
            i = k
        codes.append(rows.cpu().numpy().astype(np.uint16))
        frames.append(n), text.append(t)
        voice.append(np.full(len(n), names.index(path.name.rsplit("-", 1)[0]), np.uint8))
    return dict(codes=np.concatenate(codes), frames=np.concatenate(frames), text=np.concatenate(text),
                voice=np.concatenate(voice))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--speech", type=Path, required=True)
    ap.add_argument("--codec", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--seconds", type=float, default=1e9)
    a = ap.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    begin = time.time()
    d = encode_all(load_codec(a.codec, device), a.speech, a.seconds)
    np.savez(a.out, **d)
    hours = [float(d["frames"][d["voice"] == v].sum()) * 0.08 / 3600 for v in range(5)]
    used = [len(np.unique(d["codes"][:, i])) for i in range(16)]
    print(f"{len(d['frames'])} utterances, hours a voice {[round(h, 2) for h in hours]}, entries used {used}, "
          f"{time.time() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
