// SPDX-License-Identifier: Apache-2.0
// Client::UploadDataset: a file into a data set, from wherever the server stands.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::client {
namespace {

// The file and its digest. Bytes are hashed once, in order, although a resumed upload may send some
// of them twice or begin behind the start.
class UploadSource {
 public:
  static absl::StatusOr<UploadSource> Open(const std::string& path) {
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
  UploadSource(UploadSource&& other) noexcept
      : path_(std::move(other.path_)),
        fd_(std::exchange(other.fd_, -1)),
        size_(other.size_),
        hasher_(std::move(other.hasher_)),
        hashed_(other.hashed_) {}
  UploadSource& operator=(UploadSource&&) = delete;
  ~UploadSource() {
    if (fd_ >= 0) close(fd_);
  }

  int64_t size() const { return size_; }

  // Exactly min(limit, size - offset) bytes at `offset`.
  absl::Status Read(int64_t offset, int64_t limit, std::string& bytes) {
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

  // Hashes what lies before `offset`, which an earlier run has sent.
  absl::Status HashUpTo(int64_t offset) {
    std::string bytes;
    while (hashed_ < offset) {
      BALLAST_RETURN_IF_ERROR(Read(hashed_, std::min<int64_t>(1 << 20, offset - hashed_), bytes));
    }
    return absl::OkStatus();
  }

  // Of the whole file. Requires: every byte was read.
  const std::string& Digest() {
    if (digest_.empty()) digest_ = hasher_.Finish();
    return digest_;
  }

  absl::Status Changed() const {
    return MakeError(absl::StatusCode::kFailedPrecondition, "FILE_CHANGED",
                     absl::StrCat(path_,
                                  " is shorter than what was uploaded of it; delete the data "
                                  "set and upload the file to a new one"),
                     {{"path", path_}});
  }

 private:
  UploadSource(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_;
  int64_t size_ = 0;
  Sha256 hasher_;
  int64_t hashed_ = 0;
  std::string digest_;
};

// What ended an attempt.
struct AttemptResult {
  absl::Status status;  // of the call, or of reading the file
  bool local = false;   // the failure is the file's: trying again does not help
  v1::Dataset dataset;  // when OK
};

AttemptResult Attempt(const Connection& connection, v1::DatasetService::StubInterface& stub,
                      const std::string& name, int64_t offset, const UploadOptions& options,
                      UploadSource& source) {
  AttemptResult result;
  result.local = true;
  result.status = source.HashUpTo(offset);
  if (!result.status.ok()) return result;

  grpc::ClientContext context;
  connection.Prepare(context, connection.options().stream_deadline);
  v1::WriteDatasetResponse response;
  auto writer = stub.WriteDataset(&context, &response);
  v1::WriteDatasetRequest request;
  request.set_name(name);
  while (true) {
    result.status = source.Read(offset, options.chunk_bytes, *request.mutable_data());
    if (!result.status.ok()) {
      context.TryCancel();
      writer->Finish();
      return result;
    }
    request.set_write_offset(offset);
    offset += static_cast<int64_t>(request.data().size());
    if (offset == source.size()) {
      request.set_finish(true);
      request.set_digest(source.Digest());
    }
    if (!writer->Write(request)) break;  // Finish says why
    if (options.progress) options.progress(offset, source.size());
    if (request.finish()) break;
    request.clear_name();
  }
  writer->WritesDone();
  result.local = false;
  result.status = connection.Convert(writer->Finish());
  result.dataset = std::move(*response.mutable_dataset());
  return result;
}

bool GoesOn(const absl::Status& status) {
  // After a broken connection the server may still hold the old stream, or may have committed more
  // than was known: both pass after asking again.
  const std::string reason = ErrorReason(status);
  return Connection::IsBroken(status) || reason == "UPLOAD_IN_PROGRESS" || reason == "BLOB_BUSY" ||
         reason == "WRITE_OFFSET_MISMATCH";
}

}  // namespace

absl::Status Client::CheckUploadFile(const std::string& path) {
  return UploadSource::Open(path).status();
}

absl::StatusOr<v1::Dataset> Client::UploadDataset(std::string_view name, const std::string& path,
                                                  const UploadOptions& options) const {
  if (options.chunk_bytes <= 0 || options.chunk_bytes > (1 << 20)) {
    return FieldError("chunk_bytes", "CHUNK_SIZE_INVALID",
                      "give a chunk size of 1 to 1048576 bytes");
  }
  const std::string full_name = DatasetName(name);
  BALLAST_ASSIGN_OR_RETURN(UploadSource source, UploadSource::Open(path));
  const RetryPolicy& retry = connection_->options().retry;
  int64_t last_committed = -1;
  absl::Status failure;
  for (int attempt = 1; attempt <= retry.max_reconnects; ++attempt) {
    if (!failure.ok()) connection_->Sleep(retry.Backoff(attempt, failure));
    const absl::StatusOr<v1::UploadStatus> upload = GetUploadStatus(full_name);
    if (!upload.ok()) {
      failure = upload.status();
      if (!GoesOn(failure)) return failure;
      continue;
    }
    // The answer to the last attempt may have been lost after the file was complete.
    if (upload->finished()) return GetDataset(full_name);
    if (upload->committed_bytes() > source.size()) return source.Changed();
    if (upload->committed_bytes() > last_committed) attempt = 1;
    last_committed = upload->committed_bytes();
    AttemptResult result =
        Attempt(*connection_, *datasets_, full_name, upload->committed_bytes(), options, source);
    if (result.status.ok()) return std::move(result.dataset);
    if (result.local || !GoesOn(result.status)) return result.status;
    failure = result.status;
  }
  return Annotate(failure,
                  absl::StrCat("the upload stopped after ", std::max<int64_t>(last_committed, 0),
                               " bytes, which are kept; repeat the upload to go on"));
}

}  // namespace ballast::client
