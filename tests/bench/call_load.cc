// SPDX-License-Identifier: Apache-2.0
// Calls a server as fast as it answers, from many threads, for the benchmark of the control plane
// (control_plane.py). Prints one line of JSON.
//
//   call_load create|health ADDRESS SECONDS THREADS KEY_FILE BASE_MODEL
// KEY_FILE has a line "TENANT KEY DATASET" for each tenant; threads take turns among them.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ballast/v1/fine_tuning_service.grpc.pb.h"

namespace {

using SteadyClock = std::chrono::steady_clock;

struct Tenant {
  std::string id, key, dataset;
};

struct Outcome {
  std::vector<double> seconds;  // of each call that was answered
  int64_t failed = 0;
};

std::vector<Tenant> ReadTenants(const std::string& path) {
  std::vector<Tenant> tenants;
  std::ifstream file(path);
  for (Tenant tenant; file >> tenant.id >> tenant.key >> tenant.dataset;) tenants.push_back(tenant);
  return tenants;
}

grpc::Status Create(ballast::v1::FineTuningService::Stub& stub, const Tenant& tenant,
                    const std::string& base_model, const std::string& request_id) {
  grpc::ClientContext context;
  context.AddMetadata("authorization", absl::StrCat("Bearer ", tenant.key));
  ballast::v1::CreateFineTuningJobRequest request;
  request.set_parent(absl::StrCat("tenants/", tenant.id));
  request.set_request_id(request_id);
  request.mutable_fine_tuning_job()->set_base_model(base_model);
  request.mutable_fine_tuning_job()->set_training_dataset(tenant.dataset);
  ballast::v1::FineTuningJob job;
  return stub.CreateFineTuningJob(&context, request, &job);
}

// The least that a server answers: no key, no store.
grpc::Status CheckHealth(grpc::GenericStub& stub, grpc::CompletionQueue& queue) {
  grpc::ClientContext context;
  const grpc::Slice nothing("");
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer response;
  grpc::Status status;
  const auto call =
      stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status;
}

// A UUID of numbers that no other call of this process has.
std::string RequestId(uint64_t process, uint64_t number) {
  char text[37];
  std::snprintf(text, sizeof text, "%08x-0000-4000-8000-%012llx", static_cast<unsigned>(process),
                static_cast<unsigned long long>(number));
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr,
                 "usage: call_load create|health ADDRESS SECONDS THREADS KEY_FILE BASE_MODEL\n");
    return 2;
  }
  const std::string mode = argv[1], address = argv[2], base_model = argv[6];
  const double seconds = std::atof(argv[3]);
  const int threads = std::atoi(argv[4]);
  const std::vector<Tenant> tenants = ReadTenants(argv[5]);
  if (tenants.empty() || threads < 1) {
    std::fprintf(stderr, "call_load: no tenants in %s, or no threads\n", argv[5]);
    return 2;
  }
  const auto process = static_cast<uint64_t>(SteadyClock::now().time_since_epoch().count());
  const auto end = SteadyClock::now() + std::chrono::duration<double>(seconds);
  std::atomic<uint64_t> number = 0;
  std::vector<Outcome> outcomes(static_cast<size_t>(threads));
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      const auto channel =
          grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
      const auto jobs = ballast::v1::FineTuningService::NewStub(channel);
      grpc::GenericStub health(channel);
      grpc::CompletionQueue queue;
      Outcome& outcome = outcomes[static_cast<size_t>(t)];
      const Tenant& tenant = tenants[static_cast<size_t>(t) % tenants.size()];
      while (SteadyClock::now() < end) {
        const auto begin = SteadyClock::now();
        grpc::Status status;
        if (mode == "create") {
          status = Create(*jobs, tenant, base_model, RequestId(process, ++number));
        } else {
          status = CheckHealth(health, queue);
        }
        if (!status.ok()) {
          if (outcome.failed++ == 0) std::fprintf(stderr, "%s\n", status.error_message().c_str());
          continue;
        }
        const std::chrono::duration<double> took = SteadyClock::now() - begin;
        outcome.seconds.push_back(took.count());
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  std::vector<double> all;
  int64_t failed = 0;
  for (const Outcome& outcome : outcomes) {
    all.insert(all.end(), outcome.seconds.begin(), outcome.seconds.end());
    failed += outcome.failed;
  }
  std::sort(all.begin(), all.end());
  const auto quantile = [&](double q) {
    return all.empty() ? 0.0 : all[static_cast<size_t>(q * static_cast<double>(all.size() - 1))];
  };
  std::printf(
      "{\"calls\": %zu, \"failed\": %lld, \"seconds\": %g, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n",
      all.size(), static_cast<long long>(failed), seconds, 1e3 * quantile(0.5),
      1e3 * quantile(0.99));
  return failed == 0 && !all.empty() ? 0 : 1;
}
