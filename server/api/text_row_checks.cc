// SPDX-License-Identifier: Apache-2.0
#include "server/api/text_row_checks.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/dataset/checker.h"

namespace ballast::server {
namespace {

constexpr size_t kRecentModels = 4;
constexpr size_t kMaxTextFileBytes = size_t{64} << 20;

dataset::Format FormatOf(v1::Dataset::Format format) {
  switch (format) {
    case v1::Dataset::OPENAI_CHAT:
      return dataset::Format::kOpenAiChat;
    case v1::Dataset::PROMPT_COMPLETION:
      return dataset::Format::kPromptCompletion;
    case v1::Dataset::ALPACA:
      return dataset::Format::kAlpaca;
    case v1::Dataset::SHAREGPT:
      return dataset::Format::kShareGpt;
    default:
      return dataset::Format::kAuto;
  }
}

v1::ValidationReport ToProto(const dataset::Report& report) {
  v1::ValidationReport out;
  out.set_lines(report.lines);
  out.set_rows_accepted(report.rows_accepted);
  out.set_rows_rejected(report.rows_rejected);
  for (const auto& [reason, count] : report.counts_by_reason) {
    (*out.mutable_counts_by_reason())[reason] = count;
  }
  for (const dataset::Issue& issue : report.issues) {
    v1::RowIssue& row = *out.add_issues();
    row.set_line(issue.line);
    row.set_field(issue.field);
    row.set_reason(issue.reason);
    row.set_message(issue.message);
    row.set_warning(issue.warning);
  }
  out.set_issues_truncated(report.issues_truncated);
  out.set_total_tokens(report.total_tokens);
  out.set_supervised_tokens(report.supervised_tokens);
  out.set_longest_row_tokens(report.longest_row_tokens);
  out.set_p50_row_tokens(report.p50_row_tokens);
  out.set_p90_row_tokens(report.p90_row_tokens);
  out.set_p99_row_tokens(report.p99_row_tokens);
  out.set_most_repeated_row(report.most_repeated_row);
  return out;
}

class TextRowCheck : public RowCheck {
 public:
  TextRowCheck(std::shared_ptr<const text::ModelText> text, const dataset::CheckOptions& options)
      : text_(std::move(text)), checker_(*text_, options, nullptr) {}

  absl::Status Feed(std::string_view bytes) override { return checker_.Feed(bytes); }

  absl::StatusOr<v1::ValidationReport> Finish() override {
    BALLAST_ASSIGN_OR_RETURN(const dataset::Report report, checker_.Finish());
    return ToProto(report);
  }

 private:
  const std::shared_ptr<const text::ModelText> text_;
  dataset::Checker checker_;
};

// Removes a folder when it goes.
class ScratchFolder {
 public:
  explicit ScratchFolder(std::string path) : path_(std::move(path)) {}
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

}  // namespace

absl::StatusOr<TextFacts> TextRowChecks::Inspect(const std::string& folder) {
  if (!FileExists(absl::StrCat(folder, "/tokenizer.json"))) {
    return MakeError(absl::StatusCode::kInvalidArgument, "FILE_MISSING",
                     "tokenizer.json is missing; import the whole folder");
  }
  BALLAST_ASSIGN_OR_RETURN(const text::ModelText text, text::ModelText::FromFolder(folder));
  // A chat as every data set has it: a template that cannot render it would reject every row.
  BALLAST_RETURN_IF_ERROR(
      text::EncodeChat(*text.tokenizer, *text.chat_template,
                       {{"user", "Hello", true}, {"assistant", "Good day", true}})
          .status());
  return TextFacts{text.tokenizer_digest, text.template_digest, text.tokenizer->VocabularySize()};
}

absl::StatusOr<std::unique_ptr<RowCheck>> TextRowChecks::Begin(const BaseModelRecord& base,
                                                               v1::Dataset::Format format) {
  BALLAST_ASSIGN_OR_RETURN(Text text, TextOf(base));
  dataset::CheckOptions options;
  options.format = FormatOf(format);
  options.context_tokens = base.model().context_tokens();
  return std::make_unique<TextRowCheck>(std::move(text), options);
}

absl::StatusOr<TextRowChecks::Text> TextRowChecks::TextOf(const BaseModelRecord& base) {
  absl::MutexLock lock(&mutex_);
  for (auto it = recent_.begin(); it != recent_.end(); ++it) {
    if (it->first == base.model().digest()) {
      recent_.splice(recent_.begin(), recent_, it);
      return it->second;
    }
  }
  BALLAST_ASSIGN_OR_RETURN(Text text, Load(base));
  recent_.emplace_front(base.model().digest(), text);
  if (recent_.size() > kRecentModels) recent_.pop_back();
  return text;
}

absl::StatusOr<TextRowChecks::Text> TextRowChecks::Load(const BaseModelRecord& base) {
  const ScratchFolder folder(absl::StrCat(scratch_dir_, "/text-", RandomHex(64)));
  BALLAST_RETURN_IF_ERROR(MakeDirectories(folder.path(), 0700));
  for (const BlobFile& file : base.files()) {
    if (absl::EndsWith(file.path(), ".safetensors")) continue;
    BALLAST_ASSIGN_OR_RETURN(const auto reader, blobs_.Open(file.blob()));
    const auto size = static_cast<size_t>(reader->size_bytes());
    BALLAST_ASSIGN_OR_RETURN(const std::string bytes,
                             reader->Read(0, std::min(kMaxTextFileBytes, size)));
    if (DigestOf(bytes) != file.digest()) {
      return MakeError(absl::StatusCode::kDataLoss, "BLOB_CORRUPT",
                       absl::StrCat("the stored ", file.path(), " of ", base.model().name(),
                                    " is damaged; import the model again"));
    }
    BALLAST_RETURN_IF_ERROR(
        WriteFileAtomically(absl::StrCat(folder.path(), "/", file.path()), bytes, 0600));
  }
  BALLAST_ASSIGN_OR_RETURN(text::ModelText text, text::ModelText::FromFolder(folder.path()));
  return std::make_shared<const text::ModelText>(std::move(text));
}

}  // namespace ballast::server
