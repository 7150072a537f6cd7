#!/usr/bin/env bash
# Makes the virtual environment that holds the PyTorch reference of Qwen3-TTS and prints its Python's path.
# Does nothing when the environment is already there and up to date.
#
#   scripts/reference/setup.sh
#
# MARTLET_REFERENCE_VENV   where (default: .venv-reference in the repository root; about 1.6 GB with a CPU-only torch)
# MARTLET_PYTHON           the Python to make it with (default: python3.11)
# Pip's own settings apply: PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL can point it at a CPU-only torch.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${MARTLET_REFERENCE_VENV:-$root/.venv-reference}
python=${MARTLET_PYTHON:-python3.11}
qwen_tts=0.1.1

wanted="qwen-tts==$qwen_tts $(cksum <"$here/requirements.txt")"
stamp=$venv/martlet-reference.stamp
if [[ -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    echo "$venv/bin/python"
    exit 0
fi

command -v "$python" >/dev/null || {
    echo "setup.sh: '$python' not found. The reference needs Python 3.11; name one with MARTLET_PYTHON." >&2
    exit 1
}
free_kib=$(df -Pk "$(dirname "$venv")" | awk 'NR == 2 { print $4 }')
if ((free_kib < 3 * 1024 * 1024)); then
    echo "setup.sh: $((free_kib / 1024)) MiB free at $(dirname "$venv"); at least 3 GiB are needed." \
        "Choose another place with MARTLET_REFERENCE_VENV." >&2
    exit 1
fi

echo "setup.sh: installing the reference into $venv (a few minutes)" >&2
rm -f "$stamp"
"$python" -m venv "$venv" >&2
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet install)
"${pip[@]}" -r "$here/requirements.txt" >&2
# Its other dependencies (gradio, sox, onnxruntime, torchaudio) serve a demo page and the 25 Hz tokenizer.
"${pip[@]}" --no-deps "qwen-tts==$qwen_tts" >&2
(cd "$here" && "$venv/bin/python" -c 'import make_fixture; make_fixture.import_reference(None)') >/dev/null
printf '%s' "$wanted" >"$stamp"
echo "$venv/bin/python"
