// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/row_reader.h"

#include <algorithm>
#include <iterator>
#include <map>
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

// Gives the accepted rows of a data set to `sink`, and makes sure that it is the promised one.
absl::StatusOr<dataset::Report> ReadChecked(const ballast::worker::v1::DatasetBlob& dataset,
                                            const text::ModelText& text,
                                            dataset::CheckOptions options,
                                            const BaseCache::Fetch& fetch, const RowSink& sink) {
  options.max_issues = 0;  // the server has the report
  int64_t rows = 0, tokens = 0, size = 0;
  dataset::Checker checker(
      text, options, [&](const dataset::ChatRow& chat, const text::SupervisedTokens& encoded) {
        ++rows;
        tokens += static_cast<int64_t>(encoded.ids.size());
        if (tokens > kMaxTokens) {
          return MakeError(absl::StatusCode::kResourceExhausted, "DATASET_TOO_LARGE",
                           absl::StrCat("the data set has more than ", kMaxTokens, " tokens"));
        }
        return sink(chat, encoded);
      });
  Sha256 digest;
  BALLAST_RETURN_IF_ERROR(fetch(dataset.blob(), [&](std::string_view piece) {
    digest.Update(piece);
    size += static_cast<int64_t>(piece.size());
    return checker.Feed(piece);
  }));
  BALLAST_ASSIGN_OR_RETURN(const dataset::Report report, checker.Finish());
  if ((dataset.size_bytes() != 0 && size != dataset.size_bytes()) ||
      (!dataset.digest().empty() && digest.Finish() != dataset.digest())) {
    return MakeError(absl::StatusCode::kDataLoss, "DATASET_CORRUPT",
                     "the stored data set is not the one that was uploaded");
  }
  // Admission held its minima against the number that was accepted (S5).
  if (dataset.rows_accepted() != 0 && rows != dataset.rows_accepted()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "DATASET_ROWS_DIFFER",
                     absl::StrCat("the data set has ", rows,
                                  " rows to train on and was "
                                  "accepted with ",
                                  dataset.rows_accepted()));
  }
  if (rows == 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "DATASET_EMPTY",
                     "no row of the data set can be trained on");
  }
  return report;
}

RowSink AppendTo(std::vector<TokenRow>& rows) {
  return [&rows](const dataset::ChatRow&, const text::SupervisedTokens& encoded) {
    rows.push_back(ToTokenRow(encoded));
    return absl::OkStatus();
  };
}

dataset::CheckOptions TenantOptions(const ballast::worker::v1::DatasetBlob& dataset,
                                    int64_t context_tokens) {
  dataset::CheckOptions options;
  options.format = ToFormat(dataset.format());
  // What was too long when it was checked, perhaps for a base with a shorter context, stays out.
  options.context_tokens = dataset.longest_row_tokens() > 0
                               ? std::min(context_tokens, dataset.longest_row_tokens())
                               : context_tokens;
  return options;
}

// The system prompts of some of a data set's rows: of those whose lines have the smallest digests.
class SystemSample {
 public:
  explicit SystemSample(const std::string& seed) : seed_(seed) {}

  void Add(const dataset::ChatRow& chat) {
    std::string key = DigestOf(absl::StrCat(seed_, " ", chat.line));
    if (chosen_.size() == kMostSystems) {
      if (key >= chosen_.rbegin()->first) return;
      chosen_.erase(std::prev(chosen_.end()));
    }
    const bool has = !chat.messages.empty() && chat.messages[0].role == "system";
    chosen_[std::move(key)] = {chat.line, has ? chat.messages[0].content : ""};
  }

  std::vector<RowSystem> Take() {
    std::vector<RowSystem> systems;
    for (auto& [key, system] : chosen_) systems.push_back(std::move(system));
    return systems;
  }

 private:
  const std::string seed_;
  std::map<std::string, RowSystem> chosen_;
};

}  // namespace

TokenRow ToTokenRow(const text::SupervisedTokens& encoded) {
  TokenRow row;
  row.tokens = encoded.ids;
  row.supervised = encoded.supervised;  // a message's weight of 0 is in the mask already
  return row;
}

absl::StatusOr<NumberedRows> ReadNumberedRows(const ballast::worker::v1::DatasetBlob& dataset,
                                              const text::ModelText& text, int64_t context_tokens,
                                              const BaseCache::Fetch& fetch,
                                              const std::string& seed) {
  NumberedRows read;
  SystemSample systems(seed);
  BALLAST_ASSIGN_OR_RETURN(
      const dataset::Report report,
      ReadChecked(dataset, text, TenantOptions(dataset, context_tokens), fetch,
                  [&](const dataset::ChatRow& chat, const text::SupervisedTokens& encoded) {
                    read.rows.push_back(ToTokenRow(encoded));
                    read.lines.push_back(chat.line);
                    systems.Add(chat);
                    return absl::OkStatus();
                  }));
  read.systems = systems.Take();
  read.most_repeated_row = report.most_repeated_row;
  return read;
}

absl::StatusOr<std::vector<TokenRow>> ReadRows(const ballast::worker::v1::DatasetBlob& dataset,
                                               const text::ModelText& text, int64_t context_tokens,
                                               const BaseCache::Fetch& fetch) {
  std::vector<TokenRow> rows;
  BALLAST_RETURN_IF_ERROR(
      ReadChecked(dataset, text, TenantOptions(dataset, context_tokens), fetch, AppendTo(rows))
          .status());
  return rows;
}

absl::Status ReadOperatorRows(const ballast::worker::v1::DatasetBlob& dataset,
                              const text::ModelText& text, int64_t context_tokens,
                              const BaseCache::Fetch& fetch, const RowSink& sink) {
  dataset::CheckOptions options;
  options.context_tokens = context_tokens;
  BALLAST_ASSIGN_OR_RETURN(const dataset::Report report,
                           ReadChecked(dataset, text, options, fetch, sink));
  if (report.rows_rejected == 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "OPERATOR_ROWS_DIFFER",
                   absl::StrCat(report.rows_rejected, " of the operator's rows are not right"));
}

absl::StatusOr<std::vector<TokenRow>> ReadOperatorRows(
    const ballast::worker::v1::DatasetBlob& dataset, const text::ModelText& text,
    int64_t context_tokens, const BaseCache::Fetch& fetch) {
  std::vector<TokenRow> rows;
  BALLAST_RETURN_IF_ERROR(ReadOperatorRows(dataset, text, context_tokens, fetch, AppendTo(rows)));
  return rows;
}

}  // namespace ballast::worker::agent
