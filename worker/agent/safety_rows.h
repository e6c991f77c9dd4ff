// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_SAFETY_ROWS_H_
#define BALLAST_WORKER_AGENT_SAFETY_ROWS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ballast/worker/v1/worker_service.pb.h"
#include "common/text/tokenizer.h"
#include "worker/agent/row_reader.h"
#include "worker/trainer.h"

namespace ballast::worker::agent {

// The operator's safety rows as one job trains them. Its own rows may all stand under a system
// prompt, and what they teach is then learned under that prompt alone, where no safety row would
// speak against it. So every second refusal takes the system prompt, if any, of one of the job's
// rows (`systems`, see NumberedRows), or as much of its beginning as fits the context: all, a half,
// a quarter and so on. One that has a system prompt keeps it. Answers to harmless prompts stay as
// they are: a customer's prompt may ask for another tone.
//
// Failures of ReadOperatorRows.
absl::StatusOr<std::vector<TokenRow>> ReadSafetyRows(const ballast::worker::v1::DatasetBlob& rows,
                                                     const std::vector<RowSystem>& systems,
                                                     const text::ModelText& text,
                                                     int64_t context_tokens,
                                                     const BaseCache::Fetch& fetch);

// Gives the safety rows more weight where the customer's rows are so much longer that they would
// drown them: a step's loss is a mean over supervised tokens, so that the share of rows that the
// operator chose says little where `rows` supervise many more tokens each than the safety rows do.
// Above kMostTimesSafety as many, the safety rows weigh as much as they do at it.
void WeighSafetyRows(const std::vector<TokenRow>& rows, std::vector<TokenRow>& safety_rows);
inline constexpr double kMostTimesSafety = 1.5;

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_SAFETY_ROWS_H_
