"""How a codec in training sounds: STOI and wide-band PESQ of held-out speech, computed beside the training."""
from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

import codec as codec_module
import configs

FRAME = 1920


def compare(job):
    """(speaker, STOI, PESQ or nan) of int16 speech at 24 kHz before and after."""
    speaker, before, after = job
    from pystoi import stoi
    from scipy.signal import resample_poly
    x, y = (resample_poly(v.astype(np.float32) / 32768, 2, 3) for v in (before, after))
    score = float("nan")
    try:
        from pesq import pesq
        score = pesq(16000, x, y, "wb")
    except Exception:  # the package may be missing, and it refuses silence
        pass
    return speaker, float(stoi(x, y, 16000)), score


class Listener:
    """folder: shards of held-out speech, one for each speaker."""

    def __init__(self, folder: Path, device, workers: int):
        self.speech = {}
        for name in configs.SPEAKERS:
            for path in sorted(folder.glob(f"{name}-*.npz"))[:1]:
                with np.load(path) as z:
                    self.speech[name] = np.split(z["pcm"], np.cumsum(z["frames"] * FRAME)[:-1])
        self.model = codec_module.Codec(configs.codec_config()).to(device).eval()
        self.device = device
        self.pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        self.pending = []

    @torch.no_grad()
    def hear(self, state: dict, count: int, name: str):
        """Puts `count` utterances a speaker through the codec of these weights; `report` prints what came of it."""
        self.model.load_state_dict({k: v.half().float() for k, v in state.items()})
        jobs = []
        for speaker, speech in self.speech.items():
            for i in range(0, min(count, len(speech)), 4):
                part = speech[i:min(i + 4, count)]
                # few shapes, so that convolutions are planned once
                frames = -(-max(map(len, part)) // (48 * FRAME)) * 48
                wav = np.zeros((len(part), frames * FRAME), np.int16)
                for row, pcm in zip(wav, part):
                    row[:len(pcm)] = pcm
                x = torch.from_numpy(wav).to(self.device).float() / 32768
                y = self.model.decode(self.model.encode(x))
                y = (y * 32767).round().to(torch.int16).cpu().numpy()
                jobs += [(speaker, pcm, row[:len(pcm)]) for pcm, row in zip(part, y)]
        self.pending.append((name, [self.pool.submit(compare, job) for job in jobs]))

    def report(self, wait=False):
        """Prints what is known; all of it if `wait`."""
        for entry in list(self.pending):
            name, futures = entry
            if not wait and not all(f.done() for f in futures):
                continue
            self.pending.remove(entry)
            try:
                rows = [f.result(timeout=120) for f in futures]
            except Exception as e:
                print(f"  {name}: not measured ({type(e).__name__}: {e})", flush=True)
                continue
            parts = []
            for speaker in self.speech:
                both = np.array([r[1:] for r in rows if r[0] == speaker])
                parts.append(f"{speaker} {both[:, 0].mean():.3f} {both[:, 1].mean():.2f}")
            both = np.array([r[1:] for r in rows])
            print(f"  {name}: STOI {both[:, 0].mean():.3f} PESQ {both[:, 1].mean():.2f} ({', '.join(parts)}; "
                  f"{len(rows)} utterances)", flush=True)

    def close(self):
        self.report(wait=True)
        self.pool.shutdown()
