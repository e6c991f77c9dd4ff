// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_SAMPLE_RELAY_FIXTURE_H_
#define BALLAST_SERVER_TESTING_SAMPLE_RELAY_FIXTURE_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/testing/fake_clock.h"
#include "common/base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "server/api/sample_broker.h"
#include "server/api/sample_relay.h"
#include "server/core/bulletin.h"
#include "server/core/records.h"
#include "server/testing/fake_job_store.h"

namespace ballast::server::testing {

class RecordingSink : public SampleSink {
 public:
  void Piece(const v1::SampleResponse& response) override {
    EXPECT_FALSE(end.has_value()) << "a piece after the end";
    pieces.push_back(response.text());
  }
  void End(const absl::Status& status) override { end = status; }
  std::vector<std::string> pieces;
  std::optional<absl::Status> end;
};

class RecordingBulletin : public Bulletin {
 public:
  void Start(NoticeReader&) override {}
  void Stop() override {}
  void Post(const Notice& notice) override { posted.push_back(notice); }
  std::vector<Notice> posted;
};

// What a server has of sampling.
struct SampleSide {
  SampleSide(std::unique_ptr<JobStore> view, Clock& clock, Bulletin* bulletin = nullptr)
      : store(std::move(view)), relay(*store, broker, clock, bulletin) {}
  std::unique_ptr<JobStore> store;
  SampleBroker broker;
  SampleRelay relay;
};

// Three servers on one store; customers are at `a_`.
class SampleRelayFixture : public ::testing::Test {
 protected:
  SampleRelayFixture() {
    store_.ShareForTest();
    for (const char* server : {"a", "b", "c"}) AddServer(server);
  }

  void AddServer(const std::string& id) {
    ServerRecord record;
    record.set_id(id);
    record.set_owner(id);
    ASSERT_OK(store_.Update([&](Transaction& tx) { return InsertRecord(tx, record); }));
  }

  // Queues an order at `a_`; nobody takes it there, and it is offered.
  void Offer(const std::string& id, const std::string& base = "sha256:a") {
    Submit(id, base);
    Pass(absl::Milliseconds(200));
  }
  void Submit(const std::string& id, const std::string& base = "sha256:a") {
    SubmitTo(a_, id, base);
  }
  void SubmitTo(SampleSide& side, const std::string& id, const std::string& base = "sha256:a") {
    worker::v1::SampleOrder order;
    order.set_sample_id(id);
    order.mutable_request()->set_parent("tenants/acme");
    order.mutable_request()->add_messages()->set_content("the secret prompt");
    order.mutable_base_model()->set_digest(base);
    order.mutable_base_model()->add_files()->set_blob("blob-of-the-base");
    sink_ = std::make_shared<RecordingSink>();
    ASSERT_OK(side.broker.Submit(clock_.Now(), order, sink_));
  }

  // All servers' threads run once, as after a tick.
  void Pass(absl::Duration duration) {
    clock_.Advance(duration);
    for (SampleSide* side : {&b_, &c_, &a_}) {
      side->broker.Sweep(clock_.Now());
      side->relay.RunOnceForTest();
    }
  }

  // Ids of what a worker of `side` gets.
  std::vector<std::string> Take(SampleSide& side, const std::string& worker, size_t most = 4,
                                const std::string& base = "") {
    const auto orders = side.relay.TakeOffers(clock_.Now(), worker, most, base);
    EXPECT_OK(orders);
    std::vector<std::string> ids;
    for (const worker::v1::SampleOrder& order :
         orders.value_or(std::vector<worker::v1::SampleOrder>())) {
      EXPECT_EQ(order.request().messages(0).content(), "the secret prompt");
      ids.push_back(order.sample_id());
    }
    return ids;
  }

  absl::Status Return(SampleSide& side, const std::string& worker, const std::string& id,
                      const std::string& text, const std::string& finish_reason = "") {
    worker::v1::ReturnSampleRequest message;
    message.mutable_response()->set_text(text);
    message.mutable_response()->set_finish_reason(finish_reason);
    return side.broker.Return(clock_.Now(), id, worker, message);
  }
  // A message that only says that the worker is there.
  absl::Status Sign(SampleSide& side, const std::string& worker, const std::string& id) {
    return side.broker.Return(clock_.Now(), id, worker, {});
  }

  std::vector<SampleRecord> Records() {
    std::vector<SampleRecord> records;
    EXPECT_OK(store_.Read([&](Transaction& tx) -> absl::Status {
      const auto add = [&](SampleRecord record) -> absl::StatusOr<bool> {
        records.push_back(std::move(record));
        return true;
      };
      BALLAST_RETURN_IF_ERROR(ForEachInState<SampleRecord>(tx, 0, add));
      return ForEachInState<SampleRecord>(tx, 1, add);
    }));
    return records;
  }

  void DeleteRecord(const std::string& server, const std::string& id) {
    ASSERT_OK(store_.Update([&](Transaction& tx) -> absl::Status {
      BALLAST_RETURN_IF_ERROR(tx.Get(Kind::kSample, server, id, Hold::kExclusive).status());
      return tx.Delete(Kind::kSample, server, id);
    }));
  }

  ballast::testing::FakeClock clock_;
  FakeJobStore store_;
  RecordingBulletin bulletin_;
  SampleSide a_{store_.ViewAsServerForTest("a"), clock_, &bulletin_};
  SampleSide b_{store_.ViewAsServerForTest("b"), clock_};
  SampleSide c_{store_.ViewAsServerForTest("c"), clock_};
  std::shared_ptr<RecordingSink> sink_;  // of the last order
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_SAMPLE_RELAY_FIXTURE_H_
