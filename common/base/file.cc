// SPDX-License-Identifier: Apache-2.0
#include "common/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

absl::Status FileError(int error_number, std::string_view doing, const std::string& path) {
  const std::string message =
      absl::StrCat("cannot ", std::string(doing), " ", path, ": ", std::strerror(error_number));
  const std::map<std::string, std::string> metadata = {{"path", path}};
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return MakeError(absl::StatusCode::kNotFound, "FILE_NOT_FOUND", message, metadata);
    case EACCES:
    case EPERM:
    case EROFS:
      return MakeError(absl::StatusCode::kPermissionDenied, "FILE_PERMISSION_DENIED", message,
                       metadata);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                       absl::StrCat(message, "; free space and try again, nothing stored was lost"),
                       metadata);
    default:
      return MakeError(absl::StatusCode::kUnavailable, "FILE_IO", message, metadata);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  BALLAST_ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
  const auto too_large = [&](const std::string& has) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "FILE_TOO_LARGE",
        absl::StrCat(path, " has ", has, " bytes; at most ", max_bytes, " are allowed"),
        {{"path", path}});
  };
  if (size > max_bytes) return too_large(absl::StrCat(size));
  std::string bytes;
  bytes.reserve(static_cast<size_t>(size));
  BALLAST_RETURN_IF_ERROR(ForEachChunk(path, 1 << 20, [&](std::string_view chunk) {
    bytes.append(chunk);
    return static_cast<int64_t>(bytes.size()) <= max_bytes;
  }));
  // What says 0 bytes or grew meanwhile, such as a device or a pipe.
  if (static_cast<int64_t>(bytes.size()) > max_bytes)
    return too_large(absl::StrCat("more than ", max_bytes));
  return bytes;
}

absl::Status ForEachChunk(const std::string& path, size_t chunk_bytes,
                          const std::function<bool(std::string_view)>& chunk) {
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return FileError(errno, "open", path);
  std::vector<char> buffer(chunk_bytes);
  while (true) {
    const ssize_t n = read(file.get(), buffer.data(), buffer.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return FileError(errno, "read", path);
    }
    if (n == 0 || !chunk({buffer.data(), static_cast<size_t>(n)})) return absl::OkStatus();
  }
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view bytes, int mode) {
  const std::string temporary = absl::StrCat(path, ".tmp-", RandomHex(64));
  absl::Status status;
  {
    FileDescriptor file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                             static_cast<mode_t>(mode)));
    if (file.get() < 0) return FileError(errno, "create", temporary);
    size_t written = 0;
    while (status.ok() && written < bytes.size()) {
      const ssize_t n = write(file.get(), bytes.data() + written, bytes.size() - written);
      if (n >= 0) {
        written += static_cast<size_t>(n);
      } else if (errno != EINTR) {
        status = FileError(errno, "write", path);
      }
    }
    if (status.ok() && fsync(file.get()) != 0) status = FileError(errno, "sync", path);
  }
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = FileError(errno, "rename", path);
  }
  if (!status.ok()) {
    unlink(temporary.c_str());
    return status;
  }
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return SyncDirectory(parent.empty() ? "." : parent);
}

absl::Status SyncDirectory(const std::string& directory) {
  FileDescriptor folder(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0) return FileError(errno, "open", directory);
  if (fsync(folder.get()) != 0) return FileError(errno, "sync", directory);
  return absl::OkStatus();
}

absl::Status MakeDirectories(const std::string& directory, int mode) {
  std::filesystem::path current;
  for (const auto& part : std::filesystem::path(directory)) {
    current /= part;
    if (current.empty() || mkdir(current.c_str(), static_cast<mode_t>(mode)) == 0) continue;
    if (errno != EEXIST || !std::filesystem::is_directory(current)) {
      return FileError(errno, "create the folder", current.string());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> FileSize(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return FileError(errno, "read", path);
  if (S_ISDIR(info.st_mode)) return FileError(EISDIR, "read", path);
  return static_cast<int64_t>(info.st_size);
}

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return FileError(errno, "open", path);
  struct stat info;
  if (fstat(file.get(), &info) != 0) return FileError(errno, "read", path);
  if (!S_ISREG(info.st_mode)) return FileError(EISDIR, "read", path);
  if (info.st_size == 0) return MappedFile(nullptr, 0);
  const auto size = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) return FileError(errno, "map", path);
  return MappedFile(static_cast<const char*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
}

}  // namespace ballast
