#!/usr/bin/env python3
"""Makes python.safetensors with the `safetensors` package (0.8.0, numpy 2.4.6), and layout.safetensors by hand from the
format's description; the package must read the latter. SafetensorsTests.swift says what both hold.

    python make.py
"""
import json
import struct
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

here = Path(__file__).parent
save_file(
    {
        "f32": np.array([[1.5, -2.25, 3e-20], [4.0, np.inf, -0.0]], np.float32),
        "f16": np.array([1.5, -2.0, 6e-8, 65504.0], np.float16),
        "f64": np.array([0.1, -1e300], np.float64),
        "i64": np.array([[-5], [2**40]], np.int64),
        "i32": np.array([-7, 2**31 - 1], np.int32),
        "i16": np.array([-32768], np.int16),
        "u16": np.array([65535], np.uint16),
        "u8": np.array([0, 255, 7], np.uint8),
        "bool": np.array([True, False], np.bool_),
        "scalar": np.array(0.75, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        'odd "name"/ü': np.array([2.0], np.float32),
    },
    here / "python.safetensors",
    metadata={"format": "np", "note": 'ü and "quotes"'},
)

header = {
    "__metadata__": {"a": "1", "b": "two/2"},
    "second": {"data_offsets": [0, 24], "dtype": "F32", "shape": [2, 3]},
    "first": {"data_offsets": [24, 32], "dtype": "I32", "shape": [2]},
    "raw": {"data_offsets": [32, 37], "dtype": "U8", "shape": [5]},
}
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-(len(text) + 8) % 64)
data = struct.pack("<6f2i5B", 0.5, -1.5, 2.0, 3.25, -4.0, 1e-30, -2, 2**31 - 1, 1, 2, 3, 4, 255)
(here / "layout.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
with safe_open(here / "layout.safetensors", "numpy") as f:
    assert f.metadata() == header["__metadata__"]
    assert f.get_tensor("second").tolist()[0] == [0.5, -1.5, 2.0] and f.get_tensor("raw")[4] == 255
