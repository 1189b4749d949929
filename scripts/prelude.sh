# Read by every script here: stops at the first error, goes to the project's root, speaks in one voice.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
started_s=$SECONDS

say() { printf '[%3ds] %s\n' "$((SECONDS - started_s))" "$*" >&2; }

# One error: operation, object, cause, what to do.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# What a root process of ours inherits from the person who started it: settings of ours, of indexes and registries, of
# proxies and certificates. Nothing else crosses sudo.
inherited=(
    "${!SQUALL_@}" "${!PIP_@}" "${!UV_@}" http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE REGISTRY_AUTH_FILE NO_COLOR TERM COLUMNS CI
    PYTHONDONTWRITEBYTECODE
)

# as_root COMMAND...: run it as root, through sudo where we are not; the caller has checked with need_root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        local names
        names=$(IFS=,; printf '%s' "${inherited[*]}")
        sudo "--preserve-env=${names//,,/,}" -- "$@"
    fi
}

# need_root WHAT: stop with a clear message unless root can be had; asks for the sudo password here or not at all.
need_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null ||
        die "cannot $1: you are not root and there is no sudo; run this as root, or install sudo and add yourself to it"
    ! sudo -n true 2>/dev/null || return 0
    [ -t 0 ] ||
        die "cannot $1: sudo asks for a password and there is no terminal; run this as root, or allow sudo without one"
    sudo -v || die "cannot $1: sudo refused; run this as root"
}
