"""Trains the codec.

    train_codec.py --speech FOLDER --out codec.pt --seconds 540 [--codes codes.npz]
        [--resume codec.pt] [--start 0.0] [--stop 1.0] [--decoder-only]

Shards that appear while it runs are taken in, so the speech can still be in the making. The schedule
runs over a share of one whole training from 0 to 1 (--start, --stop), so a training can be split over several runs;
from --adversary on it goes against the discriminators; the learning rate falls along a cosine. Losses are printed
every 200 steps. The checkpoint holds float16 weights of the moving average (--out) and, next to it, what a later run
needs (--out with .state). --codes encodes all speech at the
end, as encode.py does. --decoder-only leaves encoder and codebooks as they are: codes made before stay valid.
"""
from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import adversary
import codec as codec_module
import configs
from data import Speech
from encode import encode_utterances, summary

PHONES = 41


class Trainer:
    def __init__(self, a, device):
        self.a, self.device = a, device
        self.codec = codec_module.Codec(configs.codec_config()).to(device)
        self.phone_head = nn.Linear(configs.codec_config()["decoder_config"]["codebook_dim"] // 2, 4 * PHONES).to(device)
        self.judge = adversary.Adversary().to(device).to(memory_format=torch.channels_last)
        self.mel = adversary.MelLoss().to(device)
        tensor_lr = lambda v: torch.tensor(v, device=device) if device.type == "cuda" else v
        fused = dict(fused=True, capturable=True) if device.type == "cuda" else {}
        self.params = list(self.codec.decoder.parameters()) if a.decoder_only else \
            list(self.codec.parameters()) + list(self.phone_head.parameters())
        for p in self.codec.parameters():
            p.requires_grad_(False)
        for p in self.params:
            p.requires_grad_(True)
        self.opt = torch.optim.AdamW(self.params, lr=tensor_lr(0.0), betas=(0.8, 0.99), weight_decay=1e-3, **fused)
        self.judge_opt = torch.optim.AdamW(self.judge.parameters(), lr=tensor_lr(0.0), betas=(0.8, 0.99),
                                           weight_decay=1e-3, **fused)
        self.average = {k: v.detach().clone().float() for k, v in self.codec.state_dict().items()}
        self.static, self.graphs, self.pool = {}, {}, None
        self.seen = None

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def step(self, wav, phones, adversarial):
        """One update; returns losses as a tensor."""
        c = self.codec
        with self.autocast():
            h = c.encoder(wav)
            z, _, commit, semantic, seen = c.quantizer(h, train=not self.a.decoder_only)
            y = c.decoder(z)
        logits = self.phone_head(semantic).view(*phones.shape, PHONES)
        phone = F.cross_entropy(logits.flatten(0, 2), phones.flatten(), ignore_index=-1)
        mel = self.mel(y, wav)
        zero = torch.zeros((), device=self.device)
        judge, adv, feat = zero, zero, zero
        if adversarial:
            crop = min(wav.shape[1], self.a.judged * 1920)
            off = (wav.shape[1] - crop) // 2
            real, fake = wav[:, off:off + crop], y[:, off:off + crop]
            for p in self.judge.parameters():
                p.requires_grad_(True)
            with self.autocast():
                judge = adversary.judge_loss(self.judge(real), self.judge(fake.detach()))
            judge.backward()
            nn.utils.clip_grad_norm_(self.judge.parameters(), 10.0)
            self.judge_opt.step()
            self.judge_opt.zero_grad(set_to_none=False)
            for p in self.judge.parameters():
                p.requires_grad_(False)
            with self.autocast():
                with torch.no_grad():
                    r = self.judge(real)
                adv, feat = adversary.deceive_loss(r, self.judge(fake))
        total = self.a.mel * mel + adv + self.a.feat * feat
        if not self.a.decoder_only:
            total = total + self.a.commit * commit + self.a.phone * phone
        total.backward()
        nn.utils.clip_grad_norm_(self.params, self.a.clip)
        self.opt.step()
        self.opt.zero_grad(set_to_none=False)
        if seen is not None:
            self.seen = seen
        return torch.stack([torch.as_tensor(v, device=self.device).detach().float()
                            for v in (mel, commit, phone, judge, adv, feat)])

    def run(self, wav, phones, adversarial):
        """`step` through a CUDA graph for each kind of step."""
        key = adversarial
        if self.device.type != "cuda" or not self.a.graph:
            return self.step(wav, phones, adversarial)
        if key not in self.graphs:
            self.lock.acquire()
            s = torch.cuda.Stream()
            self.static[key] = (wav.clone(), phones.clone())
            s.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(s):
                for _ in range(3):
                    self.step(*self.static[key], adversarial)
            torch.cuda.current_stream().wait_stream(s)
            g = torch.cuda.CUDAGraph()
            # one pool for all graphs: only one replays at a time, and nothing in it outlives a replay but `out`, `seen`
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(g, pool=self.pool):
                out = self.step(*self.static[key], adversarial)
            self.graphs[key] = (g, out, self.seen)
            torch.cuda.empty_cache()
            self.lock.release()
        g, out, self.seen = self.graphs[key]
        self.static[key][0].copy_(wav), self.static[key][1].copy_(phones)
        g.replay()
        return out

    @torch.no_grad()
    def update_average(self, decay):
        live = self.codec.state_dict()
        keys = [k for k in live]
        torch._foreach_lerp_([self.average[k] for k in keys], [live[k].float() for k in keys], 1 - decay)

    def save(self, path: Path):
        # codebooks are averages already, and must belong to the weights that were averaged
        torch.save({k: v.half().cpu() for k, v in self.average.items()}, path)
        state = dict(judge={k: v.half().cpu() for k, v in self.judge.state_dict().items()},
                     phone_head={k: v.half().cpu() for k, v in self.phone_head.state_dict().items()},
                     counts={k: v.half().cpu() for k, v in self.codec.state_dict().items() if k.endswith("count")})
        torch.save(state, path.with_suffix(".state"))

    def load(self, path: Path):
        state = {k: v.float() for k, v in torch.load(path, map_location="cpu").items()}
        self.codec.load_state_dict(state)
        for books in (self.codec.quantizer.first, self.codec.quantizer.rest):
            books.total.copy_(books.embed * books.count[..., None])
        self.average = {k: v.detach().clone().float() for k, v in self.codec.state_dict().items()}
        if path.with_suffix(".state").exists():
            extra = torch.load(path.with_suffix(".state"), map_location="cpu")
            self.judge.load_state_dict({k: v.float() for k, v in extra["judge"].items()})
            self.phone_head.load_state_dict({k: v.float() for k, v in extra["phone_head"].items()})


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--speech", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--seconds", type=float, required=True)
    ap.add_argument("--resume", type=Path)
    ap.add_argument("--start", type=float, default=0.0)
    ap.add_argument("--stop", type=float, default=1.0)
    ap.add_argument("--adversary", type=float, default=0.45)
    ap.add_argument("--batch", type=int, default=9)
    ap.add_argument("--frames", type=int, default=72, help="of 80 ms, in each row of a batch")
    ap.add_argument("--judged", type=int, default=32, help="frames of each row that the discriminators hear")
    ap.add_argument("--lr", type=float, default=7e-4)
    ap.add_argument("--judge-lr", type=float, default=3e-4)
    ap.add_argument("--mel", type=float, default=5.0)
    ap.add_argument("--commit", type=float, default=0.25)
    ap.add_argument("--phone", type=float, default=2.0)
    ap.add_argument("--feat", type=float, default=0.6)
    ap.add_argument("--clip", type=float, default=20.0)
    ap.add_argument("--hours", type=float, default=130, help="room for speech on the device")
    ap.add_argument("--codes", type=Path)
    ap.add_argument("--decoder-only", action="store_true")
    ap.add_argument("--graph", type=int, default=1)
    ap.add_argument("--max-steps", type=int, default=10**9)
    a = ap.parse_args()
    begin = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    speech = Speech(a.speech, device, a.hours)
    while True:
        speech.refresh()
        if len(set(speech.voice)) == 5:
            break
        time.sleep(0.5)
    speech.follow()
    t = Trainer(a, device)
    t.lock = speech.lock
    if a.resume:
        t.load(a.resume)
    gen = torch.Generator(device=device).manual_seed(2)
    if not a.resume:
        with torch.no_grad():
            h = torch.cat([t.codec.encoder(speech.crops(a.batch, a.frames, gen)[0]).flatten(0, 1) for _ in range(36)])
            t.codec.quantizer.first.initialise(t.codec.quantizer.in_first(h.float()))
            t.codec.quantizer.rest.initialise(t.codec.quantizer.in_rest(h.float()))
    if device.type == "cuda":  # both kinds of steps once, at learning rate 0: what fails fails now
        for adversarial in (False, True)[a.start >= a.adversary:]:
            t.run(*speech.crops(a.batch, a.frames, gen), adversarial)
        torch.cuda.synchronize()
    ready, switched, step, log = time.time(), None, 0, []
    mark = saved = ready
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device.type == "cuda" else ""
    print(f"start: {ready - begin:.1f} s, {speech.used / 24000 / 3600:.2f} h of speech{memory}", flush=True)
    while step < a.max_steps:
        share = (time.time() - ready) / max(1e-3, a.seconds - (ready - begin))
        if share >= 1:
            break
        at = a.start + (a.stop - a.start) * share
        adversarial = at > a.adversary
        if adversarial and switched is None:
            switched = step
            print(f"  discriminators on at step {step}, {time.time() - begin:.0f} s", flush=True)
        lr = a.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * at))) * min(1.0, (step + 1) / 200)
        jlr = a.judge_lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * at))) * min(1.0, (step - (switched or 0) + 1) / 200)
        for opt, v in ((t.opt, lr), (t.judge_opt, jlr)):
            for group in opt.param_groups:
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(v)
                else:
                    group["lr"] = v
        wav, phones = speech.crops(a.batch, a.frames, gen)
        losses = t.run(wav, phones, adversarial)
        if step % 25 == 0 and at < 0.85 and t.seen and not a.decoder_only:
            t.codec.quantizer.first.revive(t.seen[0])
            t.codec.quantizer.rest.revive(t.seen[1])
        if step % 4 == 0:
            t.update_average(min(0.996, step / (step + 40)))
        step += 1
        if step % 20 == 0:
            log.append(losses.clone())
        if step % 200 == 0:
            m = torch.stack(log).mean(0).tolist()
            used = [float((b.count > 0.1).float().mean()) for b in (t.codec.quantizer.first, t.codec.quantizer.rest)]
            print(f"step {step} at {at:.3f} {(time.time() - mark) * 5:.1f} ms/step  mel {m[0]:.3f} commit {m[1]:.3f} phone "
                  f"{m[2]:.3f} judge {m[3]:.3f} adv {m[4]:.3f} feat {m[5]:.3f}  entries used {used[0]:.2f} {used[1]:.2f}  "
                  f"{speech.used / 24000 / 3600:.1f} h", flush=True)
            log, mark = [], time.time()
        if time.time() - saved > 120:
            t.save(a.out)
            saved = time.time()
    speech.stop.set()
    t.save(a.out)
    extra = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device.type == "cuda" else ""
    print(f"saved after {step} steps, {time.time() - begin:.0f} s{extra}", flush=True)
    if a.codes:
        t.graphs.clear()
        t.codec.load_state_dict({k: v.half().float() for k, v in t.average.items()})
        frames = np.concatenate(speech.frames)
        codes = encode_utterances(t.codec.eval(), speech.pcm, np.concatenate(speech.starts), frames)
        voice = np.concatenate([np.full(len(f), list(configs.SPEAKERS).index(v), np.uint8)
                                for f, v in zip(speech.frames, speech.voice)])
        d = dict(codes=codes, frames=frames, text=np.concatenate(speech.text), voice=voice)
        tmp = a.codes.with_name("partial-" + a.codes.name)
        np.savez(tmp, **d)
        tmp.rename(a.codes)
        print(summary(d), f"{time.time() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
