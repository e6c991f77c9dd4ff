// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/load.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/base/error.h"
#include "common/rpc/grpc_status.h"

namespace ballast::bench {

std::vector<Tenant> ReadTenants(const std::string& path) {
  std::vector<Tenant> tenants;
  std::ifstream file(path);
  for (Tenant tenant; file >> tenant.id >> tenant.key >> tenant.dataset;) tenants.push_back(tenant);
  return tenants;
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

void Authorise(const Tenant& tenant, grpc::ClientContext& context) {
  context.AddMetadata("authorization", absl::StrCat("Bearer ", tenant.key));
}

void Tally::Failed(const grpc::Status& status) {
  const absl::Status told = FromGrpcStatus(status);
  const std::string reason = ErrorReason(told);
  Failed(reason.empty() ? absl::StatusCodeToString(told.code()) : reason);
}

void Tally::Add(const Tally& other) {
  seconds_.insert(seconds_.end(), other.seconds_.begin(), other.seconds_.end());
  for (const auto& [reason, count] : other.failures_) failures_[reason] += count;
}

int64_t Tally::failed() const {
  int64_t failed = 0;
  for (const auto& [reason, count] : failures_) failed += count;
  return failed;
}

std::string Tally::Members() const {
  std::vector<double> sorted = seconds_;
  std::sort(sorted.begin(), sorted.end());
  const auto quantile_ms = [&](double q) {
    const auto last = static_cast<double>(sorted.size()) - 1;
    return sorted.empty() ? 0.0 : 1e3 * sorted[static_cast<size_t>(q * last)];
  };
  const std::string failures =
      absl::StrJoin(failures_, ", ", [](std::string* out, const auto& entry) {
        absl::StrAppend(out, "\"", entry.first, "\": ", entry.second);
      });
  return absl::StrFormat(
      R"("calls": %d, "p50_ms": %.3f, "p99_ms": %.3f, "failed": %d, "failures": {%s})",
      sorted.size(), quantile_ms(0.5), quantile_ms(0.99), failed(), failures);
}

int Stand(StandingLoad& load) {
  const absl::Status begun = load.Begin();
  if (!begun.ok()) {
    std::fprintf(stderr, "call_load: %s\n", std::string(begun.message()).c_str());
    return 1;
  }
  std::string line;
  do {
    std::printf("%s\n", load.Tell().c_str());
    std::fflush(stdout);
  } while (std::getline(std::cin, line));
  return 0;
}

}  // namespace ballast::bench
