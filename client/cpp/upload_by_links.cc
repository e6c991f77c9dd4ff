// SPDX-License-Identifier: Apache-2.0
// A data set by links to the store, part by part.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "client/cpp/link_client.h"
#include "client/cpp/upload_internal.h"
#include "common/base/error.h"

namespace ballast::client {
namespace {

// Of the parts that were sent.
struct Sent {
  absl::Status status;
  bool local = false;  // the failure is the file's: trying again does not help
  int64_t parts = 0;   // that are there now and were not
};

absl::Status SendPart(const HttpClient& http, const v1::UploadPart& part,
                      const UploadOptions& options, UploadSource& source, bool& local) {
  int64_t at = part.offset();
  std::string bytes;
  return http.Put(part.url(), {part.headers().begin(), part.headers().end()}, part.size_bytes(),
                  [&](char* data, size_t room) -> absl::StatusOr<size_t> {
                    const int64_t left = part.offset() + part.size_bytes() - at;
                    const absl::Status read =
                        source.Read(at, std::min(static_cast<int64_t>(room), left), bytes);
                    local = !read.ok();
                    if (local) return read;
                    bytes.copy(data, bytes.size());
                    at += static_cast<int64_t>(bytes.size());
                    if (options.progress) options.progress(at, source.size());
                    return bytes.size();
                  });
}

Sent SendParts(const HttpClient& http, const v1::DirectUpload& upload, const UploadOptions& options,
               UploadSource& source) {
  Sent sent;
  for (const v1::UploadPart& part : upload.parts()) {
    if (!IsWithin(part.offset(), part.size_bytes(), source.size()) || part.size_bytes() < 1) {
      sent.status = MakeError(absl::StatusCode::kInternal, "LINK_INVALID",
                              "the server gives links to parts that the file does not have");
      return sent;
    }
    if (part.stored()) continue;
    // What an earlier run has sent.
    sent.status = source.HashUpTo(part.offset());
    sent.local = !sent.status.ok();
    if (sent.status.ok()) sent.status = SendPart(http, part, options, source, sent.local);
    if (!sent.status.ok()) return sent;
    ++sent.parts;
  }
  sent.status = source.HashUpTo(source.size());
  sent.local = !sent.status.ok();
  return sent;
}

absl::Status Finish(const Connection& connection, v1::DatasetService::StubInterface& stub,
                    const std::string& name, const std::string& digest, v1::Dataset& dataset) {
  v1::FinishDirectUploadRequest request;
  request.set_name(name);
  request.set_digest(digest);
  grpc::ClientContext context;
  // The server reads all of it.
  connection.Prepare(context, connection.options().stream_deadline);
  return connection.Convert(stub.FinishDirectUpload(&context, request, &dataset));
}

// Whether some bytes are there that went through the server, or all.
bool HasBegun(const Connection& connection, v1::DatasetService::StubInterface& stub,
              const std::string& name) {
  v1::GetUploadStatusRequest request;
  request.set_name(name);
  v1::UploadStatus upload;
  const absl::Status status = connection.Call(true, [&](grpc::ClientContext* context) {
    return stub.GetUploadStatus(context, request, &upload);
  });
  return !status.ok() || upload.finished() || upload.committed_bytes() > 0;
}

int64_t StoredParts(const v1::DirectUpload& upload) {
  return std::count_if(upload.parts().begin(), upload.parts().end(),
                       [](const v1::UploadPart& part) { return part.stored(); });
}

// Whether the end failed for want of parts, which can be sent again.
bool LacksParts(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  return reason == "UPLOAD_PART_MISSING" || reason == "UPLOAD_PART_SIZE";
}

}  // namespace

DirectUploadResult UploadByLinks(const Connection& connection,
                                 v1::DatasetService::StubInterface& stub, const std::string& name,
                                 const UploadOptions& options, UploadSource& source) {
  DirectUploadResult result;
  // The way through the server finds out what is wrong, if something is.
  result.through_server = HasBegun(connection, stub, name);
  if (result.through_server) return result;
  const RetryPolicy& retry = connection.options().retry;
  v1::StartDirectUploadRequest request;
  request.set_name(name);
  request.set_size_bytes(source.size());
  LinkClient client(connection);
  LinkRounds rounds;
  int64_t most = 0;  // parts that were ever there
  for (int attempt = 1; attempt <= retry.max_reconnects; ++attempt) {
    if (attempt > 1) connection.Sleep(retry.Backoff(attempt, result.status));
    v1::DirectUpload upload;
    result.status = connection.Call(true, [&](grpc::ClientContext* context) {
      return stub.StartDirectUpload(context, request, &upload);
    });
    if (HasNoLinks(result.status)) return {.through_server = true};
    const std::string reason = ErrorReason(result.status);
    result.finished_before = reason == "UPLOAD_FINISHED";
    result.through_server = reason == "TOO_MANY_UPLOADS";
    if (!result.status.ok()) {
      if (!UploadGoesOn(result.status)) return result;
      continue;
    }
    const absl::StatusOr<const HttpClient*> http = client.Get();
    result.status = http.status();
    result.through_server = !http.ok();
    if (!http.ok()) return result;
    const int64_t stored = StoredParts(upload);
    most = std::max(most, stored);
    const Sent sent = SendParts(**http, upload, options, source);
    result.status = sent.status;
    if (sent.local) return result;
    if (!sent.status.ok()) {
      // A server that forgets parts is sent them once more, and not for ever.
      const bool brought = stored + sent.parts > most;
      most = std::max(most, stored + sent.parts);
      result.through_server = !rounds.GoOn(brought, sent.status);
      if (result.through_server) return result;
      if (brought) attempt = 1;
      continue;
    }
    result.status = Finish(connection, stub, name, source.Digest(), result.dataset);
    // An earlier call has ended it, whose answer was lost; or the server gives links no more.
    result.finished_before = ErrorReason(result.status) == "UPLOAD_FINISHED";
    result.through_server = HasNoLinks(result.status);
    if (result.status.ok() || (!UploadGoesOn(result.status) && !LacksParts(result.status))) {
      return result;
    }
  }
  return result;
}

}  // namespace ballast::client
