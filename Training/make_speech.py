"""Speaks the corpus with the teacher voices, on all cores, into shards of 24 kHz audio with phone labels.

    make_speech.py --root DEBIAN_ROOT --text FOLDER/train.txt --out FOLDER --hours 20 [--workers 16] [--seconds 600]

A shard holds one voice: pcm int16 [samples] (utterances one after another, each a multiple of 1920 samples),
frames int32 [utterances] (lengths in 80 ms frames), text int32 [utterances] (line numbers), phone int8 [4 * frames]
(one label per 20 ms, -1 unknown). Existing shards are kept, so an interrupted run continues. Voices take turns, so
whatever has been made at any time is balanced.
"""
from __future__ import annotations

import argparse
import math
import os
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

import teachers

RATE, FRAME = 24000, 1920
GAIN = {"linnet": 0.62, "heron": 1.0, "merlin": 0.9}
LEAD, TRAIL = 0.05, 0.09  # seconds of (near) silence kept before and after the speech
SHARD = 160  # utterances
MAX_FRAMES = 144  # 11.5 s


def prepare(pcm: np.ndarray, rate: int, gain: float):
    """Resampled, levelled and trimmed speech and the number of seconds cut from its start; None if there is none."""
    if len(pcm) < rate // 10:
        return None
    g = math.gcd(RATE, rate)
    x = resample_poly(pcm.astype(np.float32) / 32768, RATE // g, rate // g, window=("kaiser", 12.0)) * gain
    peak = np.abs(x).max()
    if peak > 0.98:
        x *= 0.98 / peak
    step = RATE // 100
    energy = np.sqrt(np.mean(x[: len(x) // step * step].reshape(-1, step) ** 2, 1))
    loud = np.flatnonzero(energy > max(0.004, 0.01 * energy.max()))
    if len(loud) < 5:
        return None
    start = max(0, loud[0] * step - int(LEAD * RATE))
    end = min(len(x), (loud[-1] + 1) * step + int(TRAIL * RATE))
    x = x[start:end].copy()
    fade = np.linspace(0, 1, step, dtype=np.float32)
    x[:step] *= fade
    x[-step:] *= fade[::-1]
    return x, start / RATE


def speak(t, voice: str, text: str):
    """(pcm int16, phones int8 per 20 ms) of one utterance, padded with silence to whole frames; None if unusable."""
    pcm, phones = t.speak(text)
    p = prepare(pcm, t.rate, GAIN[voice])
    if p is None:
        return None
    x, cut = p
    frames = -(-len(x) // FRAME)
    x = np.pad(x, (0, frames * FRAME - len(x)))
    labels = np.zeros(frames * 4, np.int8)
    at = 0
    for phone, end in phones:
        stop = min(len(labels), max(at, round((end - cut) * 50)))
        labels[at:stop] = phone
        at = stop
    return np.round(x * 32767).astype(np.int16), labels


def shard(job):
    root, voice, index, lines, out = job
    t = teachers.teacher(root, voice)
    pcm, frames, text, phone = [], [], [], []
    for number, line in lines:
        r = speak(t, voice, line)
        if r is None or not 3 <= len(r[1]) // 4 <= MAX_FRAMES:
            continue
        pcm.append(r[0]), phone.append(r[1])
        frames.append(len(r[1]) // 4), text.append(number)
    tmp = out / f".{voice}-{index:05d}-{os.getpid()}.npz"
    np.savez(tmp, pcm=np.concatenate(pcm), phone=np.concatenate(phone), frames=np.array(frames, np.int32),
             text=np.array(text, np.int32))
    tmp.rename(out / f"{voice}-{index:05d}.npz")
    return voice, sum(frames) * FRAME / RATE


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--root", type=Path, required=True)
    ap.add_argument("--text", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--hours", type=float, default=20, help="per voice")
    ap.add_argument("--workers", type=int, default=os.cpu_count())
    ap.add_argument("--seconds", type=float, default=1e9, help="stop handing out shards after this time")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    lines = a.text.read_text().splitlines()
    start = time.time()
    done = dict.fromkeys(teachers.VOICES, 0.0)

    def jobs():
        orders = {v: np.random.default_rng(100 + i).permutation(len(lines)) for i, v in enumerate(teachers.VOICES)}
        for index in range(len(lines) // SHARD):
            for v in teachers.VOICES:
                if done[v] >= a.hours * 3600 or time.time() - start > a.seconds:
                    continue
                if (a.out / f"{v}-{index:05d}.npz").exists():
                    done[v] += SHARD * 2.8
                    continue
                take = orders[v][index * SHARD:(index + 1) * SHARD]
                yield a.root, v, index, [(int(i), lines[i]) for i in take], a.out

    def lazily(pool):
        """Keeps only a few shards beyond the workers in flight, so that `done` can end the run."""
        flight, source = [], jobs()
        while True:
            flight = [f for f in flight if not (f.ready() and (record(f.get()) or True))]
            while len(flight) < a.workers + 2:
                job = next(source, None)
                if job is None:
                    break
                flight.append(pool.apply_async(shard, (job,)))
            if not flight:
                return
            time.sleep(0.02)

    def record(result):
        done[result[0]] += result[1]

    with get_context("fork").Pool(a.workers, maxtasksperchild=1) as pool:
        lazily(pool)
    print("hours: " + ", ".join(f"{v} {s / 3600:.2f}" for v, s in done.items()) + f"; {time.time() - start:.0f} s",
          flush=True)


if __name__ == "__main__":
    main()
