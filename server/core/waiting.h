// SPDX-License-Identifier: Apache-2.0
// Why a job waits and for how long, as its owner is told.
#ifndef BALLAST_SERVER_CORE_WAITING_H_
#define BALLAST_SERVER_CORE_WAITING_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/v1/fine_tuning_job.pb.h"
#include "server/core/job_store.h"
#include "server/core/quotas.h"
#include "server/core/record.pb.h"
#include "server/core/serving_vector.h"

namespace ballast::server {

// Looks at jobs of one tenant inside a transaction; what they share is looked up once. Whether
// there are workers at all is not known here: see SayNoWorkers.
class WaitingView {
 public:
  // All must outlive the object.
  WaitingView(Transaction& tx, const std::string& tenant, const ServingVectors& serving,
              const Quotas& quotas, absl::Time now)
      : tx_(tx), tenant_(tenant), serving_(serving), quotas_(quotas), now_(now) {}

  // Of a job that is QUEUED. Without the bounds of its start.
  absl::StatusOr<v1::Waiting> Describe(const JobRecord& record);
  // The same with them, where they are known: a worker is all that the job waits for.
  absl::StatusOr<v1::Waiting> DescribeWithStart(const JobRecord& record);

 private:
  Transaction& tx_;
  const std::string& tenant_;
  const ServingVectors& serving_;
  const Quotas& quotas_;
  const absl::Time now_;
  std::optional<bool> frozen_;
  std::optional<bool> may_run_;
};

// What a job that waits for a worker is told where none is connected.
void SayNoWorkers(v1::Waiting& waiting);

}  // namespace ballast::server

#endif  // BALLAST_SERVER_CORE_WAITING_H_
