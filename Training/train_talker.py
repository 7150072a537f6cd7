"""Trains the talker and the code predictor on encoded speech.

    train_talker.py --codes codes.npz --text FOLDER/train.txt --tokens FOLDER --out talker.pt --seconds 480
        [--resume talker.pt] [--start 0.0] [--stop 1.0]

Everything follows the clock: the schedule runs over a share of one whole training from 0 to 1 (--start, --stop), so a
training can be split over several runs. Losses are printed every 15 s; every 60 s the checkpoint is written and the
losses of held-out sentences are printed.

Utterances are packed into rows of 256 positions. Each is laid out as the non-streaming or the streaming text layout
(half and half), with the language tag or without (half and half), with the exact tokenisation or one with skipped
merges (three to one). Loss: code 0 or EOS from the talker, codes 1-15 of sampled frames from the predictor; and, until
half of the schedule, one head of one layer is led to the place in the text that is being spoken (the share of the
speech without pauses that is over), from which the others learn where to look. A few input codes are replaced at
random, so that generation survives its own slips.
"""
from __future__ import annotations

import argparse
import math
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import configs
from talker import ABSENT, EmbedSum, Talker, prefix_tags
from text import Tokens

LENGTH = 256
HELD_ROWS = 24
HELD_EVERY = 331  # one line of the text in so many is not trained on
NOWHERE = 255
NEAR = 4.0  # characters


def lay_out(tokens, rng, texts, frames, voice, codes, loud):
    """The rows of utterances that follow one another: their texts, lengths, speakers (index), codes [sum of lengths,
    16] and how much of each frame is no pause [sum of lengths]. tokens: exact and with skipped merges. All indices
    count from 0; `Rows.append` moves them."""
    names, ids = list(configs.SPEAKERS), configs.CODEC_IDS
    variants = [t.with_places(texts) for t in tokens]
    pad, bos, eos = tokens[0].pad, tokens[0].bos, tokens[0].eos
    cols, start, size, alternatives, at = [[] for _ in range(7)], [], [], [], 0
    first = np.concatenate([[0], np.cumsum(frames)[:-1]])
    for u in range(len(texts)):
        options, n = [], int(frames[u])
        f = np.arange(first[u], first[u] + n)
        spoken = np.cumsum(loud[first[u]:first[u] + n], dtype=np.float64)
        spoken -= loud[first[u]:first[u] + n] / 2
        place = np.minimum(spoken / max(1.0, spoken[-1]) * len(texts[u]), NOWHERE - 1).astype(np.uint8)
        for form in range(4):
            body, middle = variants[form >> 1][u]
            middle = [min(int(m * len(texts[u])), NOWHERE - 1) for m in middle]
            tags = prefix_tags(("auto", "english")[rng.integers(2)]) + [configs.SPEAKERS[names[voice[u]]]]
            text = tokens[0].role + [pad] * len(tags) + [bos]
            codec = [-1] * 3 + tags + [ids["codec_pad_id"]]
            where = [NOWHERE] * len(text)
            if form & 1:  # streaming
                text.append(body[0]), codec.append(ids["codec_bos_id"]), where.append(middle[0])
                rest = (body[1:] + [eos] + [pad] * n)[:n]
                where += (middle[1:] + [NOWHERE] * n)[:n]
            else:
                text += body + [eos, pad]
                codec += [ids["codec_pad_id"]] * (len(body) + 1) + [ids["codec_bos_id"]]
                rest = [pad] * n
                where += middle + [NOWHERE] * (2 + n)
            p = len(text)
            if p + n > LENGTH:
                continue
            cols[0].append(text + rest)
            cols[1].append(codec + [-1] * n)
            cols[2].append(np.concatenate([np.full(p, -1), f]))
            # the row before frame k predicts frame k; the last frame's row predicts EOS
            cols[3].append(np.concatenate([np.full(p - 1, -1), f, [-2]]))
            cols[4].append(np.arange(p + n))
            cols[5].append(where)
            cols[6].append(np.concatenate([np.full(p - 1, NOWHERE), place, [NOWHERE]]))
            options.append(len(start))
            start.append(at), size.append(p + n)
            at += p + n
        if options:
            alternatives.append(options)
    kinds = (np.int16, np.int16, np.int32, np.int32, np.int16, np.uint8, np.uint8)
    return dict(cols=[np.concatenate(c).astype(k) for c, k in zip(cols, kinds)], start=start, size=size,
                alternatives=alternatives, codes=codes.astype(np.int16))


def parts(job):
    """(rows to train on, rows kept out to watch over-fitting) of some utterances, each None if there are none."""
    folder, seed, lines, codes, frames, text, voice, loud = job
    tokens, rng = (Tokens(folder), Tokens(folder, dropout=0.12)), np.random.default_rng(seed)
    away = text % HELD_EVERY == 0
    of_row = np.repeat(away, frames)
    return [lay_out(tokens, rng, [line for line, k in zip(lines, keep) if k], frames[keep], voice[keep],
                    codes[keep_row], loud[keep_row])
            if keep.any() else None for keep, keep_row in ((~away, ~of_row), (away, of_row))]


def jobs(a):
    """What `parts` takes, a few hundred utterances each."""
    with np.load(a.codes) as z:
        codes, frames, text, voice, loud = (z[k] for k in ("codes", "frames", "text", "voice", "loud"))
    lines = a.text.read_text().splitlines()
    first = np.concatenate([[0], np.cumsum(frames)])
    for i in range(0, len(frames), 1000):
        k = slice(i, i + 1000)
        rows = slice(first[i], first[min(i + 1000, len(frames))])
        yield (a.tokens, i, [lines[j] for j in text[k]], codes[rows], frames[k], text[k], voice[k], loud[rows])


class Rows:
    """Every utterance's rows in both layouts, and the packing of one epoch after the other."""

    def __init__(self, device, hours: float, seed=0):
        self.device, self.rng = device, np.random.default_rng(seed)
        self.stop = configs.CODEC_IDS["codec_eos_token_id"]
        frames = int(hours * 45000)
        self.codes = torch.zeros(frames, 16, dtype=torch.int16, device=device)
        # of every position: text id, codec id, frame, target (frame, -1 none, -2 EOS), position, the place in the text
        # of its token and that of its target (characters, or NOWHERE)
        self.cols = [torch.zeros(8 * frames, dtype=t, device=device) for t in (
            torch.int16, torch.int16, torch.int32, torch.int32, torch.int16, torch.uint8, torch.uint8)]
        self.frames = self.positions = 0
        self.start, self.size, self.alternatives = [], [], []

    def append(self, part):
        n, m, known = len(part["codes"]), len(part["cols"][0]), len(self.start)
        if self.positions + m > len(self.cols[0]) or self.frames + n > len(self.codes):
            raise SystemExit("more speech than --hours says")
        self.codes[self.frames:self.frames + n] = torch.from_numpy(part["codes"]).to(self.device)
        for k, (to, c) in enumerate(zip(self.cols, part["cols"])):
            if k in (2, 3):
                c = np.where(c >= 0, c + self.frames, c)
            to[self.positions:self.positions + m] = torch.from_numpy(c).to(self.device)
        self.start += [x + self.positions for x in part["start"]]
        self.size += part["size"]
        self.alternatives += [[x + known for x in o] for o in part["alternatives"]]
        self.frames, self.positions = self.frames + n, self.positions + m

    def pack(self):
        """Source indices [rows, LENGTH] (-1: nothing) and document numbers of one epoch."""
        rng, known = self.rng, list(self.alternatives)
        start, size = np.array(self.start, np.int64), np.array(self.size, np.int64)
        weights = np.array([0.375, 0.375, 0.125, 0.125])
        pick = rng.choice(4, size=len(known), p=weights)
        chosen = np.array([o[min(p, len(o) - 1)] for o, p in zip(known, pick)], np.int64)
        rng.shuffle(chosen)
        sizes = size[chosen]
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
        src[dest] = np.repeat(start[chosen], sizes) + within
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
        """src [B, L] -> text ids, codec ids, frame indices, targets (frame index, -1 none, -2 EOS), positions, places of
        tokens and of targets."""
        none = src < 0
        i = src.clamp(min=0).long()
        text, codec, frame, target, pos, where, place = (c[i].long() for c in self.cols)
        fill = lambda x, v=-1: torch.where(none, v, x)
        return (fill(text), fill(codec), fill(frame), fill(target), fill(pos, 0), fill(where, NOWHERE),
                fill(place, NOWHERE))


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
        self.graph, self.guide = None, torch.zeros((), device=device)
        if a.compile and cuda:
            for layer in list(self.model.layers) + list(self.model.predictor_layers):
                layer.compile(dynamic=False)

    def losses(self, src, doc, noise: float, picks: int):
        """(code 0 loss, EOS loss, loss of the led head, predictor loss [15])"""
        m, r = self.model, self.rows
        codec0, group0, absent0 = m.offsets()
        text, codec, frame, target, pos, where, place = r.expand(src)
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
            h, scores = m.hidden(
                x.bfloat16() if self.device.type == "cuda" else x, pos, mask[:, None], guided=configs.GUIDED)
            look = scores.float().masked_fill(~mask, -1e4).softmax(-1)
            spoken = (place != NOWHERE)
            near = torch.exp(-(place[:, :, None] - where[:, None]).float().square() / (2 * NEAR * NEAR))
            there = (look * near * (where != NOWHERE)[:, None]).sum(-1)
            lead = -((there + 1e-3).log() * spoken).sum() / spoken.sum().clamp(min=1)
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
        return code_loss, stop_loss, lead, sub_loss

    def step(self, src, doc):
        code, stop, lead, sub = self.losses(src, doc, self.a.noise, self.a.picks)
        (code + self.a.stop_weight * stop + self.guide * lead + self.a.sub * sub.mean()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=False)
        return torch.cat([torch.stack([code, stop, lead]), sub]).detach()

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
        """Compiles and captures everything at learning rate 0."""
        self.run(src, doc)
        for state in self.opt.state.values():
            for v in state.values():
                v.zero_()
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
        rows, self.rows = self.rows, held
        src, doc = (torch.from_numpy(x[:HELD_ROWS]).to(self.device) for x in held.pack())
        src, doc = (F.pad(x, (0, 0, 0, HELD_ROWS - len(x)), value=-1) for x in (src, doc))
        code, stop, lead, sub = self.losses(src, doc, 0.0, min(self.a.picks, src.numel() // 2))
        keep = [float(code), float(stop), float(lead)] + sub.tolist()
        self.rows = rows
        self.model.load_state_dict(live)
        self.model.train()
        return keep


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--codes", type=Path, required=True)
    ap.add_argument("--text", type=Path, required=True)
    ap.add_argument("--tokens", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--seconds", type=float, required=True)
    ap.add_argument("--resume", type=Path)
    ap.add_argument("--start", type=float, default=0.0)
    ap.add_argument("--stop", type=float, default=1.0)
    ap.add_argument("--rows", type=int, default=64, help="rows of 256 positions a step")
    ap.add_argument("--picks", type=int, default=4096, help="frames a step for the predictor")
    ap.add_argument("--lr", type=float, default=1.5e-3)
    ap.add_argument("--decay", type=float, default=0.05)
    ap.add_argument("--dropout", type=float, default=0.1)
    ap.add_argument("--noise", type=float, default=0.06)
    ap.add_argument("--sub", type=float, default=3.0)
    ap.add_argument("--stop-weight", type=float, default=0.03)
    ap.add_argument("--guide", type=float, default=0.3)
    ap.add_argument("--hours", type=float, default=130, help="room for speech")
    ap.add_argument("--workers", type=int, default=12, help="processes that lay out rows at the start")
    ap.add_argument("--every", type=float, default=15, help="seconds between two lines of figures")
    ap.add_argument("--graph", type=int, default=1)
    ap.add_argument("--compile", type=int, default=1)
    ap.add_argument("--max-steps", type=int, default=10**9)
    a = ap.parse_args()
    begin = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(3)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    rows, held = Rows(device, a.hours), Rows(device, 3.0, 7)
    t = Trainer(a, rows, Tokens(a.tokens).size, device)
    if a.resume:
        t.load(a.resume)
    with get_context("spawn").Pool(a.workers) as pool:
        for both in pool.imap(parts, jobs(a)):
            for to, part in zip((rows, held), both):
                if part:
                    to.append(part)
    src, doc = (torch.from_numpy(x[:a.rows]).to(device) for x in rows.pack())
    if len(src) < a.rows:
        raise SystemExit(f"speech for {len(src)} rows, a step takes {a.rows}")
    t.warm_up(src, doc, held)
    batches = rows.batches(a.rows)
    ready = time.time()
    print(f"start: {ready - begin:.1f} s, {len(rows.alternatives)} utterances, {rows.frames / 45000:.1f} h, "
          f"{sum(p.numel() for p in t.model.parameters()) / 1e6:.2f} M parameters", flush=True)
    step, marked, log, mark, checked = 0, 0, [], ready, ready

    def finish(name):
        partial = a.out.with_name("partial-" + a.out.name)
        torch.save({k: v.half().cpu() for k, v in t.average.items()}, partial)
        partial.rename(a.out)
        c = t.check(held)
        print(f"  {name}: code0 {c[0]:.3f} eos {c[1]:.3f} led {c[2]:.2f} rest {sum(c[3:]) / 15:.3f}", flush=True)

    for epoch, src, doc in batches:
        share = (time.time() - ready) / max(1e-3, a.seconds - (ready - begin))
        at = a.start + (a.stop - a.start) * share
        if share >= 1 or step >= a.max_steps:
            break
        lr = a.lr * 0.5 * (1 + math.cos(math.pi * at)) * min(1.0, (step + 1) / 300)
        for group in t.opt.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        t.guide.fill_(a.guide * max(0.0, min(1.0, 2 - 4 * at)))
        out = t.run(src, doc)
        if step % 4 == 0:
            t.update_average(min(0.995, step / (step + 40)))
        step += 1
        if step % 20 == 0:
            log.append(out.tolist())  # waits for the device, so that the clock above is its clock
        if log and time.time() - mark > a.every:
            m = np.mean(log, 0)
            print(f"{time.time() - begin:.0f} s step {step} epoch {epoch} at {at:.3f} "
                  f"{(time.time() - mark) * 1e3 / (step - marked):.1f} ms/step  code0 {m[0]:.3f} eos {m[1]:.3f} led "
                  f"{m[2]:.2f} rest {m[3:].mean():.3f} (1: {m[3]:.2f} 4: {m[6]:.2f} 8: {m[10]:.2f} 15: {m[17]:.2f})",
                  flush=True)
            if not math.isfinite(m[0]):
                raise SystemExit("the loss is no number any more: the last checkpoint stands")
            log, mark, marked = [], time.time(), step
        if time.time() - checked > 4 * a.every:
            finish("held out")
            checked = mark = time.time()
            marked = step
    finish("held out, at the end")
    extra = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device.type == "cuda" else ""
    print(f"saved after {step} steps, {time.time() - begin:.0f} s{extra}", flush=True)


if __name__ == "__main__":
    main()
