// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/worker_client.h"

#include <cstdlib>
#include <string>
#include <thread>

#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/testing/fake_worker_service.h"

namespace ballast::worker::agent {
namespace {

using ballast::testing::StatusIs;
using ballast::worker::testing::FakeWorkerService;

WorkerClientOptions Options(const std::string& address) {
  WorkerClientOptions options;
  options.server_address = address;
  options.api_key = FakeWorkerService::kApiKey;
  options.worker_id = "w";
  options.first_backoff = absl::Milliseconds(1);
  options.longest_backoff = absl::Milliseconds(4);
  options.transfer_patience = absl::Milliseconds(20);
  return options;
}

std::unique_ptr<WorkerClient> Connect(const std::string& address) {
  auto client = WorkerClient::Create(Options(address));
  EXPECT_OK(client);
  return *std::move(client);
}

pb::Lease ALease() {
  pb::Lease lease;
  lease.set_resource("vectors/v");
  lease.set_epoch(1);
  return lease;
}

TEST(WorkerClientTest, SendsKeysInClearToLoopbackOnly) {
  for (const char* address :
       {"example.com:7070", "10.0.0.1:7070", "0.0.0.0:7070", "[2001:db8::1]:7070",
        "localhost.example.com:7070", "1127.0.0.1:7070", "127.example.com:7070"}) {
    EXPECT_THAT(WorkerClient::Create(Options(address)),
                StatusIs(absl::StatusCode::kInvalidArgument, "TLS_REQUIRED"))
        << address;
  }
  for (const char* address : {"127.0.0.1:7070", "localhost:7070", "[::1]:7070"}) {
    EXPECT_OK(WorkerClient::Create(Options(address))) << address;
  }
}

TEST(WorkerClientTest, AProxyOfTheEnvironmentSeesNothingInClear) {
  FakeWorkerService server;
  server.SetBlob("b", "bytes");
  // Nothing listens on port 1: a channel that went by the proxy would find nobody.
  for (const char* name : {"grpc_proxy", "http_proxy"}) setenv(name, "http://127.0.0.1:1", 1);
  for (const char* name : {"no_grpc_proxy", "no_proxy"}) unsetenv(name);
  const auto client = Connect(server.address());
  Cancellation never;
  EXPECT_OK(client->ReadBlobToMemory({ALease(), ""}, "b", 10, never));
  for (const char* name : {"grpc_proxy", "http_proxy"}) unsetenv(name);
}

TEST(WorkerClientTest, CarriesTheServersReason) {
  FakeWorkerService server;
  WorkerClientOptions options = Options(server.address());
  options.api_key = "wrong";
  ASSERT_OK_AND_ASSIGN(const auto client, WorkerClient::Create(options));
  Cancellation never;
  EXPECT_THAT(client->Synchronize({}, absl::Seconds(5), never),
              StatusIs(absl::StatusCode::kUnauthenticated, "API_KEY_INVALID"));
}

TEST(WorkerClientTest, ReadsALargeBlobOverABadConnection) {
  FakeWorkerService server;
  std::string bytes;
  for (int i = 0; i < 20'000; ++i) bytes += static_cast<char>(i * 31);
  server.SetBlob("b", bytes);
  server.BreakReadsAfter(3000);
  Cancellation never;
  const auto client = Connect(server.address());
  ASSERT_OK_AND_ASSIGN(const std::string read,
                       client->ReadBlobToMemory({ALease(), ""}, "b", 1 << 20, never));
  EXPECT_EQ(read, bytes);
  EXPECT_THAT(client->ReadBlobToMemory({ALease(), ""}, "b", 10'000, never),
              StatusIs(absl::StatusCode::kInvalidArgument, "BLOB_TOO_LARGE"));
  EXPECT_THAT(client->ReadBlobToMemory({ALease(), ""}, "other", 10'000, never),
              StatusIs(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE"));
}

TEST(WorkerClientTest, WritesABlobInPiecesAndAgainAfterAFailure) {
  FakeWorkerService server;
  server.FailCalls(2);
  const auto client = Connect(server.address());
  Cancellation never;
  BlobKind kind;
  kind.delta_path = "adapter/x";
  const std::string bytes(1'000'000, 'x');
  ASSERT_OK_AND_ASSIGN(const std::string digest, client->WriteBlob(ALease(), kind, bytes, never));
  EXPECT_EQ(digest, DigestOf(bytes));
  EXPECT_EQ(server.written().at("delta/adapter/x"), bytes);
  ASSERT_OK(client->WriteBlob(ALease(), kind, "", never));
  EXPECT_EQ(server.written().at("delta/adapter/x"), "");
  server.LoseLease();
  EXPECT_THAT(client->WriteBlob(ALease(), kind, bytes, never),
              StatusIs(absl::StatusCode::kFailedPrecondition, "LEASE_LOST"));
}

TEST(WorkerClientTest, GivesUpAfterItsPatience) {
  FakeWorkerService server;
  server.FailCalls(1'000'000);
  const auto client = Connect(server.address());
  Cancellation never;
  EXPECT_THAT(client->WriteBlob(ALease(), {"p"}, "x", never),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_GT(server.failed_calls(), 3);
}

TEST(WorkerClientTest, EndsALongPollAndRetriesWhenCancelled) {
  FakeWorkerService server;
  const auto client = Connect(server.address());
  Cancellation cancellation;
  pb::SynchronizeRequest request;
  request.mutable_idle();
  std::thread canceller([&] {
    server.WaitForIdle(1);
    cancellation.Cancel();
  });
  absl::Status status;
  while (status.ok()) {
    status = client->Synchronize(request, absl::Seconds(30), cancellation).status();
  }
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  server.FailCalls(1'000'000);
  EXPECT_THAT(client->WriteBlob(ALease(), {"p"}, "x", cancellation),
              StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace ballast::worker::agent
