#!/bin/bash
# All steps from the text on, overlapped: speech is made on the CPU cores while the codec already trains on what there
# is; the talker compiles while the codec's last seconds run.
#
#   train_all.sh WORK CORPUS DEBS
#
# WORK: folder for everything that is made (30 GB). CORPUS: train.txt, heldout.txt, vocab.json, merges.txt. DEBS: the
# Debian packages of the speech programs. CODEC_SECONDS, TALKER_SECONDS, HOURS, WORKERS: see below. A step whose result
# exists in WORK is skipped.
set -u
work=$1 corpus=$2 debs=$3 here=$(dirname "$0")
codec_seconds=${CODEC_SECONDS:-430} talker_seconds=${TALKER_SECONDS:-560} hours=${HOURS:-30}
workers=${WORKERS:-$(($(nproc) - 2))}
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=4 TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton
mkdir -p "$work/root"
begin=$(date +%s)
say() { echo "=== $(($(date +%s) - begin)) s: $*"; }

say unpack
for f in "$debs"/*.deb; do dpkg -x "$f" "$work/root"; done
if [ ! -e "$work/codes.npz" ]; then
    say speech and codec
    OMP_NUM_THREADS=1 nice -n 15 python3 "$here/make_speech.py" --root "$work/root" --text "$corpus/train.txt" \
        --out "$work/speech" --hours "$hours" --workers "$workers" --seconds $((codec_seconds - 105)) \
        > "$work/speech.log" 2>&1 &
    resume=()
    [ -e "$work/codec.pt" ] && resume=(--resume "$work/codec.pt" --start "${CODEC_START:-0.5}")
    python3 "$here/train_codec.py" --speech "$work/speech" --out "$work/codec.pt" --codes "$work/codes.npz" \
        --seconds "$codec_seconds" "${resume[@]}" > "$work/codec.log" 2>&1 &
    for ((i = 0; i < codec_seconds - 75; i++)); do
        [ -e "$work/codes.npz" ] && break
        sleep 1
    done
fi
say talker
resume=()
[ -e "$work/talker.pt" ] && resume=(--resume "$work/talker.pt" --start "${TALKER_START:-0.5}")
python3 "$here/train_talker.py" --speech "$work/speech" --codes "$work/codes.npz" --text "$corpus/train.txt" \
    --tokens "$corpus" --out "$work/talker.pt" --seconds "$talker_seconds" "${resume[@]}" > "$work/talker.log" 2>&1
say generate
python3 "$here/generate.py" --talker "$work/talker.pt" --tokens "$corpus" --text "$corpus/heldout.txt" \
    --out "$work/said.npz" > "$work/generate.log" 2>&1
say done
wait
