// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/connection.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/loopback.h"
#include "common/base/status_macros.h"
#include "common/rpc/grpc_status.h"
#include "google/rpc/error_details.pb.h"

namespace ballast::client {
namespace {

constexpr absl::Duration kLongestRetryInfo = absl::Seconds(30);
constexpr int kMaxMessageBytes = 8 << 20;

absl::Duration RetryInfoDelay(const absl::Status& failure) {
  const auto payload = failure.GetPayload(kRetryInfoUrl);
  google::rpc::RetryInfo info;
  if (!payload.has_value() || !info.ParseFromString(std::string(*payload))) {
    return absl::ZeroDuration();
  }
  return absl::Seconds(info.retry_delay().seconds()) +
         absl::Nanoseconds(info.retry_delay().nanos());
}

ConnectionOptions WithDefaults(ConnectionOptions options) {
  if (!options.sleep) options.sleep = absl::SleepFor;
  return options;
}

}  // namespace

absl::Duration RetryPolicy::Backoff(int attempt, const absl::Status& failure) const {
  thread_local std::minstd_rand random{std::random_device{}()};
  absl::Duration backoff = initial_backoff;
  for (int i = 1; i < attempt && backoff < max_backoff; ++i) backoff *= 2;
  backoff = std::min(backoff, max_backoff);
  backoff *= std::uniform_real_distribution<double>(0.5, 1.0)(random);
  return std::max(backoff, std::min(RetryInfoDelay(failure), kLongestRetryInfo));
}

bool IsLoopback(const std::string& server_address) {
  if (absl::StartsWith(server_address, "unix:")) return true;
  return IsLoopbackAddress(server_address);
}

std::string NewRequestId() {
  std::string hex = RandomHex(128);
  hex[12] = '4';
  hex[16] = "89ab"[hex[16] % 4];
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20));
}

absl::StatusOr<std::shared_ptr<const Connection>> Connection::Create(ConnectionOptions options) {
  if (options.server_address.find(':') == std::string::npos) {
    return FieldError("server_address", "SERVER_ADDRESS_INVALID",
                      absl::StrCat("'", options.server_address,
                                   "' is no server address; give host:port, for example "
                                   "127.0.0.1:7070"));
  }
  if (!std::all_of(options.api_key.begin(), options.api_key.end(),
                   [](char c) { return absl::ascii_isgraph(c); })) {
    return FieldError("api_key", "API_KEY_INVALID",
                      "the API key has spaces or control characters; check the file or variable "
                      "that it was read from");
  }
  grpc::ChannelArguments arguments;
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (!options.tls_authority_file.empty()) {
    grpc::SslCredentialsOptions tls;
    BALLAST_ASSIGN_OR_RETURN(tls.pem_root_certs, ReadFile(options.tls_authority_file, 1 << 20));
    credentials = grpc::SslCredentials(tls);
  } else if (IsLoopback(options.server_address)) {
    credentials = grpc::InsecureChannelCredentials();
    // A proxy from the environment would get the key and the data in plain text.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  } else {
    return FieldError("tls_authority_file", "TLS_REQUIRED",
                      absl::StrCat(options.server_address,
                                   " is not on this machine, and the API key must not travel in "
                                   "plain text; give the PEM file of the server's certificate "
                                   "authority"));
  }
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // A server that restarts is found again quickly.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Also how long one attempt to connect may take: a server under load answers late.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  auto channel = grpc::CreateCustomChannel(options.server_address, credentials, arguments);
  return std::make_shared<const Connection>(std::move(options), std::move(channel));
}

Connection::Connection(ConnectionOptions options, std::shared_ptr<grpc::Channel> channel)
    : options_(WithDefaults(std::move(options))), channel_(std::move(channel)) {}

void Connection::Prepare(grpc::ClientContext& context, absl::Duration deadline) const {
  if (!options_.api_key.empty()) {
    context.AddMetadata("authorization", absl::StrCat("Bearer ", options_.api_key));
  }
  context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
}

absl::Status Connection::Convert(const grpc::Status& status) const {
  absl::Status converted = FromGrpcStatus(status);
  if (!status.error_details().empty()) return converted;
  // No details: the failure comes from gRPC itself, not from Ballast.
  if (converted.code() == absl::StatusCode::kUnavailable) {
    return MakeError(
        absl::StatusCode::kUnavailable, "SERVER_UNREACHABLE",
        absl::StrCat("cannot reach the server at ", options_.server_address, " (",
                     converted.message(), "); check that it runs and that the address is right"),
        {{"server_address", options_.server_address}});
  }
  if (converted.code() == absl::StatusCode::kDeadlineExceeded) {
    return MakeError(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                     absl::StrCat("the server at ", options_.server_address,
                                  " did not answer in time; try again"),
                     {{"server_address", options_.server_address}});
  }
  return converted;
}

bool Connection::IsBroken(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kDeadlineExceeded ||
         status.code() == absl::StatusCode::kCancelled;
}

absl::Status Connection::Call(bool may_repeat,
                              const std::function<grpc::Status(grpc::ClientContext*)>& call) const {
  for (int attempt = 1;; ++attempt) {
    grpc::ClientContext context;
    Prepare(context, options_.deadline);
    const absl::Status status = Convert(call(&context));
    if (!may_repeat || status.code() != absl::StatusCode::kUnavailable ||
        attempt >= options_.retry.max_attempts) {
      return status;
    }
    Sleep(options_.retry.Backoff(attempt, status));
  }
}

}  // namespace ballast::client
