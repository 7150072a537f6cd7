"""Measures a voice: speaks held-out sentences with martlet and compares them with the teacher's speech.

    evaluate.py say      --voice FOLDER --text heldout.txt --root DEBIAN_ROOT --work FOLDER [--martlet PATH]
    evaluate.py measure  --voice FOLDER --text heldout.txt --work FOLDER
    evaluate.py words    --voice FOLDER --text heldout.txt --work FOLDER
    evaluate.py codec    --codec codec.pt --text heldout.txt --root DEBIAN_ROOT --work FOLDER
    evaluate.py pictures --work FOLDER --out FOLDER

`say` writes WORK/MODE/SPEAKER-LINE.wav and .json (modes: greedy, sampled, again: another seed) and the teacher's
WORK/teacher/SPEAKER-LINE.wav; what exists is kept, so it resumes. `measure` prints word error against the teacher's,
how many ended by EOS within 0.7 to 1.4 of the teacher's duration, what a classifier of the speakers gets right,
real-time factor, time to the first audio, and the ten worst sentences. `words` compares when words begin, as martlet
says, with what pocketsphinx finds where it aligns the speech with the text. `codec` prints STOI and wide-band PESQ of the
codec alone. `pictures` draws ten spectrograms beside the teacher's. Needs pocketsphinx, pystoi, pesq, matplotlib.
"""
from __future__ import annotations

import argparse
import json
import re
import subprocess
import wave
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

import configs

RATE = 24000
MODES = {"greedy": ["--greedy"], "sampled": ["--seed", "1"], "again": ["--seed", "2"]}


def read_wav(path: Path):
    with wave.open(str(path)) as w:
        return np.frombuffer(w.readframes(w.getnframes()), np.int16)


def write_wav(path: Path, pcm):
    with wave.open(str(path), "wb") as w:
        w.setnchannels(1), w.setsampwidth(2), w.setframerate(RATE)
        w.writeframes(pcm.astype(np.int16).tobytes())


def at_16k(pcm):
    return resample_poly(pcm.astype(np.float32) / 32768, 2, 3)


def recording(path: Path):
    """What pocketsphinx hears: int16 at 16 kHz."""
    return np.clip(at_16k(read_wav(path)) * 32767, -32768, 32767).astype(np.int16)


def words(text: str):
    return re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split()


def errors(a, b) -> int:
    """Word substitutions, insertions and deletions between two lists."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


_decoder = None


def recognised(path: Path):
    global _decoder
    if _decoder is None:
        from pocketsphinx import Decoder
        _decoder = Decoder(samprate=16000, loglevel="FATAL")
    quiet = np.zeros(3200, np.int16)
    pcm = np.concatenate([quiet, recording(path), quiet])
    _decoder.start_utt(), _decoder.process_raw(pcm.tobytes(), full_utt=True), _decoder.end_utt()
    return _decoder.hyp().hypstr.split() if _decoder.hyp() else []


def features(path: Path):
    """Mean and spread over time of log mel bands, without the loudness."""
    from adversary import mel_bank
    x = read_wav(path).astype(np.float32) / 32768
    n = 1024
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, (0, n)), n)[::256] * np.hanning(n)
    mel = np.log(np.abs(np.fft.rfft(frames)) @ mel_bank(n, 40).numpy().T + 1e-4)
    loud = mel.mean(1) > mel.mean(1).max() - 4
    mel = mel[loud] - mel[loud].mean()
    return np.concatenate([mel.mean(0), mel.std(0)])


def say(a, lines):
    import make_speech
    import teachers
    (a.work / "teacher").mkdir(parents=True, exist_ok=True)
    for speaker in configs.SPEAKERS:
        t = None
        for i, line in enumerate(lines):
            path = a.work / "teacher" / f"{speaker}-{i}.wav"
            if not path.exists():
                t = t or teachers.teacher(a.root, speaker)
                write_wav(path, make_speech.speak(t, speaker, line)[0])
    for mode in a.modes:
        (a.work / mode).mkdir(exist_ok=True)
        for speaker in configs.SPEAKERS:
            for i, line in enumerate(lines):
                path = a.work / mode / f"{speaker}-{i}.wav"
                if path.with_suffix(".json").exists():
                    continue
                done = subprocess.run([a.martlet, "say", "--model", a.voice, "--voice", speaker, "--language", "english",
                                       *MODES[mode], "--json", "-o", path, line], capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(f"{speaker} {i}: {done.stderr}")
                path.with_suffix(".json").write_text(done.stdout)


def word_error(paths, texts, pool):
    """(total word error, per sentence (errors, words, what was heard))"""
    heard = list(pool.map(recognised, paths, chunksize=4))
    rows = [(errors(words(t), h), len(words(t)), " ".join(h)) for t, h in zip(texts, heard)]
    return sum(r[0] for r in rows) / sum(r[1] for r in rows), rows


def measure(a, lines):
    speakers, index = list(configs.SPEAKERS), range(len(lines))
    with ProcessPoolExecutor(a.jobs) as pool:
        known = {s: [a.work / "teacher" / f"{s}-{i}.wav" for i in index] for s in speakers}
        teacher = {s: word_error(known[s], lines, pool) for s in speakers}
        tf = {s: np.stack(list(pool.map(features, known[s]))) for s in speakers}
        # nearest mean under the shared spread (linear discriminant) of the teachers' speech
        middle = np.stack([f.mean(0) for f in tf.values()])
        spread = np.cov(np.concatenate([f - f.mean(0) for f in tf.values()]).T) + 1e-3 * np.eye(middle.shape[1])
        inverse = np.linalg.inv(spread)
        classify = lambda x: int(np.argmin([(x - m) @ inverse @ (x - m) for m in middle]))
        for mode in a.modes:
            worst, times, first, right, ended, total = [], [], [], 0, 0, 0
            for n, s in enumerate(speakers):
                paths = [a.work / mode / f"{s}-{i}.wav" for i in index]
                wer, rows = word_error(paths, lines, pool)
                fine = 0
                for i, p in enumerate(paths):
                    info = json.loads(p.with_suffix(".json").read_text())
                    ratio = len(read_wav(p)) / len(read_wav(known[s][i]))
                    fine += info["finishReason"] == "stop" and 0.7 <= ratio <= 1.4
                    times.append(info["elapsed"] / max(info["seconds"], 0.08)), first.append(info["firstAudio"] or 0)
                worst += [(r[0] / r[1], s, lines[i], r[2]) for i, r in enumerate(rows)]
                hits = sum(classify(f) == n for f in pool.map(features, paths))
                right, ended, total = right + hits, ended + fine, total + len(paths)
                print(f"{mode} {s}: word error {wer * 100:.1f} %, teacher {teacher[s][0] * 100:.1f} %; ended well "
                      f"{fine}/{len(paths)}; voice recognised {hits}/{len(paths)}", flush=True)
            print(f"{mode}: ended well {ended / total * 100:.2f} %, voice recognised {right / total * 100:.2f} %, real-time "
                  f"factor {np.median(times):.3f}, first audio {np.median(first) * 1000:.0f} ms (medians)")
            for row in sorted(worst, reverse=True)[:10]:
                print(f"  {row[0] * 100:.0f} % {row[1]}: {row[2]} -> {row[3]}")
    if {"sampled", "again"} <= set(a.modes):
        same = sum((a.work / "sampled" / p.name).read_bytes() == p.read_bytes() for p in (a.work / "again").glob("*.wav"))
        print(f"equal under two seeds: {same}")


def begins(job):
    """[(word, seconds at which pocketsphinx hears it begin)]"""
    path, text = job
    from pocketsphinx import Decoder
    decoder = Decoder(samprate=16000, loglevel="FATAL", bestpath=False)
    quiet = 1600
    try:
        decoder.set_align_text(" ".join(words(text)))
        decoder.start_utt()
        decoder.process_raw(np.concatenate([np.zeros(quiet, np.int16), recording(path)]).tobytes(), full_utt=True)
        decoder.end_utt()
        return [(s.word, s.start_frame * 0.01 - quiet / 16000) for s in decoder.seg() or [] if s.word[0] not in "<("]
    except RuntimeError:  # a word that its dictionary does not have
        return []


def spoken_words(a, lines):
    with ProcessPoolExecutor(a.jobs) as pool:
        for mode in a.modes:
            jobs = [(a.work / mode / f"{s}-{i}.wav", line) for s in configs.SPEAKERS for i, line in enumerate(lines)]
            late, used = [], 0
            for (path, _), heard in zip(jobs, pool.map(begins, jobs)):
                told = json.loads(path.with_suffix(".json").read_text())["words"]
                if heard and len(told) == len(heard):
                    used += 1
                    late += [w["start"] - start for w, (_, start) in zip(told, heard)]
            off = np.abs(late)
            print(f"{mode}: {len(late)} words of {used} sentences, half within {np.median(off) * 1000:.0f} ms, 90 % within "
                  f"{np.percentile(off, 90) * 1000:.0f} ms, late by {np.median(late) * 1000:.0f} ms (median)")


def codec(a, lines):
    import torch
    from pesq import pesq
    from pystoi import stoi

    import make_speech
    import teachers
    from encode import load_codec
    torch.set_grad_enabled(False)
    model = load_codec(a.codec, torch.device("cpu"))
    for speaker in configs.SPEAKERS:
        t, rows = teachers.teacher(a.root, speaker), []
        for line in lines:
            x = make_speech.speak(t, speaker, line)[0]
            y = model.decode(model.encode(torch.from_numpy(x.astype(np.float32) / 32768)[None]))[0].numpy()
            x, y = at_16k(x), resample_poly(y, 2, 3)
            rows.append((stoi(x, y, 16000), pesq(16000, x, y, "wb")))
        s, p = np.mean(rows, 0)
        print(f"{speaker}: STOI {s:.3f}, PESQ-WB {p:.2f} over {len(rows)} sentences", flush=True)


def pictures(a, lines):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    a.out.mkdir(parents=True, exist_ok=True)
    speakers = list(configs.SPEAKERS)
    for k in range(10):
        s = speakers[k % len(speakers)]
        figure, axes = plt.subplots(2, 1, figsize=(7, 3.6), sharex=True)
        for axis, mode in zip(axes, ("teacher", a.modes[0])):
            axis.specgram(read_wav(a.work / mode / f"{s}-{k}.wav") / 32768 + 1e-7, 512, RATE, noverlap=384, vmin=-160, vmax=-40)
            axis.set_ylim(0, 8000), axis.set_ylabel(f"{mode}, Hz")
        axes[0].set_title(f"{s}: {lines[k]}", fontsize=8)
        figure.tight_layout(), figure.savefig(a.out / f"{s}-{k}.png", dpi=80), plt.close(figure)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("step", choices=("say", "measure", "words", "codec", "pictures"))
    ap.add_argument("--voice")
    ap.add_argument("--codec", type=Path)
    ap.add_argument("--text", type=Path, required=True)
    ap.add_argument("--root", type=Path)
    ap.add_argument("--work", type=Path)
    ap.add_argument("--out", type=Path)
    ap.add_argument("--martlet", default="martlet")
    ap.add_argument("--count", type=int, default=100)
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--modes", nargs="+", choices=MODES, default=["greedy", "sampled"])
    a = ap.parse_args()
    steps = dict(say=say, measure=measure, words=spoken_words, codec=codec, pictures=pictures)
    steps[a.step](a, a.text.read_text().splitlines()[: a.count])


if __name__ == "__main__":
    main()
