// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_CORE_BLOB_STORE_H_
#define BALLAST_SERVER_CORE_BLOB_STORE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ballast::server {

// A blob being written; not visible until Commit. Destroying it without Commit leaves nothing
// behind. Thread safety: not thread-safe.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  virtual absl::Status Append(std::string_view bytes) = 0;
  // Optional, before Commit: makes the bytes durable, so that Commit is quick.
  virtual absl::Status Sync() = 0;
  // Makes the blob visible and durable in one step, replacing one of the same name.
  // INVALID_ARGUMENT (DIGEST_MISMATCH) when `digest` is not empty and not the digest of the bytes:
  // nothing changes. Returns the digest.
  virtual absl::StatusOr<std::string> Commit(std::string_view digest) = 0;
  virtual int64_t size_bytes() const = 0;
};

// A blob that grows at its end over many calls and processes: an upload. What was synced survives a
// crash. Thread safety: not thread-safe.
class BlobAppender {
 public:
  virtual ~BlobAppender() = default;
  // Writes at the end. After a failure the blob has the size it had before. ABORTED (BLOB_BUSY)
  // where another process appends to it.
  virtual absl::Status Append(std::string_view bytes) = 0;
  // Makes all appended bytes durable.
  virtual absl::Status Sync() = 0;
  // Digest of all bytes, earlier ones included.
  virtual absl::StatusOr<std::string> Digest() = 0;
  virtual int64_t size_bytes() const = 0;
};

// An open blob: the bytes that the name had when it was opened. Thread safety: thread-safe.
class BlobReader {
 public:
  virtual ~BlobReader() = default;
  // Up to `max_bytes` bytes at `offset`; empty at or after the end. DATA_LOSS (BLOB_CORRUPT) when
  // the bytes cannot be read; ABORTED (BLOB_REPLACED) where the store lost them to a later Commit
  // or deletion. Never bytes of another version.
  virtual absl::StatusOr<std::string> Read(int64_t offset, size_t max_bytes) = 0;
  virtual int64_t size_bytes() const = 0;
};

// A piece of a blob that whoever has the URL can GET, without this server: a secret.
struct BlobLink {
  std::string url;
  int64_t offset = 0;  // of its first byte in the blob
  int64_t size_bytes = 0;
};

// The pieces of a blob, in order and without gaps; none for a blob without bytes.
struct BlobLinks {
  std::vector<BlobLink> links;
  absl::Duration valid;  // from now on
};

// Where whoever has the URL can PUT bytes, without this server: a secret.
struct BlobWriteLink {
  std::string url;
  std::map<std::string, std::string> headers;  // to send with them
  absl::Duration valid;                        // from now on
};

// Named bytes on durable storage. Names are "/"-separated parts of letters, digits, "-", "_", "."
// and ":", none of them empty, "." or ".."; others are refused: INVALID_ARGUMENT
// (BLOB_NAME_INVALID). A name is either written (Create, Adopt) or appended to (OpenAppend), and no
// name is another one's beginning. Thread safety: thread-safe; several writers of one name: the
// last Commit wins. Failures: NOT_FOUND (BLOB_NOT_FOUND), RESOURCE_EXHAUSTED (DISK_FULL),
// UNAVAILABLE (FILE_IO, OBJECT_STORE); of what is about links, FAILED_PRECONDITION
// (LINKS_UNAVAILABLE) from a store that has none.
class BlobStore {
 public:
  virtual ~BlobStore() = default;
  virtual absl::StatusOr<std::unique_ptr<BlobWriter>> Create(const std::string& name) = 0;
  // Opens for appending; made empty when missing. DATA_LOSS (BLOB_CORRUPT) where a part is missing.
  virtual absl::StatusOr<std::unique_ptr<BlobAppender>> OpenAppend(const std::string& name) = 0;
  virtual absl::StatusOr<std::unique_ptr<BlobReader>> Open(const std::string& name) = 0;
  virtual absl::StatusOr<int64_t> Size(const std::string& name) = 0;
  // Takes over a local file as a blob; the file is gone from its place afterwards. The bytes must
  // not be written to any more.
  virtual absl::Status Adopt(const std::string& name, const std::string& local_path) = 0;
  // Deletes the blob `prefix` and all whose name begins with `prefix` + "/". Missing ones are OK.
  virtual absl::Status DeletePrefix(const std::string& prefix) = 0;

  // Where the blob can be read.
  virtual absl::StatusOr<BlobLinks> ReadLinks(const std::string& name) = 0;
  // Where a part can be written. `name` is for links alone: its bytes may be replaced for as long
  // as one of them is valid, so nothing that was checked is ever read from there.
  virtual absl::StatusOr<BlobWriteLink> WriteLink(const std::string& name) = 0;
  // What was written by links below `prefix` + "/": sizes, by the rest of the name.
  virtual absl::StatusOr<std::map<std::string, int64_t>> WrittenByLinks(
      const std::string& prefix) = 0;
  // Makes `name`, which is not there, a blob of copies of `parts`, which were written by links, one
  // after the other. Asked before each part, `may_go_on` ends it where it is not OK, with its
  // status. A failure may leave some of it: DeletePrefix.
  virtual absl::Status CopyWritten(const std::string& name, const std::vector<std::string>& parts,
                                   const std::function<absl::Status()>& may_go_on) = 0;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_BLOB_STORE_H_
