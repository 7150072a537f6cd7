"""The teacher voices: flite through its shared libraries, with phone timings.

The program comes from Debian packages that are unpacked (never installed) under one root folder, see README.md.
`Flite.speak(text)` returns 16-bit samples at 16 kHz and a list of (phone, end in seconds).
"""
from __future__ import annotations

import ctypes as C
from pathlib import Path

import numpy as np

# name of the voice in the checkpoint -> flite's
VOICES = {
    "linnet": "slt",  # female, US
    "heron": "rms",  # male, US
    "merlin": "awb",  # male, Scottish
}

# flite's US English phones; index 0 is silence
PHONES = ["pau", "aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih",
          "iy", "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y",
          "z", "zh"]
PHONE_ID = {p: i for i, p in enumerate(PHONES)} | {"ssil": 0, "axr": 13, "em": 23, "en": 24}


class _Wave(C.Structure):
    _fields_ = [("type", C.c_char_p), ("sample_rate", C.c_int), ("num_samples", C.c_int), ("num_channels", C.c_int),
                ("samples", C.POINTER(C.c_short))]


class Flite:
    rate = 16000

    def __init__(self, root: Path, voice: str):
        lib = root / "usr/lib/x86_64-linux-gnu"
        load = lambda n: C.CDLL(str(lib / n), mode=C.RTLD_GLOBAL)
        load("libasound.so.2")
        self.l = load("libflite.so.1")
        load("libflite_usenglish.so.1")
        load("libflite_cmulex.so.1")
        v = load(f"libflite_cmu_us_{voice}.so.1")
        self.l.flite_init()
        register = getattr(v, f"register_cmu_us_{voice}")
        register.restype = C.c_void_p
        self.voice = register(None)
        for name, res, args in (
                ("flite_synth_text", C.c_void_p, [C.c_char_p, C.c_void_p]),
                ("utt_wave", C.POINTER(_Wave), [C.c_void_p]), ("delete_utterance", None, [C.c_void_p]),
                ("utt_relation", C.c_void_p, [C.c_void_p, C.c_char_p]), ("relation_head", C.c_void_p, [C.c_void_p]),
                ("item_next", C.c_void_p, [C.c_void_p]), ("item_feat_float", C.c_float, [C.c_void_p, C.c_char_p]),
                ("item_feat_string", C.c_char_p, [C.c_void_p, C.c_char_p])):
            f = getattr(self.l, name)
            f.restype, f.argtypes = res, args

    def speak(self, text: str):
        u = self.l.flite_synth_text(text.encode(), self.voice)
        if not u:
            return np.zeros(0, np.int16), []
        w = self.l.utt_wave(u).contents
        pcm = np.ctypeslib.as_array(w.samples, (w.num_samples,)).copy()
        assert w.sample_rate == self.rate, w.sample_rate
        phones, seg = [], self.l.relation_head(self.l.utt_relation(u, b"Segment"))
        while seg:
            phones.append((PHONE_ID.get(self.l.item_feat_string(seg, b"name").decode(), -1),
                           self.l.item_feat_float(seg, b"end")))
            seg = self.l.item_next(seg)
        self.l.delete_utterance(u)
        return pcm, phones


def teacher(root: Path, name: str):
    return Flite(root, VOICES[name])
