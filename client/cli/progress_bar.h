// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CLI_PROGRESS_BAR_H_
#define BALLAST_CLIENT_CLI_PROGRESS_BAR_H_

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "common/base/clock.h"

namespace ballast::cli {

// One line of a bar: label, bar, percentage and detail, cut to `width` columns. `fraction` is
// clamped to [0, 1]. `unicode` draws blocks, otherwise "#" and "-".
std::string RenderBar(std::string_view label, double fraction, std::string_view detail,
                      size_t width, bool unicode);

// Where a bar is drawn.
struct BarOutput {
  std::FILE* file = nullptr;
  bool terminal = false;  // redraw one line; otherwise plain lines now and then
  bool unicode = false;
  size_t width = 80;
  Clock* clock = nullptr;

  // Standard error as it is.
  static BarOutput StandardError();
};

// A progress bar that lives on one line of a terminal. Where the output is no terminal it prints a
// plain line at the start, when a further quarter is done and 30 s after the last line, so that
// logs stay short. The line is finished when the bar is destroyed. Not thread-safe.
class ProgressBar {
 public:
  ProgressBar(std::string label, BarOutput output);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Redraws at most ten times a second, the last update always.
  void Update(double fraction, std::string_view detail);
  // A line above the bar.
  void Note(std::string_view line);
  // Another label from the next update on.
  void SetLabel(std::string label) { label_ = std::move(label); }

 private:
  void Draw();
  void Clear();

  std::string label_;
  const BarOutput output_;
  double fraction_ = 0;
  std::string detail_;
  bool any_ = false;
  bool pending_ = false;  // the last update is not drawn yet
  bool drawn_ = false;    // the terminal's line shows the bar
  absl::Time last_draw_ = absl::InfinitePast();
  int last_quarter_ = -1;
};

}  // namespace ballast::cli

#endif  // BALLAST_CLIENT_CLI_PROGRESS_BAR_H_
