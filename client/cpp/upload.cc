// SPDX-License-Identifier: Apache-2.0
// Client::UploadDataset: a file into a data set, from wherever the server stands.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "client/cpp/upload_internal.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::client {
namespace {

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

// The data set that has its bytes already, if they are the file's. FAILED_PRECONDITION
// (UPLOAD_FINISHED).
absl::StatusOr<v1::Dataset> IfSame(absl::StatusOr<v1::Dataset> dataset, UploadSource& source) {
  BALLAST_RETURN_IF_ERROR(dataset.status());
  BALLAST_RETURN_IF_ERROR(source.HashUpTo(source.size()));
  if (dataset->digest() == source.Digest()) return dataset;
  return MakeError(absl::StatusCode::kFailedPrecondition, "UPLOAD_FINISHED",
                   absl::StrCat(dataset->name(), " has the bytes of another file, with the digest ",
                                dataset->digest(), "; upload this one to a new data set"),
                   {{"digest", dataset->digest()}});
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
  if (options.links && source.size() > 0) {
    DirectUploadResult direct = UploadByLinks(*connection_, *datasets_, full_name, options, source);
    if (direct.finished_before) return IfSame(GetDataset(full_name), source);
    if (!direct.through_server) {
      if (!direct.status.ok()) return direct.status;
      return std::move(direct.dataset);
    }
    if (!direct.status.ok() && options.on_fallback) options.on_fallback(direct.status);
  }
  const RetryPolicy& retry = connection_->options().retry;
  int64_t last_committed = -1;
  absl::Status failure;
  for (int attempt = 1; attempt <= retry.max_reconnects; ++attempt) {
    if (!failure.ok()) connection_->Sleep(retry.Backoff(attempt, failure));
    const absl::StatusOr<v1::UploadStatus> upload = GetUploadStatus(full_name);
    if (!upload.ok()) {
      failure = upload.status();
      if (!UploadGoesOn(failure)) return failure;
      continue;
    }
    // The answer to the last attempt may have been lost after the file was complete.
    if (upload->finished()) return IfSame(GetDataset(full_name), source);
    if (upload->committed_bytes() > source.size()) return source.Changed();
    if (upload->committed_bytes() > last_committed) attempt = 1;
    last_committed = upload->committed_bytes();
    AttemptResult result =
        Attempt(*connection_, *datasets_, full_name, upload->committed_bytes(), options, source);
    if (result.status.ok()) return std::move(result.dataset);
    if (result.local || !UploadGoesOn(result.status)) return result.status;
    failure = result.status;
  }
  return Annotate(failure,
                  absl::StrCat("the upload stopped after ", std::max<int64_t>(last_committed, 0),
                               " bytes, which are kept; repeat the upload to go on"));
}

}  // namespace ballast::client
