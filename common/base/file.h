// SPDX-License-Identifier: Apache-2.0
// Whole files: read, atomic durable write, folders. Failures carry the path, the system's reason
// and what to do (DISK_FULL, FILE_NOT_FOUND, PERMISSION_DENIED, FILE_IO).
#ifndef BALLAST_COMMON_BASE_FILE_H_
#define BALLAST_COMMON_BASE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast {

// The failure that errno `error_number` means for `path` while `doing` ("open", "write").
absl::Status FileError(int error_number, std::string_view doing, const std::string& path);

// All bytes of a file of at most `max_bytes`; FILE_TOO_LARGE above.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = int64_t{1} << 31);

// Calls `chunk` with pieces of at most `chunk_bytes` until it returns false or the file ends.
absl::Status ForEachChunk(const std::string& path, size_t chunk_bytes,
                          const std::function<bool(std::string_view)>& chunk);

// Writes a temporary file beside `path`, fsyncs it, renames it over `path`, fsyncs the folder.
// After OK the bytes survive a crash; after a failure `path` is as it was. `mode` as in chmod.
absl::Status WriteFileAtomically(const std::string& path, std::string_view bytes, int mode = 0644);

// fsync of a folder, so that names made or renamed in it survive a crash.
absl::Status SyncDirectory(const std::string& directory);

// mkdir -p.
absl::Status MakeDirectories(const std::string& directory, int mode = 0755);

absl::StatusOr<int64_t> FileSize(const std::string& path);

bool FileExists(const std::string& path);

// A read-only memory map of a file. Movable; unmaps when destroyed.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::string_view bytes() const { return {data_, size_}; }

 private:
  MappedFile(const char* data, size_t size) : data_(data), size_(size) {}
  const char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ballast

#endif  // BALLAST_COMMON_BASE_FILE_H_
