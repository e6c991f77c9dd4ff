// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_SERVER_H_
#define BALLAST_SERVER_API_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/v1/money.pb.h"
#include "common/base/clock.h"
#include "server/core/authenticator.h"
#include "server/core/blob_store.h"
#include "server/core/bulletin.h"
#include "server/core/collaborators.h"
#include "server/core/job_store.h"
#include "server/core/quotas.h"
#include "server/core/row_checks.h"
#include "server/core/signer.h"

namespace ballast::server {

struct ServerOptions {
  std::string listen_address = "127.0.0.1:7070";   // port 0 takes a free one
  std::string metrics_address = "127.0.0.1:7071";  // "off" for none
  std::string scratch_dir;  // local folder for what is not stored yet; emptied
  // Where blobs are kept, the same for all servers that share a store of jobs.
  std::string blobs_identity;
  std::string tls_certificate;  // PEM; empty: plain, on loopback only
  std::string tls_private_key;  // PEM
  absl::Duration lease = absl::Seconds(30);
  int max_attempts = 3;
  absl::Duration retry = absl::Seconds(5);
  // Withheld deltas of a tenant that freeze it, and how long one waits for an operator.
  int withheld_budget = 5;
  absl::Duration withheld_expiry = absl::Hours(14 * 24);
  int64_t max_dataset_bytes = int64_t{1} << 30;
  int64_t upload_part_bytes = int64_t{64} << 20;  // of an upload by links
  Quotas quotas;
  v1::Money price_per_million_tokens;  // unset for none
  // Of one blob that a worker writes: a checkpoint, a file of a delta, a sealed vector.
  int64_t max_worker_blob_bytes = int64_t{64} << 30;
  int executor_threads = 8;
  int transfer_threads = 16;  // for reading and writing blobs
  int watch_threads = 2;
  // Whether jobs of base models that were imported as unprotected run.
  bool allow_unprotected_base_models = false;
};

// What the server is made of; all must outlive it.
struct ServerParts {
  JobStore& store;
  BlobStore& blobs;
  const Authenticator& authenticator;
  RowChecks& row_checks;
  Clock& clock;
  // Null: no vector can be certified, and certified ones do not serve.
  const Signer* signer = nullptr;
  // To tell other servers of the same store; null: there are none, or they find out by themselves.
  Bulletin* bulletin = nullptr;
};

// The gRPC server with everything behind it. Thread safety: thread-safe.
class Server {
 public:
  // Starts serving. FAILED_PRECONDITION (PORT_IN_USE), INVALID_ARGUMENT (LISTEN_ADDRESS_INVALID,
  // TLS_REQUIRED, TLS_INVALID), or a failure of the store.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerParts& parts,
                                                       const ServerOptions& options);
  // Stops, if Stop was not called.
  ~Server();

  // host:port that it listens on.
  const std::string& address() const;
  int metrics_port() const;

  // OK, or why it cannot go on: stop it then. FAILED_PRECONDITION (SERVER_ID_TAKEN).
  absl::Status Fault() const;

  // Health says NOT_SERVING, held calls are answered, watches end, running calls get up to `grace`,
  // then everything is stopped. Idempotent.
  void Stop(absl::Duration grace);

  // Does at once what otherwise happens several times a second: ends leases that are due by the
  // clock, answers held calls, ends idle streams. For tests with a clock of their own.
  void TickForTest();
  // The same, and checks the rows of all uploaded data sets and deletes all garbage before it
  // returns.
  void SettleForTest();

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_SERVER_H_
