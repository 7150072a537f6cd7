"""The teacher voices: flite and espeak-ng through their shared libraries, with phone timings.

Both programs come from Debian packages that are unpacked (never installed) under one root folder, see README.md.
`Teacher.speak(text)` returns 16-bit samples at the teacher's own rate and a list of (phone, end in seconds).
"""
from __future__ import annotations

import ctypes as C
import os
import subprocess
from pathlib import Path

import numpy as np

# name of the voice in the checkpoint -> (program, voice of the program)
VOICES = {
    "linnet": ("flite", "slt"),  # female, US
    "heron": ("flite", "rms"),  # male, US
    "merlin": ("flite", "awb"),  # male, Scottish
    "rook": ("flite", "kal16"),  # male, US, diphone synthesis
    "wagtail": ("espeak", "en-us+f3"),  # female, formant synthesis
}

# flite's US English phones; index 0 is silence. espeak-ng's mnemonics are mapped onto the same set.
PHONES = ["pau", "aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih",
          "iy", "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y",
          "z", "zh"]
PHONE_ID = {p: i for i, p in enumerate(PHONES)} | {"ssil": 0, "axr": 13, "em": 23, "en": 24}
ESPEAK_TO_PHONE = {
    "p": "p", "b": "b", "t": "t", "t#": "t", "t2": "t", "d": "d", "d#": "d", "k": "k", "g": "g", "f": "f", "v": "v",
    "T": "th", "D": "dh", "s": "s", "z": "z", "S": "sh", "Z": "zh", "h": "hh", "m": "m", "n": "n", "N": "ng", "l": "l",
    "r": "r", "r-": "r", "w": "w", "j": "y", "tS": "ch", "dZ": "jh", "I": "ih", "I2": "ih", "I#": "ih", "E": "eh",
    "E2": "eh", "a": "ae", "aa": "ae", "a#": "ax", "V": "ah", "U": "uh", "i:": "iy", "i": "iy", "u:": "uw", "u": "uw",
    "A:": "aa", "A@": "aa", "0": "aa", "O:": "ao", "O": "ao", "O@": "ao", "o@": "ao", "O2": "ao", "3:": "er",
    "3": "er", "@": "ax", "@2": "ax", "@5": "ax", "@-": "ax", "@L": "l", "e@": "eh", "i@": "iy", "i@3": "iy",
    "U@": "uh", "eI": "ey", "aI": "ay", "aI@": "ay", "aI3": "ay", "OI": "oy", "aU": "aw", "oU": "ow", "n-": "n",
    "m-": "m", "l-": "l", "_": "pau", "_:": "pau", "_!": "pau", "_|": "pau", "?": "pau"}


class _Wave(C.Structure):
    _fields_ = [("type", C.c_char_p), ("sample_rate", C.c_int), ("num_samples", C.c_int), ("num_channels", C.c_int),
                ("samples", C.POINTER(C.c_short))]


def _lib_dir(root: Path) -> Path:
    return root / "usr/lib/x86_64-linux-gnu"


def _preload_stubs(root: Path):
    """espeak-ng links an audio-output library that is never called here: an empty stand-in replaces it."""
    d = root / "stubs"
    if not (d / "libpcaudio.so.0").exists():
        d.mkdir(parents=True, exist_ok=True)
        names = [f"audio_object_{n}" for n in ("open", "close", "destroy", "write", "drain", "flush", "strerror")]
        code = "".join(f"void *{n}(void){{return 0;}}\n" for n in names + ["create_audio_device_object"])
        tmp = d / f"tmp{os.getpid()}.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-soname,libpcaudio.so.0", "-x", "c", "-", "-o", str(tmp)],
                       input=code.encode(), check=True)
        tmp.rename(d / "libpcaudio.so.0")
    C.CDLL(str(d / "libpcaudio.so.0"), mode=C.RTLD_GLOBAL)


class Flite:
    rate = 16000

    def __init__(self, root: Path, voice: str):
        lib = _lib_dir(root)
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


class _Event(C.Structure):
    class _Id(C.Union):
        _fields_ = [("number", C.c_int), ("name", C.c_char_p), ("string", C.c_char * 8)]

    _fields_ = [("type", C.c_int), ("unique_identifier", C.c_uint), ("text_position", C.c_int), ("length", C.c_int),
                ("audio_position", C.c_int), ("sample", C.c_int), ("user_data", C.c_void_p), ("id", _Id)]


class Espeak:
    rate = 22050

    def __init__(self, root: Path, voice: str):
        _preload_stubs(root)
        C.CDLL(str(_lib_dir(root) / "libsonic.so.0"), mode=C.RTLD_GLOBAL)
        self.l = C.CDLL(str(_lib_dir(root) / "libespeak-ng.so.1"), mode=C.RTLD_GLOBAL)
        # output "retrieval", phoneme events
        rate = self.l.espeak_Initialize(1, 0, str(_lib_dir(root)).encode(), 1)
        assert rate == self.rate, rate
        assert self.l.espeak_SetVoiceByName(voice.encode()) == 0
        self.l.espeak_SetParameter(1, 165, 0)  # words a minute
        self.parts, self.events = [], []
        kind = C.CFUNCTYPE(C.c_int, C.POINTER(C.c_short), C.c_int, C.POINTER(_Event))
        self.callback = kind(self._receive)
        self.l.espeak_SetSynthCallback(self.callback)

    def _receive(self, wav, n, events):
        if wav and n:
            self.parts.append(np.ctypeslib.as_array(wav, (n,)).copy())
        i = 0
        while events[i].type:
            if events[i].type == 7:
                self.events.append((events[i].sample / self.rate, events[i].id.string.decode(errors="replace")))
            i += 1
        return 0

    def speak(self, text: str):
        self.parts, self.events = [], []
        data = text.encode() + b"\0"
        self.l.espeak_Synth(data, C.c_size_t(len(data)), 0, 1, 0, 1, None, None)  # 1: UTF-8
        self.l.espeak_Synchronize()
        pcm = np.concatenate(self.parts) if self.parts else np.zeros(0, np.int16)
        # an event says where its phone starts
        phones = [(PHONE_ID.get(ESPEAK_TO_PHONE.get(name.strip("',%=").rstrip(";"), ""), -1), end)
                  for (_, name), end in zip(self.events, [t for t, _ in self.events[1:]] + [len(pcm) / self.rate])]
        return pcm, phones


def teacher(root: Path, name: str):
    program, voice = VOICES[name]
    return (Flite if program == "flite" else Espeak)(root, voice)
