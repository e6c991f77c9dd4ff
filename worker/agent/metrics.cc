// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/metrics.h"

#include <exception>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace ballast::worker::agent {
namespace {

prometheus::Family<prometheus::Counter>& AddCounters(prometheus::Registry& registry,
                                                     const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

}  // namespace

Metrics::Metrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      leases_(AddCounters(*registry_, "ballast_worker_leases_total",
                          "Leases that ended, by kind of work and outcome.")),
      samples_(AddCounters(*registry_, "ballast_worker_samples_total",
                           "Sampling orders, by whether they were answered.")),
      steps_(AddCounters(*registry_, "ballast_worker_steps_total", "Finished optimizer steps.")
                 .Add({})),
      heartbeat_failures_(AddCounters(*registry_, "ballast_worker_heartbeat_failures_total",
                                      "Heartbeats that did not reach the server.")
                              .Add({})),
      busy_(prometheus::BuildGauge()
                .Name("ballast_worker_busy")
                .Help("1 while a lease is held, else 0.")
                .Register(*registry_)
                .Add({})) {}

absl::Status Metrics::Serve(const std::string& address) {
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(address, 1);
    exposer_->RegisterCollectable(registry_);
  } catch (const std::exception&) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "PORT_IN_USE",
        absl::StrCat("cannot serve metrics on ", address,
                     "; the port is taken or the address is none. Change metrics_address, or "
                     "leave it out"),
        {{"address", address}});
  }
  return absl::OkStatus();
}

int Metrics::port() const {
  return exposer_ == nullptr ? 0 : exposer_->GetListeningPorts().front();
}

void Metrics::SetBusy(bool busy) { busy_.Set(busy ? 1 : 0); }
void Metrics::CountLease(const std::string& work, const std::string& outcome) {
  leases_.Add({{"work", work}, {"outcome", outcome}}).Increment();
}
void Metrics::CountStep() { steps_.Increment(); }
void Metrics::CountSample(bool answered) {
  samples_.Add({{"answered", answered ? "yes" : "no"}}).Increment();
}
void Metrics::CountHeartbeatFailure() { heartbeat_failures_.Increment(); }

}  // namespace ballast::worker::agent
