// SPDX-License-Identifier: Apache-2.0
// One server, one API key, and the rules of calling: deadlines, and retries of calls that may be
// repeated.
#ifndef BALLAST_CLIENT_CPP_CONNECTION_H_
#define BALLAST_CLIENT_CPP_CONNECTION_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ballast::client {

// How failed calls are repeated. Only UNAVAILABLE is repeated, and only where the header of the
// call says that it may be.
struct RetryPolicy {
  int max_attempts = 5;
  absl::Duration initial_backoff = absl::Milliseconds(200);
  absl::Duration max_backoff = absl::Seconds(5);
  // Attempts in a row that may bring nothing before a transfer or a watch gives up.
  int max_reconnects = 20;

  // Pause before attempt `attempt` + 1 (attempts count from 1): doubles each time, with jitter in
  // [0.5, 1], and is at least what the server's RetryInfo in `failure` asks for (but at most 30 s).
  absl::Duration Backoff(int attempt, const absl::Status& failure) const;
};

// What a connection needs to know.
struct ConnectionOptions {
  std::string server_address;      // host:port
  std::string api_key;             // sent as "authorization: Bearer <key>"; empty sends none
  std::string tls_authority_file;  // PEM; empty: plain text, allowed to loopback only
  absl::Duration deadline = absl::Seconds(30);         // of one unary attempt
  absl::Duration stream_deadline = absl::Minutes(30);  // of one streaming attempt
  RetryPolicy retry;
  // Waits between attempts; tests replace it.
  std::function<void(absl::Duration)> sleep;
};

// Thread safety: thread-safe.
class Connection {
 public:
  // Makes a channel; nothing is sent before the first call. INVALID_ARGUMENT:
  // SERVER_ADDRESS_INVALID, TLS_REQUIRED (the address is not loopback and there is no authority
  // file), API_KEY_INVALID (the key has characters that no key has). The errors of reading the
  // authority file.
  static absl::StatusOr<std::shared_ptr<const Connection>> Create(ConnectionOptions options);

  // Over a channel of the caller's.
  Connection(ConnectionOptions options, std::shared_ptr<grpc::Channel> channel);

  // A unary call. `call` runs one attempt with a prepared context: the stub's method bound to its
  // request and response. With `may_repeat`, UNAVAILABLE is retried by the policy. A failure says
  // how to reach the server where it could not be reached.
  absl::Status Call(bool may_repeat,
                    const std::function<grpc::Status(grpc::ClientContext*)>& call) const;

  // Sets the key and a deadline on a context of a streaming call.
  void Prepare(grpc::ClientContext& context, absl::Duration deadline) const;

  // The Status of a finished call.
  absl::Status Convert(const grpc::Status& status) const;

  // Whether a transfer or a watch that ended with `status` goes on from where it stood: the
  // connection broke, the attempt's deadline passed, or the server is shutting down.
  static bool IsBroken(const absl::Status& status);

  void Sleep(absl::Duration duration) const { options_.sleep(duration); }

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  const ConnectionOptions& options() const { return options_; }

 private:
  const ConnectionOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
};

// True for addresses on this machine: localhost, 127.0.0.0/8, [::1] and unix sockets.
bool IsLoopback(const std::string& server_address);

// A random UUID (version 4) for request_id.
std::string NewRequestId();

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_CONNECTION_H_
