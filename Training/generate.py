"""Speaks the held-out sentences with the trained model, in batches.

    generate.py --talker talker.pt --tokens FOLDER --text FOLDER/heldout.txt --out said.npz
        [--count 110] [--modes greedy sampled stream]

said.npz: codes uint16 [frames, 16], frames int32 [n], line int32 [n], voice uint8 [n], mode uint8 [n] (index into
--modes), ended uint8 [n] (by EOS). Modes: greedy and sampled use the non-streaming layout; stream is sampled with the
streaming one.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import configs
from talker import Talker
from text import Tokens


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--talker", type=Path, required=True)
    ap.add_argument("--tokens", type=Path, required=True)
    ap.add_argument("--text", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--count", type=int, default=110)
    ap.add_argument("--modes", nargs="+", default=["greedy", "sampled", "stream"])
    ap.add_argument("--temperature", type=float, default=0.9)
    ap.add_argument("--top-k", type=int, default=50)
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begin = time.time()
    tokens = Tokens(a.tokens)
    model = Talker(tokens.size).to(device)
    state = torch.load(a.talker, map_location="cpu")
    model.load_state_dict({k: v.bfloat16().float() for k, v in state.items()})
    model.eval()
    lines = a.text.read_text().splitlines()[: a.count]
    bodies = tokens(lines)
    out = dict(codes=[], frames=[], line=[], voice=[], mode=[], ended=[])
    for mode, name in enumerate(a.modes):
        jobs = [(v, i) for v in range(len(configs.SPEAKERS)) for i in range(len(lines))]
        for start in range(0, len(jobs), 600):
            part = jobs[start:start + 600]
            speakers = list(configs.SPEAKERS)
            rows = [model.prompt(tokens, bodies[i], speakers[v], "english", name == "stream") for v, i in part]
            codes, ended = model.generate([r[0] for r in rows], [r[1] for r in rows], name == "greedy", a.temperature,
                                          a.top_k, seed=a.seed + start)
            for (v, i), c, e in zip(part, codes, ended):
                out["codes"].append(c.numpy().astype(np.uint16)), out["frames"].append(len(c))
                out["line"].append(i), out["voice"].append(v), out["mode"].append(mode), out["ended"].append(e)
        n = len(jobs)
        print(f"{name}: {np.mean(out['ended'][-n:]) * 100:.2f} % ended by themselves, mean "
              f"{np.mean(out['frames'][-n:]) * 0.08:.2f} s, {time.time() - begin:.0f} s", flush=True)
    kinds = dict(frames=np.int32, line=np.int32, voice=np.uint8, mode=np.uint8, ended=np.uint8)
    np.savez_compressed(a.out, codes=np.concatenate(out["codes"]), **{k: np.array(out[k], t) for k, t in kinds.items()})


if __name__ == "__main__":
    main()
