#!/usr/bin/env bash
# Compares Martlet with the PyTorch reference, stage by stage, on a random checkpoint. Exits 1 on a miss.
#
#   scripts/parity.sh PRESET MODE SEED [--frames N] [--keep]
#
# PRESET  tiny | tiny-0.6b | 0.6b | 1.7b       MODE  custom_voice | base | voice_design       SEED  a whole number
# --frames N  frames per case (default: 16 for the tiny presets, 4 for the released sizes)
# --keep      keep a checkpoint of a released size (2.5 or 4.6 GB) that this run made
#
# MARTLET_PARITY_DIR   where checkpoints lie (default: /tmp/martlet-parity); one that is there is used as it is
# MARTLET_BIN          the martlet to test (default: a release build of this repository)
# MARTLET_THREADS      threads of the reference (default: 2)
set -euo pipefail

usage() {
    sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

keep=false frames='' words=()
while (($#)); do
    case $1 in
        --keep) keep=true ;;
        --frames) frames=${2:?--frames needs a number} && shift ;;
        -*) usage ;;
        *) words+=("$1") ;;
    esac
    shift
done
((${#words[@]} == 3)) || usage
preset=${words[0]} mode=${words[1]} seed=${words[2]}
case $preset in
    tiny | tiny-0.6b) big=false frames=${frames:-16} need_gib=1 ;;
    0.6b) big=true frames=${frames:-4} need_gib=4 ;;
    1.7b) big=true frames=${frames:-4} need_gib=7 ;;
    *) usage ;;
esac
[[ $mode =~ ^(custom_voice|base|voice_design)$ && $seed =~ ^[0-9]+$ && $frames =~ ^[1-9][0-9]*$ ]] || usage

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${MARTLET_PARITY_DIR:-/tmp/martlet-parity}
model=$cache/$preset-$mode-$seed
python=$("$root/scripts/reference/setup.sh")
fixture=("$python" "$root/scripts/reference/make_fixture.py")
threads=${MARTLET_THREADS:-2}
mkdir -p "$cache"

report=$(mktemp)
made=false
cleanup() {
    rm -rf "$report" "$model.partial"
    if $made && $big && ! $keep; then rm -rf "$model"; fi
}
trap cleanup EXIT

if [[ ! -f $model/golden/golden.json ]]; then
    free_gib=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1048576) }')
    if ((free_gib < need_gib)); then
        echo "parity.sh: $free_gib GiB free at $cache, $need_gib GiB needed; set MARTLET_PARITY_DIR." >&2
        exit 1
    fi
    echo "parity.sh: making $model with the reference ($frames frames per case)" >&2
    rm -rf "$model.partial"
    "${fixture[@]}" build --preset "$preset" --mode "$mode" --seed "$seed" --threads "$threads" \
        --out "$model.partial" >&2
    "${fixture[@]}" golden --model "$model.partial" --frames "$frames" --threads "$threads" >&2
    rm -rf "$model"
    mv "$model.partial" "$model"
    made=true
fi

if [[ -n ${MARTLET_BIN:-} ]]; then
    martlet=$MARTLET_BIN
else
    (cd "$root" && swift build -c release --product martlet >&2)
    martlet=$(cd "$root" && swift build -c release --show-bin-path)/martlet
fi

status=0
"$martlet" parity "$model" --json >"$report" || status=$?
if [[ ! -s $report ]]; then
    echo "parity.sh: '$martlet parity $model --json' gave no report (exit status $status)" >&2
    exit 1
fi
"$python" "$root/scripts/reference/parity_table.py" "$report" --title "$preset $mode, seed $seed" || status=$?
((status == 0)) || { echo "parity.sh: $preset $mode seed $seed does NOT agree with the reference" >&2; exit 1; }
