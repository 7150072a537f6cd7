"""Encodes all speech shards with the trained codec.

    encode.py --speech FOLDER --codec codec.pt --out codes.npz

codes.npz: codes uint16 [frames, 16], loud uint8 [frames] (quarters of the frame that are no pause), frames int32
[utterances], text int32 [utterances], voice uint8 [utterances].
"""
from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
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
def encode_utterances(codec, pcm, start, frames, budget=6000):
    """Codes uint16 [frames, 16] of the utterances that start at the samples `start` of pcm (int16, on the device).

    In batches of similar length, `budget` frames each. The encoder is causal: what follows an utterance changes
    nothing in it."""
    device, torch.backends.cudnn.benchmark = pcm.device, False
    first = np.concatenate([[0], np.cumsum(frames)[:-1]]).astype(np.int64)
    rows = torch.zeros(int(frames.sum()), 16, dtype=torch.int16, device=device)
    order = np.argsort(frames, kind="stable")
    i = 0
    while i < len(order):
        width = -(-int(frames[order[i]]) // 16) * 16
        k = i + 1
        while k < len(order) and frames[order[k]] <= width and width * (k - i + 1) <= budget:
            k += 1
        group = order[i:k]
        at, size, to = (torch.from_numpy(np.asarray(v, np.int64)).to(device)
                        for v in (start[group], frames[group], first[group]))
        j = torch.arange(width * 1920, device=device)
        wav = pcm[(at[:, None] + j).clamp(max=len(pcm) - 1)].float() / 32768
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            h = codec.encoder(wav)
        c = codec.quantizer(h)[1]
        f = torch.arange(width, device=device)
        keep = f[None] < size[:, None]
        rows[(to[:, None] + f)[keep]] = c[keep].to(torch.int16)
        i = k
    return rows.cpu().numpy().astype(np.uint16)


def summary(d) -> str:
    hours = [float(d["frames"][d["voice"] == v].sum()) * 0.08 / 3600 for v in range(len(configs.SPEAKERS))]
    used = [len(np.unique(d["codes"][:, i])) for i in range(16)]
    return f"{len(d['frames'])} utterances, hours a voice {[round(h, 2) for h in hours]}, entries used {used},"


def loudness(phone):
    """phone int8 [4 * frames] -> uint8 [frames]"""
    return (phone != 0).reshape(-1, 4).sum(1).astype(np.uint8)


def read_shard(path: Path):
    with np.load(path) as z:
        return path.name.rsplit("-", 1)[0], z["pcm"], z["phone"], z["frames"], z["text"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--speech", type=Path, required=True)
    ap.add_argument("--codec", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    begin = time.time()
    codec, parts = load_codec(a.codec, device), dict(codes=[], loud=[], frames=[], text=[], voice=[])
    paths = sorted(a.speech.glob("[a-z]*.npz"))
    with ThreadPoolExecutor(8) as pool:
        for voice, pcm, phone, frames, text in (r for i in range(0, len(paths), 8) for r in pool.map(read_shard, paths[i:i + 8])):
            start = 1920 * np.concatenate([[0], np.cumsum(frames)[:-1]]).astype(np.int64)
            parts["codes"].append(encode_utterances(codec, torch.from_numpy(pcm).to(device), start, frames))
            parts["frames"].append(frames), parts["text"].append(text), parts["loud"].append(loudness(phone))
            parts["voice"].append(np.full(len(frames), list(configs.SPEAKERS).index(voice), np.uint8))
    d = {k: np.concatenate(v) for k, v in parts.items()}
    tmp = a.out.with_name("partial-" + a.out.name)
    np.savez(tmp, **d)
    tmp.rename(a.out)
    print(summary(d), f"{time.time() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
