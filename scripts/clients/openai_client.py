"""Speaks with a Martlet server through OpenAI's own Python client: streamed audio, server-sent events, voices, models and
errors.

    pip install openai
    python scripts/clients/openai_client.py http://127.0.0.1:9000 [API_KEY]
"""

import base64
import hashlib
import json
import sys
import time

import openai

BASE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9000"
client = openai.OpenAI(base_url=BASE + "/v1", api_key=sys.argv[2] if len(sys.argv) > 2 else "none", max_retries=0)
LIMIT = {"max_new_tokens": 20, "seed": 3}
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(f"{'ok    ' if good else 'FAILED'} {name} {detail}")


check("models.list", any(model.id == "tts-1" for model in client.models.list()))

start = time.monotonic()
first, pcm = None, b""
with client.audio.speech.with_streaming_response.create(
    model="gpt-4o-mini-tts", voice="alloy", input="hi", response_format="pcm", extra_body=LIMIT
) as response:
    for chunk in response.iter_bytes():
        first = first or time.monotonic() - start
        pcm += chunk
    check("request id", response.headers.get("x-request-id", "").startswith("req_"))
check("streamed pcm", len(pcm) > 0, f"{len(pcm)} bytes, first after {first * 1000:.0f} ms")

for form in ["mp3", "opus", "aac", "flac", "wav"]:
    try:
        audio = client.audio.speech.create(
            model="tts-1", voice="coral", input="hi", response_format=form, extra_body=LIMIT
        ).read()
        check(form, len(audio) > 0, f"{len(audio)} bytes")
    except openai.BadRequestError as error:
        check(form, error.code == "encoder_missing", f"({error.code})")

events, audio = [], b""
with client.audio.speech.with_streaming_response.create(
    model="gpt-4o-mini-tts", voice="alloy", input="hi", response_format="pcm", stream_format="sse", extra_body=LIMIT
) as response:
    for line in response.iter_lines():
        if line.startswith("data: "):
            event = json.loads(line[6:])
            events.append(event["type"])
            audio += base64.b64decode(event.get("audio", ""))
            if event["type"] == "speech.audio.done":
                done = event
check("events", events[-1] == "speech.audio.done" and events[0] == "speech.audio.delta", f"{len(events)} of them")
check("the same audio in both", audio == pcm)
check("fingerprint", done["martlet"]["pcm_sha256"] == hashlib.sha256(pcm).hexdigest(), str(done["usage"]))

fast = client.audio.speech.create(
    model="tts-1", voice="alloy", input="hi", response_format="pcm", speed=2.0, extra_body=LIMIT
).read()
check("speed", len(fast) == len(pcm) // 2, f"{len(fast)} bytes")

for name, wanted, arguments in [
    ("unknown voice", openai.BadRequestError, {"voice": "nobody"}),
    ("empty input", openai.BadRequestError, {"input": ""}),
    ("unknown model", openai.NotFoundError, {"model": "whisper-1"}),
]:
    try:
        client.audio.speech.create(**({"model": "tts-1", "voice": "alloy", "input": "hi"} | arguments))
        check(name, False, "was accepted")
    except wanted as error:
        check(name, True, f"{error.status_code} {error.code}")

print(f"openai {openai.__version__}, {failures} failures")
sys.exit(failures != 0)
