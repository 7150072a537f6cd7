#!/usr/bin/env bash
# Checks the CUDA back end on cuda:0 and measures it with made-up weights: the tables of docs/cuda.md, and variants of the
# persistent kernels beside them. Takes one to two minutes on an H100.
#
#   scripts/cuda-measure.sh OUTPUT FOLDER…
#
# OUTPUT  folder for the logs
# FOLDER  model folders whose configuration files give the sizes; variants are measured with the first
#
# MARTLET_BIN    the martlet to measure (default: a release build of this repository)
# MARTLET_NVRTC  where NVRTC is, if the system does not know
set -uo pipefail

if (($# < 2)); then
    sed -n '2,/^set -uo/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
martlet=${MARTLET_BIN:-$root/.build/release/martlet}
output=$1
shift
mkdir -p "$output"
fixtures=$root/Tests/Fixtures
variants=(MK_RING=3 MK_RING=4)

# Kernels of all variants are compiled side by side, each by a run that also checks it.
timeout 90 "$martlet" selftest "$fixtures/tiny-custom-voice" --frames 8 >"$output/selftest" 2>&1 &
for variant in "${variants[@]}"; do
    MARTLET_KERNEL_DEFINES=$variant timeout 90 "$martlet" selftest "$fixtures/tiny-custom-voice" --frames 3 \
        >"$output/selftest-$variant" 2>&1 &
done
wait
timeout 60 "$martlet" selftest "$fixtures/tiny-base" --frames 8 >"$output/selftest-base" 2>&1
for log in "$output"/selftest*; do
    echo "$(basename "$log"): $(tail -n 1 "$log")"
    grep FAIL "$log" | head -n 5
done

for folder; do
    echo "== $folder"
    timeout 60 "$martlet" bench --device cuda:0 --sessions 1,2,8,16,64 --model "$folder" 2>&1 |
        tee "$output/bench-$(basename "$folder")"
done
for variant in "${variants[@]}"; do
    echo "== $variant"
    MARTLET_KERNEL_DEFINES=$variant timeout 40 "$martlet" bench --device cuda:0 --sessions 1,8 --model "$1" 2>&1 |
        tee "$output/bench-$variant" | grep -E '^(talker step|predictor frame|whole frame)'
done
