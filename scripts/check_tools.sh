#!/usr/bin/env bash
# Says what set-up will lack, with the command that installs it, before any work.
set -euo pipefail
python=${1:-python3}
missing=0

need() { # need WORKS NAME INSTALL
    if ! eval "$1" >/dev/null 2>&1; then
        echo "missing: $2. Install: $3" >&2
        missing=1
    fi
}

need "'$python' -c 'import sys; assert sys.version_info >= (3, 11)'" \
    "Python 3.11 or newer" "apt-get install python3"
need "'$python' -c 'import venv, ensurepip'" "Python's venv" "apt-get install python3-venv"
need "command -v c++ || command -v g++ || command -v clang++" "a C++ compiler" "apt-get install g++"
need "command -v cmake" "CMake" "apt-get install cmake"
if [ "${2:-}" = test ] && ! command -v ollama >/dev/null; then
    need "go version" "Go 1.26 or newer, to build Ollama for the tests" \
        "https://go.dev/dl, or Ollama itself: https://ollama.com/download"
fi
exit "$missing"
