// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_DELTA_SERVICE_H_
#define BALLAST_SERVER_API_DELTA_SERVICE_H_

#include <string>

#include "ballast/v1/delta_service.grpc.pb.h"
#include "server/api/blob_stream.h"
#include "server/api/call.h"
#include "server/core/blob_store.h"
#include "server/core/job_catalog.h"

namespace ballast::server {

// ballast.v1.DeltaService: only files that the job's Finished listed are served. Thread safety:
// thread-safe.
class DeltaService : public v1::DeltaService::CallbackService {
 public:
  // All must outlive the service.
  DeltaService(const ApiContext& api, JobCatalog& jobs, BlobStore& blobs)
      : api_(api), jobs_(jobs), blobs_(blobs) {}

  grpc::ServerUnaryReactor* GetDeltaManifest(grpc::CallbackServerContext* context,
                                             const v1::GetDeltaManifestRequest* request,
                                             v1::DeltaManifest* response) override;
  grpc::ServerWriteReactor<v1::ReadDeltaResponse>* ReadDelta(
      grpc::CallbackServerContext* context, const v1::ReadDeltaRequest* request) override;
  grpc::ServerUnaryReactor* GetDeltaLinks(grpc::CallbackServerContext* context,
                                          const v1::GetDeltaLinksRequest* request,
                                          v1::DeltaLinks* response) override;

 private:
  // A file of a delta that the caller may read.
  absl::StatusOr<BlobFile> FindFile(const Principal& who, const std::string& delta,
                                    const std::string& path);
  // DATA_LOSS (BLOB_CORRUPT), or NOT_FOUND where the delta has been deleted since it was found.
  absl::Status BlobIsMissing(const Principal& who, const std::string& delta);
  absl::StatusOr<BlobRange> OpenFile(const Principal& who, const v1::ReadDeltaRequest& request);
  absl::StatusOr<v1::DeltaLinks> LinksTo(absl::Time now, const Principal& who,
                                         const v1::GetDeltaLinksRequest& request);

  const ApiContext& api_;
  JobCatalog& jobs_;
  BlobStore& blobs_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_DELTA_SERVICE_H_
