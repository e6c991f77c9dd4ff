// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "client/cpp/upload_internal.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::client {

absl::StatusOr<UploadSource> UploadSource::Open(const std::string& path) {
  // Without O_NONBLOCK the opening of a pipe waits for its writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return FileError(errno, "open", path);
  UploadSource source(path, fd);
  struct stat info {};
  if (fstat(fd, &info) != 0) return FileError(errno, "read", path);
  if (!S_ISREG(info.st_mode)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "FILE_NOT_REGULAR",
                     absl::StrCat(path,
                                  " is a pipe, a folder or a device, which an upload cannot go "
                                  "back in to go on after a break; write the rows to a file and "
                                  "upload that"),
                     {{"path", path}});
  }
  source.size_ = static_cast<int64_t>(info.st_size);
  return source;
}

UploadSource::~UploadSource() {
  if (fd_ >= 0) close(fd_);
}

absl::Status UploadSource::Read(int64_t offset, int64_t limit, std::string& bytes) {
  // The offset is the server's.
  if (offset < 0 || offset > size_) return Changed();
  bytes.resize(static_cast<size_t>(std::min(limit, size_ - offset)));
  size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t n = pread(fd_, bytes.data() + have, bytes.size() - have,
                            static_cast<off_t>(offset) + static_cast<off_t>(have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "read", path_);
    if (n == 0) return Changed();
    have += static_cast<size_t>(n);
  }
  if (offset <= hashed_ && offset + static_cast<int64_t>(have) > hashed_) {
    hasher_.Update(std::string_view(bytes).substr(static_cast<size_t>(hashed_ - offset)));
    hashed_ = offset + static_cast<int64_t>(have);
  }
  return absl::OkStatus();
}

absl::Status UploadSource::HashUpTo(int64_t offset) {
  if (offset > size_) return Changed();
  std::string bytes;
  while (hashed_ < offset) {
    BALLAST_RETURN_IF_ERROR(Read(hashed_, std::min<int64_t>(1 << 20, offset - hashed_), bytes));
  }
  return absl::OkStatus();
}

const std::string& UploadSource::Digest() {
  if (digest_.empty()) digest_ = hasher_.Finish();
  return digest_;
}

absl::Status UploadSource::Changed() const {
  return MakeError(absl::StatusCode::kFailedPrecondition, "FILE_CHANGED",
                   absl::StrCat(path_,
                                " is shorter than what was uploaded of it; delete the data "
                                "set and upload the file to a new one"),
                   {{"path", path_}});
}

bool UploadGoesOn(const absl::Status& status) {
  // After a broken connection the server may still hold the old stream, or may have committed more
  // than was known: both pass after asking again.
  const std::string reason = ErrorReason(status);
  return Connection::IsBroken(status) || reason == "UPLOAD_IN_PROGRESS" || reason == "BLOB_BUSY" ||
         reason == "WRITE_OFFSET_MISMATCH";
}

}  // namespace ballast::client
