"""Writes the checkpoint folder from the trained weights.

    export.py --codec codec.pt --talker talker.pt --tokens FOLDER --out ../Voices/NAME
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import configs
from encode import load_codec
from talker import Talker
from text import write_tokenizer


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--codec", type=Path, required=True)
    ap.add_argument("--talker", type=Path, required=True)
    ap.add_argument("--tokens", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    speech = a.out / "speech_tokenizer"
    speech.mkdir(parents=True, exist_ok=True)
    write = lambda path, value: path.write_text(json.dumps(value, indent=2) + "\n")
    tokens = write_tokenizer(a.tokens, a.out)
    write(a.out / "config.json", configs.main_config(dict(tokens.added, assistant=tokens.vocab["assistant"]), tokens.size))
    write(a.out / "generation_config.json", configs.GENERATION)
    write(speech / "config.json", configs.codec_config())
    write(speech / "preprocessor_config.json", dict(
        chunk_length_s=None, feature_extractor_type="EncodecFeatureExtractor", feature_size=1, overlap=None,
        padding_side="right", padding_value=0.0, return_attention_mask=True, sampling_rate=24000))
    talker = Talker(tokens.size)
    talker.load_state_dict({k: v.float() for k, v in torch.load(a.talker, map_location="cpu").items()})
    save = lambda state, dtype, path: save_file({k: v.detach().to(dtype).contiguous().clone() for k, v in state.items()},
                                                path, metadata={"format": "pt"})
    state = {k: v * configs.SHARPNESS if k.endswith("codec_head.weight") or ".lm_head." in k else v
             for k, v in talker.released_state().items()}
    save(state, torch.bfloat16, a.out / "model.safetensors")
    save(load_codec(a.codec, torch.device("cpu")).released_state(), torch.float16, speech / "model.safetensors")
    size = sum(f.stat().st_size for f in a.out.rglob("*") if f.is_file())
    print(f"{a.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
