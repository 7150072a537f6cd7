"""Writes what the reference makes of a trained CustomVoice checkpoint: greedy codes and loudness of a whole sentence a voice.

    voice_goldens.py MODEL Tests/Fixtures/aviary.json

`streaming` is the text layout; `codes` are the frames up to EOS, `levels` the root mean square of each
frame's samples, `margin` the smallest distance between the best and the second-best choice.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))
import make_fixture  # noqa: E402

SENTENCES = [("Who is it?", True), ("Rain again.", False), ("Come in.", True)]


def main():
    import torch

    tts = make_fixture.load(SimpleNamespace(model=Path(sys.argv[1]), reference=None, threads=2))
    cases = []
    for speaker, (text, streaming) in zip(sorted(tts.model.config.talker_config.spk_id), SENTENCES):
        with make_fixture.Recorder(tts.model) as recorder, torch.inference_mode():
            wavs, _ = tts.generate_custom_voice(
                text=text, speaker=speaker, language="English", non_streaming_mode=not streaming, do_sample=False,
                subtalker_dosample=False, repetition_penalty=1.0, max_new_tokens=200)
        suppress, eos = recorder.kwargs["suppress_tokens"], recorder.kwargs["eos_token_id"]
        rows = [torch.stack([make_fixture.process_scores(logits, [], 1.0, suppress, eos, 0)
                             for logits, _ in recorder.rows]), torch.stack(recorder.sub)]
        margins = [float((top[..., 0] - top[..., 1]).min()) for top in (r.topk(2, -1).values for r in rows)]
        cases.append(dict(
            speaker=speaker, text=text, streaming=streaming, margin=min(margins),
            codes=torch.stack(recorder.codes).flatten().tolist(),
            levels=[round(float((torch.from_numpy(wavs[0][i:i + 1920]) ** 2).mean().sqrt()), 6)
                    for i in range(0, len(wavs[0]), 1920)]))
    Path(sys.argv[2]).write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main()
