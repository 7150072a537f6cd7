#!/bin/bash
# Everything from the text on, one step after the other, on a machine with a GPU and no network.
#
#   train_all.sh WORK CORPUS DEBS [PACKAGES]
#
# WORK: folder for what is made (15 GB). CORPUS: train.txt (or train.txt.gz), heldout.txt, vocab.json, merges.txt. DEBS:
# the Debian packages of the teachers. PACKAGES: pystoi, pesq and what pesq's build asks for, as pip takes them; without
# them the codec is trained unheard. CODEC_SECONDS, TALKER_SECONDS, POLISH_SECONDS: of training, start included. CODEC_FROM:
# an earlier codec.pt to go on from, at CODEC_START of the schedule.
# DEADLINE: seconds from the start at which all must be over; the last step takes what is left. HOURS: of speech a voice.
# A file that is in WORK already is used as it is: codec.pt, codes.npz, talker.pt. WORK/progress.log says which step runs.
set -u
work=$1 corpus=$2 debs=$3 packages=${4:-} here=$(cd "$(dirname "$0")" && pwd)
codec_seconds=${CODEC_SECONDS:-640} talker_seconds=${TALKER_SECONDS:-440} polish_seconds=${POLISH_SECONDS:-0}
deadline=${DEADLINE:-1320} hours=${HOURS:-20.1} workers=${WORKERS:-$(($(nproc) - 2))}
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2 TOKENIZERS_PARALLELISM=false PYTHONPATH=$work/packages
export TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton
mkdir -p "$work/root" "$work/speech" "$work/held" "$work/packages"
begin=$(date +%s)
say() { echo "=== $(($(date +%s) - begin)) s: $*" | tee -a "$work/progress.log"; }
left() { local l=$((deadline - $(date +%s) + begin)); echo $(($1 < l ? $1 : l)); }

trap 'kill $(jobs -p) 2> /dev/null' EXIT
say unpack
cp "$corpus"/train.txt* "$corpus/heldout.txt" "$corpus/vocab.json" "$corpus/merges.txt" "$work/"
[ -e "$work/train.txt" ] || gunzip "$work/train.txt.gz"
for f in "$debs"/*.deb; do dpkg -x "$f" "$work/root"; done
speech() {
    OMP_NUM_THREADS=1 nice -n 10 python3 "$here/make_speech.py" --root "$work/root" --workers "$workers" "$@"
}
speech --text "$work/train.txt" --out "$work/speech" --hours "$hours" > "$work/speech.log" 2>&1 &
making=$!
if [ -n "$packages" ]; then
    # a package that does not install costs figures, not the training
    for f in "$packages"/pystoi* "$packages"/pesq*; do
        PIP_NO_INDEX=1 PIP_FIND_LINKS=$packages \
            python3 -m pip install -q --no-deps --no-build-isolation --target "$work/packages" "$f"
    done > "$work/packages.log" 2>&1 &
fi
[ -e "$work/held/merlin-00000.npz" ] \
    || speech --text "$work/heldout.txt" --out "$work/held" --hours 0.05 > "$work/held.log" 2>&1
# the talker's steps once on the held-out speech, as soon as there is a codec: what fails there is known early, and what
# is compiled for it is kept
(
    until [ -e "$work/codec.pt" ]; do sleep 1; done
    python3 "$here/encode.py" --speech "$work/held" --codec "$work/codec.pt" --out "$work/rehearsal.npz"
    python3 "$here/train_talker.py" --codes "$work/rehearsal.npz" --text "$work/heldout.txt" --tokens "$work" \
        --out "$work/rehearsal.pt" --seconds 300 --max-steps 40 --every 1 --workers 2
    python3 "$here/generate.py" --talker "$work/rehearsal.pt" --tokens "$work" --text "$work/heldout.txt" --count 2 \
        --out "$work/rehearsed.npz"
) > "$work/rehearsal.log" 2>&1 &
if [ ! -e "$work/codec.pt" ]; then
    say codec
    python3 "$here/train_codec.py" --speech "$work/speech" --held "$work/held" --out "$work/codec.pt" \
        ${CODEC_FROM:+--resume "$CODEC_FROM" --start "${CODEC_START:-0.3}"} --codes "$work/codes.npz" \
        --seconds "$(left "$codec_seconds")" > "$work/codec.log" 2>&1 || say "codec failed"
fi
[ -e "$work/codec.pt" ] || exit 1
cp "$work/codec.pt" "$work/codec-before.pt"
if [ ! -e "$work/codes.npz" ]; then
    say codes
    while kill -0 $making 2> /dev/null && [ "$(left 999)" -gt $((talker_seconds + polish_seconds)) ]; do sleep 1; done
    python3 "$here/encode.py" --speech "$work/speech" --codec "$work/codec.pt" --out "$work/codes.npz" \
        > "$work/encode.log" 2>&1 || say "codes failed"
fi
if [ ! -e "$work/talker.pt" ]; then
    say talker
    python3 "$here/train_talker.py" --codes "$work/codes.npz" --text "$work/train.txt" --tokens "$work" \
        --out "$work/talker.pt" --dropout 0.15 --seconds "$(left "$talker_seconds")" > "$work/talker.log" 2>&1 || say "talker failed"
fi
say generate
timeout 40 python3 "$here/generate.py" --talker "$work/talker.pt" --tokens "$work" --text "$work/heldout.txt" \
    --out "$work/said.npz" --count 100 --modes greedy sampled > "$work/generate.log" 2>&1 || say "generate failed"
seconds=$(($(left $((polish_seconds + 20))) - 20))
if [ "$seconds" -ge 60 ]; then
    say "polish, $seconds s"
    python3 "$here/train_codec.py" --speech "$work/speech" --held "$work/held" --out "$work/codec-polished.pt" --hours 25 \
        --resume "$work/codec.pt" --decoder-only --adversary 0 --lr 3e-4 --seconds "$seconds" > "$work/polish.log" 2>&1 \
        || say "polish failed"
fi
say over
