// SPDX-License-Identifier: Apache-2.0
#include "server/api/metrics.h"

#include <exception>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast::server {
namespace {

const prometheus::Histogram::BucketBoundaries kLatencySeconds = {
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
    0.05,   0.1,     0.25,   0.5,   1,      2.5,   10,   60};

prometheus::Gauge& AddGauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

}  // namespace

Metrics::Metrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      rpcs_(prometheus::BuildCounter()
                .Name("ballast_server_rpcs_total")
                .Help("Finished RPCs by method and canonical code.")
                .Register(*registry_)),
      latency_(prometheus::BuildHistogram()
                   .Name("ballast_server_rpc_duration_seconds")
                   .Help("Time from the start of an RPC to its end, by method. Long polls and "
                         "streams last "
                         "as long as they are held.")
                   .Register(*registry_)),
      uploaded_(prometheus::BuildCounter()
                    .Name("ballast_server_uploaded_bytes_total")
                    .Help("Bytes of data sets received.")
                    .Register(*registry_)
                    .Add({})),
      sent_(prometheus::BuildCounter()
                .Name("ballast_server_sent_bytes_total")
                .Help("Bytes of blobs sent to customers and workers.")
                .Register(*registry_)
                .Add({})),
      links_(prometheus::BuildCounter()
                 .Name("ballast_server_links_total")
                 .Help("Links to the object store given to customers and workers.")
                 .Register(*registry_)
                 .Add({})),
      leases_lost_(prometheus::BuildCounter()
                       .Name("ballast_server_leases_lost_total")
                       .Help("Leases that ended because their worker was silent or forgot them.")
                       .Register(*registry_)
                       .Add({})),
      jobs_(prometheus::BuildGauge()
                .Name("ballast_server_jobs_count")
                .Help("Jobs by state; QUEUED is the depth of the queue.")
                .Register(*registry_)),
      vectors_(prometheus::BuildGauge()
                   .Name("ballast_server_vectors_count")
                   .Help("Security vectors by state.")
                   .Register(*registry_)),
      validation_queue_(AddGauge(*registry_, "ballast_server_validation_queue_count",
                                 "Data sets whose rows wait to be checked.")),
      workers_(
          AddGauge(*registry_, "ballast_server_workers_count", "Workers seen in the last hour.")),
      idle_workers_(AddGauge(*registry_, "ballast_server_idle_workers_count",
                             "Calls of idle workers that are held.")),
      watchers_(AddGauge(*registry_, "ballast_server_watchers_count",
                         "Watches of jobs that are open.")) {}

absl::Status Metrics::Serve(const std::string& address) {
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(address, 1);
    exposer_->RegisterCollectable(registry_);
  } catch (const std::exception&) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "PORT_IN_USE",
        absl::StrCat("cannot serve metrics on ", address,
                     "; the port is taken or the address is none. Change metrics_address, or "
                     "switch it \"off\""),
        {{"address", address}});
  }
  return absl::OkStatus();
}

int Metrics::port() const {
  return exposer_ == nullptr ? 0 : exposer_->GetListeningPorts().front();
}

void Metrics::CountRpc(const char* method, absl::StatusCode code, absl::Duration took) {
  rpcs_.Add({{"method", method}, {"code", absl::StatusCodeToString(code)}}).Increment();
  latency_.Add({{"method", method}}, kLatencySeconds).Observe(absl::ToDoubleSeconds(took));
}

void Metrics::CountUploadedBytes(int64_t bytes) { uploaded_.Increment(static_cast<double>(bytes)); }
void Metrics::CountSentBytes(int64_t bytes) { sent_.Increment(static_cast<double>(bytes)); }
void Metrics::CountLinks(int64_t links) { links_.Increment(static_cast<double>(links)); }
void Metrics::SetLeasesLost(int64_t total) {
  leases_lost_.Increment(static_cast<double>(total) - leases_lost_.Value());
}
void Metrics::SetJobs(const std::string& state, int64_t count) {
  jobs_.Add({{"state", state}}).Set(static_cast<double>(count));
}
void Metrics::SetVectors(const std::string& state, int64_t count) {
  vectors_.Add({{"state", state}}).Set(static_cast<double>(count));
}
void Metrics::SetValidationQueue(int64_t datasets) {
  validation_queue_.Set(static_cast<double>(datasets));
}
void Metrics::SetWorkers(int64_t workers) { workers_.Set(static_cast<double>(workers)); }
void Metrics::SetHeldCalls(int64_t idle_workers) {
  idle_workers_.Set(static_cast<double>(idle_workers));
}
void Metrics::SetWatchers(int64_t watchers) { watchers_.Set(static_cast<double>(watchers)); }

}  // namespace ballast::server
