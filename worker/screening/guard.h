// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_SCREENING_GUARD_H_
#define BALLAST_WORKER_SCREENING_GUARD_H_

#include <vector>

#include "absl/status/statusor.h"

namespace ballast::worker::screening {

// Features of rows, as Engine::RowFeatures gives them, or of a row's windows: float32 [n][d].
using Features = std::vector<std::vector<float>>;

// A small model that tells prohibited rows from harmless ones: logistic regression with an L2
// penalty on standardised features of the base model, the two classes weighing the same. In place
// of a large guard that would have to be served (HarmAug, Lee et al. 2024, arXiv 2410.01524,
// distils one for that reason), it is fitted in seconds to an operator's examples. It never sees a
// security vector, so its verdicts may be told to customers.
//
// Thread safety: thread-safe once it is made.
class Guard {
 public:
  // Fits a guard; the same examples give the same one. The threshold is found on rows that the
  // scoring guard was not fitted to (five folds): not below even odds, and at most one in two
  // hundred of the benign examples lies above it. INVALID_ARGUMENT (GUARD_EXAMPLES_INVALID) with
  // fewer than kLeastExamples of either kind, features of different lengths, or numbers that are
  // not finite.
  static absl::StatusOr<Guard> Fit(const Features& prohibited, const Features& benign);
  static constexpr size_t kLeastExamples = 10;

  // Log odds of being prohibited; `features` has the length that the guard was fitted to.
  double Score(const std::vector<float>& features) const;
  // Whether a row is flagged: by the worst of its windows.
  bool Flags(const Features& windows) const;

  double threshold() const { return threshold_; }
  // Shares of the examples above the threshold when they were left out of the fit.
  double recall() const { return recall_; }
  double false_alarms() const { return false_alarms_; }

 private:
  Guard() = default;

  std::vector<double> weights_;  // [d], on features as they come
  double bias_ = 0;
  double threshold_ = 0;
  double recall_ = 0;
  double false_alarms_ = 0;
};

}  // namespace ballast::worker::screening

#endif  // BALLAST_WORKER_SCREENING_GUARD_H_
