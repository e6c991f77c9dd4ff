// SPDX-License-Identifier: Apache-2.0
// Calls a server as fast as it answers, from many threads, for the benchmarks of the control plane
// (control_plane.py, claims.py, uploads.py). Prints one line of JSON.
//
//   call_load create|health|claim|upload ADDRESS SECONDS THREADS KEY_FILE BASE_MODEL [PER_SECOND]
// create: jobs. health: the least that a server answers. claim: idle workers, each of which takes
// one job and is never heard of again. upload: data sets of 32 MiB. KEY_FILE has a line "TENANT KEY
// DATASET" for each tenant, or for `claim` one with a worker's key; calls take turns among them.
// PER_SECOND: no more calls than so many, of all threads.
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
#include "ballast/v1/dataset_service.grpc.pb.h"
#include "ballast/v1/fine_tuning_service.grpc.pb.h"
#include "ballast/worker/v1/worker_service.grpc.pb.h"
#include "common/base/digest.h"

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

// Takes one job with a worker that nobody has heard of. NOT_FOUND where there was none.
grpc::Status Claim(ballast::worker::v1::WorkerService::Stub& stub, const Tenant& worker,
                   const std::string& id) {
  grpc::ClientContext context;
  context.AddMetadata("authorization", absl::StrCat("Bearer ", worker.key));
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  ballast::worker::v1::SynchronizeRequest request;
  request.set_worker_id(id);
  request.set_device("none");
  request.set_version("none");
  request.mutable_idle();
  ballast::worker::v1::SynchronizeResponse response;
  const grpc::Status status = stub.Synchronize(&context, request, &response);
  if (!status.ok() || response.has_work()) return status;
  return {grpc::StatusCode::NOT_FOUND, "there was no job"};
}

// What is uploaded: rows of a data set, 32 MiB of them.
const std::string& Rows() {
  static const std::string* const rows = [] {
    auto* text = new std::string;
    for (int64_t i = 0; text->size() < size_t{32} << 20; ++i) {
      absl::StrAppend(text, R"({"messages": [{"role": "user", "content": "what is thing number )",
                      i, R"("}, {"role": "assistant", "content": "it is the thing after number )",
                      i - 1, ", and before the next one\"}]}\n");
    }
    return text;
  }();
  return *rows;
}

grpc::Status Upload(ballast::v1::DatasetService::Stub& stub, const Tenant& tenant,
                    const std::string& base_model, const std::string& digest) {
  constexpr size_t kPieceBytes = size_t{256} << 10;
  const auto authorise = [&](grpc::ClientContext& context) {
    context.AddMetadata("authorization", absl::StrCat("Bearer ", tenant.key));
  };
  ballast::v1::Dataset dataset;
  {
    grpc::ClientContext context;
    authorise(context);
    ballast::v1::CreateDatasetRequest request;
    request.set_parent(absl::StrCat("tenants/", tenant.id));
    request.mutable_dataset()->set_base_model(base_model);
    const grpc::Status status = stub.CreateDataset(&context, request, &dataset);
    if (!status.ok()) return status;
  }
  grpc::ClientContext context;
  authorise(context);
  ballast::v1::WriteDatasetResponse response;
  const auto stream = stub.WriteDataset(&context, &response);
  const std::string& rows = Rows();
  for (size_t at = 0; at < rows.size(); at += kPieceBytes) {
    ballast::v1::WriteDatasetRequest request;
    if (at == 0) request.set_name(dataset.name());
    request.set_write_offset(static_cast<int64_t>(at));
    request.set_data(rows.substr(at, kPieceBytes));
    if (at + kPieceBytes >= rows.size()) {
      request.set_finish(true);
      request.set_digest(digest);
    }
    if (!stream->Write(request)) break;
  }
  stream->WritesDone();
  return stream->Finish();
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
  if (argc != 7 && argc != 8) {
    std::fprintf(stderr,
                 "usage: call_load create|health|claim|upload ADDRESS SECONDS THREADS KEY_FILE "
                 "BASE_MODEL [PER_SECOND]\n");
    return 2;
  }
  const std::string mode = argv[1], address = argv[2], base_model = argv[6];
  const double seconds = std::atof(argv[3]);
  const int threads = std::atoi(argv[4]);
  const double per_second = argc == 8 ? std::atof(argv[7]) : 0;
  const std::vector<Tenant> tenants = ReadTenants(argv[5]);
  if (tenants.empty() || threads < 1) {
    std::fprintf(stderr, "call_load: no tenants in %s, or no threads\n", argv[5]);
    return 2;
  }
  const auto process = static_cast<uint64_t>(SteadyClock::now().time_since_epoch().count());
  const std::string digest = mode == "upload" ? ballast::DigestOf(Rows()) : "";
  const auto begin = SteadyClock::now();
  const auto end = begin + std::chrono::duration<double>(seconds);
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
      const auto workers = ballast::worker::v1::WorkerService::NewStub(channel);
      const auto datasets = ballast::v1::DatasetService::NewStub(channel);
      grpc::GenericStub health(channel);
      grpc::CompletionQueue queue;
      Outcome& outcome = outcomes[static_cast<size_t>(t)];
      while (SteadyClock::now() < end) {
        const uint64_t own = ++number;
        const Tenant& tenant = tenants[own % tenants.size()];
        if (per_second > 0) {
          std::this_thread::sleep_until(
              begin + std::chrono::duration<double>(static_cast<double>(own) / per_second));
        }
        const auto asked = SteadyClock::now();
        grpc::Status status;
        if (mode == "create") {
          status = Create(*jobs, tenant, base_model, RequestId(process, own));
        } else if (mode == "claim") {
          status = Claim(*workers, tenant, absl::StrCat("bench-", process, "-", own));
        } else if (mode == "upload") {
          status = Upload(*datasets, tenant, base_model, digest);
        } else {
          status = CheckHealth(health, queue);
        }
        if (!status.ok()) {
          if (outcome.failed++ == 0) std::fprintf(stderr, "%s\n", status.error_message().c_str());
          continue;
        }
        const std::chrono::duration<double> took = SteadyClock::now() - asked;
        outcome.seconds.push_back(took.count());
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  const std::chrono::duration<double> took = SteadyClock::now() - begin;
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
      all.size(), static_cast<long long>(failed), took.count(), 1e3 * quantile(0.5),
      1e3 * quantile(0.99));
  return failed == 0 && !all.empty() ? 0 : 1;
}
