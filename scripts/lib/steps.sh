# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Named steps of scripts/test and scripts/nightly: each leaves its status and time in a table, and its tests in
# JUnit files, from which the closing count is made. Sourced after common.sh.

# Tests that train spin all cores: what isn't a unit test runs alone, and unit tests wait politely.
export OMP_WAIT_POLICY=PASSIVE
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
export LSAN_OPTIONS=suppressions=$ROOT/tests/sanitizers/lsan.supp:print_suppressions=0
export TSAN_OPTIONS=suppressions=$ROOT/tests/sanitizers/tsan.supp:ignore_noninstrumented_modules=1:history_size=4
export UBSAN_OPTIONS=print_stacktrace=1

# start_steps <results folder>: empties it.
start_steps() {
  RESULTS=$1
  rm -rf "$RESULTS"
  mkdir -p "$RESULTS"
  : >"$RESULTS/steps.tsv"
}

# step <name> <command...>: runs it, whatever the steps before said. Where it runs tests, it writes their results
# to $RESULTS/<name>.xml. The status is the command's.
step() {
  local name=$1 started=$SECONDS status=0
  shift
  printf '\n=== %s\n' "$name"
  "$@" || status=$?
  printf '%s\t%d\t%d\n' "$name" "$status" $((SECONDS - started)) >>"$RESULTS/steps.tsv"
  [ "$status" -eq 0 ] || printf '=== %s FAILED (status %d)\n' "$name" "$status"
  return "$status"
}

# needs <step> <name> <command...>: step <name>, but only where the earlier step went well; else it counts as failed.
needs() {
  local before=$1 name=$2
  shift
  if grep -qP "^\Q$before\E\t0\t" "$RESULTS/steps.tsv"; then
    step "$@"
  else
    printf '\n=== %s not run: %s failed\n' "$name" "$before"
    printf '%s\t%d\t0\n' "$name" 125 >>"$RESULTS/steps.tsv"
    return 125
  fi
}

# build_preset <preset> [target]
build_preset() {
  local preset=$1 target=${2:-all}
  (cd "$ROOT" && cmake --preset "$preset" >"$RESULTS/configure-$preset.log" 2>&1) ||
    { tail -n 40 "$RESULTS/configure-$preset.log" && return 1; }
  cmake --build "$ROOT/build/$preset" --target "$target" -- -k 20 >"$RESULTS/build-$preset.log" 2>&1 ||
    { grep -E -A 12 '^FAILED|error' "$RESULTS/build-$preset.log" | head -n 120 && return 1; }
  tail -n 1 "$RESULTS/build-$preset.log"
}

# run_ctest <results name> <preset> <ctest options...>: no test found is a failure.
run_ctest() {
  local name=$1 preset=$2
  shift 2
  (cd "$ROOT" && ctest --preset "$preset" --no-tests=error --output-on-failure \
    --output-junit "$RESULTS/$name.xml" "$@" >"$RESULTS/$name.log" 2>&1)
  local status=$?
  if [ "$status" -ne 0 ]; then tail -n 200 "$RESULTS/$name.log"; else grep -E 'tests passed|Total Test time' "$RESULTS/$name.log"; fi
  return "$status"
}

# The closing count and the exit status of the whole.
finish_steps() {
  "$ROOT/.venv/bin/python" "$ROOT/scripts/lib/count_results.py" "$RESULTS"
}
