// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CPP_ADMIN_CLIENT_H_
#define BALLAST_CLIENT_CPP_ADMIN_CLIENT_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ballast/admin/v1/admin_service.grpc.pb.h"
#include "client/cpp/client.h"
#include "client/cpp/connection.h"
#include "client/cpp/paged_range.h"

namespace ballast::client {

// Calls of an operator, whose key the connection must hold. Failures as in Client.
// Thread safety: thread-safe. Calls block.
class AdminClient {
 public:
  explicit AdminClient(std::shared_ptr<const Connection> connection);

  // Names of the files in `folder` that belong to a base model, sorted: configuration, tokenizer,
  // chat template and safetensors. Others (README, .git, weights in other formats) are left out.
  // NOT_FOUND (FOLDER_NOT_FOUND), INVALID_ARGUMENT (FOLDER_EMPTY).
  static absl::StatusOr<std::vector<std::string>> ModelFiles(const std::string& folder);

  // Streams the ModelFiles of `folder`. Repeated from the start on UNAVAILABLE: importing the same
  // folder twice is one model.
  absl::StatusOr<v1::BaseModel> ImportBaseModel(
      const admin::v1::ImportBaseModelRequest::ImportOptions& options, const std::string& folder,
      const TransferProgress& progress = nullptr) const;

  // Streams both files and returns the vector in state DRAFT. Not repeated.
  absl::StatusOr<admin::v1::Vector> TrainVector(const admin::v1::VectorOptions& options,
                                                const std::string& prohibited_path,
                                                const std::string& benign_path,
                                                const TransferProgress& progress = nullptr) const;
  // The same with a file of topics, from which the worker makes the rows.
  absl::StatusOr<admin::v1::Vector> TrainVectorOnTopics(
      const admin::v1::VectorOptions& options, const std::string& topics_path,
      const TransferProgress& progress = nullptr) const;

  // The full resource name of an id; a full name stays as it is.
  static std::string VectorName(std::string_view id);

  absl::StatusOr<admin::v1::Vector> GetVector(std::string_view name) const;
  PagedRange<admin::v1::Vector> ListVectors() const;
  // Not repeated, unless `validate_only`.
  absl::StatusOr<admin::v1::SignedCertificate> CertifyVector(std::string_view name,
                                                             const admin::v1::SuiteResult& result,
                                                             bool validate_only = false) const;
  // Not repeated.
  absl::StatusOr<admin::v1::Vector> ActivateVector(std::string_view name,
                                                   const std::string& reason) const;
  absl::StatusOr<admin::v1::SignedCertificate> GetVectorCertificate(std::string_view name) const;
  // Not repeated.
  absl::StatusOr<admin::v1::Vector> RetireVector(std::string_view name) const;
  // `name`: "tenants/T/fineTuningJobs/J".
  absl::StatusOr<admin::v1::JobProtection> GetJobProtection(const std::string& name) const;
  absl::StatusOr<std::vector<admin::v1::WorkerInfo>> ListWorkers() const;

 private:
  absl::StatusOr<v1::BaseModel> ImportOnce(
      const admin::v1::ImportBaseModelRequest::ImportOptions& options, const std::string& folder,
      const std::vector<std::string>& files, int64_t total_bytes,
      const TransferProgress& progress) const;
  // A file and the part of a request that carries its bytes.
  struct VectorFile {
    std::string path;
    std::string* (admin::v1::TrainVectorRequest::*part)();
  };
  absl::StatusOr<admin::v1::Vector> SendVectorData(const admin::v1::VectorOptions& options,
                                                   const std::vector<VectorFile>& files,
                                                   const TransferProgress& progress) const;

  const std::shared_ptr<const Connection> connection_;
  const std::shared_ptr<admin::v1::AdminService::StubInterface> stub_;
};

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_ADMIN_CLIENT_H_
