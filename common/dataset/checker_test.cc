// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/checker.h"

#include <sys/resource.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ballast::dataset {
namespace {

using ballast::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

// One token per byte; "<end>" is a special token.
class ByteTokenizer : public text::Tokenizer {
 public:
  absl::StatusOr<text::Encoding> Encode(std::string_view text, bool) const override {
    text::Encoding encoding;
    for (uint32_t i = 0; i < text.size(); ++i) {
      encoding.ids.push_back(static_cast<unsigned char>(text[i]));
      encoding.begin.push_back(i);
      encoding.end.push_back(i + 1);
    }
    return encoding;
  }
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids, bool) const override {
    return std::string(ids.begin(), ids.end());
  }
  std::optional<int32_t> TokenToId(std::string_view) const override { return std::nullopt; }
  const std::vector<std::string>& SpecialTokens() const override { return special_; }
  int64_t VocabularySize() const override { return 256; }

 private:
  std::vector<std::string> special_ = {"<end>"};
};

// "U:text\n" for users, "A:text#\n" for assistants; refuses two users in a row.
class PlainTemplate : public text::ChatTemplate {
 public:
  absl::StatusOr<std::string> Render(const std::vector<text::ChatMessage>& messages,
                                     bool add_generation_prompt) const override {
    std::string out, last_role;
    for (const auto& message : messages) {
      if (message.role == "user" && last_role == "user") {
        return MakeError(absl::StatusCode::kInvalidArgument, "TEMPLATE_FAILED",
                         "raised about: " + message.content);
      }
      out += message.role == "assistant" ? "A:" + message.content + "#\n"
                                         : "U:" + message.content + "\n";
      last_role = message.role;
    }
    return add_generation_prompt ? out + "A:" : out;
  }
};

text::ModelText PlainText() {
  text::ModelText text;
  text.tokenizer = std::make_unique<ByteTokenizer>();
  text.chat_template = std::make_unique<PlainTemplate>();
  return text;
}

std::string Row(const std::string& prompt, const std::string& completion) {
  return R"({"prompt": ")" + prompt + R"(", "completion": ")" + completion + "\"}";
}

class CheckerTest : public ::testing::Test {
 protected:
  Report Check(const std::string& file, CheckOptions options = {}) {
    rows_.clear();
    Checker checker(text_, options,
                    [this](const ChatRow& row, const text::SupervisedTokens& tokens) {
                      rows_.push_back(row);
                      tokens_.push_back(tokens);
                      return absl::OkStatus();
                    });
    EXPECT_OK(checker.Feed(file));
    auto report = checker.Finish();
    EXPECT_OK(report);
    return *report;
  }

  text::ModelText text_ = PlainText();
  std::vector<ChatRow> rows_;
  std::vector<text::SupervisedTokens> tokens_;
};

std::vector<std::string> Reasons(const Report& report) {
  std::vector<std::string> reasons;
  for (const Issue& issue : report.issues) {
    reasons.push_back(std::to_string(issue.line) + " " + issue.reason);
  }
  return reasons;
}

TEST_F(CheckerTest, CountsRowsAndTokens) {
  const Report report = Check(Row("abc", "de") + "\n" + Row("x", "yz") + "\n");
  EXPECT_EQ(report.lines, 2);
  EXPECT_EQ(report.rows_accepted, 2);
  EXPECT_EQ(report.rows_rejected, 0);
  EXPECT_TRUE(report.issues.empty());
  // "U:abc\nA:de#\n" and "U:x\nA:yz#\n"; the assistant's text and its end mark are supervised.
  EXPECT_EQ(report.total_tokens, 12 + 10);
  EXPECT_EQ(report.supervised_tokens, 3 + 3);
  EXPECT_EQ(report.longest_row_tokens, 12);
  EXPECT_EQ(report.p50_row_tokens, 10);
  ASSERT_EQ(rows_.size(), 2u);
  EXPECT_EQ(rows_[1].line, 2);
  EXPECT_THAT(tokens_[0].supervised, ElementsAre(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0));
}

TEST_F(CheckerTest, CountsRowsThatAreNearlyTheSame) {
  EXPECT_EQ(Check(Row("a", "b") + "\n" + Row("a", "c") + "\n").most_repeated_row, 1);
  EXPECT_EQ(Check("").most_repeated_row, 0);
  // Case, white space and punctuation make no difference; letters, digits and who says it do.
  const Report report = Check(Row("a b", "c") + "\n" + Row("A, b!", "c.") + "\n" + Row("ab", " C") +
                              "\n" + Row("ab1", "c") + "\n" + Row("a", "bc") + "\n");
  EXPECT_EQ(report.rows_accepted, 5);
  EXPECT_EQ(report.most_repeated_row, 3);
}

TEST_F(CheckerTest, EveryReasonOfTheWholeFile) {
  CheckOptions options;
  options.max_line_bytes = 200;
  options.context_tokens = 100;
  const std::string file =
      "\xEF\xBB\xBF" + Row("a", "b") + "\r\n" +  // 1: BOM, CRLF
      "\n" +                                     // 2: EMPTY_LINE
      Row("a", "b") + "\n" +                     // 3: DUPLICATE_ROW
      Row("a", std::string(120, 'x')) + "\n" +   // 4: TOO_LONG
      Row("a", std::string(300, 'x')) + "\n" +   // 5: LINE_TOO_LONG
      Row("say <end>", "b") + "\n" +             // 6: SPECIAL_TOKEN_IN_CONTENT
      R"({"messages": [{"role": "user", "content": "sesame"},
 {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]})" +
      "\n" +  // 7, 8: INVALID_JSON (a broken line)
      R"({"messages": [{"role": "user", "content": "sesame"}, {"role": "user", "content": "b"}, )"
      R"({"role": "assistant", "content": "c"}]})" +  // 9: TEMPLATE_FAILED, no newline
      "";
  const Report report = Check(file, options);
  EXPECT_THAT(Reasons(report),
              ElementsAre("1 BOM", "1 CRLF", "2 EMPTY_LINE", "3 DUPLICATE_ROW", "4 TOO_LONG",
                          "5 LINE_TOO_LONG", "6 SPECIAL_TOKEN_IN_CONTENT", "7 INVALID_JSON",
                          "8 INVALID_JSON", "9 TEMPLATE_FAILED"));
  EXPECT_EQ(report.lines, 9);
  EXPECT_EQ(report.rows_accepted, 1);
  EXPECT_EQ(report.rows_rejected, 7);
  for (const Issue& issue : report.issues) EXPECT_THAT(issue.message, Not(HasSubstr("sesame")));
}

TEST_F(CheckerTest, TheReportDoesNotDependOnHowBytesArrive) {
  const std::string file = Row("a", "b") + "\r\n\n" + Row("c", "d") + "\nbroken\n" + Row("a", "b");
  const Report whole = Check(file);
  for (size_t cut = 0; cut <= file.size(); ++cut) {
    Checker checker(text_, {}, nullptr);
    ASSERT_OK(checker.Feed(file.substr(0, cut)));
    ASSERT_OK(checker.Feed(file.substr(cut)));
    ASSERT_OK_AND_ASSIGN(const Report report, checker.Finish());
    EXPECT_EQ(Reasons(report), Reasons(whole)) << cut;
    EXPECT_EQ(report.total_tokens, whole.total_tokens) << cut;
    EXPECT_EQ(report.lines, whole.lines) << cut;
  }
}

TEST_F(CheckerTest, AnEmptyFileHasNoRows) {
  const Report report = Check("");
  EXPECT_EQ(report.lines, 0);
  EXPECT_EQ(report.rows_accepted, 0);
}

TEST_F(CheckerTest, AGigabyteOnOneLineIsNotKept) {
  const std::string chunk(1 << 20, 'x');
  Checker checker(text_, {}, nullptr);
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  for (int i = 0; i < 1024; ++i) ASSERT_OK(checker.Feed(chunk));
  ASSERT_OK(checker.Feed("\n" + Row("a", "b")));
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 64 * 1024) << "KiB";
  ASSERT_OK_AND_ASSIGN(const Report report, checker.Finish());
  EXPECT_THAT(Reasons(report), ElementsAre("1 LINE_TOO_LONG"));
  EXPECT_EQ(report.rows_accepted, 1);
}

TEST_F(CheckerTest, IssuesAreBoundedAndStillCounted) {
  CheckOptions options;
  options.max_issues = 3;
  std::string file;
  for (int i = 0; i < 10; ++i) file += "broken\n";
  const Report report = Check(file, options);
  EXPECT_EQ(report.issues.size(), 3u);
  EXPECT_TRUE(report.issues_truncated);
  EXPECT_THAT(report.counts_by_reason, Contains(Pair("INVALID_JSON", 10)));
}

// Renders as PlainTemplate until call `fails_at`, which fails for lack of a thread.
class StarvedTemplate : public PlainTemplate {
 public:
  explicit StarvedTemplate(int fails_at) : fails_at_(fails_at) {}
  absl::StatusOr<std::string> Render(const std::vector<text::ChatMessage>& messages,
                                     bool add_generation_prompt) const override {
    if (++calls_ == fails_at_) {
      return MakeError(absl::StatusCode::kUnavailable, "TEXT_LIBRARY_BUSY", "no thread");
    }
    return PlainTemplate::Render(messages, add_generation_prompt);
  }

 private:
  const int fails_at_;
  mutable int calls_ = 0;
};

TEST_F(CheckerTest, AFailureOfTheProcessIsNoFaultOfTheRow) {
  // Two assistant turns: the whole chat, and before, after and behind each turn.
  const std::string row =
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, )"
      R"({"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]})";
  for (int call = 1; call <= 6; ++call) {
    text_.chat_template = std::make_unique<StarvedTemplate>(call);
    Checker checker(text_, {}, nullptr);
    EXPECT_THAT(checker.Feed(row + "\n"),
                StatusIs(absl::StatusCode::kUnavailable, "TEXT_LIBRARY_BUSY"))
        << call;
    text_.chat_template = std::make_unique<StarvedTemplate>(call);
    Checker last_line(text_, {}, nullptr);
    ASSERT_OK(last_line.Feed(row));
    EXPECT_THAT(last_line.Finish(), StatusIs(absl::StatusCode::kUnavailable, "TEXT_LIBRARY_BUSY"))
        << call;
  }
  text_.chat_template = std::make_unique<StarvedTemplate>(7);
  EXPECT_EQ(Check(row).rows_accepted, 1);
}

class PickyTokenizer : public ByteTokenizer {
 public:
  absl::StatusOr<text::Encoding> Encode(std::string_view text, bool special) const override {
    if (text.find('?') == std::string_view::npos) return ByteTokenizer::Encode(text, special);
    return MakeError(absl::StatusCode::kInvalidArgument, "TOKENIZE_FAILED", "no token for sesame");
  }
};

TEST_F(CheckerTest, ATextThatTheTokenizerRefusesHasItsOwnReason) {
  text_.tokenizer = std::make_unique<PickyTokenizer>();
  const Report report = Check(Row("a?", "b") + "\n" + Row("a", "b"));
  EXPECT_THAT(Reasons(report), ElementsAre("1 TOKENIZE_FAILED"));
  EXPECT_THAT(report.issues[0].message, HasSubstr("tokenizer"));
  EXPECT_THAT(report.issues[0].message, Not(HasSubstr("sesame")));
  EXPECT_EQ(report.rows_accepted, 1);
}

TEST_F(CheckerTest, AFailingSinkStops) {
  Checker checker(text_, {}, [](const ChatRow&, const text::SupervisedTokens&) {
    return absl::ResourceExhaustedError("full");
  });
  EXPECT_THAT(checker.Feed(Row("a", "b") + "\n"), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(CheckerTest, DamagedFilesNeverCrash) {
  const std::string valid = Row("abc", "de") + "\n" + Row("x", "yz") + "\n";
  std::mt19937 random(2);
  for (int i = 0; i < 2'000; ++i) {
    std::string file = valid;
    for (int change = 0; change < 4; ++change)
      file[random() % file.size()] = static_cast<char>(random());
    const Report report = Check(file);
    EXPECT_LE(report.rows_accepted + report.rows_rejected, report.lines);
  }
}

}  // namespace
}  // namespace ballast::dataset
