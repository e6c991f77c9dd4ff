// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_WORKER_CLIENT_H_
#define BALLAST_WORKER_AGENT_WORKER_CLIENT_H_

#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ballast/worker/v1/worker_service.grpc.pb.h"
#include "common/http/http_client.h"
#include "worker/agent/cancellation.h"

namespace ballast::worker::agent {

namespace pb = ::ballast::worker::v1;

struct WorkerClientOptions {
  std::string server_address;  // "host:port"
  std::string api_key;         // the worker's
  std::string worker_id;
  std::string tls_authority_pem;  // empty: a plain connection, to loopback only
  absl::Duration first_backoff = absl::Milliseconds(200);
  absl::Duration longest_backoff = absl::Seconds(5);
  // How long a transfer is tried while the server cannot be reached.
  absl::Duration transfer_patience = absl::Minutes(2);
  // For how long blobs are read through the server after links to its store have not worked.
  absl::Duration without_links = absl::Minutes(5);
  absl::Duration link_idle = HttpClient::Options().idle;
};

// Who asks for a blob: a lease, or a sampling order.
struct BlobReader {
  pb::Lease lease;
  std::string sample_id;
};

// What a blob is that is written.
struct BlobKind {
  std::string delta_path;       // a delta's file
  int64_t checkpoint_step = 0;  // a checkpoint, where delta_path is empty
  bool sealed_vector = false;   // a sealed vector
};

// The reply to a sampling order on its way back. Not thread-safe.
class SampleReply {
 public:
  virtual ~SampleReply() = default;
  // The next piece; false when nobody waits any more.
  virtual bool Write(std::string text) = 0;
  // The end: "stop" or "length". Call once, or Fail.
  virtual absl::Status Finish(std::string finish_reason) = 0;
  virtual absl::Status Fail(const ballast::v1::JobError& error) = 0;
};

// Calls of the worker to the server, with key, deadlines and retries.
// Thread safety: thread-safe. Failures are the server's statuses with their reasons, or CANCELLED
// when the given Cancellation was used.
class WorkerClient {
 public:
  // INVALID_ARGUMENT (TLS_REQUIRED): a plain connection to anything but loopback. Does not wait for
  // the server. Warns where this machine cannot use links; blobs are read through the server then.
  static absl::StatusOr<std::unique_ptr<WorkerClient>> Create(const WorkerClientOptions& options);

  // One try; the caller decides about another. `request.worker_id` is filled in.
  absl::StatusOr<pb::SynchronizeResponse> Synchronize(pb::SynchronizeRequest request,
                                                      absl::Duration timeout,
                                                      Cancellation& cancellation);

  // Reads `blob` in pieces, in order; from the store itself where the server gives links and these
  // work. A broken connection is taken up where it broke. A failure of `sink` ends it.
  absl::Status ReadBlob(const BlobReader& reader, const std::string& blob,
                        const std::function<absl::Status(std::string_view)>& sink,
                        Cancellation& cancellation);

  // ReadBlob into memory. INVALID_ARGUMENT (BLOB_TOO_LARGE) above `max_bytes`.
  absl::StatusOr<std::string> ReadBlobToMemory(const BlobReader& reader, const std::string& blob,
                                               int64_t max_bytes, Cancellation& cancellation);

  // Writes `bytes`; durable on OK. A broken connection starts it again. Returns the digest.
  absl::StatusOr<std::string> WriteBlob(const pb::Lease& lease, const BlobKind& kind,
                                        std::string_view bytes, Cancellation& cancellation);

  // Starts the reply to a sampling order. `cancellation` must outlive it.
  std::unique_ptr<SampleReply> StartReply(const std::string& sample_id, Cancellation& cancellation);

  const WorkerClientOptions& options() const { return options_; }

 private:
  // What a read of a blob has come to.
  struct Reading {
    const std::function<absl::Status(std::string_view)>& sink;
    Cancellation& cancellation;
    int64_t offset = 0;
    absl::Status sink_status;
  };

  WorkerClient(const WorkerClientOptions& options, std::shared_ptr<grpc::Channel> channel,
               std::unique_ptr<HttpClient> http);

  void Prepare(grpc::ClientContext& context, absl::Duration timeout) const;
  // Runs `attempt` until it is OK or fails for another reason than an unreachable server, waiting
  // longer each time. `attempt` says through its argument that it got further, which starts the
  // patience anew.
  absl::Status WithRetries(Cancellation& cancellation,
                           const std::function<absl::Status(bool* progressed)>& attempt);
  // One try, which goes on at `reading.offset`.
  absl::Status ReadBlobOnce(const BlobReader& reader, const std::string& blob, bool by_links,
                            Reading& reading);
  absl::Status ReadByLinks(const pb::BlobLinks& links, Reading& reading);
  // Whether links are worth a try.
  bool LinksMayWork();
  void LinksDoNotWork(const absl::Status& why);
  absl::Status WriteBlobOnce(const pb::Lease& lease, const BlobKind& kind, std::string_view bytes,
                             const std::string& digest, Cancellation& cancellation);

  const WorkerClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<pb::WorkerService::Stub> stub_;
  const std::unique_ptr<HttpClient> http_;  // null: no links
  absl::Mutex mutex_;
  absl::Time no_links_before_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_WORKER_CLIENT_H_
