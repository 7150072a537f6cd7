#!/usr/bin/env python3
"""Milliseconds per frame side by side, with how many times faster each column is than the first.

    bench_table.py [--title TEXT] NAME=REPORT.json NAME=REPORT.json …

A report is {"stages": [{"name": "talker", "ms": …}, …], "frame_ms": …}, ms per frame of 80 ms of audio.
"""
import argparse
import json
import sys
from pathlib import Path

FRAME_MS = 80.0     # 24 kHz, 1920 samples


def load(path):
    text = Path(path).read_text(encoding="utf-8")
    try:
        report = json.loads(text)
        rows = {s["name"]: float(s["ms"]) for s in report["stages"]}
        return dict(rows, frame=float(report["frame_ms"])), report.get("threads")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"bench_table.py: {path} is not a bench report ({error!r}): {text[:200]!r}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("columns", nargs="+", metavar="NAME=REPORT.json")
    ap.add_argument("--title", default="bench")
    args = ap.parse_args()
    names = [c.partition("=")[0] for c in args.columns]
    reports = [load(c.partition("=")[2]) for c in args.columns]
    threads = ", ".join(f"{n}: {t} threads" for n, (_, t) in zip(names, reports) if t)
    print(f"{args.title}: ms per frame ({FRAME_MS:.0f} ms of audio)" + (f"; {threads}" if threads else ""))
    base = reports[0][0]
    stages = [s for s in base if s != "frame"] + ["frame"]
    print(f"{'':12}" + f"{names[0]:>12}" + "".join(f"{n:>18}" for n in names[1:]))

    def cell(rows, stage):
        if stage not in rows:
            return f"{'-':>18}"
        return f"{rows[stage]:10.2f} {base[stage] / rows[stage]:6.1f}x" if rows[stage] > 0 else f"{0:10.2f} {'':7}"

    for stage in stages:
        print(f"{stage:12}{base[stage]:12.2f}" + "".join(cell(rows, stage) for rows, _ in reports[1:]))
    rtf = [rows["frame"] / FRAME_MS for rows, _ in reports]
    print(f"{'RTF':12}{rtf[0]:12.3f}" + "".join(f"{x:10.3f}{'':8}" for x in rtf[1:]).rstrip())


if __name__ == "__main__":
    main()
