// SPDX-License-Identifier: Apache-2.0
// Ballast for C++ programs: what a tenant can do.
#ifndef BALLAST_CLIENT_CPP_CLIENT_H_
#define BALLAST_CLIENT_CPP_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ballast/v1/base_model_service.grpc.pb.h"
#include "ballast/v1/dataset_service.grpc.pb.h"
#include "ballast/v1/delta_service.grpc.pb.h"
#include "ballast/v1/fine_tuning_service.grpc.pb.h"
#include "ballast/v1/sampling_service.grpc.pb.h"
#include "client/cpp/connection.h"
#include "client/cpp/paged_range.h"

namespace ballast::client {

// Told how far a transfer is. `done` only grows, but for a transfer that begins again.
using TransferProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

// Told why a transfer goes through the server although the server offered links to its store.
using LinkFallback = std::function<void(const absl::Status& why)>;

struct UploadOptions {
  int64_t chunk_bytes = 256 << 10;  // in (0, 1 MiB]
  TransferProgress progress;        // may be empty
  bool links = true;                // send to the store itself, where the server gives links
  LinkFallback on_fallback;         // may be empty
};

struct DownloadOptions {
  TransferProgress progress;  // over all files of the delta; may be empty
  bool links = true;          // fetch from the store itself, where the server gives links
  LinkFallback on_fallback;   // may be empty
};

// What a watch tells. All may be empty.
struct WatchHandlers {
  std::function<void(const v1::JobEvent&)> on_event;  // each sequence once, in order
  std::function<void(const v1::JobProgress&)> on_progress;
  std::function<void(const absl::Status&)> on_reconnect;  // the connection broke; trying again
};

// Calls of one tenant on one server. Every failure carries a reason (common/base/error.h): the
// server's, or one of this library (SERVER_UNREACHABLE, DEADLINE_EXCEEDED, and those named below).
//
// Reads, creates (by request_id) and cancels are repeated on UNAVAILABLE as the connection's policy
// says; deletes are not. Transfers and watches go on from where they broke.
//
// Thread safety: thread-safe. Calls block.
class Client {
 public:
  // `tenant` is the id alone, for example "acme".
  Client(std::shared_ptr<const Connection> connection, std::string_view tenant);

  // "tenants/<tenant>".
  const std::string& parent() const { return parent_; }
  // The full resource name of an id; a full name stays as it is.
  std::string DatasetName(std::string_view id) const;
  std::string JobName(std::string_view id) const;
  static std::string BaseModelName(std::string_view id);
  // Of a job's id, name, or the delta's own name.
  std::string DeltaName(std::string_view job) const;

  absl::StatusOr<v1::BaseModel> GetBaseModel(std::string_view name) const;
  PagedRange<v1::BaseModel> ListBaseModels() const;

  // An empty data set. A missing `request_id` is made here.
  absl::StatusOr<v1::Dataset> CreateDataset(const v1::Dataset& dataset,
                                            std::string request_id = "") const;
  absl::StatusOr<v1::Dataset> GetDataset(std::string_view name) const;
  PagedRange<v1::Dataset> ListDatasets() const;
  absl::Status DeleteDataset(std::string_view name) const;
  absl::StatusOr<v1::UploadStatus> GetUploadStatus(std::string_view name) const;

  // Sends a file into a data set from wherever its upload stands, and goes on after a broken
  // stream. The digest is computed while it streams. Returns the data set once every byte is
  // durable; its rows may still be being checked. Also FILE_CHANGED (the file shrank below what the
  // server has) and FILE_NOT_REGULAR (a pipe, a folder or a device).
  absl::StatusOr<v1::Dataset> UploadDataset(std::string_view name, const std::string& path,
                                            const UploadOptions& options = {}) const;

  // Whether UploadDataset can read `path`, to be asked before a data set is created for it.
  static absl::Status CheckUploadFile(const std::string& path);

  // Polls until the data set is READY or INVALID. DEADLINE_EXCEEDED (VALIDATION_PENDING) after
  // `patience`.
  absl::StatusOr<v1::Dataset> WaitForValidation(std::string_view name,
                                                absl::Duration patience = absl::Hours(1)) const;

  // A missing `request_id` is made here.
  absl::StatusOr<v1::FineTuningJob> CreateJob(const v1::FineTuningJob& job,
                                              std::string request_id = "") const;
  // The job as it would be created, with its estimate; nothing is kept.
  absl::StatusOr<v1::FineTuningJob> EstimateJob(const v1::FineTuningJob& job) const;
  absl::StatusOr<v1::FineTuningJob> GetJob(std::string_view name) const;
  PagedRange<v1::FineTuningJob> ListJobs() const;
  absl::StatusOr<v1::FineTuningJob> CancelJob(std::string_view name) const;
  absl::Status DeleteJob(std::string_view name) const;
  absl::StatusOr<v1::FineTuningJob> PauseJob(std::string_view name) const;
  // FAILED_PRECONDITION (JOB_PAUSING) until the worker has stopped; see RetryInfo.
  absl::StatusOr<v1::FineTuningJob> ResumeJob(std::string_view name) const;

  // Follows a job until it has ended, is WITHHELD or PAUSED, and returns it then. After a broken
  // connection it goes on from the last sequence seen; it gives up with the connection's error when
  // `max_reconnects` attempts in a row brought nothing. A job that only waits is followed for as
  // long as the server answers.
  absl::StatusOr<v1::FineTuningJob> WatchJob(std::string_view name, int64_t after_sequence,
                                             const WatchHandlers& handlers) const;

  absl::StatusOr<v1::DeltaManifest> GetDeltaManifest(std::string_view name) const;

  // Writes a delta into `folder` (made when missing). A file grows as "<path>.part", goes on from
  // what is there, and gets its name once its digest is right; files that are there and right are
  // not fetched again. DATA_LOSS (DIGEST_MISMATCH); INVALID_ARGUMENT (DELTA_PATH_INVALID): the
  // server named a path that would leave the folder; the errors of writing files.
  absl::StatusOr<v1::DeltaManifest> DownloadDelta(std::string_view name, const std::string& folder,
                                                  const DownloadOptions& options = {}) const;

  // Streams one reply, piece by piece; `request.parent` is filled in. Returns the finish reason.
  // Repeated only while no piece has arrived.
  absl::StatusOr<std::string> Sample(v1::SampleRequest request,
                                     const std::function<void(const std::string&)>& on_text) const;

 private:
  const std::shared_ptr<const Connection> connection_;
  const std::string parent_;
  const std::shared_ptr<v1::BaseModelService::StubInterface> base_models_;
  const std::shared_ptr<v1::DatasetService::StubInterface> datasets_;
  const std::shared_ptr<v1::FineTuningService::StubInterface> jobs_;
  const std::shared_ptr<v1::DeltaService::StubInterface> deltas_;
  const std::shared_ptr<v1::SamplingService::StubInterface> sampling_;
};

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_CLIENT_H_
