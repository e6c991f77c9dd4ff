// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_STORE_DATA_DIR_LOCK_H_
#define BALLAST_SERVER_STORE_DATA_DIR_LOCK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace ballast::server {

// The right of one process to a data folder: an flock on `server.lock` in it, which the system
// drops when the process ends, however it ends.
class DataDirLock {
 public:
  // Makes the folder (private to its user) when missing. FAILED_PRECONDITION (DATA_DIR_IN_USE) when
  // another process has it, or a failure of common/base/file.h.
  static absl::StatusOr<std::unique_ptr<DataDirLock>> Acquire(const std::string& data_dir);
  ~DataDirLock();
  DataDirLock(const DataDirLock&) = delete;
  DataDirLock& operator=(const DataDirLock&) = delete;

 private:
  explicit DataDirLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_STORE_DATA_DIR_LOCK_H_
