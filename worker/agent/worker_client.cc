// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/worker_client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/loopback.h"
#include "common/base/status_macros.h"
#include "common/rpc/grpc_status.h"
#include "worker/agent/status_text.h"

namespace ballast::worker::agent {
namespace {

constexpr size_t kWriteChunkBytes = 256 << 10;
// A transfer that stands still longer than this is started again.
constexpr absl::Duration kTransferTimeout = absl::Minutes(30);

bool CanBeRetried(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

absl::Status CancelledError() { return absl::CancelledError("the worker stopped this"); }

class GrpcSampleReply : public SampleReply {
 public:
  GrpcSampleReply(pb::WorkerService::Stub& stub, std::string sample_id, std::string worker_id,
                  std::unique_ptr<grpc::ClientContext> context, Cancellation& cancellation)
      : context_(std::move(context)), call_(cancellation, *context_) {
    first_.set_sample_id(std::move(sample_id));
    first_.set_worker_id(std::move(worker_id));
    writer_ = stub.ReturnSample(context_.get(), &response_);
  }

  ~GrpcSampleReply() override {
    if (!finished_) {
      context_->TryCancel();
      writer_->Finish();
    }
  }

  bool Write(std::string text) override {
    pb::ReturnSampleRequest request = std::exchange(first_, {});
    request.mutable_response()->set_text(std::move(text));
    return writer_->Write(request);
  }

  absl::Status Finish(std::string finish_reason) override {
    pb::ReturnSampleRequest request = std::exchange(first_, {});
    request.mutable_response()->set_finish_reason(std::move(finish_reason));
    return End(request);
  }

  absl::Status Fail(const ballast::v1::JobError& error) override {
    pb::ReturnSampleRequest request = std::exchange(first_, {});
    *request.mutable_error() = error;
    return End(request);
  }

 private:
  absl::Status End(const pb::ReturnSampleRequest& request) {
    writer_->Write(request);
    writer_->WritesDone();
    finished_ = true;
    return FromGrpcStatus(writer_->Finish());
  }

  const std::unique_ptr<grpc::ClientContext> context_;
  const CancellableCall call_;
  pb::ReturnSampleRequest first_;  // ids, for the first message only
  pb::ReturnSampleResponse response_;
  std::unique_ptr<grpc::ClientWriter<pb::ReturnSampleRequest>> writer_;
  bool finished_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerClient>> WorkerClient::Create(
    const WorkerClientOptions& options) {
  grpc::ChannelArguments arguments;
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (!options.tls_authority_pem.empty()) {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = options.tls_authority_pem;
    credentials = grpc::SslCredentials(tls);
  } else if (IsLoopbackAddress(options.server_address)) {
    credentials = grpc::InsecureChannelCredentials();
    // A proxy from the environment would get the key and everybody's data in clear.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  } else {
    return MakeError(absl::StatusCode::kInvalidArgument, "TLS_REQUIRED",
                     absl::StrCat("server_address is ", options.server_address,
                                  ", which is not loopback: set tls_authority_file, or the key and "
                                  "everybody's data would travel in clear"));
  }
  arguments.SetInt(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, 16 << 20);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.longest_backoff)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  // Workers in one process (tests) must not share a connection that one of them loses.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::unique_ptr<HttpClient> http;
  if (auto made = HttpClient::Create(
          {.idle = options.link_idle, .allow_plain = options.tls_authority_pem.empty()});
      made.ok()) {
    http = *std::move(made);
  } else {
    spdlog::warn("every blob is read through the server: {}", StatusText(made.status()));
  }
  return std::unique_ptr<WorkerClient>(new WorkerClient(
      options, grpc::CreateCustomChannel(options.server_address, credentials, arguments),
      std::move(http)));
}

WorkerClient::WorkerClient(const WorkerClientOptions& options,
                           std::shared_ptr<grpc::Channel> channel, std::unique_ptr<HttpClient> http)
    : options_(options),
      channel_(std::move(channel)),
      stub_(pb::WorkerService::NewStub(channel_)),
      http_(std::move(http)) {}

void WorkerClient::Prepare(grpc::ClientContext& context, absl::Duration timeout) const {
  context.AddMetadata("authorization", absl::StrCat("Bearer ", options_.api_key));
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
}

absl::StatusOr<pb::SynchronizeResponse> WorkerClient::Synchronize(pb::SynchronizeRequest request,
                                                                  absl::Duration timeout,
                                                                  Cancellation& cancellation) {
  if (cancellation.cancelled()) return CancelledError();
  request.set_worker_id(options_.worker_id);
  grpc::ClientContext context;
  Prepare(context, timeout);
  const CancellableCall call(cancellation, context);
  pb::SynchronizeResponse response;
  const grpc::Status status = stub_->Synchronize(&context, request, &response);
  if (!status.ok()) return cancellation.cancelled() ? CancelledError() : FromGrpcStatus(status);
  return response;
}

absl::Status WorkerClient::WithRetries(Cancellation& cancellation,
                                       const std::function<absl::Status(bool*)>& attempt) {
  absl::Duration backoff = options_.first_backoff;
  absl::Duration waited;
  while (true) {
    if (cancellation.cancelled()) return CancelledError();
    bool progressed = false;
    const absl::Status status = attempt(&progressed);
    if (progressed) {
      backoff = options_.first_backoff;
      waited = absl::ZeroDuration();
    }
    if (!status.ok() && cancellation.cancelled()) return CancelledError();
    if (status.ok() || !CanBeRetried(status) || waited > options_.transfer_patience) return status;
    if (cancellation.WaitFor(backoff)) return CancelledError();
    waited += backoff;
    backoff = std::min(2 * backoff, options_.longest_backoff);
  }
}

bool WorkerClient::LinksMayWork() {
  if (http_ == nullptr) return false;
  absl::MutexLock lock(&mutex_);
  return absl::Now() >= no_links_before_;
}

void WorkerClient::LinksDoNotWork(const absl::Status& why) {
  spdlog::warn("links to the store do not work from here, going on through the server: {}",
               StatusText(why));
  absl::MutexLock lock(&mutex_);
  no_links_before_ = absl::Now() + options_.without_links;
}

absl::Status WorkerClient::ReadBlob(const BlobReader& reader, const std::string& blob,
                                    const std::function<absl::Status(std::string_view)>& sink,
                                    Cancellation& cancellation) {
  Reading reading{sink, cancellation};
  const absl::Status status = WithRetries(cancellation, [&](bool* progressed) {
    const int64_t before = reading.offset;
    const absl::Status read = ReadBlobOnce(reader, blob, LinksMayWork(), reading);
    *progressed = reading.offset > before;
    return reading.sink_status.ok() ? read : absl::OkStatus();
  });
  return reading.sink_status.ok() ? status : reading.sink_status;
}

absl::Status WorkerClient::ReadBlobOnce(const BlobReader& reader, const std::string& blob,
                                        bool by_links, Reading& reading) {
  pb::ReadBlobRequest request;
  if (reader.sample_id.empty()) {
    *request.mutable_lease() = reader.lease;
  } else {
    request.set_sample_id(reader.sample_id);
  }
  request.set_blob(blob);
  request.set_read_offset(reading.offset);
  request.set_worker_id(options_.worker_id);
  request.set_accepts_links(by_links);
  grpc::ClientContext context;
  Prepare(context, kTransferTimeout);
  const CancellableCall call(reading.cancellation, context);
  const auto stream = stub_->ReadBlob(&context, request);
  pb::ReadBlobResponse piece;
  pb::BlobLinks links;
  bool linked = false;
  while (stream->Read(&piece)) {
    if (piece.has_links()) {
      links = piece.links();
      linked = true;
      continue;
    }
    reading.offset += static_cast<int64_t>(piece.data().size());
    reading.sink_status = reading.sink(piece.data());
    if (!reading.sink_status.ok()) {
      context.TryCancel();
      stream->Finish();
      return absl::OkStatus();
    }
  }
  const absl::Status status = FromGrpcStatus(stream->Finish());
  if (!status.ok() || !linked) return status;
  if (by_links) return ReadByLinks(links, reading);
  return MakeError(absl::StatusCode::kInternal, "LINK_INVALID",
                   "the server gives links that nobody asked for");
}

absl::Status WorkerClient::ReadByLinks(const pb::BlobLinks& links, Reading& reading) {
  const int64_t before = reading.offset;
  absl::Status status;
  for (const pb::BlobLink& link : links.links()) {
    if (!IsWithin(link.offset(), link.size_bytes(), std::numeric_limits<int64_t>::max())) {
      status = MakeError(absl::StatusCode::kUnavailable, "LINK_INVALID",
                         "a link is to bytes that no blob has");
      break;
    }
    const int64_t end = link.offset() + link.size_bytes();
    if (end <= reading.offset) continue;
    if (link.offset() > reading.offset) {
      status = MakeError(absl::StatusCode::kUnavailable, "LINK_BROKEN", "the links have gaps");
      break;
    }
    status = http_->Get(
        link.url(), reading.offset - link.offset(), end - reading.offset,
        [&](std::string_view bytes) {
          reading.offset += static_cast<int64_t>(bytes.size());
          reading.sink_status = reading.sink(bytes);
          return reading.sink_status;
        },
        [&] { return !reading.cancellation.cancelled(); });
    if (!status.ok()) break;
  }
  if (status.ok() || !reading.sink_status.ok()) return status;
  // Others are asked for where these have expired or broken off; the server, where they bring
  // nothing, or too little.
  if ((reading.offset == before || ErrorReason(status) == "LINK_SLOW") &&
      !reading.cancellation.cancelled()) {
    LinksDoNotWork(status);
  }
  return absl::UnavailableError(std::string(status.message()));
}

absl::StatusOr<std::string> WorkerClient::ReadBlobToMemory(const BlobReader& reader,
                                                           const std::string& blob,
                                                           int64_t max_bytes,
                                                           Cancellation& cancellation) {
  std::string bytes;
  BALLAST_RETURN_IF_ERROR(ReadBlob(
      reader, blob,
      [&](std::string_view piece) {
        if (static_cast<int64_t>(bytes.size() + piece.size()) > max_bytes) {
          return MakeError(absl::StatusCode::kInvalidArgument, "BLOB_TOO_LARGE",
                           absl::StrCat("a blob has more than ", max_bytes, " bytes"));
        }
        bytes += piece;
        return absl::OkStatus();
      },
      cancellation));
  return bytes;
}

absl::StatusOr<std::string> WorkerClient::WriteBlob(const pb::Lease& lease, const BlobKind& kind,
                                                    std::string_view bytes,
                                                    Cancellation& cancellation) {
  const std::string digest = DigestOf(bytes);
  BALLAST_RETURN_IF_ERROR(WithRetries(cancellation, [&](bool*) {
    return WriteBlobOnce(lease, kind, bytes, digest, cancellation);
  }));
  return digest;
}

absl::Status WorkerClient::WriteBlobOnce(const pb::Lease& lease, const BlobKind& kind,
                                         std::string_view bytes, const std::string& digest,
                                         Cancellation& cancellation) {
  grpc::ClientContext context;
  Prepare(context, kTransferTimeout);
  const CancellableCall call(cancellation, context);
  pb::WriteBlobResponse response;
  const auto writer = stub_->WriteBlob(&context, &response);
  pb::WriteBlobRequest request;
  *request.mutable_lease() = lease;
  request.set_worker_id(options_.worker_id);
  if (!kind.delta_path.empty()) {
    request.set_delta_path(kind.delta_path);
  } else if (kind.sealed_vector) {
    request.set_sealed_vector(true);
  } else {
    request.set_checkpoint_step(kind.checkpoint_step);
  }
  size_t at = 0;
  bool last = false;
  while (!last) {
    const std::string_view piece = bytes.substr(at, kWriteChunkBytes);
    at += piece.size();
    last = at == bytes.size();
    request.set_data(piece.data(), piece.size());
    if (last) {
      request.set_finish(true);
      request.set_digest(digest);
    }
    if (!writer->Write(request)) break;  // the server answered early; Finish says why
    request.Clear();
  }
  writer->WritesDone();
  return FromGrpcStatus(writer->Finish());
}

std::unique_ptr<SampleReply> WorkerClient::StartReply(const std::string& sample_id,
                                                      Cancellation& cancellation) {
  auto context = std::make_unique<grpc::ClientContext>();
  Prepare(*context, absl::Minutes(10));
  return std::make_unique<GrpcSampleReply>(*stub_, sample_id, options_.worker_id,
                                           std::move(context), cancellation);
}

}  // namespace ballast::worker::agent
