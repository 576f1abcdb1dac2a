#!/usr/bin/env bash
# Proves and measures Aurora on this machine's GPU: see README.md.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export AURORA_BIN=${AURORA_BIN:-$here/bin}
if [ -z "${AURORA_LIBTORCH:-}" ]; then
  # Found without an import of torch, which takes seconds.
  AURORA_LIBTORCH=$(python3 -c 'from importlib import util; print(util.find_spec("torch").submodule_search_locations[0])') || {
    echo "error: python3 has no package torch" >&2
    echo "  = help: set AURORA_LIBTORCH to a libtorch folder" >&2
    exit 1
  }
fi
export AURORA_LIBTORCH
# `aurora` sets this for its workers; the other programs need it from here.
export LD_LIBRARY_PATH=$AURORA_LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec python3 "$here/device.py" "$@"
