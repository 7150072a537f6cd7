"""Asks a running Martlet server for every audio format and decodes each with FFmpeg's decoders (PyAV): FLAC and WAV must be
the PCM bit for bit, the others alike and not shorter.

    pip install numpy av
    python scripts/clients/formats.py http://127.0.0.1:9000
"""

import hashlib
import io
import json
import sys
import urllib.error
import urllib.request

import av
import numpy as np

BASE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9000"
REQUEST = {"input": "hi", "seed": 3, "max_new_tokens": 40}


def speak(**fields):
    body = json.dumps(REQUEST | fields).encode()
    request = urllib.request.Request(BASE + "/v1/audio/speech", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return response.read()


def decode(audio):
    with av.open(io.BytesIO(audio)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=24_000)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def likeness(reference, samples):
    """Correlation at the best shift of up to 100 ms, and that shift: encoders delay."""
    best = (-1.0, 0)
    for shift in range(0, 2400):
        n = min(len(reference), len(samples) - shift)
        a, b = reference[:n].astype(float), samples[shift : shift + n].astype(float)
        best = max(best, (float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9)), shift))
    return best


pcm = speak(response_format="pcm")
reference = np.frombuffer(pcm, "<i2")
print(f"pcm: {len(reference)} samples, SHA-256 {hashlib.sha256(pcm).hexdigest()[:16]}…")
failed = False
for form in ["wav", "flac", "opus", "mp3", "aac"]:
    try:
        audio = speak(response_format=form)
    except urllib.error.HTTPError as error:
        print(f"{form}: {error.code} {json.load(error)['error']['message']}")
        continue
    samples = decode(audio)
    if form in ("wav", "flac"):
        good = samples.tobytes() == pcm
        detail = "bit for bit" if good else "differs"
    else:
        value, shift = likeness(reference, samples)
        # Opus at 27 kbit/s keeps less of the waveform, least of noise, which is what the test checkpoints speak.
        good = value > (0.5 if form == "opus" else 0.9) and 0 <= len(samples) - len(reference) < 6000
        detail = f"correlation {value:.3f} at a delay of {shift} samples, {len(samples)} samples"
    failed |= not good
    print(f"{form}: {len(audio)} bytes, {detail}: {'ok' if good else 'FAILED'}")
sys.exit(failed)
