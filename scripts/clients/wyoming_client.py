"""The Wyoming protocol by its own Python package: describe, a whole text, a text in pieces.

    pip install wyoming
    python3 scripts/clients/wyoming_client.py [tcp://127.0.0.1:10200]

Prints one line of JSON; leaves with status 1 if something is not as it should be.
"""

import argparse
import asyncio
import importlib.metadata
import json
import time

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.info import Describe, Info
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

TEXT = "Tea for two."


async def listen(client: AsyncClient, until) -> tuple[bytes, list[str], float | None]:
    audio, types, begin, first = b"", [], time.perf_counter(), None
    while True:
        event = await client.read_event()
        if event is None:
            raise SystemExit("the server closed the connection")
        if Error.is_type(event.type):
            raise SystemExit("error: " + Error.from_event(event).text)
        if AudioChunk.is_type(event.type):
            audio += AudioChunk.from_event(event).audio
            first = first or time.perf_counter() - begin
        if not types or types[-1] != event.type:
            types.append(event.type)
        if until(event.type):
            return audio, types, first


async def run(uri: str) -> dict:
    async with AsyncClient.from_uri(uri) as client:
        await client.write_event(Describe().event())
        program = Info.from_event(await client.read_event()).tts[0]
        voice = SynthesizeVoice(name=program.voices[0].name)
        await client.write_event(Synthesize(text=TEXT, voice=voice).event())
        whole, order, first = await listen(client, AudioStop.is_type)
        await client.write_event(SynthesizeStart(voice=voice).event())
        for piece in ["Tea ", "for ", "two."]:
            await client.write_event(SynthesizeChunk(text=piece).event())
        # What Home Assistant sends, too, for servers that do not stream.
        await client.write_event(Synthesize(text=TEXT, voice=voice).event())
        await client.write_event(SynthesizeStop().event())
        pieces, streamed, _ = await listen(client, SynthesizeStopped.is_type)
    return {
        "client": "wyoming " + importlib.metadata.version("wyoming"),
        "voices": len(program.voices),
        "streams": program.supports_synthesize_streaming,
        "first_audio_ms": round(first * 1000),
        "seconds": len(whole) / 48000,
        "seconds_in_pieces": len(pieces) / 48000,
        "order": order == ["audio-start", "audio-chunk", "audio-stop"],
        "order_in_pieces": streamed == ["audio-start", "audio-chunk", "audio-stop", "synthesize-stopped"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("uri", nargs="?", default="tcp://127.0.0.1:10200")
    found = asyncio.run(run(parser.parse_args().uri))
    print(json.dumps(found))
    raise SystemExit(0 if all(value is not False for value in found.values()) else 1)
