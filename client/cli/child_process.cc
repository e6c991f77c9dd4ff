// SPDX-License-Identifier: Apache-2.0
#include "client/cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::cli {
namespace {

// What runs between fork and exec: calls that are safe after fork, nothing else. Writes errno to
// `report` when exec fails.
[[noreturn]] void RunChild(const char* program, char* const* arguments, int log, int report,
                           pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() == parent) {  // otherwise the parent died before prctl
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    const int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv(program, arguments);
  }
  const int error = errno;
  (void)!write(report, &error, sizeof(error));
  _exit(127);
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const std::string& program,
                                                 const std::vector<std::string>& arguments,
                                                 const std::string& log_path) {
  const int log = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) return FileError(errno, "open", log_path);
  ChildProcess child;
  child.log_path_ = log_path;
  child.log_start_ = lseek(log, 0, SEEK_END);
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) {
    close(log);
    return FileError(errno, "make a pipe for", program);
  }
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) RunChild(program.c_str(), argv.data(), log, report[1], parent);
  const int fork_error = errno;
  close(log);
  close(report[1]);
  int error = pid < 0 ? fork_error : 0;
  if (pid >= 0 && read(report[0], &error, sizeof(error)) > 0) waitpid(pid, nullptr, 0);
  close(report[0]);
  if (error != 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "PROGRAM_NOT_STARTED",
                     absl::StrCat("cannot start ", program, ": ", std::strerror(error)),
                     {{"program", program}});
  }
  child.pid_ = pid;
  child.ended_ = false;
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept { *this = std::move(other); }

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this == &other) return *this;
  Stop(absl::Seconds(5));
  pid_ = std::exchange(other.pid_, -1);
  ended_ = std::exchange(other.ended_, true);
  wait_status_ = other.wait_status_;
  log_path_ = std::move(other.log_path_);
  log_start_ = other.log_start_;
  return *this;
}

ChildProcess::~ChildProcess() { Stop(absl::Seconds(5)); }

bool ChildProcess::Running() {
  if (ended_) return false;
  const pid_t result = waitpid(pid_, &wait_status_, WNOHANG);
  if (result == pid_ || (result < 0 && errno == ECHILD)) ended_ = true;
  return !ended_;
}

std::string ChildProcess::Ending() const {
  if (WIFSIGNALED(wait_status_)) {
    return absl::StrCat("killed by signal ", WTERMSIG(wait_status_), " (",
                        strsignal(WTERMSIG(wait_status_)), ")");
  }
  return absl::StrCat("exit code ", WEXITSTATUS(wait_status_));
}

void ChildProcess::Stop(absl::Duration patience) {
  if (!Running()) return;
  kill(pid_, SIGTERM);
  const absl::Time end = absl::Now() + patience;
  while (Running() && absl::Now() < end) absl::SleepFor(absl::Milliseconds(20));
  Kill();
}

void ChildProcess::Kill() {
  if (!Running()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, &wait_status_, 0);
  ended_ = true;
}

std::string ChildProcess::LogTail(size_t lines) const {
  const auto bytes = ReadFile(log_path_);
  if (!bytes.ok() || static_cast<size_t>(log_start_) >= bytes->size()) return "";
  std::vector<std::string> all =
      absl::StrSplit(bytes->substr(static_cast<size_t>(log_start_)), '\n', absl::SkipEmpty());
  if (all.size() > lines) all.erase(all.begin(), all.end() - static_cast<std::ptrdiff_t>(lines));
  return absl::StrJoin(all, "\n");
}

}  // namespace ballast::cli
