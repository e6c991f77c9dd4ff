// SPDX-License-Identifier: Apache-2.0
// What the two ways of uploading a data set share: through the server, and by links.
#ifndef BALLAST_CLIENT_CPP_UPLOAD_INTERNAL_H_
#define BALLAST_CLIENT_CPP_UPLOAD_INTERNAL_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/v1/dataset_service.grpc.pb.h"
#include "client/cpp/client.h"
#include "client/cpp/connection.h"
#include "common/base/digest.h"

namespace ballast::client {

// The file and its digest. Bytes are hashed once, in order, although a resumed upload may send some
// of them twice or begin behind the start.
class UploadSource {
 public:
  // INVALID_ARGUMENT (FILE_NOT_REGULAR), or the errors of opening files.
  static absl::StatusOr<UploadSource> Open(const std::string& path);
  UploadSource(UploadSource&& other) noexcept
      : path_(std::move(other.path_)),
        fd_(std::exchange(other.fd_, -1)),
        size_(other.size_),
        hasher_(std::move(other.hasher_)),
        hashed_(other.hashed_) {}
  UploadSource& operator=(UploadSource&&) = delete;
  ~UploadSource();

  int64_t size() const { return size_; }
  // Exactly min(limit, size - offset) bytes at `offset`. FAILED_PRECONDITION (FILE_CHANGED) where
  // the file does not reach that far.
  absl::Status Read(int64_t offset, int64_t limit, std::string& bytes);
  // Hashes what lies before `offset`, which an earlier run has sent. Fails as Read does.
  absl::Status HashUpTo(int64_t offset);
  // Of the whole file. Requires: every byte was read.
  const std::string& Digest();
  // FAILED_PRECONDITION (FILE_CHANGED).
  absl::Status Changed() const;

 private:
  UploadSource(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_;
  int64_t size_ = 0;
  Sha256 hasher_;
  int64_t hashed_ = 0;
  std::string digest_;
};

// Whether an upload that failed so goes on from where the server stands.
bool UploadGoesOn(const absl::Status& status);

// How an upload by links has ended.
struct DirectUploadResult {
  absl::Status status;
  v1::Dataset dataset;  // when OK
  // The data set has bytes, perhaps these: the answer to an earlier end was lost.
  bool finished_before = false;
  // The bytes are to go through the server. OK then where there are no links, or some bytes went
  // that way already; else why links did not do.
  bool through_server = false;
};

// Sends the file, which has at least one byte.
DirectUploadResult UploadByLinks(const Connection& connection,
                                 v1::DatasetService::StubInterface& stub, const std::string& name,
                                 const UploadOptions& options, UploadSource& source);

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_UPLOAD_INTERNAL_H_
