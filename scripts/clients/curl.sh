#!/bin/bash
# Every endpoint of a running Martlet server by curl; prints what each answers. Usage: curl.sh [http://127.0.0.1:9000]
set -euo pipefail
base=${1:-http://127.0.0.1:9000}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
limit='"max_new_tokens": 20, "seed": 3'

show() { echo "== $*"; }

show health, ready, models, voices
curl -sf "$base/health"; echo
curl -sf "$base/ready"; echo
curl -sf "$base/v1/models" | head -c 300; echo
curl -sf "$base/v1/audio/voices" | head -c 300; echo

show speech while it is made, with the fingerprint in the trailers
curl -sf --raw "$base/v1/audio/speech" -d "{\"input\": \"hi\", \"response_format\": \"pcm\", $limit}" -o "$out/raw"
tail -c 600 "$out/raw" | tr -d '\r' | grep -a '^X-Martlet'
for format in wav flac mp3 opus aac; do
    code=$(curl -s "$base/v1/audio/speech" -d "{\"input\": \"hi\", \"response_format\": \"$format\", $limit}" \
        -o "$out/speech.$format" -w '%{http_code} %{content_type} %{size_download} bytes')
    echo "$format: $code"
done

show events
curl -sf "$base/v1/audio/speech" -d "{\"input\": \"hi\", \"response_format\": \"pcm\", \"stream_format\": \"sse\", $limit}" \
    -o "$out/events"
grep -c 'speech.audio.delta' "$out/events"
grep 'speech.audio.done' "$out/events"

show the old stack\'s paths
curl -sf -D - "$base/tts/stream" -d "{\"text\": \"hi\", $limit}" -o "$out/stream.pcm" | grep -i '^x-'
curl -sf "$base/synthesize" -d "{\"text\": \"hi\", $limit}" -o "$out/whole.wav"
cmp <(tail -c +45 "$out/whole.wav") "$out/stream.pcm" && echo "the same samples in both"

show errors
curl -s "$base/v1/audio/speech" -d '{"input": "hi", "speed": 9}'; echo
curl -s "$base/v1/audio/speech" -d '{"input": "hi", "voice": "nobody"}'; echo
curl -s "$base/nowhere"; echo

show metrics
curl -sf "$base/metrics" | grep -E '^martlet_(finished|frames|underruns)_total'
