// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_SAMPLING_SERVICE_H_
#define BALLAST_SERVER_API_SAMPLING_SERVICE_H_

#include <string>

#include "ballast/v1/sampling_service.grpc.pb.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "server/api/call.h"
#include "server/api/sample_broker.h"
#include "server/core/base_model_catalog.h"
#include "server/core/collaborators.h"
#include "server/core/job_catalog.h"

namespace ballast::server {

// ballast.v1.SamplingService: relays between who asks and a worker. Thread safety: thread-safe.
class SamplingService : public v1::SamplingService::CallbackService {
 public:
  // All must outlive the service. `listener` is told of new orders as of new work.
  SamplingService(const ApiContext& api, SampleBroker& broker, BaseModelCatalog& models,
                  JobCatalog& jobs, IdSource& ids, ChangeListener& listener)
      : api_(api), broker_(broker), models_(models), jobs_(jobs), ids_(ids), listener_(listener) {}

  grpc::ServerWriteReactor<v1::SampleResponse>* Sample(grpc::CallbackServerContext* context,
                                                       const v1::SampleRequest* request) override;

 private:
  // The order that `request` is, checked.
  absl::StatusOr<worker::v1::SampleOrder> OrderOf(const Principal& who,
                                                  const v1::SampleRequest& request,
                                                  const std::string& sample_id);

  const ApiContext& api_;
  SampleBroker& broker_;
  BaseModelCatalog& models_;
  JobCatalog& jobs_;
  IdSource& ids_;
  ChangeListener& listener_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_SAMPLING_SERVICE_H_
