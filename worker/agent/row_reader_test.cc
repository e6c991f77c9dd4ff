// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/row_reader.h"

#include <memory>
#include <string>

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

}  // namespace
}  // namespace ballast::worker::agent
