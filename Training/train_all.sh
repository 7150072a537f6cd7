#!/bin/bash
# The steps from the text on, overlapped: speech is made on the CPU cores while codec and talker train on what there is.
#
#   train_all.sh WORK CORPUS DEBS
#
# WORK: folder for everything that is made (30 GB). CORPUS: train.txt, heldout.txt, vocab.json, merges.txt. DEBS: the
# Debian packages of the speech programs. CODEC_SECONDS, TALKER_SECONDS: how long each trains. HOURS: of speech a voice.
# A codec.pt that is in WORK already is used as it is. Every step also runs by itself, see README.md.
set -u
work=$1 corpus=$2 debs=$3 here=$(dirname "$0")
codec_seconds=${CODEC_SECONDS:-540} talker_seconds=${TALKER_SECONDS:-540} hours=${HOURS:-20.1}
workers=${WORKERS:-$(($(nproc) - 1))}
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2 TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton
mkdir -p "$work/root" "$work/speech"
begin=$(date +%s)
say() { echo "=== $(($(date +%s) - begin)) s: $*"; }

say unpack
for f in "$debs"/*.deb; do dpkg -x "$f" "$work/root"; done
OMP_NUM_THREADS=1 nice -n 15 python3 "$here/make_speech.py" --root "$work/root" --text "$corpus/train.txt" \
    --out "$work/speech" --hours "$hours" --workers "$workers" > "$work/speech.log" 2>&1 &
if [ ! -e "$work/codec.pt" ]; then
    say codec
    python3 "$here/train_codec.py" --speech "$work/speech" --out "$work/codec.pt" --seconds "$codec_seconds" \
        > "$work/codec.log" 2>&1 || exit 1
fi
say talker
python3 "$here/train_talker.py" --speech "$work/speech" --codec "$work/codec.pt" --text "$corpus/train.txt" \
    --tokens "$corpus" --out "$work/talker.pt" --seconds "$talker_seconds" > "$work/talker.log" 2>&1 || exit 1
say generate
python3 "$here/generate.py" --talker "$work/talker.pt" --tokens "$corpus" --text "$corpus/heldout.txt" \
    --out "$work/said.npz" --count 100 > "$work/generate.log" 2>&1
say done
kill %1 2> /dev/null
