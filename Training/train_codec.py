"""Trains the codec.

    train_codec.py --speech FOLDER --held FOLDER --out codec.pt --seconds 580 [--codes codes.npz]
        [--resume codec.pt] [--start 0.0] [--stop 1.0] [--decoder-only --adversary 0]

Shards that appear while it runs are taken in, so the speech can still be in the making. Everything follows the clock:
the schedule runs over a share of one whole training from 0 to 1 (--start, --stop), so a training can be split over
several runs. Up to --bypass nothing is quantised, then k-means finds the codebooks; the learning rate falls along a
cosine to nothing; from --adversary on discriminators take part. Losses are printed every 15 s, STOI and PESQ of
held-out speech every 60 s, when the checkpoint is written too: float16 weights of the moving average (--out) and, next
to it, what a later run needs (--out with .state). --codes encodes all speech at the end, as encode.py does.
--decoder-only leaves encoder and codebooks as they are: codes made before stay valid.
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
from encode import encode_utterances, loudness, summary
from listen import Listener

PHONES = 41


class Trainer:
    def __init__(self, a, device):
        self.a, self.device = a, device
        self.codec = codec_module.Codec(configs.codec_config()).to(device)
        self.phone_head = nn.Linear(configs.codec_config()["decoder_config"]["codebook_dim"] // 2, 4 * PHONES).to(device)
        self.judge = adversary.Adversary().to(device).to(memory_format=torch.channels_last)
        self.spectrum = adversary.SpectrumLoss().to(device)
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

    def step(self, wav, phones, adversarial, bypass):
        """One update; returns losses as a tensor."""
        c = self.codec
        with self.autocast():
            h = c.encoder(wav)
            z, _, commit, semantic, seen = c.quantizer(h, not self.a.decoder_only, bypass)
            y = c.decoder(z)
        logits = self.phone_head(semantic).view(*phones.shape, PHONES)
        phone = F.cross_entropy(logits.flatten(0, 2), phones.flatten(), ignore_index=-1)
        mel, convergence = self.spectrum(y, wav)
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
        total = self.a.mel * mel + self.a.convergence * convergence + adv + self.a.feat * feat
        if not self.a.decoder_only:
            total = total + self.a.commit * commit + self.a.phone * phone
        total.backward()
        nn.utils.clip_grad_norm_(self.params, self.a.clip)
        self.opt.step()
        self.opt.zero_grad(set_to_none=False)
        if seen is not None:
            self.seen = seen
        return torch.stack([torch.as_tensor(v, device=self.device).detach().float()
                            for v in (mel, convergence, commit, phone, judge, adv, feat)])

    def run(self, wav, phones, *kind):
        """`step` through a CUDA graph for each kind of step (adversarial, bypass)."""
        if self.device.type != "cuda" or not self.a.graph:
            return self.step(wav, phones, *kind)
        if kind not in self.graphs:
            with self.lock:
                s = torch.cuda.Stream()
                self.static[kind] = (wav.clone(), phones.clone())
                s.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(s):
                    for _ in range(3):
                        self.step(*self.static[kind], *kind)
                torch.cuda.current_stream().wait_stream(s)
                g = torch.cuda.CUDAGraph()
                # one pool for all graphs: only one replays at a time, and nothing in it outlives a replay but `out`, `seen`
                self.pool = self.pool or torch.cuda.graph_pool_handle()
                with torch.cuda.graph(g, pool=self.pool):
                    out = self.step(*self.static[kind], *kind)
                self.graphs[kind] = (g, out, self.seen)
                torch.cuda.empty_cache()
        g, out, self.seen = self.graphs[kind]
        self.static[kind][0].copy_(wav), self.static[kind][1].copy_(phones)
        g.replay()
        return out

    @torch.no_grad()
    def find_codebooks(self, crops, rounds: int):
        """k-means on what the encoder makes of `rounds` batches."""
        q, h = self.codec.quantizer, []
        for _ in range(rounds):
            wav = crops()[0]
            with self.autocast():
                h.append(self.codec.encoder(wav).float().flatten(0, 1))
        h, per_step = torch.cat(h), len(h[0])
        q.first.initialise(q.in_first(h), per_step), q.rest.initialise(q.in_rest(h), per_step)
        for name, live in self.codec.state_dict().items():
            if name.startswith("quantizer."):
                self.average[name].copy_(live)

    @torch.no_grad()
    def update_average(self, decay):
        live = self.codec.state_dict()
        keys = [k for k in live]
        torch._foreach_lerp_([self.average[k] for k in keys], [live[k].float() for k in keys], 1 - decay)

    def save(self, path: Path):
        # codebooks are averages already, and must belong to the weights that were averaged
        partial = path.with_name("partial-" + path.name)
        torch.save({k: v.half().cpu() for k, v in self.average.items()}, partial)
        partial.rename(path)
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
    ap.add_argument("--held", type=Path, help="folder of held-out speech")
    ap.add_argument("--bypass", type=float, default=0.06)
    ap.add_argument("--adversary", type=float, default=2.0, help="share at which discriminators start; above 1: never")
    ap.add_argument("--batch", type=int, default=10)
    ap.add_argument("--frames", type=int, default=24, help="of 80 ms, in each row of a batch")
    ap.add_argument("--judged", type=int, default=24, help="frames of each row that the discriminators hear")
    ap.add_argument("--lr", type=float, default=6e-4)
    ap.add_argument("--judge-lr", type=float, default=2e-4)
    ap.add_argument("--mel", type=float, default=15.0)
    ap.add_argument("--convergence", type=float, default=4.0)
    ap.add_argument("--commit", type=float, default=0.25)
    ap.add_argument("--phone", type=float, default=2.0)
    ap.add_argument("--feat", type=float, default=0.3)
    ap.add_argument("--clip", type=float, default=20.0)
    ap.add_argument("--hours", type=float, default=130, help="room for speech on the device")
    ap.add_argument("--codes", type=Path)
    ap.add_argument("--decoder-only", action="store_true")
    ap.add_argument("--vectors", type=int, default=20_000, help="that k-means takes the codebooks from")
    ap.add_argument("--final", type=int, default=100, help="held-out utterances of each speaker at the end")
    ap.add_argument("--every", type=float, default=15, help="seconds between two lines of figures")
    ap.add_argument("--listeners", type=int, default=8, help="processes that compute STOI and PESQ")
    ap.add_argument("--graph", type=int, default=1)
    ap.add_argument("--max-steps", type=int, default=10**9)
    a = ap.parse_args()
    begin = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    if device.type == "cuda" and a.graph:
        import conv_kernel
        sizes, t = configs.codec_config()["decoder_config"], a.frames * 4
        layers = []
        for i, rate in enumerate(sizes["upsample_rates"]):
            t, c = t * rate, sizes["decoder_dim"] >> i + 1
            layers += [(c, d, t) for d in (1, 3, 9) if c <= 128]
        print("convolutions:", conv_kernel.choose(a.batch, layers), flush=True)
    speech = Speech(a.speech, device, a.hours)
    while True:
        speech.refresh()
        if len(set(speech.voice)) == len(configs.SPEAKERS):
            break
        time.sleep(0.5)
    speech.follow()
    t = Trainer(a, device)
    t.lock = speech.lock
    if a.resume:
        t.load(a.resume)
    gen = torch.Generator(device=device).manual_seed(2)
    crops = lambda: speech.crops(a.batch, a.frames, gen)
    plain = a.resume or a.bypass <= a.start  # whether it begins with codebooks
    if plain and not a.resume:
        t.find_codebooks(crops, max(2, a.vectors // (a.batch * a.frames)))
    if device.type == "cuda":  # every kind of step once, at learning rate 0: what fails fails now
        kinds = {(at > a.adversary, at < a.bypass and not plain) for at in (a.start, a.stop)}
        for kind in sorted(kinds) + [(False, False)] * (not plain and not a.decoder_only):
            t.run(*crops(), *kind)
        torch.cuda.synchronize()
    listener = Listener(a.held, device, a.listeners) if a.held else None
    ready, switched, step, log = time.time(), None, 0, []
    mark = saved = ready
    memory = lambda: f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device.type == "cuda" else ""
    print(f"start: {ready - begin:.1f} s, {speech.used / 24000 / 3600:.2f} h of speech{memory()}, "
          f"{sum(p.numel() for p in t.params) / 1e6:.2f} M parameters in training", flush=True)
    marked, bypass = 0, not plain
    while step < a.max_steps:
        share = (time.time() - ready) / max(1e-3, a.seconds - (ready - begin))
        if share >= 1:
            break
        at = a.start + (a.stop - a.start) * share
        if bypass and at >= a.bypass:
            bypass = False
            t.find_codebooks(crops, max(2, a.vectors // (a.batch * a.frames)))
            print(f"  codebooks found at step {step}, {time.time() - begin:.0f} s", flush=True)
        adversarial = at > a.adversary
        if adversarial and switched is None:
            switched = step
            print(f"  discriminators on at step {step}, {time.time() - begin:.0f} s", flush=True)
        lr = a.lr * 0.5 * (1 + math.cos(math.pi * at)) * min(1.0, (step + 1) / 300)
        jlr = a.judge_lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * at))) * min(1.0, (step - (switched or 0) + 1) / 200)
        for opt, v in ((t.opt, lr), (t.judge_opt, jlr)):
            for group in opt.param_groups:
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(v)
                else:
                    group["lr"] = v
        losses = t.run(*crops(), adversarial, bypass)
        if step % 25 == 0 and at < 0.8 and not bypass and not a.decoder_only:
            t.codec.quantizer.first.revive(t.seen[0])
            t.codec.quantizer.rest.revive(t.seen[1])
        if step % 4 == 0:
            t.update_average(min(0.997, step / (step + 40)))
        step += 1
        if step % 20 == 0:
            log.append(losses.tolist())  # waits for the device, so that the clock above is its clock
        if log and time.time() - mark > a.every:
            m = np.mean(log, 0)
            used = [float((b.count > 0.1).float().mean()) for b in (t.codec.quantizer.first, t.codec.quantizer.rest)]
            print(f"{time.time() - begin:.0f} s step {step} at {at:.3f} {(time.time() - mark) * 1e3 / (step - marked):.1f} "
                  f"ms/step  mel {m[0]:.3f} convergence {m[1]:.3f} commit {m[2]:.3f} phone {m[3]:.3f} judge {m[4]:.2f} adv "
                  f"{m[5]:.2f} feat {m[6]:.2f}  entries used {used[0]:.2f} {used[1]:.2f}  "
                  f"{speech.used / 24000 / 3600:.1f} h", flush=True)
            if not math.isfinite(m[0]):
                raise SystemExit("the loss is no number any more: the last checkpoint stands")
            log, mark, marked = [], time.time(), step
            if listener:
                listener.report()
        if time.time() - saved > 4 * a.every:
            t.save(a.out)
            if listener and not bypass:
                listener.hear(t.average, 4, f"held out at {time.time() - begin:.0f} s")
            saved = time.time()
    speech.stop.set()
    t.save(a.out)
    print(f"saved after {step} steps, {time.time() - begin:.0f} s{memory()}", flush=True)
    if listener:
        listener.hear(t.average, a.final, "held out, all")
    if a.codes:
        t.graphs.clear()
        t.codec.load_state_dict({k: v.half().float() for k, v in t.average.items()})
        torch.cuda.empty_cache()
        frames = np.concatenate(speech.frames)
        codes = encode_utterances(t.codec.eval(), speech.pcm, np.concatenate(speech.starts), frames)
        voice = np.concatenate([np.full(len(f), list(configs.SPEAKERS).index(v), np.uint8)
                                for f, v in zip(speech.frames, speech.voice)])
        loud = loudness(speech.phone[:speech.used // 480].cpu().numpy())
        d = dict(codes=codes, loud=loud, frames=frames, text=np.concatenate(speech.text), voice=voice)
        tmp = a.codes.with_name("partial-" + a.codes.name)
        np.savez(tmp, **d)
        tmp.rename(a.codes)
        print(summary(d), f"{time.time() - begin:.0f} s", flush=True)
    if listener:
        listener.close()


if __name__ == "__main__":
    main()
