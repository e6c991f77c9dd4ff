// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/checker.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/numeric/int128.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/dataset/row_lengths.h"

namespace ballast::dataset {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Found in every line of some files: listed once, counted always.
bool IsListedOnce(const Issue& issue) {
  return issue.reason == "BOM" || issue.reason == "CRLF" || issue.reason == "UNKNOWN_FIELD";
}

// 128 bits of a SHA-256 over roles and texts, so that nobody can craft a row that hides another.
absl::uint128 Fingerprint(const ChatRow& row) {
  Sha256 sha;
  for (const auto& message : row.messages) {
    sha.Update(
        absl::StrCat(message.role, "\n", message.content.size(), message.supervised ? "+" : "-"));
    sha.Update(message.content);
  }
  const std::string hex = sha.Finish().substr(sizeof("sha256:") - 1);
  return absl::MakeUint128(std::stoull(hex.substr(0, 16), nullptr, 16),
                           std::stoull(hex.substr(16, 16), nullptr, 16));
}

// 64 bits over roles and texts without case, white space and ASCII punctuation. Two rows that agree
// in it by chance only make the count of repeats larger.
uint64_t LooseFingerprint(const ChatRow& row) {
  Sha256 sha;
  std::string kept;
  for (const auto& message : row.messages) {
    kept.clear();
    for (const char c : message.content) {
      const auto byte = static_cast<unsigned char>(c);
      if (!absl::ascii_isspace(byte) && !absl::ascii_ispunct(byte)) {
        kept += absl::ascii_tolower(byte);
      }
    }
    sha.Update(absl::StrCat(message.role, "\n", kept.size(), message.supervised ? "+" : "-"));
    sha.Update(kept);
  }
  return std::stoull(sha.Finish().substr(sizeof("sha256:") - 1, 16), nullptr, 16);
}

}  // namespace

class Checker::Impl {
 public:
  Impl(const text::ModelText& text, const CheckOptions& options, RowSink sink)
      : text_(text), options_(options), sink_(std::move(sink)) {}

  absl::Status Feed(std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t newline = bytes.find('\n');
      const std::string_view piece = bytes.substr(0, newline);
      // One byte more than allowed is kept, so that a carriage return does not count as too long.
      const auto room = static_cast<size_t>(options_.max_line_bytes) + 2 - line_.size();
      line_.append(piece.substr(0, room));
      too_long_ = too_long_ || piece.size() > room;
      if (newline == std::string_view::npos) return absl::OkStatus();
      bytes.remove_prefix(newline + 1);
      BALLAST_RETURN_IF_ERROR(EndLine());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Report> Finish() {
    if (!line_.empty() || too_long_) BALLAST_RETURN_IF_ERROR(EndLine());
    report_.longest_row_tokens = lengths_.longest();
    report_.p50_row_tokens = lengths_.Quantile(0.5);
    report_.p90_row_tokens = lengths_.Quantile(0.9);
    report_.p99_row_tokens = lengths_.Quantile(0.99);
    return report_;
  }

 private:
  absl::Status EndLine() {
    ++report_.lines;
    std::string_view line = line_;
    if (report_.lines == 1 && line.substr(0, kByteOrderMark.size()) == kByteOrderMark) {
      Warn("BOM", "the file begins with a byte order mark; it is ignored");
      line.remove_prefix(kByteOrderMark.size());
    }
    if (!line.empty() && line.back() == '\r') {
      Warn("CRLF", "lines end in CR LF; the CR is ignored");
      line.remove_suffix(1);
    }
    absl::Status status;
    if (too_long_ || static_cast<int64_t>(line.size()) > options_.max_line_bytes) {
      Reject({report_.lines, "", "LINE_TOO_LONG",
              absl::StrCat("the line has more than ", options_.max_line_bytes,
                           " bytes; split the row")});
    } else if (absl::StripAsciiWhitespace({line.data(), line.size()}).empty()) {
      Warn("EMPTY_LINE", "the line is empty; it is ignored");
    } else {
      status = CheckRow(line);
    }
    line_.clear();
    too_long_ = false;
    return status;
  }

  absl::Status CheckRow(std::string_view line) {
    ParsedLine parsed = ParseLine(line, report_.lines, options_.format);
    const bool valid = parsed.valid();
    for (Issue& issue : parsed.issues) Record(std::move(issue));
    if (!valid) {
      ++report_.rows_rejected;
      return absl::OkStatus();
    }
    if (std::optional<Issue> issue = FindSpecialToken(parsed.row); issue.has_value()) {
      Reject(*std::move(issue));
      return absl::OkStatus();
    }
    const auto encoded = text::EncodeChat(*text_.tokenizer, *text_.chat_template,
                                          parsed.row.messages, options_.context_tokens);
    if (!encoded.ok()) {
      // Only INVALID_ARGUMENT is the row's fault. A row left out for a failure of the process would
      // be missing from the training without anybody knowing.
      if (!absl::IsInvalidArgument(encoded.status())) return encoded.status();
      Reject(EncodingIssue(encoded.status()));
      return absl::OkStatus();
    }
    const auto tokens = static_cast<int64_t>(encoded->ids.size());
    const int64_t supervised =
        std::count(encoded->supervised.begin(), encoded->supervised.end(), uint8_t{1});
    if (supervised == 0) {
      Reject({report_.lines, "", "NO_SUPERVISED_TOKENS",
              "the chat template leaves no token of the assistant's text to learn from"});
      return absl::OkStatus();
    }
    if (!seen_.insert(Fingerprint(parsed.row)).second) {
      Reject({report_.lines, "", "DUPLICATE_ROW", "an earlier row is the same; it is kept once"});
      return absl::OkStatus();
    }
    ++report_.rows_accepted;
    report_.most_repeated_row =
        std::max<int64_t>(report_.most_repeated_row, ++repeats_[LooseFingerprint(parsed.row)]);
    report_.total_tokens += tokens;
    report_.supervised_tokens += supervised;
    lengths_.Add(tokens);
    return sink_ ? sink_(parsed.row, *encoded) : absl::OkStatus();
  }

  std::optional<Issue> FindSpecialToken(const ChatRow& row) const {
    for (size_t i = 0; i < row.messages.size(); ++i) {
      for (const std::string& token : text_.tokenizer->SpecialTokens()) {
        if (token.empty() || row.messages[i].content.find(token) == std::string::npos) continue;
        return Issue{row.line, absl::StrCat("messages[", i, "].content"),
                     "SPECIAL_TOKEN_IN_CONTENT",
                     absl::StrCat("the text contains the control token ", token,
                                  ", which would end or forge a turn; remove it")};
      }
    }
    return std::nullopt;
  }

  // The template's own words may quote the row, so only its reason is passed on.
  Issue EncodingIssue(const absl::Status& status) const {
    const std::string reason = ErrorReason(status);
    if (reason == "TOO_LONG") {
      return {report_.lines, "", reason,
              absl::StrCat("the row has more than ", options_.context_tokens,
                           " tokens, the model's context; shorten or split it")};
    }
    if (reason == "TEMPLATE_NOT_PREFIX_STABLE") {
      return {report_.lines, "", reason,
              "the model's chat template rewrites earlier turns, so the assistant's text has no "
              "exact place; "
              "use one assistant turn per row"};
    }
    if (reason == "TEMPLATE_LIMIT") {
      return {report_.lines, "", reason,
              "the row is too much for the model's chat template; shorten it"};
    }
    if (reason == "TOKENIZE_FAILED") {
      return {report_.lines, "", reason,
              "the model's tokenizer cannot take the row's text; remove unusual characters"};
    }
    return {report_.lines, "", "TEMPLATE_FAILED",
            "the model's chat template refuses the row; check the order of its roles"};
  }

  void Warn(std::string reason, std::string message) {
    Record({report_.lines, "", std::move(reason), std::move(message), true});
  }

  void Reject(Issue issue) {
    ++report_.rows_rejected;
    Record(std::move(issue));
  }

  void Record(Issue issue) {
    const int64_t count = ++report_.counts_by_reason[issue.reason];
    if (count > 1 && IsListedOnce(issue)) return;
    if (static_cast<int64_t>(report_.issues.size()) >= options_.max_issues) {
      report_.issues_truncated = true;
      return;
    }
    report_.issues.push_back(std::move(issue));
  }

  const text::ModelText& text_;
  const CheckOptions options_;
  const RowSink sink_;
  Report report_;
  RowLengths lengths_;
  std::string line_;
  bool too_long_ = false;
  absl::flat_hash_set<absl::uint128> seen_;
  absl::flat_hash_map<uint64_t, int32_t> repeats_;
};

Checker::Checker(const text::ModelText& text, const CheckOptions& options, RowSink sink)
    : impl_(std::make_unique<Impl>(text, options, std::move(sink))) {}
Checker::~Checker() = default;

absl::Status Checker::Feed(std::string_view bytes) { return impl_->Feed(bytes); }
absl::StatusOr<Report> Checker::Finish() { return impl_->Finish(); }

}  // namespace ballast::dataset
