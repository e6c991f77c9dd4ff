// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_MODEL_IMPORT_H_
#define BALLAST_SERVER_API_MODEL_IMPORT_H_

#include <map>
#include <optional>
#include <string>

#include "ballast/admin/v1/admin_service.pb.h"
#include "common/base/digest.h"
#include "server/api/admin_service.h"
#include "server/api/call.h"
#include "server/core/record.pb.h"

namespace ballast::server {

// One call of ImportBaseModel: files go to a staging folder, are checked there, and become blobs;
// the record makes them visible. The staging folder goes with the call.
class ModelImport : public ClientStream<admin::v1::ImportBaseModelRequest> {
 public:
  ModelImport(const ApiContext& api, grpc::CallbackServerContext* context,
              const AdminService::Parts& parts, Principal who, v1::BaseModel* response);
  ~ModelImport() override { Clean(); }

 private:
  absl::StatusOr<bool> OnMessage(admin::v1::ImportBaseModelRequest& request) override;
  absl::Status OnEnd() override;
  void Release() override { Clean(); }

  // Removes the staging folder, and lets go of the blobs. Idempotent.
  void Clean();

  absl::Status Start(const admin::v1::ImportBaseModelRequest::ImportOptions& options);
  absl::Status BeginFile(const admin::v1::ImportBaseModelRequest::FileStart& start);
  absl::Status Append(const std::string& data);
  absl::Status EndFile();
  absl::StatusOr<BaseModelRecord> Check();
  // Makes the files blobs, which the record is to name soon.
  absl::Status Store(const BaseModelRecord& record);

  const AdminService::Parts& parts_;
  const Principal who_;
  v1::BaseModel* const response_;

  std::optional<admin::v1::ImportBaseModelRequest::ImportOptions> options_;
  v1::TrainingLimits limits_;
  std::string folder_;
  UnnamedBlobs::Hold hold_;                // from the first blob to the record
  std::map<std::string, BlobFile> files_;  // by name; complete ones have a digest
  // The file being received.
  std::string current_;
  int fd_ = -1;
  int64_t received_bytes_ = 0;
  std::optional<Sha256> sha_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_MODEL_IMPORT_H_
