#!/bin/bash
# All steps from the text on, overlapped: speech is made on the CPU cores while the codec already trains on what there
# is and the talker starts on what was encoded by then; a second run of the talker takes over when all speech is there.
#
#   train_all.sh WORK CORPUS DEBS
#
# WORK: folder for everything that is made (30 GB). CORPUS: train.txt, heldout.txt, vocab.json, merges.txt. DEBS: the
# Debian packages of the speech programs. CODEC_END and TALKER_END: seconds after the start. HOURS: of speech a voice.
# Every step also runs by itself, see README.md.
set -u
work=$1 corpus=$2 debs=$3 here=$(dirname "$0")
codec_end=${CODEC_END:-395} talker_end=${TALKER_END:-900} hours=${HOURS:-20.1} workers=${WORKERS:-$(($(nproc) - 1))}
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2 TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton
mkdir -p "$work/root"
begin=$(date +%s)
say() { echo "=== $(($(date +%s) - begin)) s: $*"; }
until_second() { while [ $(($(date +%s) - begin)) -lt "$1" ]; do sleep 1; done; }
talker() {
    python3 "$here/train_talker.py" --speech "$work/speech" --text "$corpus/train.txt" --tokens "$corpus" \
        --clock $((begin + codec_end + 12)) $((begin + talker_end)) "$@"
}

say unpack
for f in "$debs"/*.deb; do dpkg -x "$f" "$work/root"; done
say speech and codec
OMP_NUM_THREADS=1 nice -n 15 python3 "$here/make_speech.py" --root "$work/root" --text "$corpus/train.txt" \
    --out "$work/speech" --hours "$hours" --workers "$workers" --seconds "${SPEECH_END:-600}" > "$work/speech.log" 2>&1 &
speech=$!
python3 "$here/train_codec.py" --speech "$work/speech" --out "$work/codec.pt" --codes "$work/codes-first.npz" \
    --seconds $((codec_end - 3)) > "$work/codec.log" 2>&1 &
until_second $((codec_end - 100))
say talker, first part
talker --codes "$work/codes-first.npz" --out "$work/talker-first.pt" --until "$work/ready" > "$work/talker-first.log" 2>&1 &
wait $speech
say all speech made
while [ ! -e "$work/codes-first.npz" ]; do sleep 1; done
python3 "$here/encode.py" --speech "$work/speech" --codec "$work/codec.pt" --out "$work/codes.npz" > "$work/encode.log" 2>&1 &
say talker, second part
talker --codes "$work/codes.npz" --resume "$work/talker-first.pt" --ready "$work/ready" --out "$work/talker.pt" \
    > "$work/talker.log" 2>&1
say generate
python3 "$here/generate.py" --talker "$work/talker.pt" --tokens "$corpus" --text "$corpus/heldout.txt" \
    --out "$work/said.npz" --count 100 > "$work/generate.log" 2>&1
say done
