# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the scripts share: where things are, how they talk, how a step is timed. Sourced, never run.

# shellcheck disable=SC2034 # used by the scripts that source this
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# What is slow to make and the same for every clone: the Python venv, the Rust crates, tools built from source.
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/ballast
export BALLAST_CARGO_TARGET_DIR=${BALLAST_CARGO_TARGET_DIR:-$CACHE/cargo-target}
export PATH=$CACHE/bin:$HOME/.cargo/bin:$PATH

say() { printf '%s\n' "$*"; }

# die <what went wrong> <what to do>
die() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

# Prints the comment block under the shebang and the licence line of the calling script: its help.
usage() {
  awk 'NR <= 2 { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$0"
}

# begin <title>, then end: a titled step with its wall time. Steps don't nest.
begin() {
  STEP_TITLE=$1
  STEP_STARTED=$SECONDS
  printf '\n== %s\n' "$STEP_TITLE"
}
end() {
  printf -- '-- %s: %d s\n' "$STEP_TITLE" $((SECONDS - STEP_STARTED))
}

# version_at_least <have> <want>: dotted numbers.
version_at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}
