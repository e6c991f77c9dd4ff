// SPDX-License-Identifier: Apache-2.0
#include "client/cli/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/format.h"

namespace ballast::cli {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

bool SpeaksUnicode() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string lower = absl::AsciiStrToLower(value);
    return absl::StrContains(lower, "utf-8") || absl::StrContains(lower, "utf8");
  }
  return false;
}

std::string CutTo(std::string text, size_t width) {
  size_t columns = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) continue;
    if (columns++ == width) {
      text.resize(i);
      break;
    }
  }
  return text;
}

}  // namespace

std::string RenderBar(std::string_view label, double fraction, std::string_view detail,
                      size_t width, bool unicode) {
  if (!(fraction > 0)) fraction = 0;  // NaN too
  fraction = std::min(fraction, 1.0);
  const size_t columns = std::clamp<size_t>(width / 5, 10, 24);
  const size_t full = static_cast<size_t>(std::floor(fraction * static_cast<double>(columns)));
  std::string bar;
  for (size_t i = 0; i < columns; ++i) {
    if (unicode) {
      bar += i < full ? "█" : "░";
    } else {
      bar += i < full ? "#" : "-";
    }
  }
  return CutTo(absl::StrFormat("%s [%s] %3d %%  %s", View(label), bar,
                               static_cast<int>(std::floor(fraction * 100)), View(detail)),
               width);
}

BarOutput BarOutput::StandardError() {
  BarOutput output;
  output.file = stderr;
  output.clock = &Clock::System();
  const char* term = std::getenv("TERM");
  output.terminal = isatty(STDERR_FILENO) == 1 && (term == nullptr || std::string(term) != "dumb");
  output.unicode = SpeaksUnicode();
  winsize size{};
  if (output.terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) {
    output.width = size.ws_col - 1u;
  }
  return output;
}

ProgressBar::ProgressBar(std::string label, BarOutput output)
    : label_(std::move(label)), output_(output) {}

ProgressBar::~ProgressBar() {
  if (pending_) Draw();
  if (drawn_) std::fputc('\n', output_.file);
  std::fflush(output_.file);
}

void ProgressBar::Update(double fraction, std::string_view detail) {
  fraction_ = fraction;
  detail_ = std::string(detail);
  pending_ = true;
  const absl::Time now = output_.clock->Now();
  if (output_.terminal) {
    if (any_ && now - last_draw_ < absl::Milliseconds(100)) return;
  } else {
    const int quarter = static_cast<int>(std::floor(std::clamp(fraction, 0.0, 1.0) * 4));
    if (any_ && quarter <= last_quarter_ && now - last_draw_ < absl::Seconds(30)) return;
    last_quarter_ = quarter;
  }
  any_ = true;
  Draw();
}

void ProgressBar::Note(std::string_view line) {
  Clear();
  std::fputs(absl::StrCat(Printable(line), "\n").c_str(), output_.file);
  if (output_.terminal && any_) Draw();
  std::fflush(output_.file);
}

void ProgressBar::Draw() {
  pending_ = false;
  last_draw_ = output_.clock->Now();
  if (output_.terminal) {
    Clear();
    std::fputs(
        RenderBar(label_, fraction_, Printable(detail_), output_.width, output_.unicode).c_str(),
        output_.file);
    drawn_ = true;
  } else {
    const double percent = fraction_ > 0 ? std::min(fraction_, 1.0) * 100 : 0;
    std::fputs(absl::StrFormat("%s: %d %%  %s\n", label_, static_cast<int>(std::floor(percent)),
                               Printable(detail_))
                   .c_str(),
               output_.file);
  }
  std::fflush(output_.file);
}

void ProgressBar::Clear() {
  if (drawn_) std::fputs("\r\033[K", output_.file);
  drawn_ = false;
}

}  // namespace ballast::cli
