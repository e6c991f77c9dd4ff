// SPDX-License-Identifier: Apache-2.0
#include "server/api/sample_broker.h"

#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"

namespace ballast::server {
namespace {

using ::ballast::testing::StatusIs;

class RecordingSink : public SampleSink {
 public:
  void Piece(const v1::SampleResponse& response) override { text += response.text(); }
  void End(const absl::Status& status) override { end = status; }
  std::string text;
  std::optional<absl::Status> end;
};

class SampleBrokerTest : public ::testing::Test {
 protected:
  absl::Status Submit(const std::string& id, const std::string& tenant = "acme",
                      const std::string& base = "sha256:a") {
    worker::v1::SampleOrder order;
    order.set_sample_id(id);
    order.mutable_request()->set_parent("tenants/" + tenant);
    order.mutable_base_model()->set_digest(base);
    sink_ = std::make_shared<RecordingSink>();
    return broker_.Submit(now_, order, sink_);
  }

  // Id of the order that the worker gets; empty for none.
  std::string Take(const std::string& worker, const std::string& base = "") {
    const auto orders = broker_.Take(now_, worker, 1, base);
    return orders.empty() ? "" : orders[0].sample_id();
  }

  absl::Status Return(const std::string& worker, const std::string& id, const std::string& text,
                      const std::string& finish_reason) {
    worker::v1::ReturnSampleRequest message;
    message.mutable_response()->set_text(text);
    message.mutable_response()->set_finish_reason(finish_reason);
    return broker_.Return(now_, id, worker, message);
  }

  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  SampleBroker broker_;
  std::shared_ptr<RecordingSink> sink_;  // of the last order
};

TEST_F(SampleBrokerTest, AWorkerWithABaseGetsOrdersForItOnly) {
  ASSERT_OK(Submit("s1", "acme", "sha256:a"));
  ASSERT_OK(Submit("s2", "acme", "sha256:b"));
  EXPECT_EQ(Take("w1", "sha256:c"), "");
  EXPECT_EQ(Take("w1", "sha256:b"), "s2");
  EXPECT_EQ(Take("w1", "sha256:b"), "");
  EXPECT_EQ(Take("w2"), "s1");
}

TEST_F(SampleBrokerTest, AnOrderWithoutASignOfLifeWaitsOnceMore) {
  ASSERT_OK(Submit("s1"));
  EXPECT_EQ(Take("w1"), "s1");
  now_ += absl::Seconds(29);
  EXPECT_FALSE(broker_.Sweep(now_));
  EXPECT_EQ(Take("w2"), "");
  now_ += absl::Seconds(1);
  EXPECT_TRUE(broker_.Sweep(now_));
  EXPECT_EQ(Take("w2"), "s1");
  EXPECT_THAT(Return("w1", "s1", "late", ""),
              StatusIs(absl::StatusCode::kCancelled, "SAMPLE_GONE"));
  // Not for ever.
  now_ += absl::Seconds(30);
  EXPECT_FALSE(broker_.Sweep(now_));
  ASSERT_TRUE(sink_->end.has_value());
  EXPECT_THAT(*sink_->end, StatusIs(absl::StatusCode::kUnavailable, "WORKER_LOST"));
  EXPECT_EQ(sink_->text, "");
}

TEST_F(SampleBrokerTest, AfterASignOfLifeAWorkerHasLonger) {
  ASSERT_OK(Submit("s1"));
  EXPECT_EQ(Take("w1"), "s1");
  ASSERT_OK(Return("w1", "s1", "half", ""));
  now_ += absl::Seconds(119);
  EXPECT_FALSE(broker_.Sweep(now_));
  EXPECT_FALSE(sink_->end.has_value());
  ASSERT_OK(Return("w1", "s1", " and half", "stop"));
  EXPECT_OK(*sink_->end);
  EXPECT_EQ(sink_->text, "half and half");
}

TEST_F(SampleBrokerTest, ATenantCannotFillTheQueue) {
  for (int i = 0; i < 8; ++i) ASSERT_OK(Submit(absl::StrCat("s", i)));
  // What is being answered counts too.
  EXPECT_EQ(Take("w1"), "s0");
  const absl::Status refused = Submit("s8");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted, "TOO_MANY_SAMPLES"));
  EXPECT_TRUE(refused.GetPayload(kRetryInfoUrl).has_value());
  EXPECT_OK(Submit("other", "other"));
  ASSERT_OK(Return("w1", "s0", "done", "stop"));
  EXPECT_OK(Submit("s8"));
}

TEST_F(SampleBrokerTest, TheQueueAsAWholeHasAnEnd) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_OK(Submit(absl::StrCat("s", i), absl::StrCat("tenant-", i)));
  }
  EXPECT_THAT(Submit("more", "more"),
              StatusIs(absl::StatusCode::kResourceExhausted, "SAMPLE_QUEUE_FULL"));
}

TEST_F(SampleBrokerTest, CutsTextsBetweenCharacters) {
  ASSERT_OK(Submit("s1"));
  EXPECT_EQ(Take("w1"), "s1");
  worker::v1::ReturnSampleRequest message;
  message.mutable_error()->set_kind(v1::JobError::USER);
  message.mutable_error()->set_reason("PROMPT_TOO_LONG");
  std::string text = "x";
  for (int i = 0; i < 1000; ++i) text += "é";
  message.mutable_error()->set_message(text);
  ASSERT_OK(broker_.Return(now_, "s1", "w1", message));
  const std::string told(sink_->end->message());
  EXPECT_EQ(told, text.substr(0, 999));
}

TEST_F(SampleBrokerTest, AStreamWithoutAWorkerEndsNothing) {
  ASSERT_OK(Submit("s1"));
  broker_.Ended("s1", "");
  EXPECT_FALSE(sink_->end.has_value());
}

}  // namespace
}  // namespace ballast::server
