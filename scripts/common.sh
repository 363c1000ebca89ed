# shellcheck shell=bash
# Sourced by the scripts beside it: where the project is, how to become root, how to speak and to give up.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH="$root/node_modules/.bin:$PATH:/usr/sbin:/sbin"

say() { printf '%s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# fail WHAT [COMMAND...]: says what is wrong, and the commands that the person must run, then gives up.
fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    if (($#)); then
        printf 'Run this, then try again:\n' >&2
        printf '    %s\n' "$@" >&2
    fi
    exit 1
}

# Root, or somebody whom sudo can ask for a password, or need not.
may_be_root() { ((EUID == 0)) || { have sudo && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; }; }

# as_root WHAT COMMAND...: runs the command as root; who cannot become root is told what to run.
as_root() {
    local what=$1
    shift
    may_be_root || fail "$what needs root, and sudo is not available here." "$*    # as root"
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}
