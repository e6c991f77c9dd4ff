// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_FAKE_JOB_STORE_H_
#define BALLAST_SERVER_TESTING_FAKE_JOB_STORE_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "server/core/job_store.h"

namespace ballast::server::testing {

// A JobStore in memory, for tests of what stands on one. Passes the same suite as the real ones
// (job_store_suite.h), and is stricter: it runs every body twice, and changes only rows that are
// held (INTERNAL, ROW_NOT_HELD). Thread safety: thread-safe.
class FakeJobStore : public JobStore {
 public:
  absl::Status Update(const Body& body) override { return UpdateAs(owner_, body); }
  absl::Status Read(const Body& body) override { return ReadAs(owner_, body); }
  bool shared() const override { return shared_; }
  const std::string& owner() const override { return owner_; }

  // As one that several servers use.
  void ShareForTest() { shared_ = true; }
  // Transactions from now on are another server's.
  void BeServerForTest(const std::string& owner) { owner_ = owner; }
  // The same records as another server uses them beside this one. Must not outlive the object.
  std::unique_ptr<JobStore> ViewAsServerForTest(const std::string& owner);
  // The next Update fails with `status` after its body has run, and changes nothing.
  void FailNextCommitForTest(absl::Status status);
  // The next Update is made, and told to be UNAVAILABLE (COMMIT_UNKNOWN).
  void LoseNextAnswerForTest();

 private:
  friend class FakeTransaction;
  class View;
  using Key = std::pair<std::string, std::string>;  // scope, id
  struct State {
    std::map<Kind, std::map<Key, Row>> rows;
    std::map<std::pair<Kind, std::string>, int64_t> sequences;
    std::map<std::tuple<std::string, std::string, int64_t>, std::string> events;
    std::map<Key, RequestRow> requests;
    std::map<std::string, std::string> garbage;  // prefix -> holder
  };

  absl::Status UpdateAs(const std::string& owner, const Body& body);
  absl::Status ReadAs(const std::string& owner, const Body& body);

  bool shared_ = false;
  std::string owner_ = "fake";
  absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_);
  absl::Status fail_next_ ABSL_GUARDED_BY(mutex_);
  bool lose_next_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_FAKE_JOB_STORE_H_
