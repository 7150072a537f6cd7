#!/usr/bin/env bash
# Milliseconds per frame (80 ms of audio) of Martlet beside the PyTorch float32 reference, in one run on this machine.
#
#   scripts/bench-against-reference.sh [0.6b|1.7b|tiny] [--frames N] [--keep]
#
# --frames N  frames the reference is timed over (default 16)
# --keep      keep the checkpoint (2.5 or 4.6 GB) when this run made it
#
# MARTLET_PARITY_DIR   where checkpoints lie (default: /tmp/martlet-parity); one that is there is used as it is
# MARTLET_BIN          the martlet to time (default: a release build of this repository)
# MARTLET_THREADS      threads of the reference (default: the machine's processors)
set -euo pipefail

usage() {
    sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

preset=0.6b frames=16 keep=false
while (($#)); do
    case $1 in
        0.6b | 1.7b | tiny) preset=$1 ;;
        --frames) frames=${2:?--frames needs a number} && shift ;;
        --keep) keep=true ;;
        *) usage ;;
    esac
    shift
done
# The difference of two lengths is timed, so one frame is not enough.
[[ $frames =~ ^[0-9]+$ ]] && ((frames >= 4)) || usage

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${MARTLET_PARITY_DIR:-/tmp/martlet-parity}
model=$cache/$preset-custom_voice-11
threads=${MARTLET_THREADS:-$(getconf _NPROCESSORS_ONLN)}
python=$("$root/scripts/reference/setup.sh")
fixture=("$python" "$root/scripts/reference/make_fixture.py")
mkdir -p "$cache"

results=$(mktemp -d)
made=false
cleanup() {
    rm -rf "$results" "$model.partial"
    if $made && ! $keep; then rm -rf "$model"; fi
}
trap cleanup EXIT

if [[ ! -f $model/speech_tokenizer/model.safetensors ]]; then
    echo "bench-against-reference.sh: making $model" >&2
    rm -rf "$model" "$model.partial"
    "${fixture[@]}" build --preset "$preset" --seed 11 --no-plant-eos --out "$model.partial" >&2
    mv "$model.partial" "$model"
    made=true
fi
if [[ -n ${MARTLET_BIN:-} ]]; then
    martlet=$MARTLET_BIN
else
    (cd "$root" && swift build -c release --product martlet >&2)
    martlet=$(cd "$root" && swift build -c release --show-bin-path)/martlet
fi

load=$(uptime | sed 's/.*load average[s]*: *\([0-9.]*\).*/\1/')
if awk -v l="$load" 'BEGIN { exit !(l > 0.5) }'; then
    echo "bench-against-reference.sh: warning: the load average is $load; other work makes these figures worthless" >&2
fi
echo "bench-against-reference.sh: timing the reference, $threads threads" >&2
"${fixture[@]}" time --model "$model" --frames "$frames" --threads "$threads" | tail -n 1 >"$results/reference.json"
columns=("reference=$results/reference.json")
for weights in bf16 q8 q4; do
    echo "bench-against-reference.sh: timing martlet, $weights" >&2
    "$martlet" bench --model "$model" --weights "$weights" --json >"$results/$weights.json"
    columns+=("$weights=$results/$weights.json")
done
"$python" "$root/scripts/reference/bench_table.py" --title "$preset, $(uname -m), $(date -u +%F)" "${columns[@]}"
