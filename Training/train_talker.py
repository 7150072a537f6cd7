"""Trains the talker and the code predictor on encoded speech.

    train_talker.py --codes codes.npz --text FOLDER/train.txt --tokens FOLDER --out talker.pt --seconds 500
        [--speech FOLDER] [--resume talker.pt] [--start 0.0] [--stop 1.0]

With --speech the program may be started before codes.npz exists: it takes texts and lengths from the shards, lays
everything out, compiles, and then waits for the codes (and for --resume); --seconds counts from there. With --clock
the schedule follows the wall clock instead, from one time to another; --until ends the run when a file appears, and
--ready makes one once only codes or --resume are waited for: so a run can take over from another that had less speech.

Utterances are packed into rows of 256 positions. Each is laid out as the non-streaming or the streaming text layout
(half and half), with the language tag or without (half and half), with the exact tokenisation or one with skipped
merges (three to one). Loss: code 0 or EOS from the talker, codes 1-15 of sampled frames from the predictor. A few
input codes are replaced at random, so that generation survives its own slips.
"""
from __future__ import annotations

import argparse
import itertools
import math
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import configs
from talker import ABSENT, EmbedSum, Talker, prefix_tags
from text import Tokens

LENGTH = 256


class Rows:
    """Every utterance's rows in both layouts, and the packing of one epoch after the other."""

    def __init__(self, data, lines, folder: Path, text_vocab: int, device, seed=0, limit=10**9):
        self.device, self.rng = device, np.random.default_rng(seed)
        self.codes = torch.from_numpy(data["codes"].astype(np.int16)).to(device)
        frames, first = data["frames"], np.concatenate([[0], np.cumsum(data["frames"])[:-1]])
        exact, loose = Tokens(folder), Tokens(folder, dropout=0.12)
        texts = [lines[i] for i in data["text"]]
        variants = [exact(texts), loose(texts)]
        names, ids = list(configs.SPEAKERS), configs.CODEC_IDS
        pad, bos, eos, stop = exact.pad, exact.bos, exact.eos, ids["codec_eos_token_id"]
        cols = [[] for _ in range(5)]  # text id, codec id, frame index, target kind is derived, position
        self.start, self.size, self.alternatives = [], [], []
        at = 0
        for u in range(len(texts)):
            options, n = [], int(frames[u])
            f = np.arange(first[u], first[u] + n)
            for form in range(4):
                body = variants[form >> 1][u]
                stream = form & 1
                tags = prefix_tags(("auto", "english")[self.rng.integers(2)]) + [configs.SPEAKERS[names[data["voice"][u]]]]
                text = exact.role + [pad] * len(tags) + [bos]
                codec = [-1] * 3 + tags + [ids["codec_pad_id"]]
                if stream:
                    text.append(body[0]), codec.append(ids["codec_bos_id"])
                    rest = body[1:] + [eos]
                    rest = (rest + [pad] * n)[:n] if len(rest) < n else rest[:n]
                else:
                    text += body + [eos, pad]
                    codec += [ids["codec_pad_id"]] * (len(body) + 1) + [ids["codec_bos_id"]]
                    rest = [pad] * n
                p = len(text)
                if p + n > LENGTH:
                    continue
                cols[0].append(np.array(text + rest, np.int16))
                cols[1].append(np.array(codec + [-1] * n, np.int16))
                cols[2].append(np.concatenate([np.full(p, -1), f]).astype(np.int32))
                # the row before frame k predicts frame k; the last frame's row predicts EOS
                cols[3].append(np.concatenate([np.full(p - 1, -1), f, [-2]]).astype(np.int32))
                cols[4].append(np.arange(p + n, dtype=np.int16))
                options.append(len(self.start))
                self.start.append(at), self.size.append(p + n)
                at += p + n
            if options:
                self.alternatives.append(options)
        self.start, self.size = np.array(self.start), np.array(self.size)
        self.cols = [torch.from_numpy(np.concatenate(c)).to(device) for c in cols]
        self.stop = stop
        self.next, self.lock = None, threading.Lock()

    def pack(self):
        """Source indices [rows, LENGTH] (-1: nothing) and document numbers of one epoch."""
        rng = self.rng
        weights = np.array([0.375, 0.375, 0.125, 0.125])
        pick = rng.choice(4, size=len(self.alternatives), p=weights)
        chosen = np.array([o[min(p, len(o) - 1)] for o, p in zip(self.alternatives, pick)])
        rng.shuffle(chosen)
        sizes = self.size[chosen]
        row, room, rows = [], [], np.zeros(len(chosen), np.int64)
        offset = np.zeros(len(chosen), np.int64)
        open_rows = []  # a few rows that still have room
        count = 0
        for i, s in enumerate(sizes.tolist()):
            best = -1
            for k, (r, left) in enumerate(open_rows):
                if left >= s and (best < 0 or left < open_rows[best][1]):
                    best = k
            if best < 0:
                if len(open_rows) >= 24:
                    open_rows.pop(min(range(len(open_rows)), key=lambda k: open_rows[k][1]))
                open_rows.append((count, LENGTH))
                best = len(open_rows) - 1
                count += 1
            r, left = open_rows[best]
            rows[i], offset[i] = r, LENGTH - left
            open_rows[best] = (r, left - s)
        src = np.full(count * LENGTH, -1, np.int32)
        doc = np.full(count * LENGTH, -1, np.int32)
        total = np.repeat(np.cumsum(sizes) - sizes, sizes)
        within = np.arange(sizes.sum()) - total
        dest = np.repeat(rows * LENGTH + offset, sizes) + within
        src[dest] = np.repeat(self.start[chosen], sizes) + within
        doc[dest] = np.repeat(np.arange(len(chosen)), sizes)
        order = rng.permutation(count)
        return src.reshape(count, LENGTH)[order], doc.reshape(count, LENGTH)[order]

    def batches(self, rows):
        """Endless (src, doc) tensors [rows, LENGTH]; the next epoch is packed in a thread meanwhile."""
        result = {}
        worker = None

        def work():
            result["next"] = self.pack()

        work()
        epoch = 0
        while True:
            src, doc = (torch.from_numpy(x).to(self.device) for x in result["next"])
            worker = threading.Thread(target=work, daemon=True)
            worker.start()
            for i in range(0, len(src) - rows + 1, rows):
                yield epoch, src[i:i + rows], doc[i:i + rows]
            worker.join()
            epoch += 1

    def expand(self, src):
        """src [B, L] -> text ids, codec ids, frame indices, targets (frame index, -1 none, -2 EOS), positions."""
        none = src < 0
        i = src.clamp(min=0).long()
        text, codec, frame, target, pos = (c[i].long() for c in self.cols)
        fill = lambda x: torch.where(none, -1, x)
        return fill(text), fill(codec), fill(frame), fill(target), torch.where(none, 0, pos)


def listed(folder: Path):
    """frames, text and voice of all shards, and room for their codes."""
    frames, text, voice = [], [], []
    for path in sorted(folder.glob("[a-z]*.npz")):
        with np.load(path) as z:
            frames.append(z["frames"]), text.append(z["text"])
        voice.append(np.full(len(frames[-1]), list(configs.SPEAKERS).index(path.name.rsplit("-", 1)[0]), np.uint8))
    d = dict(frames=np.concatenate(frames), text=np.concatenate(text), voice=np.concatenate(voice))
    return dict(d, codes=np.zeros((int(d["frames"].sum()), 16), np.uint16))


def take_codes(d, data):
    """The codes of d's utterances, in d's order, out of `data`, which may hold more."""
    key = lambda x: x["voice"].astype(np.int64) << 32 | x["text"]
    first = np.concatenate([[0], np.cumsum(data["frames"])[:-1]])
    order = np.argsort(key(data))
    at = np.searchsorted(key(data)[order], key(d))
    found = order[np.minimum(at, len(order) - 1)]
    if not (np.array_equal(key(data)[found], key(d)) and np.array_equal(data["frames"][found], d["frames"])):
        raise SystemExit("the codes are of other speech: run without --speech")
    within = np.arange(d["frames"].sum()) - np.repeat(np.cumsum(d["frames"]) - d["frames"], d["frames"])
    return data["codes"][np.repeat(first[found], d["frames"]) + within]


class Trainer:
    def __init__(self, a, rows: Rows, text_vocab, device):
        self.a, self.rows, self.device = a, rows, device
        self.model = Talker(text_vocab, a.dropout).to(device)
        decay = [p for n, p in self.model.named_parameters() if p.dim() >= 2 and "embedding" not in n]
        plain = [p for n, p in self.model.named_parameters() if p.dim() < 2 or "embedding" in n]
        cuda = device.type == "cuda"
        self.opt = torch.optim.AdamW([dict(params=decay, weight_decay=a.decay), dict(params=plain, weight_decay=0.0)],
                                     lr=torch.tensor(0.0, device=device) if cuda else 0.0, betas=(0.9, 0.98), eps=1e-9,
                                     **(dict(fused=True, capturable=True) if cuda else {}))
        for group in self.opt.param_groups:
            if cuda:
                group["lr"] = torch.tensor(0.0, device=device)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.graph = None
        if a.compile and cuda:
            for layer in list(self.model.layers) + list(self.model.predictor_layers):
                layer.compile(dynamic=False)

    def losses(self, src, doc, noise: float, picks: int):
        """(code 0 loss, EOS loss, predictor loss [15])"""
        m, r = self.model, self.rows
        codec0, group0, absent0 = m.offsets()
        text, codec, frame, target, pos = r.expand(src)
        b, l = src.shape
        n = b * l
        book = configs.BOOK
        spread = absent0 + torch.arange(n, device=src.device) % ABSENT
        spread = spread.view(b, l)
        codes = r.codes[frame.clamp(min=0)].long()  # [B, L, 16]
        present = frame >= 0
        given = codes
        if noise:
            # a frame's input is disturbed: its last codes, all of its codes, or single ones
            hit = torch.rand(b, l, 1, device=src.device) < noise
            from_level = torch.randint(0, 16, (b, l, 1), device=src.device)
            level = torch.arange(16, device=src.device)
            single = torch.rand(b, l, 16, device=src.device) < noise * 0.3
            change = (hit & (level >= from_level)) | single
            given = torch.where(change, torch.randint(0, book, codes.shape, device=src.device), codes)
        index = torch.empty(b, l, 17, dtype=torch.long, device=src.device)
        index[..., 0] = torch.where(text >= 0, text, spread)
        index[..., 1] = torch.where(present, codec0 + given[..., 0], torch.where(codec >= 0, codec0 + codec, spread))
        group = group0 + book * torch.arange(15, device=src.device) + given[..., 1:]
        index[..., 2:] = torch.where(present[..., None], group, spread[..., None])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            table = m.table()
            x = EmbedSum.apply(table, index.view(n, 17)).view(b, l, -1)
            if m.training and self.a.dropout:
                x = F.dropout(x, self.a.dropout, True)
            mask = (doc[:, :, None] == doc[:, None]) & torch.ones(l, l, dtype=torch.bool, device=src.device).tril()
            h = m.hidden(x.bfloat16() if self.device.type == "cuda" else x, pos, mask[:, None])
            logits = m.codec_head(h)
            goal = torch.where(target >= 0, r.codes[target.clamp(min=0)][..., 0].long(),
                               torch.where(target == -2, r.stop, -100))
            ce = F.cross_entropy(logits.view(n, -1).float(), goal.view(-1), ignore_index=-100, reduction="none")
            code_rows, stop_rows = (target >= 0).view(-1).float(), (target == -2).view(-1).float()
            code_loss = (ce * code_rows).sum() / code_rows.sum().clamp(min=1)
            stop_loss = (ce * stop_rows).sum() / stop_rows.sum().clamp(min=1)
            # predictor: `picks` frames drawn at random, without the rows that predict none
            score = torch.rand(n, device=src.device) + code_rows
            chosen = score.topk(picks, sorted=False).indices
            valid = code_rows[chosen]
            truth = r.codes[target.view(-1)[chosen].clamp(min=0)].long()  # [picks, 16]
            c0 = F.embedding(codec0 + truth[:, 0], table)
            offsets = group0 + book * torch.arange(14, device=src.device)
            rest = EmbedSum.apply(table, (offsets + truth[:, 1:15]).view(-1, 1)).view(picks, 14, -1)
            sub = m.predict_logits(h.reshape(n, -1)[chosen], c0, rest)
            pce = F.cross_entropy(sub.reshape(15 * picks, book).float(), truth[:, 1:].T.reshape(-1), reduction="none")
            sub_loss = (pce.view(15, picks) * valid).sum(1) / valid.sum().clamp(min=1)
        return code_loss, stop_loss, sub_loss

    def step(self, src, doc):
        code, stop, sub = self.losses(src, doc, self.a.noise, self.a.picks)
        (code + self.a.stop_weight * stop + self.a.sub * sub.mean()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=False)
        return torch.cat([torch.stack([code, stop]), sub]).detach()

    def run(self, src, doc):
        if self.device.type != "cuda" or not self.a.graph:
            return self.step(src, doc)
        if self.graph is None:
            self.static = (src.clone(), doc.clone())
            s = torch.cuda.Stream()
            s.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(s):
                for _ in range(3):
                    self.step(*self.static)
            torch.cuda.current_stream().wait_stream(s)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.result = self.step(*self.static)
        self.static[0].copy_(src), self.static[1].copy_(doc)
        self.graph.replay()
        return self.result

    def warm_up(self, src, doc, held):
        """Compiles and captures everything at learning rate 0, on codes that are not there yet."""
        self.run(src, doc)
        for state in self.opt.state.values():
            for v in state.values():
                v.zero_()
        if held:
            self.check(held)

    def load(self, path: Path):
        self.model.load_state_dict({k: v.float() for k, v in torch.load(path, map_location="cpu").items()})
        for k, v in self.model.state_dict().items():
            self.average[k].copy_(v)

    @torch.no_grad()
    def update_average(self, decay):
        live = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [live[k] for k in self.average], 1 - decay)

    @torch.no_grad()
    def check(self, held):
        """Losses of the averaged weights on held-out sentences."""
        live = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        rows, keep = self.rows, []
        self.rows = held
        for _, src, doc in held.batches(min(self.a.rows, held.ready)):
            code, stop, sub = self.losses(src, doc, 0.0, min(self.a.picks, src.numel()))
            keep = [float(code), float(stop)] + sub.tolist()
            break
        self.rows = rows
        self.model.load_state_dict(live)
        self.model.train()
        return keep


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--codes", type=Path, required=True)
    ap.add_argument("--speech", type=Path)
    ap.add_argument("--text", type=Path, required=True)
    ap.add_argument("--tokens", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--seconds", type=float, default=500)
    ap.add_argument("--clock", type=float, nargs=2, help="seconds since 1970")
    ap.add_argument("--until", type=Path)
    ap.add_argument("--ready", type=Path)
    ap.add_argument("--resume", type=Path)
    ap.add_argument("--start", type=float, default=0.0)
    ap.add_argument("--stop", type=float, default=1.0)
    ap.add_argument("--rows", type=int, default=96, help="rows of 256 positions a step")
    ap.add_argument("--picks", type=int, default=5120, help="frames a step for the predictor")
    ap.add_argument("--lr", type=float, default=1.5e-3)
    ap.add_argument("--decay", type=float, default=0.05)
    ap.add_argument("--dropout", type=float, default=0.05)
    ap.add_argument("--noise", type=float, default=0.06)
    ap.add_argument("--sub", type=float, default=3.0)
    ap.add_argument("--stop-weight", type=float, default=0.03)
    ap.add_argument("--graph", type=int, default=1)
    ap.add_argument("--compile", type=int, default=1)
    ap.add_argument("--max-steps", type=int, default=10**9)
    a = ap.parse_args()
    begin = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(3)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    def load():
        with np.load(a.codes) as z:
            return {k: z[k] for k in z.files}

    data = listed(a.speech) if a.speech else load()
    lines = a.text.read_text().splitlines()
    tokens = Tokens(a.tokens)
    # utterances whose text number is a multiple of 331 are kept out, to watch over-fitting
    away = data["text"] % 331 == 0
    row_of = np.repeat(np.arange(len(data["frames"])), data["frames"])
    part = lambda keep: dict(codes=data["codes"][keep[row_of]], **{k: data[k][keep] for k in ("frames", "text", "voice")})
    rows = Rows(part(~away), lines, a.tokens, tokens.size, device)
    held = Rows(part(away), lines, a.tokens, tokens.size, device, 7) if away.sum() > 8 else None
    if held:
        held.ready = len(held.pack()[0])
    t = Trainer(a, rows, tokens.size, device)
    batches = rows.batches(a.rows)
    first = next(batches)
    t.warm_up(*first[1:], held)
    print(f"start: {time.time() - begin:.1f} s, {len(rows.alternatives)} utterances, "
          f"{sum(p.numel() for p in t.model.parameters()) / 1e6:.2f} M parameters", flush=True)
    if a.speech:
        while not a.codes.exists():
            time.sleep(0.2)
        codes = torch.from_numpy(take_codes(data, load()).astype(np.int16)).to(device)
        of_row = torch.from_numpy(away[row_of]).to(device)
        rows.codes.copy_(codes[~of_row])
        if held:
            held.codes.copy_(codes[of_row])
        del codes
    if a.ready:
        a.ready.touch()
    if a.resume:
        while not a.resume.exists():
            time.sleep(0.1)
        t.load(a.resume)
    print(f"waited until {time.time() - begin:.1f} s", flush=True)
    begin = time.time()
    step, log, mark, checked, saved = 0, [], time.time(), time.time(), time.time()

    def save(path):
        torch.save({k: v.half().cpu() for k, v in t.average.items()}, path.with_name("partial-" + path.name))
        path.with_name("partial-" + path.name).rename(path)

    for epoch, src, doc in itertools.chain([first], batches):
        share = (time.time() - begin) / a.seconds
        at = a.start + (a.stop - a.start) * share
        if a.clock:
            share = at = max(0.0, (time.time() - a.clock[0]) / (a.clock[1] - a.clock[0]))
        if share >= 1 or step >= a.max_steps or a.until and step % 20 == 0 and a.until.exists():
            break
        lr = a.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * at))) * min(1.0, (step + 1) / 300)
        for group in t.opt.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        out = t.run(src, doc)
        if step % 4 == 0:
            t.update_average(min(0.995, step / (step + 40)))
        step += 1
        if step % 25 == 0:
            log.append(out.clone())
        if step % 250 == 0:
            m = torch.stack(log).mean(0).tolist()
            print(f"step {step} epoch {epoch} at {at:.3f} {(time.time() - mark) * 4:.1f} ms/step  code0 {m[0]:.3f} eos "
                  f"{m[1]:.3f} rest {sum(m[2:]) / 15:.3f} (1: {m[2]:.2f} 4: {m[5]:.2f} 8: {m[9]:.2f} 15: {m[16]:.2f})",
                  flush=True)
            log, mark = [], time.time()
        if held and step > 1 and time.time() - checked > 45:
            c = t.check(held)
            print(f"  held out: code0 {c[0]:.3f} eos {c[1]:.3f} rest {sum(c[2:]) / 15:.3f}", flush=True)
            checked = mark = time.time()
        if time.time() - saved > 120:
            save(a.out.with_name("running-" + a.out.name))
            saved = time.time()
    save(a.out)
    if held:
        c = t.check(held)
        print(f"  held out: code0 {c[0]:.3f} eos {c[1]:.3f} rest {sum(c[2:]) / 15:.3f}", flush=True)
    extra = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device.type == "cuda" else ""
    print(f"saved after {step} steps, {time.time() - begin:.0f} s{extra}", flush=True)


if __name__ == "__main__":
    main()
