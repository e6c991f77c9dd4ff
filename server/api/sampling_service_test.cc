// SPDX-License-Identifier: Apache-2.0
// Samples over gRPC: relay, order of pieces, time-outs, and both sides going away.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// A customer who waits for a reply on a thread of his own.
class Customer {
 public:
  Customer(v1::SamplingService::Stub& stub, const v1::SampleRequest& request)
      : context_(ContextWith(kTenantKey)), thread_([this, &stub, request] {
          const auto stream = stub.Sample(context_.get(), request);
          v1::SampleResponse response;
          while (stream->Read(&response)) {
            text_ += response.text();
            finish_reason_ = response.finish_reason();
          }
          status_ = FromGrpcStatus(stream->Finish());
        }) {}
  ~Customer() { Join().IgnoreError(); }
  void Cancel() { context_->TryCancel(); }
  absl::Status Join() {
    if (thread_.joinable()) thread_.join();
    return status_;
  }
  const std::string& text() const { return text_; }
  const std::string& finish_reason() const { return finish_reason_; }

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  std::string text_;
  std::string finish_reason_;
  absl::Status status_;
  std::thread thread_;
};

class SamplingServiceTest : public ServerFixture {
 protected:
  void SetUp() override {
    ServerFixture::SetUp();
    ASSERT_OK(ImportTiny());
  }

  static v1::SampleRequest Ask() {
    v1::SampleRequest request;
    request.set_parent("tenants/acme");
    request.set_base_model("baseModels/tiny");
    request.add_messages()->set_role("user");
    request.mutable_messages(0)->set_content("hello");
    return request;
  }

  // The order, once it has come to the idle worker `id`.
  worker::v1::SampleOrder NextOrder(const std::string& id) {
    const auto response = Idle(id);
    EXPECT_OK(response);
    return response.ok() && response->samples_size() == 1 ? response->samples(0)
                                                          : worker::v1::SampleOrder();
  }

  absl::Status Return(const std::string& worker, const std::string& sample_id,
                      const std::vector<worker::v1::ReturnSampleRequest>& messages) {
    const auto context = ContextWith(kWorkerKey);
    worker::v1::ReturnSampleResponse response;
    const auto stream = workers_->ReturnSample(context.get(), &response);
    bool first = true;
    for (worker::v1::ReturnSampleRequest message : messages) {
      if (first) {
        message.set_sample_id(sample_id);
        message.set_worker_id(worker);
        first = false;
      }
      if (!stream->Write(message)) break;
    }
    stream->WritesDone();
    return FromGrpcStatus(stream->Finish());
  }

  static worker::v1::ReturnSampleRequest Piece(const std::string& text,
                                               const std::string& finish_reason = "") {
    worker::v1::ReturnSampleRequest message;
    message.mutable_response()->set_text(text);
    message.mutable_response()->set_finish_reason(finish_reason);
    return message;
  }
};

TEST_F(SamplingServiceTest, RelaysAReplyPieceByPiece) {
  Customer customer(*sampling_, Ask());
  const auto order = NextOrder("w1");
  EXPECT_EQ(order.request().max_tokens(), 128);
  EXPECT_NE(order.request().seed(), 0);
  EXPECT_EQ(order.adapter_blob(), "");

  // The order's blobs are read by its id, by its worker only.
  worker::v1::ReadBlobRequest read;
  read.set_sample_id(order.sample_id());
  read.set_worker_id("w1");
  read.set_blob(order.base_model().files(0).blob());
  const auto read_status = [&] {
    const auto context = ContextWith(kWorkerKey);
    const auto stream = workers_->ReadBlob(context.get(), read);
    worker::v1::ReadBlobResponse response;
    while (stream->Read(&response)) {
    }
    return FromGrpcStatus(stream->Finish());
  };
  EXPECT_OK(read_status());
  read.set_worker_id("w2");
  EXPECT_THAT(read_status(), StatusIs(absl::StatusCode::kCancelled, "SAMPLE_GONE"));
  read.set_worker_id("w1");
  read.set_blob("datasets/acme/x");
  EXPECT_THAT(read_status(), StatusIs(absl::StatusCode::kPermissionDenied, "BLOB_NOT_IN_LEASE"));

  std::vector<worker::v1::ReturnSampleRequest> messages;
  std::string wanted;
  for (int i = 0; i < 200; ++i) {
    messages.push_back(Piece(absl::StrCat(i, " ")));
    absl::StrAppend(&wanted, i, " ");
  }
  messages.push_back(Piece("", "stop"));
  EXPECT_THAT(Return("w2", order.sample_id(), messages),
              StatusIs(absl::StatusCode::kCancelled, "SAMPLE_GONE"));
  EXPECT_OK(Return("w1", order.sample_id(), messages));
  EXPECT_OK(customer.Join());
  EXPECT_EQ(customer.text(), wanted);
  EXPECT_EQ(customer.finish_reason(), "stop");
}

TEST_F(SamplingServiceTest, OrdersRideInABusyWorkersHeartbeat) {
  ASSERT_OK(TrainVector(Rows(100), Rows(20)));
  const auto work = Idle("w1");
  Customer customer(*sampling_, Ask());
  worker::v1::SynchronizeResponse answer;
  while (answer.samples().empty()) answer = Busy("w1", work->work().lease(), 1).value();
  EXPECT_TRUE(answer.has_proceed());
  EXPECT_OK(Return("w1", answer.samples(0).sample_id(), {Piece("hi", "length")}));
  EXPECT_OK(customer.Join());
  EXPECT_EQ(customer.text(), "hi");
}

TEST_F(SamplingServiceTest, AWorkerGetsNoOrderForAnotherBaseThanItHas) {
  auto files = TinyFiles();
  // Other weights: another digest.
  for (auto& [name, bytes] : files) {
    if (name == "model.safetensors") bytes.back() = static_cast<char>(bytes.back() ^ 1);
  }
  ASSERT_OK(Import("other", files));
  v1::SampleRequest request = Ask();
  request.set_base_model("baseModels/other");
  Customer customer(*sampling_, request);
  // Taken by a worker that is not heard of again: it waits once more.
  const auto order = NextOrder("w1");
  clock_.Advance(absl::Seconds(31));
  server_->TickForTest();

  ASSERT_OK(TrainVector(Rows(100), Rows(20)));  // of "tiny"
  ASSERT_OK_AND_ASSIGN(const auto answer, Idle("w2"));
  ASSERT_TRUE(answer.has_work());
  EXPECT_EQ(answer.samples_size(), 0);
  ASSERT_OK_AND_ASSIGN(const auto busy, Busy("w2", answer.work().lease(), 1));
  EXPECT_EQ(busy.samples_size(), 0);
  EXPECT_EQ(NextOrder("w3").sample_id(), order.sample_id());
  EXPECT_OK(Return("w3", order.sample_id(), {Piece("hi", "length")}));
  EXPECT_OK(customer.Join());
}

TEST_F(SamplingServiceTest, SaysWhenThereIsNoWorker) {
  Customer customer(*sampling_, Ask());
  std::atomic<bool> done = false;
  std::thread waiter([&] {
    const absl::Status status = customer.Join();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, "NO_WORKER"));
    EXPECT_TRUE(status.GetPayload(kRetryInfoUrl).has_value());
    done = true;
  });
  while (!done) {
    clock_.Advance(absl::Seconds(1));
    server_->TickForTest();
  }
  waiter.join();
}

TEST_F(SamplingServiceTest, SaysWhenTheWorkerIsLost) {
  {
    Customer customer(*sampling_, Ask());
    const auto order = NextOrder("w1");
    EXPECT_THAT(Return("w1", order.sample_id(), {Piece("half")}),
                StatusIs(kInvalid, "STREAM_INCOMPLETE"));
    EXPECT_THAT(customer.Join(), StatusIs(absl::StatusCode::kUnavailable, "WORKER_LOST"));
    EXPECT_EQ(customer.text(), "half");
  }
  Customer customer(*sampling_, Ask());
  // The first may never have got it.
  for (const char* worker : {"w1", "w2"}) {
    NextOrder(worker);
    clock_.Advance(absl::Minutes(3));
    server_->TickForTest();
  }
  EXPECT_THAT(customer.Join(), StatusIs(absl::StatusCode::kUnavailable, "WORKER_LOST"));
}

TEST_F(SamplingServiceTest, PassesOnUserErrorsAndHidesOthers) {
  worker::v1::ReturnSampleRequest failed;
  failed.mutable_error()->set_kind(v1::JobError::USER);
  failed.mutable_error()->set_reason("PROMPT_TOO_LONG");
  failed.mutable_error()->set_message("the chat has 9000 tokens");
  {
    Customer customer(*sampling_, Ask());
    EXPECT_OK(Return("w1", NextOrder("w1").sample_id(), {failed}));
    EXPECT_THAT(customer.Join(), StatusIs(kInvalid, "PROMPT_TOO_LONG"));
  }
  failed.mutable_error()->set_kind(v1::JobError::PLATFORM);
  failed.mutable_error()->set_reason("OUT_OF_MEMORY");
  failed.mutable_error()->set_message("inside the worker");
  Customer customer(*sampling_, Ask());
  EXPECT_OK(Return("w1", NextOrder("w1").sample_id(), {failed}));
  const absl::Status status = customer.Join();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, "OUT_OF_MEMORY"));
  EXPECT_THAT(std::string(status.message()), ::testing::Not(::testing::HasSubstr("inside")));
}

TEST_F(SamplingServiceTest, TellsTheWorkerThatNobodyWaits) {
  Customer customer(*sampling_, Ask());
  const auto order = NextOrder("w1");
  customer.Cancel();
  EXPECT_THAT(customer.Join(), StatusIs(absl::StatusCode::kCancelled));
  const auto context = ContextWith(kWorkerKey);
  worker::v1::ReturnSampleResponse response;
  const auto stream = workers_->ReturnSample(context.get(), &response);
  worker::v1::ReturnSampleRequest piece = Piece("x");
  piece.set_sample_id(order.sample_id());
  piece.set_worker_id("w1");
  while (stream->Write(piece)) {
  }
  EXPECT_THAT(FromGrpcStatus(stream->Finish()),
              StatusIs(absl::StatusCode::kCancelled, "SAMPLE_GONE"));
}

TEST_F(SamplingServiceTest, ChecksTheRequest) {
  const auto refused = [&](const v1::SampleRequest& request, const char* reason) {
    Customer customer(*sampling_, request);
    EXPECT_EQ(ErrorReason(customer.Join()), reason);
  };
  v1::SampleRequest request = Ask();
  request.clear_messages();
  refused(request, "PROMPT_EMPTY");
  request = Ask();
  request.mutable_messages(0)->set_role("robot");
  refused(request, "UNKNOWN_ROLE");
  request = Ask();
  request.add_messages()->set_role("assistant");
  request.mutable_messages(1)->set_content("already answered");
  refused(request, "UNKNOWN_ROLE");
  request = Ask();
  request.mutable_messages(0)->set_content(std::string(300 << 10, 'x'));
  refused(request, "PROMPT_TOO_LONG");
  request = Ask();
  request.set_max_tokens(1025);
  refused(request, "MAX_TOKENS_OUT_OF_RANGE");
  request = Ask();
  request.set_temperature(2.1);
  refused(request, "TEMPERATURE_OUT_OF_RANGE");
  request = Ask();
  request.set_base_model("baseModels/none");
  refused(request, "BASE_MODEL_NOT_FOUND");
  request = Ask();
  request.set_delta("tenants/acme/fineTuningJobs/job-none/delta");
  refused(request, "DELTA_NOT_FOUND");
}

}  // namespace
}  // namespace ballast::server::testing
