"""`/v1/audio/speech/stream` by Python's `websockets`: text letter by letter, two contexts, a cancel, a mistake.

    pip install websockets
    python3 scripts/clients/websocket.py [ws://127.0.0.1:9000] [--frames 12]

Prints one line of JSON; leaves with status 1 if something is not as it should be.
"""

import argparse
import asyncio
import hashlib
import importlib.metadata
import json
import time

import websockets

TEXT = "Tea for two, and two for tea."


async def run(url: str, frames: int) -> dict:
    result = {"client": "websockets " + importlib.metadata.version("websockets")}
    async with websockets.connect(url + "/v1/audio/speech/stream") as socket:

        async def send(**message):
            await socket.send(json.dumps(message))

        options = {"seed": 7, "max_new_tokens": frames + 1}
        begin = time.perf_counter()
        await send(type="start", context="pieces", **options)
        await send(type="start", context="dropped", seed=1, input=TEXT)
        for letter in TEXT:
            await send(type="append", context="pieces", text=letter)
        await send(type="complete", context="pieces")
        await send(type="append", context="nobody", text="x")
        pcm = {"pieces": b"", "dropped": b""}
        ends, errors, current, first = {}, [], None, None
        while len(ends) < 2:
            message = await socket.recv()
            if isinstance(message, bytes):
                pcm[current] += message
                if first is None and current == "pieces":
                    first = time.perf_counter() - begin
                if current == "dropped":
                    await send(type="cancel", context="dropped")
                continue
            event = json.loads(message)
            current = event.get("context")
            if event["type"] == "end":
                ends[current] = event
            elif event["type"] == "error":
                errors.append(event["error"]["code"])
        end = ends["pieces"]
        # The same text at once, in another context of the same connection.
        await send(type="start", context="once", input=TEXT, **options)
        await send(type="complete", context="once")
        while True:
            message = await socket.recv()
            if isinstance(message, str) and json.loads(message)["type"] == "end":
                once = json.loads(message)
                break
        await (await socket.ping())
    result |= {
        "first_audio_ms": round(first * 1000),
        "seconds": end["seconds"],
        "finish_reason": end["finish_reason"],
        "audio_is_what_the_hash_says": hashlib.sha256(pcm["pieces"]).hexdigest() == end["pcm_sha256"],
        "pieces_equal_text_at_once": once["pcm_sha256"] == end["pcm_sha256"],
        "cancelled": ends["dropped"]["finish_reason"] == "cancelled",
        "mistake_is_told": errors == ["context_not_found"],
    }
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:9000")
    parser.add_argument("--frames", type=int, default=50)
    arguments = parser.parse_args()
    found = asyncio.run(run(arguments.url, arguments.frames))
    print(json.dumps(found))
    raise SystemExit(0 if all(value is not False for value in found.values()) else 1)
