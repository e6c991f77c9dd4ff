// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_ROW_READER_H_
#define BALLAST_WORKER_AGENT_ROW_READER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "common/dataset/parse_line.h"
#include "common/text/tokenizer.h"
#include "worker/agent/base_cache.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

// The system prompt of a row, "" of one without; the row by its line.
struct RowSystem {
  int64_t line = 0;
  std::string prompt;
};

// Rows with the lines of the file that they come from, counted from 1.
struct NumberedRows {
  std::vector<TokenRow> rows;
  std::vector<int64_t> lines;
  // Of at most kMostSystems of the rows, in an order that depends on the reader's `seed` alone.
  std::vector<RowSystem> systems;
  int64_t most_repeated_row = 1;  // near-duplicates (ValidationReport.most_repeated_row)
};
// So many that few are left only where nearly all of a large data set's rows are screened out.
inline constexpr size_t kMostSystems = 4096;

TokenRow ToTokenRow(const text::SupervisedTokens& encoded);

// What is done with a row that is accepted. A failure ends the reading with it.
using RowSink = std::function<absl::Status(const dataset::ChatRow&, const text::SupervisedTokens&)>;

// Reads a data set, checks every row as the server did, and returns the accepted ones as tokens.
// Rejected rows are left out. Memory: five bytes a token, and the system prompts.
//
// `seed`: what every attempt has and no tenant knows: else one could pick the rows whose system
// prompts come first.
//
// An empty digest and a size of 0 are not checked (a vector's rows come without). DATA_LOSS
// (DATASET_CORRUPT) when the bytes are not what `dataset` promises; FAILED_PRECONDITION
// (DATASET_EMPTY) when no row was accepted; RESOURCE_EXHAUSTED (DATASET_TOO_LARGE) above two
// billion tokens; the error of `fetch`.
absl::StatusOr<NumberedRows> ReadNumberedRows(const ballast::worker::v1::DatasetBlob& dataset,
                                              const text::ModelText& text, int64_t context_tokens,
                                              const BaseCache::Fetch& fetch,
                                              const std::string& seed);
// Rows that an operator gave, one by one: none of them may be rejected (FAILED_PRECONDITION,
// OPERATOR_ROWS_DIFFER), so that whatever the server says of format and length, it is all of the
// file that has the digest.
absl::Status ReadOperatorRows(const ballast::worker::v1::DatasetBlob& dataset,
                              const text::ModelText& text, int64_t context_tokens,
                              const BaseCache::Fetch& fetch, const RowSink& sink);
// The same as tokens.
absl::StatusOr<std::vector<TokenRow>> ReadOperatorRows(
    const ballast::worker::v1::DatasetBlob& dataset, const text::ModelText& text,
    int64_t context_tokens, const BaseCache::Fetch& fetch);
// As ReadNumberedRows, the rows alone and no system prompts.
absl::StatusOr<std::vector<TokenRow>> ReadRows(const ballast::worker::v1::DatasetBlob& dataset,
                                               const text::ModelText& text, int64_t context_tokens,
                                               const BaseCache::Fetch& fetch);

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_ROW_READER_H_
