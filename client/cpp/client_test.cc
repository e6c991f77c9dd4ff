// SPDX-License-Identifier: Apache-2.0
#include "client/cpp/client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "client/testing/fake_server.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"

namespace ballast::client {
namespace {

using ::ballast::client::testing::FakeServer;
using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Status Unavailable() { return absl::UnavailableError("restarting"); }

// An environment variable for the time of a test; nullptr unsets it.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* before = getenv(name)) before_ = before;
    Set(value);
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ~ScopedVariable() { Set(before_.has_value() ? before_->c_str() : nullptr); }

 private:
  void Set(const char* value) {
    if (value == nullptr) {
      unsetenv(name_);
    } else {
      setenv(name_, value, 1);
    }
  }

  const char* const name_;
  std::optional<std::string> before_;
};

void SendState(grpc::ServerWriter<v1::WatchFineTuningJobResponse>& writer, int64_t sequence,
               v1::FineTuningJob::State state) {
  v1::WatchFineTuningJobResponse response;
  response.mutable_event()->set_sequence(sequence);
  response.mutable_event()->mutable_state_changed()->set_state(state);
  writer.Write(response);
}

class ClientTest : public ::testing::Test {
 protected:
  Client MakeClient() {
    auto connection = Connection::Create(server_.Options(&slept_));
    EXPECT_OK(connection);
    return Client(*connection, "acme");
  }

  FakeServer server_;
  absl::Duration slept_;
};

TEST_F(ClientTest, SendsTheKeyAndFullNames) {
  std::string authorization, name;
  server_.get_dataset = [&](grpc::ServerContext& context, const v1::GetDatasetRequest& request,
                            v1::Dataset& dataset) {
    const auto found = context.client_metadata().find("authorization");
    if (found != context.client_metadata().end()) {
      authorization.assign(found->second.data(), found->second.size());
    }
    dataset.set_name(request.name());
    return absl::OkStatus();
  };
  ASSERT_OK_AND_ASSIGN(const v1::Dataset dataset, MakeClient().GetDataset("d1"));
  EXPECT_EQ(dataset.name(), "tenants/acme/datasets/d1");
  EXPECT_EQ(authorization, "Bearer test-key");
  ASSERT_OK_AND_ASSIGN(const v1::Dataset full, MakeClient().GetDataset("tenants/b/datasets/d2"));
  EXPECT_EQ(full.name(), "tenants/b/datasets/d2");
}

TEST_F(ClientTest, NamesOfJobsAndDeltas) {
  const Client client = MakeClient();
  EXPECT_EQ(client.DeltaName("j1"), "tenants/acme/fineTuningJobs/j1/delta");
  EXPECT_EQ(client.DeltaName("tenants/acme/fineTuningJobs/j1/delta"),
            "tenants/acme/fineTuningJobs/j1/delta");
  EXPECT_EQ(Client::BaseModelName("m"), "baseModels/m");
}

TEST_F(ClientTest, RepeatsAReadOnUnavailable) {
  int calls = 0;
  server_.get_dataset = [&](auto&, const auto&, v1::Dataset&) {
    return ++calls < 3 ? Unavailable() : absl::OkStatus();
  };
  EXPECT_OK(MakeClient().GetDataset("d1"));
  EXPECT_EQ(calls, 3);
  EXPECT_GT(slept_, absl::ZeroDuration());
}

TEST_F(ClientTest, GivesUpAfterTheLastAttemptAndKeepsTheReason) {
  int calls = 0;
  server_.get_dataset = [&](auto&, const auto&, v1::Dataset&) {
    ++calls;
    return MakeError(absl::StatusCode::kUnavailable, "DRAINING", "the server is stopping");
  };
  EXPECT_THAT(MakeClient().GetDataset("d1"), StatusIs(absl::StatusCode::kUnavailable, "DRAINING"));
  EXPECT_EQ(calls, 3);
}

TEST_F(ClientTest, DoesNotRepeatOtherFailures) {
  int calls = 0;
  server_.get_dataset = [&](auto&, const auto&, v1::Dataset&) {
    ++calls;
    return MakeError(absl::StatusCode::kNotFound, "DATASET_NOT_FOUND", "no such data set");
  };
  EXPECT_THAT(MakeClient().GetDataset("d1"),
              StatusIs(absl::StatusCode::kNotFound, "DATASET_NOT_FOUND"));
  EXPECT_EQ(calls, 1);
}

TEST_F(ClientTest, DoesNotRepeatADelete) {
  int calls = 0;
  server_.delete_dataset = [&](auto&, const auto&, auto&) {
    ++calls;
    return Unavailable();
  };
  EXPECT_THAT(MakeClient().DeleteDataset("d1"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(calls, 1);
}

TEST_F(ClientTest, WaitsAsLongAsTheServerAsks) {
  int calls = 0;
  server_.get_dataset = [&](auto&, const auto&, v1::Dataset&) {
    return ++calls == 1 ? WithRetry(Unavailable(), absl::Seconds(7)) : absl::OkStatus();
  };
  EXPECT_OK(MakeClient().GetDataset("d1"));
  EXPECT_GE(slept_, absl::Seconds(7));
}

TEST_F(ClientTest, ACreateKeepsItsRequestIdWhenRepeated) {
  std::vector<std::string> ids;
  server_.create_job = [&](auto&, const v1::CreateFineTuningJobRequest& request,
                           v1::FineTuningJob&) {
    ids.push_back(request.request_id());
    return ids.size() == 1 ? Unavailable() : absl::OkStatus();
  };
  const Client client = MakeClient();
  EXPECT_OK(client.CreateJob({}));
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_EQ(ids[0].size(), 36u);
  EXPECT_EQ(ids[0][14], '4');
  EXPECT_OK(client.CreateJob({}));
  EXPECT_NE(ids[2], ids[0]);
  EXPECT_OK(client.CreateJob({}, "mine"));
  EXPECT_EQ(ids[3], "mine");
}

TEST_F(ClientTest, AnEstimateKeepsNothing) {
  bool validate_only = false;
  server_.create_job = [&](auto&, const v1::CreateFineTuningJobRequest& request,
                           v1::FineTuningJob&) {
    validate_only = request.validate_only();
    return absl::OkStatus();
  };
  EXPECT_OK(MakeClient().EstimateJob({}));
  EXPECT_TRUE(validate_only);
}

TEST_F(ClientTest, SaysWhereTheServerShouldBe) {
  ConnectionOptions options = server_.Options();
  options.server_address = "127.0.0.1:1";  // tcpmux: nobody
  ASSERT_OK_AND_ASSIGN(auto connection, Connection::Create(options));
  const auto result = Client(connection, "acme").GetDataset("d1");
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kUnavailable, "SERVER_UNREACHABLE"));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("127.0.0.1:1"));
}

TEST_F(ClientTest, AnAnswerThatNeverComesIsADeadline) {
  ConnectionOptions options = server_.Options();
  options.deadline = absl::Milliseconds(50);
  server_.get_dataset = [](grpc::ServerContext& context, const auto&, v1::Dataset&) {
    while (!context.IsCancelled()) absl::SleepFor(absl::Milliseconds(5));
    return absl::OkStatus();
  };
  ASSERT_OK_AND_ASSIGN(auto connection, Connection::Create(options));
  EXPECT_THAT(Client(connection, "acme").GetDataset("d1"),
              StatusIs(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED"));
}

TEST_F(ClientTest, RefusesPlainTextToOtherMachinesAndBadAddresses) {
  ConnectionOptions options;
  options.server_address = "ballast.example.com:7070";
  EXPECT_THAT(Connection::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, "TLS_REQUIRED"));
  options.server_address = "localhost";
  EXPECT_THAT(Connection::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, "SERVER_ADDRESS_INVALID"));
  options.server_address = "localhost:7070";
  options.api_key = "two words";
  EXPECT_THAT(Connection::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, "API_KEY_INVALID"));
}

TEST_F(ClientTest, AProxyOfTheEnvironmentSeesNoPlainText) {
  // Nothing listens on port 1: a channel that went by the proxy would find nobody.
  const ScopedVariable grpc("grpc_proxy", "http://127.0.0.1:1"),
      http("http_proxy", "http://127.0.0.1:1"), none("no_proxy", nullptr),
      no_grpc("no_grpc_proxy", nullptr);
  server_.get_dataset = [](auto&, const auto&, auto&) { return absl::OkStatus(); };
  EXPECT_OK(MakeClient().GetDataset("d1"));
}

TEST(IsLoopbackTest, OnlyThisMachine) {
  EXPECT_TRUE(IsLoopback("127.0.0.1:7070"));
  EXPECT_TRUE(IsLoopback("localhost:7070"));
  EXPECT_TRUE(IsLoopback("[::1]:7070"));
  EXPECT_FALSE(IsLoopback("10.0.0.1:7070"));
  EXPECT_FALSE(IsLoopback("localhost.example.com:7070"));
  EXPECT_FALSE(IsLoopback("127.0.0.1.example.com:7070"));
  EXPECT_FALSE(IsLoopback("127.example.com:7070"));
}

TEST(RetryPolicyTest, BackoffDoublesUpToItsLimit) {
  RetryPolicy policy;
  for (int i = 0; i < 100; ++i) {
    EXPECT_LE(policy.Backoff(1, absl::OkStatus()), absl::Milliseconds(200));
    EXPECT_GE(policy.Backoff(2, absl::OkStatus()), absl::Milliseconds(200));
    EXPECT_LE(policy.Backoff(50, absl::OkStatus()), absl::Seconds(5));
    EXPECT_GE(policy.Backoff(50, absl::OkStatus()), absl::Seconds(2.5));
  }
}

TEST_F(ClientTest, WalksAllPages) {
  std::vector<std::string> tokens;
  server_.list_base_models = [&](auto&, const v1::ListBaseModelsRequest& request,
                                 v1::ListBaseModelsResponse& response) {
    tokens.push_back(request.page_token());
    if (request.page_token().empty()) {
      response.add_base_models()->set_name("a");
      response.add_base_models()->set_name("b");
      response.set_next_page_token("1");
    } else if (request.page_token() == "1") {
      response.set_next_page_token("2");  // an empty page in between
    } else {
      response.add_base_models()->set_name("c");
    }
    return absl::OkStatus();
  };
  ASSERT_OK_AND_ASSIGN(const auto models, MakeClient().ListBaseModels().Collect());
  std::vector<std::string> names;
  for (const auto& model : models) names.push_back(model.name());
  EXPECT_THAT(names, ElementsAre("a", "b", "c"));
  EXPECT_THAT(tokens, ElementsAre("", "1", "2"));

  ASSERT_OK_AND_ASSIGN(const auto one, MakeClient().ListBaseModels().Collect(1));
  EXPECT_EQ(one.size(), 1u);
  EXPECT_EQ(tokens.size(), 4u);  // the limit saves the other pages
}

TEST_F(ClientTest, AFailedPageIsTheLastElement) {
  server_.list_base_models = [&](auto&, const v1::ListBaseModelsRequest& request,
                                 v1::ListBaseModelsResponse& response) -> absl::Status {
    if (!request.page_token().empty()) return absl::InternalError("broken");
    response.add_base_models()->set_name("a");
    response.set_next_page_token("1");
    return absl::OkStatus();
  };
  int good = 0, bad = 0;
  for (auto& model : MakeClient().ListBaseModels()) model.ok() ? ++good : ++bad;
  EXPECT_EQ(good, 1);
  EXPECT_EQ(bad, 1);
}

TEST_F(ClientTest, WaitsForValidation) {
  int calls = 0;
  server_.get_dataset = [&](auto&, const auto&, v1::Dataset& dataset) {
    dataset.set_state(++calls < 3 ? v1::Dataset::VALIDATING : v1::Dataset::READY);
    return absl::OkStatus();
  };
  ASSERT_OK_AND_ASSIGN(const v1::Dataset dataset, MakeClient().WaitForValidation("d1"));
  EXPECT_EQ(dataset.state(), v1::Dataset::READY);
  calls = -1000;
  EXPECT_THAT(MakeClient().WaitForValidation("d1", absl::Seconds(3)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, "VALIDATION_PENDING"));
}

TEST_F(ClientTest, SampleStreamsAndRepeatsOnlyBeforeTheFirstPiece) {
  int calls = 0;
  server_.sample = [&](auto&, const v1::SampleRequest& request,
                       grpc::ServerWriter<v1::SampleResponse>& writer) {
    if (++calls == 1) return Unavailable();
    EXPECT_EQ(request.parent(), "tenants/acme");
    v1::SampleResponse piece;
    piece.set_text("Hel");
    writer.Write(piece);
    piece.set_text("lo");
    writer.Write(piece);
    piece.set_text("");
    piece.set_finish_reason("stop");
    writer.Write(piece);
    return absl::OkStatus();
  };
  std::string reply;
  const auto add = [&](const std::string& text) { reply += text; };
  ASSERT_OK_AND_ASSIGN(const std::string reason, MakeClient().Sample({}, add));
  EXPECT_EQ(reply, "Hello");
  EXPECT_EQ(reason, "stop");
  EXPECT_EQ(calls, 2);

  server_.sample = [&](auto&, const auto&, auto&) {
    ++calls;
    return MakeError(absl::StatusCode::kUnavailable, "NO_WORKER", "no worker came");
  };
  EXPECT_THAT(MakeClient().Sample({}, add), StatusIs(absl::StatusCode::kUnavailable, "NO_WORKER"));
  EXPECT_EQ(calls, 3);

  server_.sample = [&](auto&, const auto&, grpc::ServerWriter<v1::SampleResponse>& writer) {
    ++calls;
    v1::SampleResponse piece;
    piece.set_text("x");
    writer.Write(piece);
    return Unavailable();
  };
  EXPECT_THAT(MakeClient().Sample({}, add), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(calls, 4);
}

TEST_F(ClientTest, AWatchEndsAtAWithheldJobAndTellsOfALaterDecision) {
  int calls = 0;
  bool decided = false;
  server_.watch_job = [&](auto&, const v1::WatchFineTuningJobRequest& request,
                          grpc::ServerWriter<v1::WatchFineTuningJobResponse>& writer) {
    ++calls;
    if (request.after_sequence() < 1) SendState(writer, 1, v1::FineTuningJob::WITHHELD);
    if (decided && calls > 2) SendState(writer, 2, v1::FineTuningJob::SUCCEEDED);
    return absl::OkStatus();
  };
  server_.get_job = [&](auto&, const auto&, v1::FineTuningJob& job) {
    job.set_state(decided ? v1::FineTuningJob::SUCCEEDED : v1::FineTuningJob::WITHHELD);
    return absl::OkStatus();
  };
  std::vector<int64_t> seen;
  WatchHandlers handlers;
  handlers.on_event = [&](const v1::JobEvent& event) { seen.push_back(event.sequence()); };
  ASSERT_OK_AND_ASSIGN(const v1::FineTuningJob waiting, MakeClient().WatchJob("j1", 0, handlers));
  EXPECT_EQ(waiting.state(), v1::FineTuningJob::WITHHELD);
  EXPECT_EQ(seen, std::vector<int64_t>({1}));
  // The server decides between the end of the stream and the look at the job.
  decided = true;
  ASSERT_OK_AND_ASSIGN(const v1::FineTuningJob done, MakeClient().WatchJob("j1", 0, handlers));
  EXPECT_EQ(done.state(), v1::FineTuningJob::SUCCEEDED);
  EXPECT_EQ(seen, std::vector<int64_t>({1, 1, 2}));
  EXPECT_EQ(calls, 3);
}

TEST_F(ClientTest, WatchReturnsAPausedJobAndFollowsOneThatWentOn) {
  int calls = 0;
  server_.watch_job = [&](auto&, const v1::WatchFineTuningJobRequest& request,
                          grpc::ServerWriter<v1::WatchFineTuningJobResponse>& writer) {
    ++calls;
    if (request.after_sequence() < 1) {
      SendState(writer, 1, v1::FineTuningJob::PAUSED);
    } else {
      SendState(writer, 2, v1::FineTuningJob::RUNNING);
      SendState(writer, 3, v1::FineTuningJob::PAUSED);
    }
    return absl::OkStatus();
  };
  // Resumed between the end of the first stream and the look at the job, and paused again.
  server_.get_job = [&](auto&, const auto&, v1::FineTuningJob& job) {
    job.set_state(calls == 1 ? v1::FineTuningJob::RUNNING : v1::FineTuningJob::PAUSED);
    return absl::OkStatus();
  };
  std::vector<int64_t> seen;
  WatchHandlers handlers;
  handlers.on_event = [&](const v1::JobEvent& event) { seen.push_back(event.sequence()); };
  handlers.on_reconnect = [](const absl::Status& status) { ADD_FAILURE() << status; };
  ASSERT_OK_AND_ASSIGN(const v1::FineTuningJob paused, MakeClient().WatchJob("j1", 0, handlers));
  EXPECT_EQ(paused.state(), v1::FineTuningJob::PAUSED);
  EXPECT_EQ(seen, std::vector<int64_t>({1, 2, 3}));
}

}  // namespace
}  // namespace ballast::client
