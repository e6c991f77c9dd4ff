// SPDX-License-Identifier: Apache-2.0
#include "client/cli/format.h"

#include <gtest/gtest.h>

namespace ballast::cli {
namespace {

TEST(FormatTest, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(int64_t{270} << 20), "270.0 MiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 40), "5.0 TiB");
}

TEST(FormatTest, Counts) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(-123), "-123");
  EXPECT_EQ(FormatCount(-1234), "-1,234");
}

TEST(FormatTest, Clock) {
  EXPECT_EQ(FormatClock(absl::Seconds(7)), "0:07");
  EXPECT_EQ(FormatClock(absl::Seconds(750)), "12:30");
  EXPECT_EQ(FormatClock(absl::Seconds(3723)), "1:02:03");
  EXPECT_EQ(FormatClock(absl::Seconds(-1)), "0:00");
}

TEST(FormatTest, Money) {
  v1::Money money;
  money.set_currency_code("USD");
  EXPECT_EQ(FormatMoney(money), "0.00 USD");
  money.set_units(1234);
  money.set_nanos(500'000'000);
  EXPECT_EQ(FormatMoney(money), "1,234.50 USD");
  money.set_nanos(12'345'000);
  EXPECT_EQ(FormatMoney(money), "1,234.012345 USD");
}

TEST(FormatTest, ShortNames) {
  EXPECT_EQ(ShortName("tenants/a/datasets/d1"), "d1");
  EXPECT_EQ(ShortName("d1"), "d1");
}

TEST(FormatTest, ControlCharactersCannotDriveTheTerminal) {
  EXPECT_EQ(Printable("a\033[2Jb\r\nc"), "a?[2Jb??c");
  EXPECT_EQ(Printable("a\tb\nc\033", true), "a\tb\nc?");
  EXPECT_EQ(Printable("caf\xC3\xA9"), "caf\xC3\xA9");
  EXPECT_EQ(Printable("x\xC2\x9B[2J"), "x?[2J");  // CSI as one code point
}

TEST(FormatTest, TableAlignsColumns) {
  Table table({"ID", "ROWS"});
  table.AddRow({"caf\xC3\xA9", "1,234"});
  table.AddRow({"b", "7"});
  EXPECT_EQ(table.Render(),
            "ID     ROWS\n"
            "caf\xC3\xA9  1,234\n"
            "b         7\n");
}

TEST(FormatTest, OnlyFiguresAlignRight) {
  Table table({"VERSION", "NOTE"});
  table.AddRow({"0.1.0", "-"});
  EXPECT_EQ(table.Render(), "VERSION  NOTE\n0.1.0    -\n");
}

TEST(FormatTest, TableOfShortRowsAndHostileCells) {
  Table table({"A", "B"});
  table.AddRow({"x\n"});
  EXPECT_EQ(table.Render(), "A   B\nx?\n");
}

}  // namespace
}  // namespace ballast::cli
