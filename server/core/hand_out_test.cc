// SPDX-License-Identifier: Apache-2.0
// Workers that ask for work at the same time.
#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/control_plane.h"
#include "server/testing/core_fixture.h"

namespace ballast::server::testing {
namespace {

using worker::v1::SynchronizeResponse;

class HandOutTest : public CoreFixture {
 protected:
  // What `calls` workers get that ask at once; call i is that of `worker_of(i)`.
  template <typename WorkerOf>
  std::vector<SynchronizeResponse> AskAtOnce(int calls, WorkerOf worker_of) {
    std::vector<SynchronizeResponse> answers(static_cast<size_t>(calls));
    absl::Notification begin;
    std::vector<std::thread> threads;
    for (int i = 0; i < calls; ++i) {
      threads.emplace_back([&, i] {
        worker::v1::SynchronizeRequest request = Request(worker_of(i));
        request.mutable_idle();
        begin.WaitForNotification();
        auto answer = plane_->Synchronize(now_, request);
        EXPECT_OK(answer);
        if (answer.ok()) answers[static_cast<size_t>(i)] = *std::move(answer);
      });
    }
    begin.Notify();
    for (std::thread& thread : threads) thread.join();
    return answers;
  }
};

TEST_F(HandOutTest, EachWorkerGetsAnotherJob) {
  constexpr int kWorkers = 8, kJobs = 6;
  for (int round = 0; round < 20; ++round) {
    std::set<std::string> created, given;
    for (int i = 0; i < kJobs; ++i) created.insert(CreateJob(absl::StrCat("t", i % 2)));
    const auto answers =
        AskAtOnce(kWorkers, [&](int i) { return absl::StrCat("w", round, "-", i); });
    for (const auto& answer : answers) {
      if (!answer.has_work()) continue;
      EXPECT_TRUE(given.insert(answer.work().lease().resource()).second);
    }
    EXPECT_EQ(given, created);
  }
}

TEST_F(HandOutTest, MoreThanFitIntoOneTransactionAllGetWork) {
  constexpr int kWorkers = 3 * static_cast<int>(ControlPlane::kMostAtOnce);
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < kWorkers; ++i) CreateJob();
    const auto answers =
        AskAtOnce(kWorkers, [&](int i) { return absl::StrCat("w", round, "-", i); });
    std::set<std::string> given;
    for (const auto& answer : answers) {
      EXPECT_TRUE(given.insert(answer.work().lease().resource()).second);
    }
  }
}

TEST_F(HandOutTest, HeldCallsAndOthersAskTogether) {
  constexpr size_t kHeld = ControlPlane::kMostAtOnce, kOthers = 12;
  for (size_t i = 0; i < kHeld + kOthers; ++i) CreateJob();
  std::vector<worker::v1::SynchronizeRequest> requests;
  for (size_t i = 0; i < kHeld; ++i) {
    requests.push_back(Request(absl::StrCat("held-", i)));
    requests.back().mutable_idle();
  }
  std::vector<const worker::v1::SynchronizeRequest*> held;
  for (const auto& request : requests) held.push_back(&request);
  std::vector<absl::StatusOr<SynchronizeResponse>> held_answers;
  std::thread dispatch([&] { held_answers = plane_->SynchronizeHeld(now_, held); });
  const auto answers = AskAtOnce(kOthers, [](int i) { return absl::StrCat("w", i); });
  dispatch.join();
  std::set<std::string> given;
  for (const auto& answer : answers) given.insert(answer.work().lease().resource());
  for (const auto& answer : held_answers) {
    ASSERT_OK(answer);
    given.insert(answer->work().lease().resource());
  }
  EXPECT_EQ(given.size(), kHeld + kOthers);
  EXPECT_EQ(given.count(""), 0u);
}

TEST_F(HandOutTest, TwoCallsOfOneWorkerGetTheSameWork) {
  for (int round = 0; round < 20; ++round) {
    CreateJob();
    CreateJob();
    const std::string worker = absl::StrCat("w", round);
    const auto answers = AskAtOnce(2, [&](int) { return worker; });
    ASSERT_TRUE(answers[0].has_work() && answers[1].has_work());
    EXPECT_EQ(answers[0].work().lease().resource(), answers[1].work().lease().resource());
    EXPECT_EQ(answers[0].work().lease().epoch(), answers[1].work().lease().epoch());
  }
}

TEST_F(HandOutTest, ALimitOnRunningJobsHoldsForThoseWhoAskAtOnce) {
  TenantQuota quota;
  quota.max_running_jobs = 2;
  quotas_ = Quotas({}, {{"acme", quota}});
  Restart();
  for (int i = 0; i < 6; ++i) CreateJob("acme");
  const auto answers = AskAtOnce(6, [](int i) { return absl::StrCat("w", i); });
  EXPECT_EQ(std::count_if(answers.begin(), answers.end(),
                          [](const auto& answer) { return answer.has_work(); }),
            2);
}

TEST_F(HandOutTest, TheBatchGoesOnBehindATenantThatIsAtItsLimit) {
  TenantQuota quota;
  quota.max_running_jobs = 1;
  quotas_ = Quotas({}, {{"acme", quota}});
  Restart();
  for (int i = 0; i < 6; ++i) CreateJob("acme");
  const std::string behind = CreateJob("other");
  const auto answers = AskAtOnce(6, [](int i) { return absl::StrCat("w", i); });
  EXPECT_EQ(std::count_if(answers.begin(), answers.end(),
                          [](const auto& answer) { return answer.has_work(); }),
            2);
  EXPECT_EQ(
      std::count_if(answers.begin(), answers.end(),
                    [&](const auto& answer) { return answer.work().lease().resource() == behind; }),
      1);
}

TEST_F(HandOutTest, WhatComesBeforeTheLastOneTakenIsNotForgotten) {
  CreateJob("b");
  const std::string later = CreateJob("c");
  ASSERT_TRUE(Idle("w1").has_work());
  // The same place in the queue, and a tenant whose name comes before.
  const std::string earlier = CreateJob("a");
  EXPECT_EQ(Idle("w2").work().lease().resource(), later);
  EXPECT_EQ(Idle("w3").work().lease().resource(), earlier);
  // After a second the whole queue is looked at, though there is work behind the last one.
  ASSERT_TRUE((CreateJob("x"), Idle("w4").has_work()));
  CreateJob("y");
  const std::string first = CreateJob("0");
  now_ += absl::Seconds(1);
  EXPECT_EQ(Idle("w5").work().lease().resource(), first);
}

TEST_F(HandOutTest, WhoAsksWhileTheStoreIsAwayIsToldSo) {
  CreateJob();
  store_.FailNextCommitForTest(
      MakeError(absl::StatusCode::kUnavailable, "STORE_IO", "the store is away"));
  worker::v1::SynchronizeRequest request = Request("w");
  request.mutable_idle();
  EXPECT_THAT(plane_->Synchronize(now_, request),
              ballast::testing::StatusIs(absl::StatusCode::kUnavailable, "STORE_IO"));
  EXPECT_TRUE(Idle("w").has_work());
}

}  // namespace
}  // namespace ballast::server::testing
