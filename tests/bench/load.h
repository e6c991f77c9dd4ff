// SPDX-License-Identifier: Apache-2.0
// What the loads of call_load share.
#ifndef BALLAST_TESTS_BENCH_LOAD_H_
#define BALLAST_TESTS_BENCH_LOAD_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ballast::bench {

// Whose calls are made: a line of KEY_FILE.
struct Tenant {
  std::string id, key, dataset;
};

std::vector<Tenant> ReadTenants(const std::string& path);

// A channel with a connection of its own.
std::shared_ptr<grpc::Channel> Connect(const std::string& address);

void Authorise(const Tenant& tenant, grpc::ClientContext& context);

// How calls have ended. Thread safety: not thread-safe.
class Tally {
 public:
  void Answered(absl::Duration took) { seconds_.push_back(absl::ToDoubleSeconds(took)); }
  // By its reason, or by its code where there is none.
  void Failed(const grpc::Status& status);
  void Failed(const std::string& reason) { ++failures_[reason]; }
  // Takes those of another in.
  void Add(const Tally& other);

  size_t answered() const { return seconds_.size(); }
  int64_t failed() const;
  // Members of a JSON object: calls that were answered, their median and 99th percentile, and
  // failures.
  std::string Members() const;

 private:
  std::vector<double> seconds_;
  std::map<std::string, int64_t> failures_;
};

// Calls that go on until they are no longer wanted.
class StandingLoad {
 public:
  virtual ~StandingLoad() = default;
  // Returns when all of them go on.
  virtual absl::Status Begin() = 0;
  // A JSON object with what has happened since the last time, or since the start.
  virtual std::string Tell() = 0;
};

// Prints what `load` tells once it goes on, and then for each line of standard input, until that
// ends. The program's exit status.
int Stand(StandingLoad& load);

}  // namespace ballast::bench

#endif  // BALLAST_TESTS_BENCH_LOAD_H_
