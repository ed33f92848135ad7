#!/usr/bin/env bash
# Ollama from source, for machines without it: `install_ollama.sh PREFIX [SITE_PACKAGES]`.
# Prints the path of a good enough `ollama`. SITE_PACKAGES is where llama-cpp-python put the llama.cpp
# programs (bin/, lib/); by default the one of $VIRTUAL_ENV, ./.venv or python3.
set -euo pipefail

version=0.34.1
go_needed=1.26
llama_wait_s=1200

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Without a server, `ollama --version` still names its own version: "client version is 0.34.1".
version_of() {
    OLLAMA_HOST=127.0.0.1:9 "$1" --version 2>&1 \
        | sed -nE 's/.*version is v?([0-9]+(\.[0-9]+)+).*/\1/p' | tail -n 1
}

site_packages() {
    local python
    for python in "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" .venv/bin/python python3; do
        if [ -n "$python" ] && command -v "$python" > /dev/null; then
            "$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))'
            return
        fi
    done
    fail "There is no Python environment here. Make it first: make setup"
}

# Waits for a build of llama-cpp-python that is still going on elsewhere.
wait_for_llama_server() {
    local waited=0
    until [ -x "$1/bin/llama-server" ] && compgen -G "$1/lib/libllama.so*" > /dev/null; do
        [ "$waited" -gt 0 ] || say "Waiting for $1/bin/llama-server ..."
        [ "$waited" -lt "$llama_wait_s" ] || fail \
            "No llama-server in $1/bin." "Build it with llama-cpp-python: make setup"
        sleep 5
        waited=$((waited + 5))
    done
}

build() {
    local have
    command -v go > /dev/null || fail "Building Ollama needs Go $go_needed or newer; there is none." \
        "Install it from https://go.dev/dl, or install Ollama itself from https://ollama.com/download."
    have=$(go env GOVERSION | sed 's/^go//')
    at_least "$have" "$go_needed" || fail "Building Ollama needs Go $go_needed or newer; here is $have." \
        "Install it from https://go.dev/dl, or install Ollama itself from https://ollama.com/download."
    say "Building Ollama $version (about a minute) ..."
    GOBIN=$prefix/bin go install \
        -ldflags "-X=github.com/ollama/ollama/version.Version=$version" \
        "github.com/ollama/ollama@v$version" >&2
}

# Ollama starts lib/ollama/llama-server, seen from its own bin/.
link_llama_server() {
    local file
    mkdir -p "$prefix/lib/ollama"
    for file in "$1/bin/llama-server" "$1/bin/llama-quantize" "$1"/lib/lib*.so*; do
        ln -sfn "$file" "$prefix/lib/ollama/"
    done
}

main() {
    if command -v ollama > /dev/null && at_least "$(version_of ollama)" "$version"; then
        command -v ollama
        return
    fi
    [ $# -ge 1 ] || fail "Usage: install_ollama.sh PREFIX [SITE_PACKAGES]"
    mkdir -p "$1"
    prefix=$(cd "$1" && pwd)
    local packages
    packages=$(cd "${2:-$(site_packages)}" && pwd)
    if [ ! -x "$prefix/bin/ollama" ] || [ "$(version_of "$prefix/bin/ollama")" != "$version" ]; then
        build
    fi
    wait_for_llama_server "$packages"
    link_llama_server "$packages"
    printf '%s\n' "$prefix/bin/ollama"
}

main "$@"
