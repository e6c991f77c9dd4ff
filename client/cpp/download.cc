// SPDX-License-Identifier: Apache-2.0
// Client::DownloadDelta: the files of a delta, by range, checked against the manifest.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::client {
namespace {

// A path that stays inside the folder and is not the name of a part file.
absl::Status CheckPath(const std::string& path) {
  if (artifact::IsSafePath(path) && !absl::EndsWith(path, ".part")) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "DELTA_PATH_INVALID",
                   absl::StrCat("the server names a file '", path,
                                "' that would not lie in the folder; nothing was written for it. "
                                "Tell the operator"),
                   {{"path", path}});
}

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

// Reads [part.bytes(), end) into `part` until the file is whole, over as many streams as it takes.
absl::Status Fetch(const Connection& connection, v1::DeltaService::StubInterface& stub,
                   const std::string& name, const v1::DeltaFile& file, PartFile& part,
                   const std::function<void(int64_t)>& progress) {
  const RetryPolicy& retry = connection.options().retry;
  int attempt = 1;
  while (part.bytes() < file.size_bytes()) {
    grpc::ClientContext context;
    connection.Prepare(context, connection.options().stream_deadline);
    v1::ReadDeltaRequest request;
    request.set_name(name);
    request.set_path(file.path());
    request.set_read_offset(part.bytes());
    auto reader = stub.ReadDelta(&context, request);
    v1::ReadDeltaResponse response;
    bool any = false;
    while (reader->Read(&response)) {
      absl::Status local = absl::OkStatus();
      if (part.bytes() + static_cast<int64_t>(response.data().size()) > file.size_bytes()) {
        local = MakeError(absl::StatusCode::kDataLoss, "DELTA_FILE_TOO_LONG",
                          absl::StrCat("the server sends more bytes of ", file.path(),
                                       " than its manifest says; tell the operator"),
                          {{"path", file.path()}});
      } else {
        local = part.Append(response.data());
      }
      if (!local.ok()) {
        context.TryCancel();
        reader->Finish();
        return local;
      }
      any = any || !response.data().empty();
      if (progress) progress(part.bytes());
    }
    absl::Status status = connection.Convert(reader->Finish());
    if (part.bytes() == file.size_bytes()) return absl::OkStatus();
    if (status.ok()) {
      status = MakeError(absl::StatusCode::kUnavailable, "DELTA_FILE_SHORT",
                         absl::StrCat("the server ended ", file.path(), " after ", part.bytes(),
                                      " of ", file.size_bytes(), " bytes"),
                         {{"path", file.path()}});
    }
    attempt = any ? 1 : attempt + 1;
    if (!Connection::IsBroken(status) || attempt > retry.max_reconnects) return status;
    connection.Sleep(retry.Backoff(attempt, status));
  }
  return absl::OkStatus();
}

absl::Status DownloadFile(const Connection& connection, v1::DeltaService::StubInterface& stub,
                          const std::string& name, const v1::DeltaFile& file,
                          const std::string& path, const std::function<void(int64_t)>& progress) {
  BALLAST_RETURN_IF_ERROR(MakeDirectories(std::filesystem::path(path).parent_path().string()));
  if (FileExists(path)) {
    const auto digest = DigestOfFile(path);
    if (digest.ok() && *digest == file.digest()) return absl::OkStatus();
  }
  BALLAST_ASSIGN_OR_RETURN(PartFile part, PartFile::Open(path, file.size_bytes()));
  bool again = part.resumed();
  while (true) {
    BALLAST_RETURN_IF_ERROR(Fetch(connection, stub, name, file, part, progress));
    const std::string digest = part.Digest();
    if (digest == file.digest()) return part.Commit();
    if (!again) {
      BALLAST_RETURN_IF_ERROR(part.Discard());
      return MakeError(
          absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
          absl::StrCat(file.path(), " arrived with the digest ", digest, " and not ", file.digest(),
                       "; download it again, and tell the operator if this stays"),
          {{"path", file.path()}});
    }
    // What an earlier run left may have been of another delta: once more from the start.
    again = false;
    BALLAST_RETURN_IF_ERROR(part.Restart());
  }
}

}  // namespace

absl::StatusOr<v1::DeltaManifest> Client::DownloadDelta(std::string_view name,
                                                        const std::string& folder,
                                                        const DownloadOptions& options) const {
  const std::string full_name = DeltaName(name);
  BALLAST_ASSIGN_OR_RETURN(v1::DeltaManifest manifest, GetDeltaManifest(full_name));
  int64_t total = 0;
  for (const v1::DeltaFile& file : manifest.files()) {
    BALLAST_RETURN_IF_ERROR(CheckPath(file.path()));
    total += file.size_bytes();
  }
  int64_t done = 0;
  for (const v1::DeltaFile& listed : manifest.files()) {
    v1::DeltaFile file = listed;
    // The manifest cannot hold its own digest; the message beside it does.
    if (file.digest().empty() && file.path() == "manifest.json") file.set_digest(manifest.digest());
    BALLAST_RETURN_IF_ERROR(DownloadFile(*connection_, *deltas_, full_name, file,
                                         (std::filesystem::path(folder) / file.path()).string(),
                                         [&](int64_t bytes) {
                                           if (options.progress)
                                             options.progress(done + bytes, total);
                                         }));
    done += file.size_bytes();
    if (options.progress) options.progress(done, total);
  }
  return manifest;
}

}  // namespace ballast::client
