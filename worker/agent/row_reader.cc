// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/row_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ballast/v1/dataset_service.pb.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/dataset/checker.h"

namespace ballast::worker::agent {
namespace {

constexpr int64_t kMaxTokens = int64_t{2'000'000'000};

dataset::Format ToFormat(int32_t format) {
  switch (format) {
    case ballast::v1::Dataset::OPENAI_CHAT:
      return dataset::Format::kOpenAiChat;
    case ballast::v1::Dataset::PROMPT_COMPLETION:
      return dataset::Format::kPromptCompletion;
    case ballast::v1::Dataset::ALPACA:
      return dataset::Format::kAlpaca;
    case ballast::v1::Dataset::SHAREGPT:
      return dataset::Format::kShareGpt;
    default:
      return dataset::Format::kAuto;
  }
}

}  // namespace

absl::StatusOr<std::vector<TokenRow>> ReadRows(const ballast::worker::v1::DatasetBlob& dataset,
                                               const text::ModelText& text, int64_t context_tokens,
                                               const BaseCache::Fetch& fetch) {
  BALLAST_ASSIGN_OR_RETURN(NumberedRows read,
                           ReadNumberedRows(dataset, text, context_tokens, fetch));
  return std::move(read.rows);
}

absl::StatusOr<NumberedRows> ReadNumberedRows(const ballast::worker::v1::DatasetBlob& dataset,
                                              const text::ModelText& text, int64_t context_tokens,
                                              const BaseCache::Fetch& fetch) {
  NumberedRows read;
  std::vector<TokenRow>& rows = read.rows;
  int64_t tokens = 0;
  dataset::CheckOptions options;
  options.format = ToFormat(dataset.format());
  // What was too long when it was checked, perhaps for a base with a shorter context, stays out.
  options.context_tokens = dataset.longest_row_tokens() > 0
                               ? std::min(context_tokens, dataset.longest_row_tokens())
                               : context_tokens;
  options.max_issues = 0;  // the server has the report
  dataset::Checker checker(
      text, options, [&](const dataset::ChatRow& chat, const text::SupervisedTokens& encoded) {
        tokens += static_cast<int64_t>(encoded.ids.size());
        if (tokens > kMaxTokens) {
          return MakeError(absl::StatusCode::kResourceExhausted, "DATASET_TOO_LARGE",
                           absl::StrCat("the data set has more than ", kMaxTokens, " tokens"));
        }
        TokenRow row;
        row.tokens = encoded.ids;
        row.supervised = encoded.supervised;  // a message's weight of 0 is in the mask already
        rows.push_back(std::move(row));
        read.lines.push_back(chat.line);
        return absl::OkStatus();
      });
  Sha256 digest;
  int64_t size = 0;
  BALLAST_RETURN_IF_ERROR(fetch(dataset.blob(), [&](std::string_view piece) {
    digest.Update(piece);
    size += static_cast<int64_t>(piece.size());
    return checker.Feed(piece);
  }));
  BALLAST_RETURN_IF_ERROR(checker.Finish().status());
  if ((dataset.size_bytes() != 0 && size != dataset.size_bytes()) ||
      (!dataset.digest().empty() && digest.Finish() != dataset.digest())) {
    return MakeError(absl::StatusCode::kDataLoss, "DATASET_CORRUPT",
                     "the stored data set is not the one that was uploaded");
  }
  // Admission held its minima against the number that was accepted (S5).
  if (dataset.rows_accepted() != 0 &&
      static_cast<int64_t>(rows.size()) != dataset.rows_accepted()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "DATASET_ROWS_DIFFER",
                     absl::StrCat("the data set has ", rows.size(),
                                  " rows to train on and was "
                                  "accepted with ",
                                  dataset.rows_accepted()));
  }
  if (rows.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "DATASET_EMPTY",
                     "no row of the data set can be trained on");
  }
  return read;
}

}  // namespace ballast::worker::agent
