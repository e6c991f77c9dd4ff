// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_DATASET_VALIDATOR_H_
#define BALLAST_SERVER_API_DATASET_VALIDATOR_H_

#include <atomic>
#include <map>
#include <set>
#include <string>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "server/api/background_loop.h"
#include "server/core/blob_store.h"
#include "server/core/dataset_catalog.h"
#include "server/core/row_checks.h"

namespace ballast::server {

// Checks the rows of uploaded data sets, one after another, on a thread of its own. What waits is
// in the store: a restart goes on where it stopped. A data set whose stored bytes are damaged
// becomes INVALID with the issue CHECK_FAILED after three tries. Every other failure is the
// platform's (no file descriptors, a full disk, a base model that cannot be read): it is tried
// again for ever, with growing pauses in which other data sets have their turn.
class DatasetValidator {
 public:
  // All must outlive the object.
  DatasetValidator(DatasetCatalog& datasets, BlobStore& blobs, RowChecks& checks, Clock& clock)
      : datasets_(datasets), blobs_(blobs), checks_(checks), clock_(clock) {}

  void Start() {
    loop_.Start([this] { CheckAll(); }, absl::Seconds(5));
  }
  // Looks for uploaded data sets soon.
  void Wake() { loop_.Wake(); }
  // Stops within one megabyte of rows; the data set is checked again after the next start.
  // Idempotent.
  void Stop();

  // Checks all that wait and do not pause, in the calling thread where the loop's is not at it.
  void CheckAll();

 private:
  // A data set whose check has failed.
  struct Failed {
    int losses = 0;  // tries that found its bytes damaged
    absl::Duration pause;
    absl::Time next_try;
  };

  // Names of data sets that are not tried yet at `now`.
  std::set<std::string> Pausing(absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(checking_mutex_);
  // Feeds the stored rows; DATA_LOSS when they are damaged.
  absl::StatusOr<v1::ValidationReport> Check(const DatasetCatalog::ToValidate& next,
                                             RowCheck& check);

  DatasetCatalog& datasets_;
  BlobStore& blobs_;
  RowChecks& checks_;
  Clock& clock_;
  absl::Mutex checking_mutex_;  // held while a data set is checked
  std::map<std::string, Failed> failed_ ABSL_GUARDED_BY(checking_mutex_);  // by name
  std::atomic<bool> stopping_ = false;
  BackgroundLoop loop_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_DATASET_VALIDATOR_H_
