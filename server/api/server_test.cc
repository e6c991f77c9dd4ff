// SPDX-License-Identifier: Apache-2.0
// The server as a whole: where it listens, metrics, idle streams, second servers.
#include "server/api/server.h"

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "server/api/listen_address.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(ListenAddressTest, PlainListensOnLoopbackOnly) {
  for (const char* address : {"127.0.0.1:0", "127.9.9.9:70", "localhost:7070", "[::1]:7070"}) {
    EXPECT_OK(CheckListenAddress(address, false)) << address;
  }
  for (const char* address :
       {"0.0.0.0:7070", "[::]:7070", "192.168.1.1:7070", "example.org:7070"}) {
    EXPECT_THAT(CheckListenAddress(address, false), StatusIs(kInvalid, "TLS_REQUIRED")) << address;
    EXPECT_OK(CheckListenAddress(address, true)) << address;
  }
  for (const char* address : {"", "7070", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":7070",
                              "::1:7070", "127.0.0.1:-1"}) {
    EXPECT_THAT(CheckListenAddress(address, true), StatusIs(kInvalid, "LISTEN_ADDRESS_INVALID"))
        << address;
  }
}

class ServerTest : public ServerFixture {};

TEST_F(ServerTest, ATakenPortIsAClearError) {
  ServerOptions options = options_;
  options.scratch_dir += "-2";
  options.listen_address = server_->address();
  EXPECT_THAT(Server::Start({*store_, *blobs_, *authenticator_, *row_checks_, clock_}, options),
              StatusIs(absl::StatusCode::kFailedPrecondition, "PORT_IN_USE"));
  options.listen_address = "127.0.0.1:0";
  options.metrics_address = server_->address();
  EXPECT_THAT(Server::Start({*store_, *blobs_, *authenticator_, *row_checks_, clock_}, options),
              StatusIs(absl::StatusCode::kFailedPrecondition, "PORT_IN_USE"));
  options.listen_address = "0.0.0.0:0";
  EXPECT_THAT(Server::Start({*store_, *blobs_, *authenticator_, *row_checks_, clock_}, options),
              StatusIs(kInvalid, "TLS_REQUIRED"));
}

TEST_F(ServerTest, AQuietUploadIsEnded) {
  ASSERT_OK(ImportTiny());
  ASSERT_OK_AND_ASSIGN(const auto dataset, CreateDataset());
  const auto context = ContextWith(kTenantKey);
  v1::WriteDatasetResponse response;
  const auto stream = datasets_->WriteDataset(context.get(), &response);
  v1::WriteDatasetRequest request;
  request.set_name(dataset.name());
  request.set_data("begun");
  ASSERT_TRUE(stream->Write(request));
  // Until the message was taken the clock must not run: its stream would be new again.
  while (UploadStatusOf(dataset.name()).committed_bytes() < 5) {
  }
  clock_.Advance(absl::Seconds(61));
  server_->TickForTest();
  EXPECT_THAT(FromGrpcStatus(stream->Finish()), StatusIs(absl::StatusCode::kCancelled));
  absl::Status status = absl::AbortedError("");
  while (status.code() == absl::StatusCode::kAborted) {
    status = Write(dataset.name(), 5, " and ended", "").status();
  }
  EXPECT_OK(status);
}

TEST_F(ServerTest, AReaderThatDoesNotReadIsGivenUp) {
  MakeReady();
  ASSERT_OK_AND_ASSIGN(const auto dataset, CreateDataset());
  // Far more than lies in buffers on the way.
  std::string bytes = Rows(40);
  ASSERT_OK(Write(dataset.name(), 0, bytes, ""));
  const std::string blanks = std::string((1 << 20) - 1, ' ') + "\n";
  for (int i = 0; i < 32; ++i) {
    const auto offset = static_cast<int64_t>(bytes.size());
    bytes += blanks;
    ASSERT_OK(Write(dataset.name(), offset, blanks, i < 31 ? "" : DigestOf(bytes)));
  }
  server_->SettleForTest();
  ASSERT_OK(CreateJob(dataset.name()));
  ASSERT_OK_AND_ASSIGN(const auto answer, Idle("w"));
  worker::v1::ReadBlobRequest request;
  *request.mutable_lease() = answer.work().lease();
  request.set_worker_id("w");
  request.set_blob(answer.work().fine_tune().training_dataset().blob());
  const auto context = ContextWith(kWorkerKey);
  const auto stream = workers_->ReadBlob(context.get(), request);
  worker::v1::ReadBlobResponse piece;
  // At the first looks the server may still be filling the buffers.
  while (stream->Read(&piece)) {
    clock_.Advance(absl::Seconds(61));
    server_->TickForTest();
  }
  EXPECT_THAT(FromGrpcStatus(stream->Finish()), StatusIs(absl::StatusCode::kCancelled));
}

// Row checks that take as long as a test wants.
class SlowChecks : public RowChecks {
 public:
  explicit SlowChecks(RowChecks& inner) : inner_(inner) {}
  absl::StatusOr<TextFacts> Inspect(const std::string& folder) override {
    begun.Notify();
    go_on.WaitForNotification();
    return inner_.Inspect(folder);
  }
  absl::StatusOr<std::unique_ptr<RowCheck>> Begin(const BaseModelRecord& base,
                                                  v1::Dataset::Format format) override {
    return inner_.Begin(base, format);
  }
  absl::Notification begun;
  absl::Notification go_on;

 private:
  RowChecks& inner_;
};

class SlowChecksTest : public ServerFixture {
 protected:
  RowChecks& ServerRowChecks() override {
    slow_ = std::make_unique<SlowChecks>(*row_checks_);
    return *slow_;
  }
  std::unique_ptr<SlowChecks> slow_;
};

TEST_F(SlowChecksTest, AnUploadIsNotIdleWhileTheServerIsAtWork) {
  absl::Status status;
  std::thread operator_of_it([&] { status = ImportTiny().status(); });
  slow_->begun.WaitForNotification();
  clock_.Advance(absl::Minutes(10));
  server_->TickForTest();
  slow_->go_on.Notify();
  operator_of_it.join();
  EXPECT_OK(status);
}

class MetricsTest : public ServerFixture {
 protected:
  MetricsTest() { options_.metrics_address = "127.0.0.1:0"; }
};

TEST_F(MetricsTest, CountsAndTellsNothingOfTenants) {
  MakeReady();
  const std::string dataset = UploadRows(40);
  ASSERT_OK_AND_ASSIGN(const auto job, CreateJob(dataset));
  EXPECT_FALSE(GetJob("tenants/acme/fineTuningJobs/none").ok());
  clock_.Advance(absl::Seconds(2));
  server_->TickForTest();
  const std::string page = MetricsPage();
  EXPECT_THAT(page, HasSubstr("ballast_server_rpcs_total{code=\"OK\",method=\"FineTuningService/"
                              "CreateFineTuningJob\"} 1"));
  EXPECT_THAT(page,
              HasSubstr("ballast_server_rpcs_total{code=\"NOT_FOUND\",method=\"FineTuningService/"
                        "GetFineTuningJob\"} 1"));
  EXPECT_THAT(page, HasSubstr("ballast_server_jobs_count{state=\"QUEUED\"} 1"));
  EXPECT_THAT(page, HasSubstr("ballast_server_vectors_count{state=\"ACTIVE\"} 1"));
  EXPECT_THAT(page, HasSubstr("ballast_server_validation_queue_count 0"));
  EXPECT_THAT(page, HasSubstr("ballast_server_uploaded_bytes_total"));
  EXPECT_THAT(page, HasSubstr("ballast_server_rpc_duration_seconds_bucket"));
  for (const std::string& secret :
       {std::string("acme"), std::string("tiny"), dataset.substr(dataset.rfind('/') + 1),
        job.name().substr(job.name().rfind('/') + 1), std::string(kTenantKey),
        std::string("vec-")}) {
    EXPECT_THAT(page, Not(HasSubstr(secret)));
  }
}

}  // namespace
}  // namespace ballast::server::testing
