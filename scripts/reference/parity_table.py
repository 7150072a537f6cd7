#!/usr/bin/env python3
"""Prints the report of `martlet parity DIR --json` as a table. Exits 1 when a stage missed its tolerance.

    parity_table.py REPORT.json [--title TEXT]

The report is {"stages": [{"name": …, "max_abs": …, "tolerance": …, "pass": …}, …], "pass": …}.
"""
import argparse
import json
import math
import sys
from pathlib import Path


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("report", type=Path)
    ap.add_argument("--title", default="parity")
    args = ap.parse_args()
    text = args.report.read_text(encoding="utf-8")
    try:
        report = json.loads(text)
        stages = [(s["name"], float("nan" if s["max_abs"] is None else s["max_abs"]), float(s["tolerance"]),
                   s["pass"] is True) for s in report["stages"]]
        passed = report["pass"] is True
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"parity_table.py: not a parity report ({error!r}): {text[:200]!r}")
    if not stages:
        sys.exit("parity_table.py: the report has no stages, so nothing was compared")
    width = max(len(name) for name, *_ in stages)
    print(args.title)
    print(f"{'stage':{width}}  {'max abs':>9}  {'tolerance':>9}")
    for name, error, tolerance, ok in stages:
        ok = ok and not math.isnan(error) and error <= tolerance
        passed &= ok
        print(f"{name:{width}}  {error:9.2e}  {tolerance:9.2e}  {'ok' if ok else 'MISS'}")
    worst = max(stages, key=lambda s: s[1] / s[2] if s[2] else (math.inf if s[1] else 0))
    print(f"{len(stages)} stages, {'all agree' if passed else 'DISAGREE'}; nearest to its tolerance: {worst[0]}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
