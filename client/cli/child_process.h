// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CLI_CHILD_PROCESS_H_
#define BALLAST_CLIENT_CLI_CHILD_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ballast::cli {

// A program that runs beside this one, in a process group of its own (so that Ctrl-C on the
// terminal does not reach it), with its output appended to a log file. The kernel sends it SIGTERM
// when this process dies. Stopped when destroyed. Not thread-safe; start from the main thread.
class ChildProcess {
 public:
  // Starts `program` (a path). FAILED_PRECONDITION (PROGRAM_NOT_STARTED), or the error of opening
  // the log.
  static absl::StatusOr<ChildProcess> Start(const std::string& program,
                                            const std::vector<std::string>& arguments,
                                            const std::string& log_path);
  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  // True while it runs. Once false, Ending() says how it ended.
  bool Running();
  // "exit code 2" or "killed by signal 9 (Killed)".
  std::string Ending() const;

  // SIGTERM, and SIGKILL after `patience`. Returns once it has ended. Idempotent.
  void Stop(absl::Duration patience);
  void Kill();

  pid_t pid() const { return pid_; }
  const std::string& log_path() const { return log_path_; }
  // The last `lines` lines of what it has logged since it was started.
  std::string LogTail(size_t lines) const;

 private:
  pid_t pid_ = -1;
  bool ended_ = true;
  int wait_status_ = 0;
  std::string log_path_;
  off_t log_start_ = 0;
};

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_CHILD_PROCESS_H_
