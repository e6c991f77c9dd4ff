// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_TEXT_ROW_CHECKS_H_
#define BALLAST_SERVER_API_TEXT_ROW_CHECKS_H_

#include <list>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/text/tokenizer.h"
#include "server/core/blob_store.h"
#include "server/core/row_checks.h"

namespace ballast::server {

// Row checks by common/dataset with the tokenizer and chat template of the base model. Keeps the
// texts of the models used last. Thread safety: thread-safe.
class TextRowChecks : public RowChecks {
 public:
  // `blobs` must outlive the object. Text files of models are copied below `scratch_dir`.
  TextRowChecks(BlobStore& blobs, std::string scratch_dir)
      : blobs_(blobs), scratch_dir_(std::move(scratch_dir)) {}

  absl::StatusOr<TextFacts> Inspect(const std::string& folder) override;
  absl::StatusOr<std::unique_ptr<RowCheck>> Begin(const BaseModelRecord& base,
                                                  v1::Dataset::Format format) override;

 private:
  // Shared with the checks that use it.
  using Text = std::shared_ptr<const text::ModelText>;

  absl::StatusOr<Text> TextOf(const BaseModelRecord& base);
  absl::StatusOr<Text> Load(const BaseModelRecord& base);

  BlobStore& blobs_;
  const std::string scratch_dir_;
  absl::Mutex mutex_;  // held while loading: two checks of one model load it once
  std::list<std::pair<std::string, Text>> recent_
      ABSL_GUARDED_BY(mutex_);  // by digest, newest first
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_TEXT_ROW_CHECKS_H_
