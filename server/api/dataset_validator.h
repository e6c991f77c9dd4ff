// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_DATASET_VALIDATOR_H_
#define BALLAST_SERVER_API_DATASET_VALIDATOR_H_

#include <atomic>
#include <map>
#include <string>

#include "absl/synchronization/mutex.h"
#include "server/api/background_loop.h"
#include "server/core/blob_store.h"
#include "server/core/dataset_catalog.h"
#include "server/core/row_checks.h"

namespace ballast::server {

// Checks the rows of uploaded data sets, one after another, on a thread of its own. What waits is
// in the store: a restart goes on where it stopped. A data set that cannot be checked (its bytes
// are damaged) becomes INVALID with the issue CHECK_FAILED after a few tries.
class DatasetValidator {
 public:
  // All must outlive the object.
  DatasetValidator(DatasetCatalog& datasets, BlobStore& blobs, RowChecks& checks)
      : datasets_(datasets), blobs_(blobs), checks_(checks) {}

  void Start() {
    loop_.Start([this] { CheckAll(); }, absl::Seconds(5));
  }
  // Looks for uploaded data sets soon.
  void Wake() { loop_.Wake(); }
  // Stops within one megabyte of rows; the data set is checked again after the next start.
  // Idempotent.
  void Stop();

  // Checks all that wait, in the calling thread where the loop's is not at it.
  void CheckAll();

 private:
  absl::StatusOr<v1::ValidationReport> Check(const DatasetCatalog::ToValidate& next);

  DatasetCatalog& datasets_;
  BlobStore& blobs_;
  RowChecks& checks_;
  absl::Mutex checking_mutex_;  // held while a data set is checked
  std::map<std::string, int> failures_ ABSL_GUARDED_BY(checking_mutex_);  // by name
  std::atomic<bool> stopping_ = false;
  BackgroundLoop loop_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_DATASET_VALIDATOR_H_
