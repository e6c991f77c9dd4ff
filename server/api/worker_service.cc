// SPDX-License-Identifier: Apache-2.0
#include "server/api/worker_service.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "server/api/read_links.h"

namespace ballast::server {
namespace {

using worker::v1::ReturnSampleRequest;
using worker::v1::WriteBlobRequest;

// Of a result that is read back.
constexpr int64_t kBytesBetweenRenewals = int64_t{64} << 20;

// One call of WriteBlob. Nothing is stored before its last message has come and its lease still
// holds.
class BlobWrite : public ClientStream<WriteBlobRequest> {
 public:
  BlobWrite(const ApiContext& api, grpc::CallbackServerContext* context, ControlPlane& plane,
            BlobStore& blobs, int64_t max_bytes, worker::v1::WriteBlobResponse* response)
      : ClientStream(api, "WorkerService/WriteBlob", context),
        plane_(plane),
        blobs_(blobs),
        max_bytes_(max_bytes),
        response_(response) {}

 private:
  absl::StatusOr<bool> OnMessage(WriteBlobRequest& request) override {
    if (writer_ == nullptr) {
      BALLAST_ASSIGN_OR_RETURN(name_, plane_.BlobToWrite(call().Now(), request));
      BALLAST_ASSIGN_OR_RETURN(writer_, blobs_.Create(name_));
      first_ = request;
      first_.clear_data();
    }
    if (request.data().size() > kMaxChunkBytes) {
      return FieldError("data", "CHUNK_TOO_LARGE",
                        absl::StrCat("send at most ", kMaxChunkBytes, " bytes in a message"));
    }
    if (writer_->size_bytes() + static_cast<int64_t>(request.data().size()) > max_bytes_) {
      return MakeError(absl::StatusCode::kResourceExhausted, "BLOB_TOO_LARGE",
                       absl::StrCat("a blob may have at most ", max_bytes_, " bytes"));
    }
    BALLAST_RETURN_IF_ERROR(writer_->Append(request.data()));
    if (!request.finish()) return false;
    if (!IsDigest(request.digest())) {
      return FieldError("digest", "DIGEST_INVALID",
                        "the last message needs the digest of the whole blob");
    }
    // The slow part before the lease is taken.
    BALLAST_RETURN_IF_ERROR(writer_->Sync());
    BALLAST_RETURN_IF_ERROR(plane_.CommitBlob(
        call().Now(), first_, name_, [&] { return writer_->Commit(request.digest()).status(); }));
    response_->set_size_bytes(writer_->size_bytes());
    return true;
  }

  absl::Status OnEnd() override {
    return MakeError(absl::StatusCode::kInvalidArgument, "STREAM_INCOMPLETE",
                     "the last message must set finish; nothing was stored, send the blob again");
  }

  void Release() override { writer_.reset(); }

  ControlPlane& plane_;
  BlobStore& blobs_;
  const int64_t max_bytes_;
  worker::v1::WriteBlobResponse* const response_;
  std::string name_;
  WriteBlobRequest first_;
  std::unique_ptr<BlobWriter> writer_;
};

// One call of ReturnSample.
class SampleReturn : public ClientStream<ReturnSampleRequest> {
 public:
  SampleReturn(const ApiContext& api, grpc::CallbackServerContext* context, SampleBroker& broker)
      : ClientStream(api.executor, api, "WorkerService/ReturnSample", context), broker_(broker) {}
  ~SampleReturn() override { broker_.Ended(sample_id_, worker_id_); }

 private:
  absl::StatusOr<bool> OnMessage(ReturnSampleRequest& request) override {
    if (sample_id_.empty()) {
      sample_id_ = request.sample_id();
      worker_id_ = request.worker_id();
    }
    BALLAST_RETURN_IF_ERROR(broker_.Return(call().Now(), sample_id_, worker_id_, request));
    return request.has_error() || !request.response().finish_reason().empty();
  }

  absl::Status OnEnd() override {
    return MakeError(absl::StatusCode::kInvalidArgument, "STREAM_INCOMPLETE",
                     "the last message must have a finish_reason or an error");
  }

  SampleBroker& broker_;
  std::string sample_id_;
  std::string worker_id_;
};

worker::v1::ReadBlobResponse ResponseOf(const BlobLinks& links) {
  worker::v1::ReadBlobResponse response;
  worker::v1::BlobLinks& all = *response.mutable_links();
  for (const BlobLink& link : links.links) {
    worker::v1::BlobLink& out = *all.add_links();
    out.set_url(link.url);
    out.set_offset(link.offset);
    out.set_size_bytes(link.size_bytes);
  }
  return response;
}

absl::Status ResultInvalid(const BlobFile& file, const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "RESULT_INVALID",
                   absl::StrCat("the file ", file.path(), " ", what, "; write it again"));
}

}  // namespace

absl::Status WorkerService::CheckResult(absl::Time now,
                                        const worker::v1::SynchronizeRequest& request) {
  BALLAST_ASSIGN_OR_RETURN(const auto files, plane_.ResultBlobs(now, request));
  // Large files may take longer to read than a lease lasts.
  const auto renew = [&] {
    const absl::Status renewed =
        plane_.Renew(api_.clock.Now(), request.worker_id(), request.finished().lease());
    if (!renewed.ok()) spdlog::warn("a lease was not renewed: {}", ErrorReason(renewed));
  };
  for (const BlobFile& file : files) {
    const auto reader = blobs_.Open(file.blob());
    if (absl::IsNotFound(reader.status())) return ResultInvalid(file, "was not written");
    BALLAST_RETURN_IF_ERROR(reader.status());
    const int64_t size = (*reader)->size_bytes();
    if (file.size_bytes() >= 0 && size != file.size_bytes()) {
      return ResultInvalid(file, "has another size");
    }
    Sha256 sha;
    for (int64_t offset = 0; offset < size; offset += kMaxChunkBytes) {
      if (offset % kBytesBetweenRenewals == 0) renew();
      BALLAST_ASSIGN_OR_RETURN(const std::string bytes, (*reader)->Read(offset, kMaxChunkBytes));
      sha.Update(bytes);
    }
    if (sha.Finish() != file.digest()) return ResultInvalid(file, "has another digest");
  }
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* WorkerService::Synchronize(grpc::CallbackServerContext* context,
                                                     const worker::v1::SynchronizeRequest* request,
                                                     worker::v1::SynchronizeResponse* response) {
  auto* call = new SynchronizeCall(api_, context, request, response, held_);
  const auto who = Authorize(api_, *context, Allowed::kWorker);
  if (!who.ok()) {
    call->Answer(who.status());
    return call;
  }
  // The files of a result are read; and where a file is being written still, that is waited for.
  Executor& threads = request->has_busy() ? api_.executor : api_.transfers;
  threads.Run([this, call, request] {
    if (request->has_finished()) {
      const absl::Status status = CheckResult(api_.clock.Now(), *request);
      if (!status.ok()) return call->Answer(status);
    }
    // Before the time is looked at from which a new lease counts.
    if (!request->has_busy()) plane_.WaitForCommits(request->worker_id());
    call->Begin();
  });
  return call;
}

absl::StatusOr<BlobAnswer<worker::v1::ReadBlobResponse>> WorkerService::OpenBlob(
    absl::Time now, const worker::v1::ReadBlobRequest& request) {
  if (request.has_lease()) {
    BALLAST_RETURN_IF_ERROR(
        plane_.CheckReadable(now, request.worker_id(), request.lease(), request.blob()));
  } else {
    BALLAST_RETURN_IF_ERROR(
        broker_.CheckReadable(now, request.sample_id(), request.worker_id(), request.blob()));
  }
  if (request.accepts_links()) {
    const auto links = LinksToRead(blobs_, request.blob());
    if (links.ok()) {
      api_.metrics.CountLinks(static_cast<int64_t>(links->links.size()));
      return ResponseOf(*links);
    }
    if (ErrorReason(links.status()) != "LINKS_UNAVAILABLE") return links.status();
  }
  BlobRange range;
  BALLAST_ASSIGN_OR_RETURN(range.reader, blobs_.Open(request.blob()));
  range.begin = request.read_offset();
  range.end = range.reader->size_bytes();
  if (range.begin < 0 || range.begin > range.end) {
    return MakeError(absl::StatusCode::kOutOfRange, "READ_OFFSET_INVALID",
                     absl::StrCat("the blob has ", range.end, " bytes"));
  }
  return range;
}

grpc::ServerWriteReactor<worker::v1::ReadBlobResponse>* WorkerService::ReadBlob(
    grpc::CallbackServerContext* context, const worker::v1::ReadBlobRequest* request) {
  static constexpr char kMethod[] = "WorkerService/ReadBlob";
  const auto who = Authorize(api_, *context, Allowed::kWorker);
  if (!who.ok()) {
    return new Refused<grpc::ServerWriteReactor<worker::v1::ReadBlobResponse>>(
        Call(api_, kMethod).End(who.status()));
  }
  return new BlobStream<worker::v1::ReadBlobResponse>(
      api_, kMethod, context, [this, request](absl::Time now) { return OpenBlob(now, *request); });
}

grpc::ServerReadReactor<WriteBlobRequest>* WorkerService::WriteBlob(
    grpc::CallbackServerContext* context, worker::v1::WriteBlobResponse* response) {
  const auto who = Authorize(api_, *context, Allowed::kWorker);
  if (!who.ok()) {
    return new Refused<grpc::ServerReadReactor<WriteBlobRequest>>(
        Call(api_, "WorkerService/WriteBlob").End(who.status()));
  }
  auto* write = new BlobWrite(api_, context, plane_, blobs_, max_blob_bytes_, response);
  write->Begin();
  return write;
}

grpc::ServerReadReactor<ReturnSampleRequest>* WorkerService::ReturnSample(
    grpc::CallbackServerContext* context, worker::v1::ReturnSampleResponse* response) {
  const auto who = Authorize(api_, *context, Allowed::kWorker);
  if (!who.ok()) {
    return new Refused<grpc::ServerReadReactor<ReturnSampleRequest>>(
        Call(api_, "WorkerService/ReturnSample").End(who.status()));
  }
  auto* stream = new SampleReturn(api_, context, broker_);
  stream->Begin();
  return stream;
}

}  // namespace ballast::server
