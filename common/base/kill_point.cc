// SPDX-License-Identifier: Apache-2.0
#include "common/base/kill_point.h"

#ifdef BALLAST_KILL_POINTS
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#endif

namespace ballast {

#ifdef BALLAST_KILL_POINTS

namespace {

// What BALLAST_KILL_AT says.
struct Wanted {
  Wanted() {
    const char* value = std::getenv("BALLAST_KILL_AT");
    if (value == nullptr) return;
    name = value;
    const size_t colon = name.find(':');
    if (colon == std::string::npos) return;
    int pass = 0;
    if (absl::SimpleAtoi(name.substr(colon + 1), &pass)) passes_left = pass;
    name.resize(colon);
  }
  std::string name;
  std::atomic<int> passes_left = 1;
};

void Log(std::string_view name) {
  const char* path = std::getenv("BALLAST_KILL_LOG");
  if (path == nullptr) return;
  const std::string line = absl::StrCat(std::string(name), "\n");
  const int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  // Nothing can be done where it fails, and the test then misses the line.
  [[maybe_unused]] const ssize_t written = write(file, line.data(), line.size());
  close(file);
}

}  // namespace

void PassKillPoint(std::string_view name) {
  static Wanted& wanted = *new Wanted;
  if (name != wanted.name || wanted.passes_left.fetch_sub(1) != 1) return;
  Log(name);
  kill(getpid(), SIGKILL);
}

#else

void PassKillPoint(std::string_view) {}

#endif

}  // namespace ballast
