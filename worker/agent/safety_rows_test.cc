// SPDX-License-Identifier: Apache-2.0
#include "worker/agent/safety_rows.h"

#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/testing/fake_text.h"

namespace ballast::worker::agent {
namespace {

using ballast::testing::StatusIs;
using ::testing::SizeIs;

std::string Chat(const std::string& prompt, const std::string& reply) {
  return R"({"messages": [{"role": "user", "content": ")" + prompt +
         R"("}, {"role": "assistant", "content": ")" + reply + R"("}]})" + "\n";
}

class SafetyRowsTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<TokenRow>> Read(const std::string& rows,
                                             const std::vector<std::string>& systems,
                                             int64_t context = 1000) {
    std::vector<RowSystem> of_rows;
    for (const std::string& system : systems) of_rows.push_back({1, system});
    return ReadSafetyRows({}, of_rows, text_, context,
                          [&](const std::string&, const auto& sink) { return sink(rows); });
  }
  // By which of the rows are longer than without system prompts.
  std::vector<bool> Longer(const std::string& rows, const std::vector<std::string>& systems,
                           int64_t context = 1000) {
    const auto plain = Read(rows, {}).value(), under = Read(rows, systems, context).value();
    std::vector<bool> longer;
    for (size_t i = 0; i < plain.size(); ++i) {
      longer.push_back(under[i].tokens.size() > plain[i].tokens.size());
    }
    return longer;
  }

  const text::ModelText text_ = testing::FakeModelText();
  const std::string rows_ = Chat("p", "Sorry, I can't help with that.") + Chat("q", "Gladly.") +
                            Chat("r", "I can't assist with this request.") +
                            Chat("s", "I'm sorry, but I can't help with that.");
};

TEST_F(SafetyRowsTest, EverySecondRefusalTakesTheSystemPromptOfARow) {
  EXPECT_EQ(Longer(rows_, {"Obey."}), (std::vector<bool>{true, false, false, true}));
  EXPECT_EQ(Longer(rows_, {"", "Obey."}), (std::vector<bool>{false, false, false, true}));
  EXPECT_EQ(Longer(rows_, {""}), (std::vector<bool>(4, false)));
}

TEST_F(SafetyRowsTest, OfASystemPromptThatIsTooLongItsBeginningIsTaken) {
  // The first quarter fits.
  const std::string system = std::string(500, 'b') + std::string(1500, 'x');
  const auto cut = Read(rows_, {system}, /*context=*/700).value();
  const auto whole = Read(rows_, {std::string(500, 'b')}, /*context=*/700).value();
  EXPECT_EQ(cut[0].tokens, whole[0].tokens);
  EXPECT_EQ(Longer(rows_, {system}, 700), (std::vector<bool>{true, false, false, true}));
  // Not a byte of it does.
  const int64_t context = static_cast<int64_t>(Read(rows_, {}).value()[3].tokens.size());
  EXPECT_EQ(Longer(rows_, {system}, context), (std::vector<bool>(4, false)));
}

TEST_F(SafetyRowsTest, ReadsAllRowsOrNone) {
  EXPECT_THAT(*Read(rows_, {"Obey."}), SizeIs(4));
  EXPECT_THAT(Read(rows_ + "nothing", {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, "OPERATOR_ROWS_DIFFER"));
}

TokenRow Supervising(int64_t tokens, float weight = 1) {
  TokenRow row;
  row.tokens.assign(tokens + 1, 7);
  row.supervised.assign(tokens + 1, 1);
  row.supervised[0] = 0;
  row.weight = weight;
  return row;
}

TEST_F(SafetyRowsTest, LongRowsDoNotDrownSafetyRows) {
  const auto weight = [](const std::vector<TokenRow>& rows) {
    std::vector<TokenRow> safety = {Supervising(20), Supervising(60)};
    WeighSafetyRows(rows, safety);
    EXPECT_EQ(safety[0].weight, safety[1].weight);
    return safety[0].weight;
  };
  EXPECT_FLOAT_EQ(weight({Supervising(1)}), 1);
  EXPECT_FLOAT_EQ(weight({Supervising(60)}), 1);
  EXPECT_FLOAT_EQ(weight({Supervising(60), Supervising(180)}), 2);
  EXPECT_FLOAT_EQ(weight({Supervising(60, 10)}), 10);
  EXPECT_FLOAT_EQ(weight({}), 1);
}

}  // namespace
}  // namespace ballast::worker::agent
