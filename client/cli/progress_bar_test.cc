// SPDX-License-Identifier: Apache-2.0
#include "client/cli/progress_bar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "client/cli/format.h"
#include "common/base/testing/fake_clock.h"

namespace ballast::cli {
namespace {

using ::testing::HasSubstr;

TEST(RenderBarTest, Draws) {
  EXPECT_EQ(RenderBar("up", 0.5, "1 of 2", 80, false), "up [########--------]  50 %  1 of 2");
  EXPECT_THAT(RenderBar("up", 0, "", 80, false), HasSubstr("[----------------]   0 %"));
  EXPECT_THAT(RenderBar("up", 1, "", 80, false), HasSubstr("[################] 100 %"));
}

TEST(RenderBarTest, OddFractionsAreClamped) {
  EXPECT_THAT(RenderBar("up", 7, "", 80, false), HasSubstr("100 %"));
  EXPECT_THAT(RenderBar("up", -1, "", 80, false), HasSubstr("  0 %"));
  EXPECT_THAT(RenderBar("up", std::nan(""), "", 80, false), HasSubstr("  0 %"));
}

TEST(RenderBarTest, CutsToTheTerminal) {
  EXPECT_EQ(DisplayWidth(RenderBar("up", 0.5, std::string(200, 'x'), 60, true)), 60u);
  EXPECT_EQ(RenderBar("up", 0.5, "", 5, false), "up [#");
}

class ProgressBarTest : public ::testing::Test {
 protected:
  ProgressBarTest() : file_(open_memstream(&text_, &size_)) {}
  ~ProgressBarTest() override {
    std::fclose(file_);
    std::free(text_);
  }
  BarOutput Output(bool terminal) {
    BarOutput output;
    output.file = file_;
    output.terminal = terminal;
    output.clock = &clock_;
    return output;
  }
  std::string Text() {
    std::fflush(file_);
    return std::string(text_, size_);
  }

  testing::FakeClock clock_;
  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* file_;
};

TEST_F(ProgressBarTest, ATerminalKeepsOneLine) {
  {
    ProgressBar bar("up", Output(true));
    bar.Update(0.0, "a");
    bar.Update(0.5, "too soon");
    clock_.Advance(absl::Seconds(1));
    bar.Update(0.75, "b");
    bar.Update(1.0, "last");
  }
  const std::string text = Text();
  EXPECT_THAT(text, Not(HasSubstr("too soon")));
  EXPECT_THAT(text, HasSubstr("\r\033[Kup [############----]  75 %  b"));
  EXPECT_THAT(text, HasSubstr("100 %  last\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST_F(ProgressBarTest, ALogGetsFewPlainLines) {
  {
    ProgressBar bar("up", Output(false));
    for (int i = 0; i <= 1000; ++i) bar.Update(i / 1000.0, "x");
  }
  EXPECT_EQ(Text(), "up: 0 %  x\nup: 25 %  x\nup: 50 %  x\nup: 75 %  x\nup: 100 %  x\n");
}

TEST_F(ProgressBarTest, ALogHearsOfSlowProgressToo) {
  ProgressBar bar("up", Output(false));
  bar.Update(0.01, "a");
  clock_.Advance(absl::Seconds(31));
  bar.Update(0.02, "b");
  EXPECT_EQ(Text(), "up: 1 %  a\nup: 2 %  b\n");
}

TEST_F(ProgressBarTest, NotesStandAboveTheBar) {
  ProgressBar bar("up", Output(true));
  bar.Update(0.5, "half");
  bar.Note("something\033 happened");
  EXPECT_THAT(Text(), HasSubstr("\r\033[Ksomething? happened\nup ["));
}

TEST_F(ProgressBarTest, NothingIsDrawnWithoutAnUpdate) {
  { ProgressBar bar("up", Output(true)); }
  EXPECT_EQ(Text(), "");
}

}  // namespace
}  // namespace ballast::cli
