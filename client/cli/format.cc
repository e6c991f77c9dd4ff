// SPDX-License-Identifier: Apache-2.0
#include "client/cli/format.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ballast::cli {
namespace {

// A number, perhaps with commas and one point; not a version, a time or an identifier.
bool IsFigure(const std::string& cell) {
  return !cell.empty() && std::count(cell.begin(), cell.end(), '.') <= 1 &&
         std::all_of(cell.begin(), cell.end(),
                     [](unsigned char c) { return std::isdigit(c) || c == ',' || c == '.'; });
}

}  // namespace

std::string FormatBytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  int unit = -1;
  while (value >= 1024 && unit < 3) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatCount(int64_t count) {
  const std::string digits = absl::StrCat(count);
  const size_t first = digits[0] == '-' ? 1 : 0;
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > first && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string FormatClock(absl::Duration duration) {
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(duration));
  if (seconds >= 3600) {
    return absl::StrFormat("%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
  }
  return absl::StrFormat("%d:%02d", seconds / 60, seconds % 60);
}

std::string FormatTime(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixSeconds(time.seconds()),
                          absl::LocalTimeZone());
}

std::string FormatMoney(const v1::Money& money) {
  std::string fraction = absl::StrFormat("%09d", money.nanos());
  while (fraction.size() > 2 && fraction.back() == '0') fraction.pop_back();
  return absl::StrCat(FormatCount(money.units()), ".", fraction, " ",
                      Printable(money.currency_code()));
}

std::string ShortName(std::string_view name) {
  return std::string(name.substr(name.rfind('/') + 1));
}

std::string Printable(std::string_view text, bool keep_layout) {
  std::string printable;
  printable.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too; in UTF-8 they are C2 80 to C2 9F.
    const bool c1 = c == 0xC2 && i + 1 < text.size() &&
                    static_cast<unsigned char>(text[i + 1]) >= 0x80 &&
                    static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (c1) {
      printable += '?';
      ++i;
    } else if (c < 0x20 || c == 0x7F) {
      printable += keep_layout && (c == '\n' || c == '\t') ? static_cast<char>(c) : '?';
    } else {
      printable += static_cast<char>(c);
    }
  }
  return printable;
}

size_t DisplayWidth(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string Table::Render() const {
  std::vector<size_t> width(header_.size());
  std::vector<bool> right(header_.size(), !rows_.empty());
  std::vector<std::vector<std::string>> lines;
  for (const auto& row : rows_) {
    std::vector<std::string>& line = lines.emplace_back(header_.size());
    for (size_t i = 0; i < std::min(row.size(), header_.size()); ++i) line[i] = Printable(row[i]);
  }
  for (size_t i = 0; i < header_.size(); ++i) {
    width[i] = DisplayWidth(header_[i]);
    for (const auto& line : lines) {
      width[i] = std::max(width[i], DisplayWidth(line[i]));
      right[i] = right[i] && IsFigure(line[i]);
    }
  }
  std::string text;
  const auto add = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t i = 0; i < header_.size(); ++i) {
      const std::string padding(width[i] - DisplayWidth(cells[i]), ' ');
      absl::StrAppend(&line, i > 0 ? "  " : "", right[i] ? padding : "", cells[i],
                      right[i] ? "" : padding);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  };
  add(header_);
  for (const auto& line : lines) add(line);
  return text;
}

}  // namespace ballast::cli
