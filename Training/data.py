"""The speech shards on the training device."""
from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import torch

FRAME = 1920


class Speech:
    """All shards as one growing int16 tensor. Shards made after the start are added by `refresh`."""

    def __init__(self, folder: Path, device, hours: float):
        self.folder, self.device = folder, device
        self.room = int(hours * 3600 * 24000)
        self.pcm = torch.zeros(self.room, dtype=torch.int16, device=device)
        self.phone = torch.full((self.room // 480,), -1, dtype=torch.int8, device=device)
        self.used, self.known = 0, set()
        self.starts, self.frames, self.text, self.voice = [], [], [], []  # per utterance, numpy arrays per shard
        self.lock = threading.Lock()  # held while a CUDA graph is captured: no copy may run then

    def _read(self, path):
        with np.load(path) as z:
            return path, z["pcm"], z["phone"], z["frames"], z["text"]

    def refresh(self, limit_s: float = 1e9):
        """Adds shards that appeared since the last call."""
        begin = time.time()
        for path in sorted(self.folder.glob("[a-z]*.npz"), key=lambda p: p.stat().st_mtime):
            if path.name in self.known or time.time() - begin > limit_s:
                continue
            _, pcm, phone, frames, text = self._read(path)
            if self.used + len(pcm) > self.room:
                return
            self.known.add(path.name)
            a = self.used
            with self.lock:
                self.pcm[a:a + len(pcm)] = torch.from_numpy(pcm).to(self.device)
                self.phone[a // 480:(a + len(pcm)) // 480] = torch.from_numpy(phone).to(self.device)
            self.starts.append(a + FRAME * np.concatenate([[0], np.cumsum(frames)[:-1]]).astype(np.int64))
            self.frames.append(frames), self.text.append(text)
            self.voice.append(path.name.rsplit("-", 1)[0])
            self.used += len(pcm)

    def follow(self, every: float = 2.0):
        """Keeps refreshing in a thread until `self.stop` is set."""
        self.stop = threading.Event()

        def loop():
            while not self.stop.wait(every):
                self.refresh()

        threading.Thread(target=loop, daemon=True).start()

    def crops(self, batch: int, frames: int, gen):
        """(float32 [batch, frames * 1920], phones [batch, frames, 4]); a third starts where an utterance starts."""
        n = frames * FRAME
        start = torch.randint(0, (self.used - n) // 480, (batch,), generator=gen, device=self.device) * 480
        k = batch // 3
        shard = np.random.randint(len(self.starts), size=k)
        exact = np.array([self.starts[s][np.random.randint(len(self.starts[s]))] for s in shard], np.int64)
        start[:k] = torch.from_numpy(np.minimum(exact, self.used - n)).to(self.device)
        i = start[:, None] + torch.arange(n, device=self.device)
        j = (start // 480)[:, None] + torch.arange(frames * 4, device=self.device)
        return self.pcm[i].float() / 32768, self.phone[j].long().view(batch, frames, 4)
