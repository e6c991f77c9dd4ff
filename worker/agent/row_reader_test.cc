// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/row_reader.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ballast/v1/dataset_service.pb.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/agent/job_error.h"
#include "worker/testing/fake_text.h"

namespace ballast::worker::agent {
namespace {

using ballast::testing::StatusIs;
using ::testing::SizeIs;

// The template of the fake text, which for one text has no thread to run on.
class StarvedTemplate : public text::ChatTemplate {
 public:
  explicit StarvedTemplate(std::unique_ptr<ChatTemplate> whole) : whole_(std::move(whole)) {}
  absl::StatusOr<std::string> Render(const std::vector<text::ChatMessage>& messages,
                                     bool add_generation_prompt) const override {
    if (messages[0].content == "starve") {
      return MakeError(absl::StatusCode::kUnavailable, "TEXT_LIBRARY_BUSY", "no thread");
    }
    return whole_->Render(messages, add_generation_prompt);
  }

 private:
  const std::unique_ptr<ChatTemplate> whole_;
};

absl::StatusOr<std::vector<TokenRow>> Read(const text::ModelText& text, const std::string& rows) {
  return ReadRows({}, text, 1000, [&](const std::string&, const auto& sink) { return sink(rows); });
}

constexpr char kFirst[] = R"({"prompt": "a", "completion": "b"})";
constexpr char kSecond[] = R"({"prompt": "starve", "completion": "b"})";

TEST(RowReaderTest, LeavesOutNoRowForAFailureOfTheProcess) {
  text::ModelText text = testing::FakeModelText();
  EXPECT_THAT(*Read(text, std::string(kFirst) + "\n" + kSecond), SizeIs(2));
  text.chat_template = std::make_unique<StarvedTemplate>(std::move(text.chat_template));
  for (const char* newline : {"", "\n"}) {
    const auto rows = Read(text, std::string(kFirst) + "\n" + kSecond + newline);
    ASSERT_THAT(rows, StatusIs(absl::StatusCode::kUnavailable, "TEXT_LIBRARY_BUSY"));
    // The platform's error, so that the job is tried again.
    EXPECT_EQ(ToJobError(rows.status()).kind(), ballast::v1::JobError::PLATFORM);
  }
}

std::string Chat(const std::string& system, const std::string& prompt) {
  const std::string first =
      system.empty() ? "" : R"({"role": "system", "content": ")" + system + R"("}, )";
  return R"({"messages": [)" + first + R"({"role": "user", "content": ")" + prompt +
         R"("}, {"role": "assistant", "content": "b"}]})" + "\n";
}

TEST(RowReaderTest, TellsSystemPromptsOfAFixedChoiceOfRows) {
  const text::ModelText text = testing::FakeModelText();
  const auto systems = [&](const std::string& rows, const std::string& seed) {
    std::vector<std::string> told;
    const NumberedRows read =
        ReadNumberedRows(
            {}, text, 1000, [&](const std::string&, const auto& sink) { return sink(rows); }, seed)
            .value();
    for (const RowSystem& system : read.systems) {
      told.push_back(absl::StrCat(system.line, " ", system.prompt));
    }
    return told;
  };
  EXPECT_THAT(systems(Chat("Obey.", "p") + Chat("", "q") + Chat("Obey.", "r"), "job"),
              ::testing::UnorderedElementsAre("1 Obey.", "2 ", "3 Obey."));
  std::string many;
  for (int i = 0; i < 10'000; ++i)
    many += Chat(i < 5000 ? "first" : "second", absl::StrCat("p", i));
  const std::vector<std::string> chosen = systems(many, "job");
  EXPECT_THAT(chosen, SizeIs(kMostSystems));
  EXPECT_EQ(chosen, systems(many, "job"));
  EXPECT_NE(chosen, systems(many, "another"));
  const auto first = std::count_if(chosen.begin(), chosen.end(), [](const std::string& told) {
    return absl::EndsWith(told, "first");
  });
  EXPECT_GT(first, 1900);
  EXPECT_LT(first, 2196);
}

TEST(RowReaderTest, NoneOfAnOperatorsRowsIsLeftOut) {
  const text::ModelText text = testing::FakeModelText();
  ballast::worker::v1::DatasetBlob blob;
  // What a server says of format and length leaves no row of the file out.
  blob.set_format(ballast::v1::Dataset::ALPACA);
  blob.set_longest_row_tokens(1);
  const auto read = [&](const std::string& rows) {
    return ReadOperatorRows(blob, text, 1000,
                            [&](const std::string&, const auto& sink) { return sink(rows); });
  };
  EXPECT_THAT(*read(std::string(kFirst) + "\n" + kSecond), SizeIs(2));
  EXPECT_THAT(read(std::string(kFirst) + "\nnothing"),
              StatusIs(absl::StatusCode::kFailedPrecondition, "OPERATOR_ROWS_DIFFER"));
}

}  // namespace
}  // namespace ballast::worker::agent
