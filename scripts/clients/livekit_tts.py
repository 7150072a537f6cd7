"""LiveKit's speech plugins, pointed at Martlet: openai (HTTP) and elevenlabs (`multi-stream-input`).

    pip install livekit-plugins-openai livekit-plugins-elevenlabs
    python3 scripts/clients/livekit_tts.py [http://127.0.0.1:9000] [--voice default]

Prints one line of JSON for each; leaves with status 1 if no audio comes.
"""

import argparse
import asyncio
import importlib.metadata
import json
import time

import aiohttp
from livekit.agents import APIConnectOptions
from livekit.plugins import elevenlabs, openai

TEXT = "Tea for two."


async def listen(stream) -> tuple[float, float]:
    begin, first, seconds = time.perf_counter(), None, 0.0
    async for audio in stream:
        first = first or time.perf_counter() - begin
        seconds += audio.frame.duration
    return first, seconds


async def by_openai(url: str, voice: str, options: APIConnectOptions) -> tuple[float, float]:
    service = openai.TTS(base_url=url + "/v1", api_key="none", model="tts-1", voice=voice, response_format="pcm")
    async with service.synthesize(TEXT, conn_options=options) as stream:
        return await listen(stream)


async def by_elevenlabs(url: str, voice: str, options: APIConnectOptions) -> tuple[float, float]:
    async with aiohttp.ClientSession() as session:
        service = elevenlabs.TTS(
            base_url=url + "/v1", api_key="none", voice_id=voice, encoding="pcm_24000", http_session=session
        )
        stream = service.stream(conn_options=options)
        for word in ["Tea ", "for ", "two."]:
            stream.push_text(word)
        stream.end_input()
        try:
            return await listen(stream)
        finally:
            await stream.aclose()
            await service.aclose()


async def main(url: str, voice: str, limit: float) -> bool:
    options = APIConnectOptions(max_retry=0, timeout=limit)
    good = True
    for name, speak in [("openai", by_openai), ("elevenlabs", by_elevenlabs)]:
        package = "livekit-plugins-" + name
        found = {"client": package + " " + importlib.metadata.version(package)}
        try:
            first, seconds = await asyncio.wait_for(speak(url, voice, options), limit)
            found |= {"first_audio_ms": round(first * 1000), "seconds": round(seconds, 2), "spoke": seconds > 0}
        except Exception as error:  # Shown, not hidden: this is a check.
            found |= {"spoke": False, "error": repr(error)}
        good &= found["spoke"]
        print(json.dumps(found))
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:9000")
    parser.add_argument("--voice", default="default")
    parser.add_argument("--limit", type=float, default=60)
    arguments = parser.parse_args()
    raise SystemExit(0 if asyncio.run(main(arguments.url, arguments.voice, arguments.limit)) else 1)
