// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_DATASET_SERVICE_H_
#define BALLAST_SERVER_API_DATASET_SERVICE_H_

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "ballast/v1/dataset_service.grpc.pb.h"
#include "server/api/call.h"
#include "server/api/direct_upload.h"
#include "server/api/fair_executor.h"
#include "server/api/unnamed_blobs.h"
#include "server/core/blob_store.h"
#include "server/core/dataset_catalog.h"

namespace ballast::server {

// Which data sets are being written to. Thread safety: thread-safe.
class UploadsInProgress {
 public:
  // False when somebody is writing to it already.
  bool Begin(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    return names_.insert(name).second;
  }
  void End(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    names_.erase(name);
  }
  // The catalog could not be told that an upload has ended.
  void Leave(const TenantName& name) {
    absl::MutexLock lock(&mutex_);
    left_.push_back(name);
  }
  std::vector<TenantName> TakeLeft() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(left_, {});
  }

 private:
  absl::Mutex mutex_;
  std::set<std::string> names_ ABSL_GUARDED_BY(mutex_);
  std::vector<TenantName> left_ ABSL_GUARDED_BY(mutex_);
};

// ballast.v1.DatasetService. Thread safety: thread-safe.
class DatasetService : public v1::DatasetService::CallbackService {
 public:
  struct Limits {
    int64_t max_dataset_bytes = 0;
    int64_t upload_part_bytes = 0;  // of uploads by links
  };

  // All must outlive the service.
  DatasetService(const ApiContext& api, DatasetCatalog& datasets, BlobStore& blobs,
                 UnnamedBlobs& unnamed, const Limits& limits)
      : api_(api),
        datasets_(datasets),
        blobs_(blobs),
        max_dataset_bytes_(limits.max_dataset_bytes),
        direct_uploads_({datasets, blobs, unnamed, uploads_, limits.max_dataset_bytes,
                         limits.upload_part_bytes}) {
    finishing_.Start(kFinishingThreads, kFinishingThreads - 1);
  }

  grpc::ServerUnaryReactor* CreateDataset(grpc::CallbackServerContext* context,
                                          const v1::CreateDatasetRequest* request,
                                          v1::Dataset* response) override;
  grpc::ServerUnaryReactor* GetDataset(grpc::CallbackServerContext* context,
                                       const v1::GetDatasetRequest* request,
                                       v1::Dataset* response) override;
  grpc::ServerUnaryReactor* ListDatasets(grpc::CallbackServerContext* context,
                                         const v1::ListDatasetsRequest* request,
                                         v1::ListDatasetsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteDataset(grpc::CallbackServerContext* context,
                                          const v1::DeleteDatasetRequest* request,
                                          google::protobuf::Empty* response) override;
  grpc::ServerReadReactor<v1::WriteDatasetRequest>* WriteDataset(
      grpc::CallbackServerContext* context, v1::WriteDatasetResponse* response) override;
  grpc::ServerUnaryReactor* GetUploadStatus(grpc::CallbackServerContext* context,
                                            const v1::GetUploadStatusRequest* request,
                                            v1::UploadStatus* response) override;
  grpc::ServerUnaryReactor* StartDirectUpload(grpc::CallbackServerContext* context,
                                              const v1::StartDirectUploadRequest* request,
                                              v1::DirectUpload* response) override;
  grpc::ServerUnaryReactor* FinishDirectUpload(grpc::CallbackServerContext* context,
                                               const v1::FinishDirectUploadRequest* request,
                                               v1::Dataset* response) override;

  // The server stops.
  void Drain() { direct_uploads_.Drain(); }
  // Tells the catalog of uploads that have ended and of which it could not be told then.
  void EndLeftUploads();
  // As that of DatasetCatalog, and gives up uploads by links of which nobody has heard for a day.
  absl::Status SweepDirectUploads(absl::Time now);

 private:
  const ApiContext& api_;
  DatasetCatalog& datasets_;
  BlobStore& blobs_;
  const int64_t max_dataset_bytes_;
  UploadsInProgress uploads_;
  DirectUploads direct_uploads_;
  // Ends of uploads by links read all of their bytes: apart, so that many hold up no other
  // transfer. One is always left for another tenant's.
  static constexpr int kFinishingThreads = 3;
  FairExecutor finishing_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_DATASET_SERVICE_H_
