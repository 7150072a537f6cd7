"""Pipecat's ElevenLabs service, pointed at Martlet: sentences, tokens and an interruption through `multi-stream-input`.

    pip install 'pipecat-ai[elevenlabs]'
    python3 scripts/clients/pipecat_tts.py [ws://127.0.0.1:9000] [--voice default]

Prints one line of JSON; leaves with status 1 if no audio comes.
"""

import argparse
import asyncio
import importlib.metadata
import json
import sys
import time

from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService

logger.remove()
logger.add(sys.stderr, level="WARNING")


class Ear(FrameProcessor):
    """Keeps what comes out of the service."""

    def __init__(self):
        super().__init__()
        self.audio, self.errors, self.first = b"", [], None
        self.words = []
        self.begin = time.perf_counter()
        self.stopped = asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self.audio += frame.audio
            self.first = self.first or time.perf_counter() - self.begin
        elif isinstance(frame, TTSTextFrame):
            self.words.append((frame.text, frame.pts))
        elif isinstance(frame, TTSStoppedFrame):
            self.stopped.set()
        elif isinstance(frame, ErrorFrame):
            self.errors.append(str(frame.error))
        await self.push_frame(frame, direction)


async def run(url: str, voice: str, limit: float) -> dict:
    # The query parameters of this server's own may follow the voice; none are needed.
    service = ElevenLabsTTSService(
        api_key="none", url=url, settings=ElevenLabsTTSService.Settings(voice=voice, model="martlet"), sample_rate=24000
    )
    ear = Ear()
    task = PipelineTask(Pipeline([service, ear]), params=PipelineParams(audio_out_sample_rate=24000))
    result = {"client": "pipecat-ai " + importlib.metadata.version("pipecat-ai")}

    async def talk():
        await asyncio.sleep(1)
        ear.begin = time.perf_counter()
        await task.queue_frame(TTSSpeakFrame("Tea for two."))
        await asyncio.wait_for(ear.stopped.wait(), limit)
        result["first_audio_ms"] = round((ear.first or -1) * 1000)
        result["sentence_seconds"] = round(len(ear.audio) / 48000, 2)
        ear.audio, ear.first = b"", None
        ear.stopped.clear()
        # As a language model gives it.
        await task.queue_frames(
            [LLMFullResponseStartFrame()]
            + [LLMTextFrame(word) for word in ["And ", "two ", "for ", "tea. "]]
            + [LLMFullResponseEndFrame()]
        )
        await asyncio.wait_for(ear.stopped.wait(), limit)
        # Milliseconds from the first word; one word without a time where the model cannot tell.
        start = ear.words[0][1] if ear.words else 0
        result["words"] = [(word, time and (time - start) // 1_000_000) for word, time in ear.words]
        result["response_seconds"] = round(len(ear.audio) / 48000, 2)
        await task.queue_frame(EndFrame())

    runner = PipelineRunner(handle_sigint=False)
    await asyncio.gather(runner.run(task), talk())
    result["errors"] = ear.errors
    result["spoke"] = result["sentence_seconds"] > 0 and result["response_seconds"] > 0 and not ear.errors
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:9000")
    parser.add_argument("--voice", default="default")
    parser.add_argument("--limit", type=float, default=60)
    arguments = parser.parse_args()
    found = asyncio.run(run(arguments.url, arguments.voice, arguments.limit))
    print(json.dumps(found))
    raise SystemExit(0 if found["spoke"] else 1)
