// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_ROW_READER_H_
#define BALLAST_WORKER_AGENT_ROW_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "common/text/tokenizer.h"
#include "worker/agent/base_cache.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

// Rows with the lines of the file that they come from, counted from 1.
struct NumberedRows {
  std::vector<TokenRow> rows;
  std::vector<int64_t> lines;
};

// Reads a data set, checks every row as the server did, and returns the accepted ones as tokens.
// Rejected rows are left out. Memory: five bytes a token.
//
// An empty digest and a size of 0 are not checked (a vector's rows come without). DATA_LOSS
// (DATASET_CORRUPT) when the bytes are not what `dataset` promises; FAILED_PRECONDITION
// (DATASET_EMPTY) when no row was accepted; RESOURCE_EXHAUSTED (DATASET_TOO_LARGE) above two
// billion tokens; the error of `fetch`.
absl::StatusOr<NumberedRows> ReadNumberedRows(const ballast::worker::v1::DatasetBlob& dataset,
                                              const text::ModelText& text, int64_t context_tokens,
                                              const BaseCache::Fetch& fetch);
// Without the lines.
absl::StatusOr<std::vector<TokenRow>> ReadRows(const ballast::worker::v1::DatasetBlob& dataset,
                                               const text::ModelText& text, int64_t context_tokens,
                                               const BaseCache::Fetch& fetch);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_ROW_READER_H_
