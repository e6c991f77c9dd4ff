// SPDX-License-Identifier: Apache-2.0
// Sampling orders, and the metrics page.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "worker/testing/agent_fixture.h"

namespace ballast::worker::agent {
namespace {

using ballast::v1::JobError;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(AgentTest, AnswersSamplesWhenIdle) {
  server_.GiveSample(Order("s-1", "h\xc3\xa9llo \xf0\x9f\x9a\xa2"));
  StartAgent();
  const auto reply = server_.WaitForReply("s-1");
  EXPECT_EQ(reply.finish_reason, "stop");
  EXPECT_EQ(reply.text(), "user: h\xc3\xa9llo \xf0\x9f\x9a\xa2\nassistant: ");
  EXPECT_THAT(reply.pieces, Contains("\xc3\xa9"));
  EXPECT_THAT(reply.pieces, Contains("\xf0\x9f\x9a\xa2"));
  EXPECT_EQ(engine_.seen().samples_while_training, 0);
}

TEST_F(AgentTest, AnswersSamplesWithADelta) {
  server_.GiveWork(Job());
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  server_.SetBlob("blob-adapter", server_.written().at("delta/adapter/adapter_model.safetensors"));
  pb::SampleOrder order = Order("s-2", "hello");
  order.set_adapter_blob("blob-adapter");
  order.set_lora_rank(2);
  order.set_lora_alpha(4);
  server_.GiveSample(order);
  EXPECT_EQ(server_.WaitForReply("s-2").finish_reason, "stop");
  EXPECT_EQ(engine_.seen().sample_adapter_tensors, 14u);
  order.set_sample_id("s-3");
  order.set_lora_rank(3);  // not the adapter's
  server_.GiveSample(order);
  EXPECT_EQ(server_.WaitForReply("s-3").error.reason(), "SAMPLE_FAILED");
}

TEST_F(AgentTest, AnswersSamplesBetweenMicroBatches) {
  engine_.HoldAt(1);
  server_.GiveWork(Job());
  StartAgent();
  engine_.WaitForStep(1);
  server_.GiveSample(Order("s-4", "hello"));
  EXPECT_EQ(server_.WaitForReply("s-4").text(), "user: hello\nassistant: ");
  EXPECT_EQ(engine_.seen().samples_while_training, 1);
  pb::SampleOrder other = Order("s-5", "hello");
  *other.mutable_base_model() = Base("another model");
  server_.GiveSample(other);
  EXPECT_EQ(server_.WaitForReply("s-5").error.reason(), "SAMPLE_BASE_BUSY");
  engine_.Release();
  EXPECT_TRUE(server_.WaitForFinished().has_delta());
}

TEST_F(AgentTest, StopsWithoutWaitingForAnAdapterThatDoesNotCome) {
  pb::SampleOrder order = Order("s-9", "hello");
  order.set_adapter_blob("blob-adapter");
  order.set_lora_rank(2);
  server_.FailReadsOf("blob-adapter", {grpc::StatusCode::UNAVAILABLE, "told to fail"});
  server_.GiveSample(order);
  StartAgent();
  server_.WaitForFailedReads(1);
  StopAgent();
  EXPECT_EQ(server_.WaitForReply("s-9").error.reason(), "WORKER_STOPPING");
}

TEST_F(AgentTest, SaysWhenAPromptIsTooLongAndWhenAReplyWasCut) {
  pb::SampleOrder order = Order("s-6", std::string(5000, 'a'));
  server_.GiveSample(order);
  StartAgent();
  const auto reply = server_.WaitForReply("s-6");
  EXPECT_EQ(reply.error.kind(), JobError::USER);
  EXPECT_EQ(reply.error.reason(), "PROMPT_TOO_LONG");
  order = Order("s-7", "hello");
  order.mutable_request()->set_max_tokens(3);
  server_.GiveSample(order);
  EXPECT_EQ(server_.WaitForReply("s-7").text(), "use");
  EXPECT_EQ(server_.WaitForReply("s-7").finish_reason, "length");
}

// The metrics page of a worker on loopback.
std::string ReadMetrics(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  EXPECT_EQ(send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  std::string page;
  char buffer[4096];
  for (ssize_t n = 0; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
    page.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return page;
}

TEST_F(AgentTest, CountsWhatItDoesWithoutNamesAndLosses) {
  metrics_address_ = "127.0.0.1:0";
  server_.GiveWork(Job());
  StartAgent();
  ASSERT_TRUE(server_.WaitForFinished().has_delta());
  server_.GiveSample(Order("s-8", "hello"));
  server_.WaitForReply("s-8");
  server_.WaitForIdle(1);
  const std::string page = ReadMetrics(agent_->metrics().port());
  EXPECT_THAT(page, HasSubstr(R"(ballast_worker_leases_total{outcome="done",work="fine_tune"} 1)"));
  EXPECT_THAT(page, HasSubstr("ballast_worker_steps_total 4"));
  EXPECT_THAT(page, HasSubstr(R"(ballast_worker_samples_total{answered="yes"} 1)"));
  EXPECT_THAT(page, HasSubstr("ballast_worker_busy 0"));
  EXPECT_THAT(page, Not(HasSubstr("acme")));
  EXPECT_THAT(page, Not(HasSubstr("loss")));
}

}  // namespace
}  // namespace ballast::worker::agent
