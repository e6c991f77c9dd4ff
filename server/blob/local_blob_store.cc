// SPDX-License-Identifier: Apache-2.0
#include "server/blob/local_blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "server/blob/blob_rules.h"

namespace ballast::server {
namespace {

namespace fs = std::filesystem;

constexpr mode_t kFileMode = 0600;
constexpr mode_t kFolderMode = 0700;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  Fd& operator=(Fd&&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return FileError(errno, "write", path);
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

std::string ParentOf(const std::string& path) { return fs::path(path).parent_path().string(); }

// mkdir -p below an existing `root`, syncing each folder that got a new entry.
absl::Status MakeFoldersDurably(const std::string& root, const std::string& folder) {
  if (folder == root || FileExists(folder)) return absl::OkStatus();
  const std::string parent = ParentOf(folder);
  BALLAST_RETURN_IF_ERROR(MakeFoldersDurably(root, parent));
  if (mkdir(folder.c_str(), kFolderMode) != 0 && errno != EEXIST) {
    return FileError(errno, "create the folder", folder);
  }
  return SyncDirectory(parent);
}

class LocalWriter : public BlobWriter {
 public:
  LocalWriter(Fd fd, std::string temporary, std::string path)
      : fd_(std::move(fd)), temporary_(std::move(temporary)), path_(std::move(path)) {}
  ~LocalWriter() override {
    if (!committed_) unlink(temporary_.c_str());
  }

  absl::Status Append(std::string_view bytes) override {
    BALLAST_RETURN_IF_ERROR(WriteAll(fd_.get(), bytes, path_));
    sha_.Update(bytes);
    size_bytes_ += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    return fsync(fd_.get()) == 0 ? absl::OkStatus() : FileError(errno, "sync", path_);
  }

  absl::StatusOr<std::string> Commit(std::string_view digest) override {
    std::string actual = sha_.Finish();
    BALLAST_RETURN_IF_ERROR(CheckBlobDigest(actual, digest));
    BALLAST_RETURN_IF_ERROR(Sync());
    if (rename(temporary_.c_str(), path_.c_str()) != 0) return FileError(errno, "rename", path_);
    committed_ = true;
    BALLAST_RETURN_IF_ERROR(SyncDirectory(ParentOf(path_)));
    return actual;
  }

  int64_t size_bytes() const override { return size_bytes_; }

 private:
  Fd fd_;
  const std::string temporary_;
  const std::string path_;
  Sha256 sha_;
  int64_t size_bytes_ = 0;
  bool committed_ = false;
};

class LocalAppender : public BlobAppender {
 public:
  LocalAppender(Fd fd, std::string path, int64_t size_bytes)
      : fd_(std::move(fd)), path_(std::move(path)), size_bytes_(size_bytes) {
    if (size_bytes == 0) sha_.emplace();
  }

  absl::Status Append(std::string_view bytes) override {
    const absl::Status status = WriteAll(fd_.get(), bytes, path_);
    if (!status.ok()) {
      // Part of the bytes may be there: back to what was acknowledged. The offset is the file's
      // end, as the file is open for appending.
      if (ftruncate(fd_.get(), size_bytes_) != 0) return FileError(errno, "truncate", path_);
      return status;
    }
    if (sha_.has_value()) sha_->Update(bytes);
    size_bytes_ += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    return fsync(fd_.get()) == 0 ? absl::OkStatus() : FileError(errno, "sync", path_);
  }

  absl::StatusOr<std::string> Digest() override {
    // The running digest is only known when this call wrote every byte.
    if (!sha_.has_value()) return DigestOfFile(path_);
    std::string digest = sha_->Finish();
    sha_.reset();
    return digest;
  }

  int64_t size_bytes() const override { return size_bytes_; }

 private:
  Fd fd_;
  const std::string path_;
  int64_t size_bytes_;
  std::optional<Sha256> sha_;
};

class LocalReader : public BlobReader {
 public:
  LocalReader(Fd fd, std::string name, int64_t size_bytes)
      : fd_(std::move(fd)), name_(std::move(name)), size_bytes_(size_bytes) {}

  absl::StatusOr<std::string> Read(int64_t offset, size_t max_bytes) override {
    std::string bytes(max_bytes, '\0');
    size_t filled = 0;
    while (filled < max_bytes) {
      const ssize_t n = pread(fd_.get(), bytes.data() + filled, max_bytes - filled,
                              offset + static_cast<int64_t>(filled));
      if (n < 0) {
        if (errno == EINTR) continue;
        return MakeError(
            absl::StatusCode::kDataLoss, "BLOB_CORRUPT",
            absl::StrCat("the stored bytes of ", name_, " cannot be read; tell the operator"));
      }
      if (n == 0) break;
      filled += static_cast<size_t>(n);
    }
    bytes.resize(filled);
    return bytes;
  }

  int64_t size_bytes() const override { return size_bytes_; }

 private:
  Fd fd_;
  const std::string name_;
  const int64_t size_bytes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LocalBlobStore>> LocalBlobStore::OpenRoot(const std::string& root) {
  std::error_code ignored;
  fs::remove_all(absl::StrCat(root, "/writing"), ignored);
  BALLAST_RETURN_IF_ERROR(MakeDirectories(absl::StrCat(root, "/writing"), kFolderMode));
  BALLAST_RETURN_IF_ERROR(MakeDirectories(absl::StrCat(root, "/blobs"), kFolderMode));
  BALLAST_RETURN_IF_ERROR(SyncDirectory(root));
  return std::unique_ptr<LocalBlobStore>(new LocalBlobStore(root));
}

absl::StatusOr<std::string> LocalBlobStore::PathOf(const std::string& name,
                                                   bool make_folder) const {
  BALLAST_RETURN_IF_ERROR(CheckBlobName(name));
  std::string path = absl::StrCat(root_, "/blobs/", name);
  if (make_folder) {
    BALLAST_RETURN_IF_ERROR(MakeFoldersDurably(absl::StrCat(root_, "/blobs"), ParentOf(path)));
  }
  return path;
}

absl::StatusOr<std::unique_ptr<BlobWriter>> LocalBlobStore::Create(const std::string& name) {
  BALLAST_ASSIGN_OR_RETURN(std::string path, PathOf(name, /*make_folder=*/true));
  std::string temporary = absl::StrCat(root_, "/writing/", RandomHex(128));
  Fd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kFileMode));
  if (fd.get() < 0) return FileError(errno, "create", temporary);
  return std::make_unique<LocalWriter>(std::move(fd), std::move(temporary), std::move(path));
}

absl::StatusOr<std::unique_ptr<BlobAppender>> LocalBlobStore::OpenAppend(const std::string& name) {
  BALLAST_ASSIGN_OR_RETURN(std::string path, PathOf(name, /*make_folder=*/true));
  const bool existed = FileExists(path);
  Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kFileMode));
  if (fd.get() < 0) return FileError(errno, "open", path);
  if (!existed) BALLAST_RETURN_IF_ERROR(SyncDirectory(ParentOf(path)));
  BALLAST_ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
  return std::make_unique<LocalAppender>(std::move(fd), std::move(path), size);
}

absl::StatusOr<std::unique_ptr<BlobReader>> LocalBlobStore::Open(const std::string& name) {
  BALLAST_ASSIGN_OR_RETURN(const std::string path, PathOf(name, /*make_folder=*/false));
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    return errno == ENOENT || errno == ENOTDIR ? BlobNotFound(name)
                                               : FileError(errno, "open", path);
  }
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return FileError(errno, "read", path);
  if (!S_ISREG(info.st_mode)) return BlobNotFound(name);
  return std::make_unique<LocalReader>(std::move(fd), name, static_cast<int64_t>(info.st_size));
}

absl::StatusOr<int64_t> LocalBlobStore::Size(const std::string& name) {
  BALLAST_ASSIGN_OR_RETURN(const auto reader, Open(name));
  return reader->size_bytes();
}

absl::Status LocalBlobStore::Adopt(const std::string& name, const std::string& local_path) {
  BALLAST_ASSIGN_OR_RETURN(const std::string path, PathOf(name, /*make_folder=*/true));
  {
    Fd fd(open(local_path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) return FileError(errno, "open", local_path);
    if (fchmod(fd.get(), kFileMode) != 0) return FileError(errno, "change", local_path);
    if (fsync(fd.get()) != 0) return FileError(errno, "sync", local_path);
  }
  if (rename(local_path.c_str(), path.c_str()) != 0) {
    if (errno != EXDEV) return FileError(errno, "rename", local_path);
    // Another file system: copied, then removed.
    BALLAST_ASSIGN_OR_RETURN(const auto writer, Create(name));
    return MoveThrough(*writer, local_path);
  }
  return SyncDirectory(ParentOf(path));
}

absl::Status LocalBlobStore::DeletePrefix(const std::string& prefix) {
  BALLAST_ASSIGN_OR_RETURN(const std::string path, PathOf(prefix, /*make_folder=*/false));
  if (!FileExists(path)) return absl::OkStatus();
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return FileError(error.value(), "delete", path);
  return SyncDirectory(ParentOf(path));
}

absl::StatusOr<BlobLinks> LocalBlobStore::ReadLinks(const std::string& name) {
  return LinksUnavailable();
}

absl::StatusOr<BlobWriteLink> LocalBlobStore::WriteLink(const std::string& name) {
  return LinksUnavailable();
}

absl::StatusOr<std::map<std::string, int64_t>> LocalBlobStore::WrittenByLinks(
    const std::string& prefix) {
  return LinksUnavailable();
}

absl::Status LocalBlobStore::CopyWritten(const std::string& name,
                                         const std::vector<std::string>& parts,
                                         const std::function<absl::Status()>& may_go_on) {
  return LinksUnavailable();
}

}  // namespace ballast::server
