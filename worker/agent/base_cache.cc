// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/base_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/artifact/base_model.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace ballast::worker::agent {
namespace {

using ballast::worker::v1::BaseModelFiles;
namespace fs = std::filesystem;

constexpr char kTemporaryPrefix[] = "tmp-";
// A download that has not been touched for so long is nobody's.
constexpr std::chrono::hours kAbandonedAfter{24};

absl::Status CheckFiles(const BaseModelFiles& base) {
  const auto invalid = [&](std::string_view problem) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "BASE_MODEL_INVALID",
        absl::StrCat("the server's description of ", base.name(), ": ", std::string(problem)));
  };
  if (!IsDigest(base.digest())) return invalid("its digest is none");
  std::map<std::string, std::string> digests;
  for (const BaseModelFiles::File& file : base.files()) {
    if (!artifact::IsSafePath(file.file_name()) || absl::StrContains(file.file_name(), "/")) {
      return invalid("a file name is not plain");
    }
    if (!IsDigest(file.digest())) return invalid("a file's digest is none");
    digests[file.file_name()] = file.digest();
  }
  if (artifact::BaseModelDigest(digests) != base.digest()) {
    return invalid("its digest is not that of its files");
  }
  return absl::OkStatus();
}

bool IsSound(const BaseModelFiles& base, const std::string& folder) {
  for (const BaseModelFiles::File& file : base.files()) {
    const std::string path = absl::StrCat(folder, "/", file.file_name());
    const auto size = FileSize(path);
    if (!size.ok() || *size != file.size_bytes()) return false;
    const auto digest = DigestOfFile(path);
    if (!digest.ok() || *digest != file.digest()) return false;
  }
  return true;
}

// Writes a file piece by piece, and counts and digests what it wrote.
class FileWriter {
 public:
  explicit FileWriter(std::string path)
      : path_(std::move(path)),
        fd_(open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) {}
  ~FileWriter() {
    if (fd_ >= 0) close(fd_);
  }
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  absl::Status Append(std::string_view bytes) {
    if (fd_ < 0) return FileError(errno, "create", path_);
    digest_.Update(bytes);
    size_ += static_cast<int64_t>(bytes.size());
    while (!bytes.empty()) {
      const ssize_t n = write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FileError(errno, "write", path_);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  absl::Status Sync() {
    if (fd_ < 0) return FileError(errno, "create", path_);
    return fsync(fd_) == 0 ? absl::OkStatus() : FileError(errno, "sync", path_);
  }

  int64_t size() const { return size_; }
  std::string FinishDigest() { return digest_.Finish(); }

 private:
  const std::string path_;
  const int fd_;
  Sha256 digest_;
  int64_t size_ = 0;
};

void RemoveFolder(const std::string& folder) {
  std::error_code ignored;  // what stays is removed by a later Open
  fs::remove_all(folder, ignored);
}

}  // namespace

absl::Status BaseCache::Open() {
  BALLAST_RETURN_IF_ERROR(MakeDirectories(cache_dir_, 0700));
  std::error_code error;
  const auto now = fs::file_time_type::clock::now();
  for (fs::directory_iterator it(cache_dir_, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code entry_error;
    if (!absl::StartsWith(it->path().filename().string(), kTemporaryPrefix)) continue;
    const auto changed = fs::last_write_time(it->path(), entry_error);
    if (!entry_error && now - changed > kAbandonedAfter) RemoveFolder(it->path().string());
  }
  return error ? FileError(error.value(), "list", cache_dir_) : absl::OkStatus();
}

absl::StatusOr<std::string> BaseCache::Get(const BaseModelFiles& base, const Fetch& fetch) {
  BALLAST_RETURN_IF_ERROR(CheckFiles(base));
  const std::string folder =
      absl::StrCat(cache_dir_, "/base-", base.digest().substr(sizeof("sha256:") - 1));
  if (FileExists(folder)) {
    if (verified_.count(base.digest()) != 0 || IsSound(base, folder)) {
      verified_.insert(base.digest());
      return folder;
    }
    spdlog::warn("the copy of {} in {} is damaged; fetching it again", base.name(), folder);
    const std::string aside = absl::StrCat(cache_dir_, "/", kTemporaryPrefix, RandomHex(64));
    if (std::rename(folder.c_str(), aside.c_str()) == 0) RemoveFolder(aside);
  }
  const std::string temporary = absl::StrCat(cache_dir_, "/", kTemporaryPrefix, RandomHex(64));
  BALLAST_RETURN_IF_ERROR(MakeDirectories(temporary, 0700));
  spdlog::info("fetching {} into {}", base.name(), folder);
  absl::Status status = Download(base, temporary, fetch);
  if (status.ok() && std::rename(temporary.c_str(), folder.c_str()) != 0) {
    // Another worker was faster; its copy is as good when it is sound.
    const int error_number = errno;
    const bool exists = error_number == EEXIST || error_number == ENOTEMPTY;
    if (!exists || !IsSound(base, folder)) status = FileError(error_number, "rename", temporary);
  }
  RemoveFolder(temporary);
  BALLAST_RETURN_IF_ERROR(status);
  BALLAST_RETURN_IF_ERROR(SyncDirectory(cache_dir_));
  verified_.insert(base.digest());
  return folder;
}

absl::Status BaseCache::Download(const BaseModelFiles& base, const std::string& folder,
                                 const Fetch& fetch) {
  for (const BaseModelFiles::File& file : base.files()) {
    FileWriter writer(absl::StrCat(folder, "/", file.file_name()));
    const auto corrupt = [&](std::string_view problem) {
      return MakeError(absl::StatusCode::kDataLoss, "BASE_MODEL_CORRUPT",
                       absl::StrCat(file.file_name(), " of ", base.name(), " ",
                                    std::string(problem), "; import the base model again"));
    };
    BALLAST_RETURN_IF_ERROR(fetch(file.blob(), [&](std::string_view piece) -> absl::Status {
      if (writer.size() + static_cast<int64_t>(piece.size()) > file.size_bytes()) {
        return corrupt("is longer than announced");
      }
      return writer.Append(piece);
    }));
    if (writer.size() != file.size_bytes()) return corrupt("is shorter than announced");
    if (writer.FinishDigest() != file.digest()) return corrupt("has another digest than announced");
    BALLAST_RETURN_IF_ERROR(writer.Sync());
  }
  return SyncDirectory(folder);
}

}  // namespace ballast::worker::agent
