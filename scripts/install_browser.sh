#!/usr/bin/env bash
# A Chromium for the tests of the pages, where none is installed: `install_browser.sh PREFIX`.
# Prints its path. Looks on PATH and in PREFIX, then asks playwright, then, as root, apt-get.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

on_path() {
    local name
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" && return
    done
    return 1
}

# playwright unpacks to PREFIX/chromium-1234/chrome-linux*/chrome.
in_prefix() {
    local file
    for file in "$1"/chromium-*/chrome-*/chrome; do
        [ -x "$file" ] && { printf '%s\n' "$file"; return; }
    done
    return 1
}

by_playwright() {
    local python
    for python in "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" .venv/bin/python python3; do
        [ -n "$python" ] && "$python" -c 'import playwright' 2> /dev/null || continue
        say "Fetching Chromium with playwright ..."
        PLAYWRIGHT_BROWSERS_PATH=$1 "$python" -m playwright install chromium >&2 && return
        break
    done
    return 1
}

by_apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || return 1
    say "Installing Chromium with apt-get ..."
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >&2
}

main() {
    [ $# -eq 1 ] || fail "Usage: install_browser.sh PREFIX"
    on_path && return
    in_prefix "$1" && return
    mkdir -p "$1"
    by_playwright "$(cd "$1" && pwd)" && in_prefix "$1" && return
    by_apt && on_path && return
    fail "There is no Chromium, and none could be installed." \
        "Install it: apt-get install chromium, or: brew install --cask chromium"
}

main "$@"
