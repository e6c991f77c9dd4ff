// SPDX-License-Identifier: Apache-2.0
// What the two ways of downloading a delta share: through the server, and by links.
#ifndef BALLAST_CLIENT_CPP_DOWNLOAD_INTERNAL_H_
#define BALLAST_CLIENT_CPP_DOWNLOAD_INTERNAL_H_

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/v1/delta_service.grpc.pb.h"
#include "client/cpp/connection.h"
#include "client/cpp/link_client.h"
#include "common/base/digest.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::client {

// A file that grows as "<path>.part", with the digest of what it has.
class PartFile {
 public:
  // Opens what an earlier run left, if it is not longer than `size_bytes`, or begins anew.
  static absl::StatusOr<PartFile> Open(const std::string& path, int64_t size_bytes) {
    PartFile file(path);
    file.fd_ = open(file.part_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file.fd_ < 0) return FileError(errno, "open", file.part_path_);
    BALLAST_ASSIGN_OR_RETURN(const int64_t have, FileSize(file.part_path_));
    if (have > size_bytes) {
      BALLAST_RETURN_IF_ERROR(file.Restart());
      return file;
    }
    BALLAST_RETURN_IF_ERROR(ForEachChunk(file.part_path_, 1 << 20, [&](std::string_view bytes) {
      file.hasher_.Update(bytes);
      return true;
    }));
    file.bytes_ = have;
    file.resumed_ = have > 0;
    return file;
  }
  PartFile(PartFile&& other) noexcept
      : path_(std::move(other.path_)),
        part_path_(std::move(other.part_path_)),
        fd_(std::exchange(other.fd_, -1)),
        hasher_(std::move(other.hasher_)),
        bytes_(other.bytes_),
        resumed_(other.resumed_) {}
  PartFile& operator=(PartFile&&) = delete;
  ~PartFile() {
    if (fd_ >= 0) close(fd_);
  }

  int64_t bytes() const { return bytes_; }
  // Whether some bytes come from an earlier run.
  bool resumed() const { return resumed_; }

  absl::Status Append(std::string_view bytes) {
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = pwrite(fd_, bytes.data() + done, bytes.size() - done,
                               static_cast<off_t>(bytes_) + static_cast<off_t>(done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FileError(errno, "write", part_path_);
      done += static_cast<size_t>(n);
    }
    hasher_.Update(bytes);
    bytes_ += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  }

  absl::Status Restart() {
    if (ftruncate(fd_, 0) != 0) return FileError(errno, "truncate", part_path_);
    hasher_ = Sha256();
    bytes_ = 0;
    resumed_ = false;
    return absl::OkStatus();
  }

  // Of all bytes. Requires: called once between restarts.
  std::string Digest() { return hasher_.Finish(); }

  // Makes the bytes durable under their own name.
  absl::Status Commit() {
    if (fsync(fd_) != 0) return FileError(errno, "sync", part_path_);
    if (std::rename(part_path_.c_str(), path_.c_str()) != 0) {
      return FileError(errno, "rename", part_path_);
    }
    return SyncDirectory(std::filesystem::path(path_).parent_path().string());
  }

  absl::Status Discard() {
    if (unlink(part_path_.c_str()) != 0) return FileError(errno, "remove", part_path_);
    return absl::OkStatus();
  }

 private:
  explicit PartFile(const std::string& path) : path_(path), part_path_(path + ".part") {}

  std::string path_;
  std::string part_path_;
  int fd_ = -1;
  Sha256 hasher_;
  int64_t bytes_ = 0;
  bool resumed_ = false;
};

// How fetching by links has ended.
struct LinkFetch {
  absl::Status status;
  // The rest is to come through the server. OK then where there are no links; else why they did not
  // do.
  bool through_server = false;
};

// Reads [part.bytes(), end) into `part`. `progress` is told the bytes that `part` has.
LinkFetch FetchByLinks(const Connection& connection, v1::DeltaService::StubInterface& stub,
                       LinkClient& client, const std::string& name, const v1::DeltaFile& file,
                       PartFile& part, const std::function<void(int64_t)>& progress);

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_DOWNLOAD_INTERNAL_H_
