// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/worker_client.h"

#include <cstdlib>
#include <limits>
#include <string>
#include <thread>

#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "common/http/testing/no_authorities.h"
#include "common/http/testing/small_http_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/testing/fake_worker_service.h"

namespace ballast::worker::agent {
namespace {

using ballast::testing::SmallHttpServer;
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

std::string SomeBytes() {
  std::string bytes;
  for (int i = 0; i < 20'000; ++i) bytes += static_cast<char>(i * 31);
  return bytes;
}

// A blob of two objects, as an upload leaves it, of `bytes` that a store has.
pb::BlobLinks TwoLinks(const SmallHttpServer& store, const std::string& bytes) {
  const int64_t half = 7000;
  pb::BlobLinks links;
  const auto add = [&](const char* target, int64_t offset, int64_t size) {
    pb::BlobLink& link = *links.add_links();
    link.set_url(store.Url(target));
    link.set_offset(offset);
    link.set_size_bytes(size);
  };
  add("/first?secret", 0, half);
  add("/second?secret", half, static_cast<int64_t>(bytes.size()) - half);
  return links;
}

pb::BlobLinks OneLink(const SmallHttpServer& store, int64_t offset, int64_t size) {
  pb::BlobLinks links;
  pb::BlobLink& link = *links.add_links();
  link.set_url(store.Url("/b"));
  link.set_offset(offset);
  link.set_size_bytes(size);
  return links;
}

TEST(WorkerClientTest, ReadsFromTheStoreByLinks) {
  const std::string bytes = SomeBytes();
  SmallHttpServer store([&](const SmallHttpServer::Request& request) {
    return SmallHttpServer::Range(
        request, request.target == "/first?secret" ? bytes.substr(0, 7000) : bytes.substr(7000));
  });
  FakeWorkerService server;
  server.SetBlob("b", "what the server itself would send");
  server.SetLinks("b", TwoLinks(store, bytes));
  server.SetBlob("empty", "");
  server.SetLinks("empty", {});
  const auto client = Connect(server.address());
  Cancellation never;
  ASSERT_OK_AND_ASSIGN(const std::string read,
                       client->ReadBlobToMemory({ALease(), ""}, "b", 1 << 20, never));
  EXPECT_EQ(read, bytes);
  EXPECT_EQ(client->ReadBlobToMemory({ALease(), ""}, "empty", 10, never).value(), "");
  EXPECT_EQ(server.reads_without_links(), 0);
  EXPECT_EQ(store.requests().size(), 2u);
  EXPECT_THAT(client->ReadBlobToMemory({ALease(), ""}, "b", 10, never),
              StatusIs(absl::StatusCode::kInvalidArgument, "BLOB_TOO_LARGE"));
}

TEST(WorkerClientTest, ALinkThatBreaksOffIsTakenUpWhereItBroke) {
  const std::string bytes = SomeBytes();
  SmallHttpServer store([&](const SmallHttpServer::Request& request) {
    auto reply = SmallHttpServer::Range(request, bytes);
    reply.bytes.resize(std::min<size_t>(reply.bytes.size(), 6000));
    return reply;
  });
  FakeWorkerService server;
  server.SetBlob("b", bytes);
  server.SetLinks("b", OneLink(store, 0, static_cast<int64_t>(bytes.size())));
  const auto client = Connect(server.address());
  Cancellation never;
  EXPECT_EQ(client->ReadBlobToMemory({ALease(), ""}, "b", 1 << 20, never).value(), bytes);
  EXPECT_EQ(server.reads_without_links(), 0);
  EXPECT_GE(store.requests().size(), 4u);
}

TEST(WorkerClientTest, LinksThatDoNotWorkAreLeftForAWhile) {
  const std::string bytes = SomeBytes();
  SmallHttpServer store(
      [](const SmallHttpServer::Request&) { return SmallHttpServer::Plain(403, "expired"); });
  FakeWorkerService server;
  for (const char* blob : {"b", "c"}) {
    server.SetBlob(blob, bytes);
    server.SetLinks(blob, TwoLinks(store, bytes));
  }
  Cancellation never;
  const auto client = Connect(server.address());
  EXPECT_EQ(client->ReadBlobToMemory({ALease(), ""}, "b", 1 << 20, never).value(), bytes);
  EXPECT_EQ(server.reads_with_links(), 1);
  EXPECT_EQ(client->ReadBlobToMemory({ALease(), ""}, "c", 1 << 20, never).value(), bytes);
  EXPECT_EQ(server.reads_with_links(), 1);
  EXPECT_EQ(server.reads_without_links(), 2);
  EXPECT_EQ(store.requests().size(), 1u);

  WorkerClientOptions options = Options(server.address());
  options.without_links = absl::ZeroDuration();
  options.transfer_patience = absl::ZeroDuration();
  ASSERT_OK_AND_ASSIGN(const auto stubborn, WorkerClient::Create(options));
  const absl::Status failed =
      stubborn->ReadBlobToMemory({ALease(), ""}, "b", 1 << 20, never).status();
  EXPECT_TRUE(absl::IsUnavailable(failed)) << failed;
  EXPECT_EQ(failed.ToString().find("secret"), std::string::npos) << failed;
  EXPECT_GE(server.reads_with_links(), 2);
}

TEST(WorkerClientTest, AStoreThatStandsStillDoesNotHoldUpAWorkerThatStops) {
  SmallHttpServer store([](const SmallHttpServer::Request&) {
    return SmallHttpServer::Reply{"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\nsome", true};
  });
  FakeWorkerService server;
  server.SetBlob("b", SomeBytes());
  server.SetLinks("b", TwoLinks(store, SomeBytes()));
  const auto client = Connect(server.address());
  Cancellation cancellation;
  std::thread canceller;
  const absl::Status status = client->ReadBlob(
      {ALease(), ""}, "b",
      [&](std::string_view) {
        if (!canceller.joinable()) canceller = std::thread([&] { cancellation.Cancel(); });
        return absl::OkStatus();
      },
      cancellation);
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
}

TEST(WorkerClientTest, AWorkerThatStopsReadsALinkNotToItsEnd) {
  const std::string bytes(16 << 20, 'x');
  SmallHttpServer store([&](const SmallHttpServer::Request& request) {
    return SmallHttpServer::Range(request, bytes);
  });
  FakeWorkerService server;
  server.SetBlob("b", bytes);
  server.SetLinks("b", OneLink(store, 0, static_cast<int64_t>(bytes.size())));
  const auto client = Connect(server.address());
  Cancellation cancellation;
  size_t read = 0;
  const absl::Status status = client->ReadBlob(
      {ALease(), ""}, "b",
      [&](std::string_view piece) {
        read += piece.size();
        cancellation.Cancel();
        return absl::OkStatus();
      },
      cancellation);
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_LT(read, bytes.size());
}

TEST(WorkerClientTest, AStoreThatIsTooSlowIsLeftForTheServer) {
  const std::string bytes(100'000, 'x');
  SmallHttpServer store([](const SmallHttpServer::Request&) {
    return SmallHttpServer::Reply{.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
                                  .then_trickle = true};
  });
  FakeWorkerService server;
  server.SetBlob("b", bytes);
  server.SetLinks("b", OneLink(store, 0, static_cast<int64_t>(bytes.size())));
  WorkerClientOptions options = Options(server.address());
  options.link_idle = absl::Seconds(1);
  ASSERT_OK_AND_ASSIGN(const auto client, WorkerClient::Create(options));
  Cancellation never;
  EXPECT_TRUE(client->ReadBlobToMemory({ALease(), ""}, "b", 1 << 20, never).value() == bytes);
  EXPECT_EQ(store.requests().size(), 1u);
  EXPECT_EQ(server.reads_without_links(), 1);
}

TEST(WorkerClientTest, LinksToBytesThatCannotBeAreLeftForTheServer) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  SmallHttpServer store(
      [](const SmallHttpServer::Request&) { return SmallHttpServer::Plain(200, "other"); });
  const std::pair<int64_t, int64_t> ranges[] = {{-1, 6}, {0, -1}, {1, kMost}, {kMost, kMost}};
  for (const auto& [offset, size] : ranges) {
    FakeWorkerService server;
    server.SetBlob("b", "bytes");
    server.SetLinks("b", OneLink(store, offset, size));
    Cancellation never;
    EXPECT_EQ(Connect(server.address())->ReadBlobToMemory({ALease(), ""}, "b", 10, never).value(),
              "bytes");
    EXPECT_EQ(server.reads_without_links(), 1) << offset << " " << size;
  }
  EXPECT_TRUE(store.requests().empty());
}

TEST(WorkerClientTest, AMachineWithoutAuthoritiesTakesNoLinks) {
  SmallHttpServer store(
      [](const SmallHttpServer::Request&) { return SmallHttpServer::Plain(200, "other"); });
  FakeWorkerService server;
  server.SetBlob("b", "bytes");
  server.SetLinks("b", OneLink(store, 0, 5));
  const ballast::testing::NoAuthorities none;
  const auto client = Connect(server.address());
  Cancellation never;
  EXPECT_EQ(client->ReadBlobToMemory({ALease(), ""}, "b", 10, never).value(), "bytes");
  EXPECT_EQ(server.reads_with_links(), 0);
  EXPECT_TRUE(store.requests().empty());
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
