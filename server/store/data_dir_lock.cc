// SPDX-License-Identifier: Apache-2.0
#include "server/store/data_dir_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::server {

absl::StatusOr<std::unique_ptr<DataDirLock>> DataDirLock::Acquire(const std::string& data_dir) {
  BALLAST_RETURN_IF_ERROR(MakeDirectories(data_dir, 0700));
  const std::string path = absl::StrCat(data_dir, "/server.lock");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return FileError(errno, "open", path);
  std::unique_ptr<DataDirLock> lock(new DataDirLock(fd));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError(errno, "lock", path);
    return MakeError(absl::StatusCode::kFailedPrecondition, "DATA_DIR_IN_USE",
                     absl::StrCat("another server uses ", data_dir,
                                  "; stop it, or give this one a data_dir of its own"),
                     {{"data_dir", data_dir}});
  }
  return lock;
}

DataDirLock::~DataDirLock() { close(fd_); }

}  // namespace ballast::server
