// SPDX-License-Identifier: Apache-2.0
// Calls a server for the benchmarks of the control plane (control_plane.py, claims.py, uploads.py,
// heartbeats.py). KEY_FILE has a line "TENANT KEY DATASET" for each tenant, or for `claim` and
// `heartbeat` one with a worker's key.
//
//   call_load create|health|claim|upload ADDRESS SECONDS THREADS KEY_FILE BASE_MODEL [PER_SECOND]
// calls as fast as the server answers, from many threads, tenants in turn, and prints one line of
// JSON. create: jobs. health: the least that a server answers. claim: idle workers, each of which
// takes one job and is never heard of again. upload: data sets of 32 MiB. PER_SECOND: no more calls
// than so many, of all threads.
//
//   call_load heartbeat|watch ADDRESS COUNT KEY_FILE
// has COUNT workers each take a job and report on it (heartbeat_load.h), or COUNT watches follow
// the jobs that run (watch_load.h), until standard input ends. Prints a line of JSON once all of
// them do, and one for each line that it reads, of what has happened since the last one.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ballast/v1/dataset_service.grpc.pb.h"
#include "ballast/v1/fine_tuning_service.grpc.pb.h"
#include "ballast/worker/v1/worker_service.grpc.pb.h"
#include "common/base/digest.h"
#include "tests/bench/heartbeat_load.h"
#include "tests/bench/load.h"
#include "tests/bench/watch_load.h"

namespace ballast::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

grpc::Status Create(v1::FineTuningService::Stub& stub, const Tenant& tenant,
                    const std::string& base_model, const std::string& request_id) {
  grpc::ClientContext context;
  Authorise(tenant, context);
  v1::CreateFineTuningJobRequest request;
  request.set_parent(absl::StrCat("tenants/", tenant.id));
  request.set_request_id(request_id);
  request.mutable_fine_tuning_job()->set_base_model(base_model);
  request.mutable_fine_tuning_job()->set_training_dataset(tenant.dataset);
  v1::FineTuningJob job;
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
grpc::Status Claim(worker::v1::WorkerService::Stub& stub, const Tenant& worker,
                   const std::string& id) {
  grpc::ClientContext context;
  Authorise(worker, context);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  worker::v1::SynchronizeRequest request;
  request.set_worker_id(id);
  request.set_device("none");
  request.set_version("none");
  request.mutable_idle();
  worker::v1::SynchronizeResponse response;
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

grpc::Status Upload(v1::DatasetService::Stub& stub, const Tenant& tenant,
                    const std::string& base_model, const std::string& digest) {
  constexpr size_t kPieceBytes = size_t{256} << 10;
  v1::Dataset dataset;
  {
    grpc::ClientContext context;
    Authorise(tenant, context);
    v1::CreateDatasetRequest request;
    request.set_parent(absl::StrCat("tenants/", tenant.id));
    request.mutable_dataset()->set_base_model(base_model);
    const grpc::Status status = stub.CreateDataset(&context, request, &dataset);
    if (!status.ok()) return status;
  }
  grpc::ClientContext context;
  Authorise(tenant, context);
  v1::WriteDatasetResponse response;
  const auto stream = stub.WriteDataset(&context, &response);
  const std::string& rows = Rows();
  for (size_t at = 0; at < rows.size(); at += kPieceBytes) {
    v1::WriteDatasetRequest request;
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

int Usage() {
  std::fprintf(stderr,
               "usage: call_load create|health|claim|upload ADDRESS SECONDS THREADS KEY_FILE "
               "BASE_MODEL [PER_SECOND]\n"
               "       call_load heartbeat|watch ADDRESS COUNT KEY_FILE\n");
  return 2;
}

int StandingCalls(char** argv) {
  const std::string mode = argv[1], address = argv[2];
  const int count = std::atoi(argv[3]);
  const std::vector<Tenant> tenants = ReadTenants(argv[4]);
  if (tenants.empty() || count < 1) return Usage();
  if (mode == "heartbeat") {
    HeartbeatLoad load(address, tenants.front(), count);
    return Stand(load);
  }
  WatchLoad load(address, tenants, count);
  return Stand(load);
}

int RepeatedCalls(int argc, char** argv) {
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
  const std::string digest = mode == "upload" ? DigestOf(Rows()) : "";
  const auto begin = SteadyClock::now();
  const auto end = begin + std::chrono::duration<double>(seconds);
  std::atomic<uint64_t> number = 0;
  std::vector<Tally> tallies(static_cast<size_t>(threads));
  std::vector<std::thread> running;
  for (Tally& tally : tallies) {
    running.emplace_back([&] {
      const auto channel = Connect(address);
      const auto jobs = v1::FineTuningService::NewStub(channel);
      const auto workers = worker::v1::WorkerService::NewStub(channel);
      const auto datasets = v1::DatasetService::NewStub(channel);
      grpc::GenericStub health(channel);
      grpc::CompletionQueue queue;
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
        if (status.ok()) {
          tally.Answered(absl::FromChrono(SteadyClock::now() - asked));
          continue;
        }
        if (tally.failed() == 0) std::fprintf(stderr, "%s\n", status.error_message().c_str());
        tally.Failed(status);
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  const std::chrono::duration<double> took = SteadyClock::now() - begin;
  Tally all;
  for (const Tally& tally : tallies) all.Add(tally);
  std::printf("{\"seconds\": %g, %s}\n", took.count(), all.Members().c_str());
  return all.failed() == 0 && all.answered() > 0 ? 0 : 1;
}

int Main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "heartbeat" || mode == "watch") return argc == 5 ? StandingCalls(argv) : Usage();
  return argc == 7 || argc == 8 ? RepeatedCalls(argc, argv) : Usage();
}

}  // namespace
}  // namespace ballast::bench

int main(int argc, char** argv) { return ballast::bench::Main(argc, argv); }
