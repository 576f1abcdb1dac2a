#!/usr/bin/env bash
# Proves and measures Aurora on this machine's GPU: see README.md.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export AURORA_BIN=${AURORA_BIN:-$here/bin}
# The package is found without an import of torch, which takes seconds.
export AURORA_LIBTORCH=${AURORA_LIBTORCH:-$(python3 -c \
  'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')}
# `aurora` sets this for its workers; the other programs need it from here.
export LD_LIBRARY_PATH=$AURORA_LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec python3 "$here/device.py" "$@"
