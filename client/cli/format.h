// SPDX-License-Identifier: Apache-2.0
// Text for people: tables, sizes, times, names.
#ifndef BALLAST_CLIENT_CLI_FORMAT_H_
#define BALLAST_CLIENT_CLI_FORMAT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "ballast/v1/money.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace ballast::cli {

// "0 B", "1.5 KiB", "270.1 MiB".
std::string FormatBytes(int64_t bytes);
// "12,345".
std::string FormatCount(int64_t count);
// "0:07", "12:30", "1:02:03".
std::string FormatClock(absl::Duration duration);
// "2026-01-31 12:00:05" in the local time zone; "-" when unset.
std::string FormatTime(const google::protobuf::Timestamp& time);

// "12.50 USD"; more digits where the amount has them.
std::string FormatMoney(const v1::Money& money);

// The last segment of a resource name: "tenants/a/datasets/d1" gives "d1".
std::string ShortName(std::string_view name);

// `text` with control characters (escape sequences among them) as "?", so that what a server or a
// model says cannot drive the terminal. New lines and tabs stay where `keep_layout` is set.
std::string Printable(std::string_view text, bool keep_layout = false);

// Columns of terminal that UTF-8 text takes, counting one a code point.
size_t DisplayWidth(std::string_view text);

// A table with a header line and columns as wide as their longest cell. Columns of figures are
// aligned to the right; control characters become "?".
class Table {
 public:
  explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string Render() const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_FORMAT_H_
