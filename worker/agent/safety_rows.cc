// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/safety_rows.h"

#include <cstddef>

#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "common/behaviour/behaviour_set.h"
#include "worker/behaviour/reply_judge.h"

namespace ballast::worker::agent {
namespace {

constexpr size_t kOneRefusalIn = 2;

double MeanLossWeight(const std::vector<TokenRow>& rows) {
  double sum = 0;
  for (const TokenRow& row : rows) sum += LossWeight(row);
  return rows.empty() ? 0 : sum / static_cast<double>(rows.size());
}

}  // namespace

absl::StatusOr<std::vector<TokenRow>> ReadSafetyRows(const ballast::worker::v1::DatasetBlob& rows,
                                                     const std::vector<RowSystem>& systems,
                                                     const text::ModelText& text,
                                                     int64_t context_tokens,
                                                     const BaseCache::Fetch& fetch) {
  const behaviour::ReplyJudge judge{ballast::behaviour::BehaviourSet()};
  std::vector<TokenRow> read;
  size_t refusals = 0;
  const auto sink = [&](const dataset::ChatRow& chat,
                        const text::SupervisedTokens& encoded) -> absl::Status {
    read.push_back(ToTokenRow(encoded));
    if (chat.messages[0].role == "system" ||
        judge.Judge(chat.messages.back().content) != behaviour::Reply::kRefused) {
      return absl::OkStatus();
    }
    const size_t number = refusals++;
    if (systems.empty() || number % kOneRefusalIn != 0) return absl::OkStatus();
    std::vector<text::ChatMessage> messages = chat.messages;
    messages.insert(
        messages.begin(),
        {.role = "system", .content = systems[number / kOneRefusalIn % systems.size()].prompt});
    for (std::string& system = messages[0].content; !system.empty();
         system = ValidUtf8(system, system.size() / 2)) {
      const auto under =
          text::EncodeChat(*text.tokenizer, *text.chat_template, messages, context_tokens);
      if (absl::IsInvalidArgument(under.status())) continue;
      BALLAST_RETURN_IF_ERROR(under.status());
      read.back() = ToTokenRow(*under);
      break;
    }
    return absl::OkStatus();
  };
  BALLAST_RETURN_IF_ERROR(ReadOperatorRows(rows, text, context_tokens, fetch, sink));
  return read;
}

void WeighSafetyRows(const std::vector<TokenRow>& rows, std::vector<TokenRow>& safety_rows) {
  const double safety = MeanLossWeight(safety_rows);
  if (!(safety > 0)) return;
  const double weight = MeanLossWeight(rows) / safety / kMostTimesSafety;
  if (weight <= 1) return;
  for (TokenRow& row : safety_rows) row.weight *= static_cast<float>(weight);
}

}  // namespace ballast::worker::agent
