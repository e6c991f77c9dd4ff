// SPDX-License-Identifier: Apache-2.0
#include "worker/screening/guard.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"

namespace ballast::worker::screening {
namespace {

constexpr int kFolds = 5;
constexpr double kFalseAlarms = 0.005;
// Of half the squared norm of the weights on standardised features, beside the mean loss.
constexpr double kPenalty = 1;
constexpr int kIterations = 400;

absl::Status Invalid(const std::string& why) {
  return MakeError(absl::StatusCode::kInvalidArgument, "GUARD_EXAMPLES_INVALID", why);
}

// Examples in one block, row by row.
struct Examples {
  size_t dimensions = 0;
  std::vector<float> values;  // [n x d]
  std::vector<bool> prohibited;

  size_t size() const { return prohibited.size(); }
  const float* row(size_t i) const { return &values[i * dimensions]; }
};

absl::StatusOr<Examples> Join(const Features& prohibited, const Features& benign) {
  Examples joined;
  if (prohibited.size() < Guard::kLeastExamples || benign.size() < Guard::kLeastExamples) {
    return Invalid(absl::StrCat("there are ", prohibited.size(), " prohibited and ", benign.size(),
                                " benign examples; give at least ", Guard::kLeastExamples,
                                " of each"));
  }
  joined.dimensions = prohibited[0].size();
  for (const Features* features : {&prohibited, &benign}) {
    for (const std::vector<float>& row : *features) {
      if (row.size() != joined.dimensions || row.empty()) {
        return Invalid("the examples have features of different lengths");
      }
      if (!std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); })) {
        return Invalid("a feature is not a finite number");
      }
      joined.values.insert(joined.values.end(), row.begin(), row.end());
      joined.prohibited.push_back(features == &prohibited);
    }
  }
  return joined;
}

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Linear {
  std::vector<double> weights;
  double bias = 0;

  double operator()(const float* features) const {
    return std::inner_product(weights.begin(), weights.end(), features, bias);
  }
};

// The regression on the examples `chosen`, on standardised features (then taken back to features as
// they come): accelerated gradient descent (Nesterov 1983) with the momentum for strongly convex
// functions. On standardised features the mean squared norm of a row is d + 1 with the bias, which
// bounds the curvature.
Linear FitTo(const Examples& examples, const std::vector<size_t>& chosen) {
  const size_t d = examples.dimensions, n = chosen.size();
  std::vector<double> mean(d), scale(d);
  for (const size_t i : chosen) {
    for (size_t j = 0; j < d; ++j) mean[j] += examples.row(i)[j] / static_cast<double>(n);
  }
  for (const size_t i : chosen) {
    for (size_t j = 0; j < d; ++j) {
      const double off = examples.row(i)[j] - mean[j];
      scale[j] += off * off / static_cast<double>(n);
    }
  }
  for (double& s : scale) s = 1 / std::sqrt(s + 1e-12);

  size_t positives = 0;
  for (const size_t i : chosen) positives += examples.prohibited[i] ? 1 : 0;
  const double weight_of[] = {0.5 / static_cast<double>(n - positives),
                              0.5 / static_cast<double>(positives)};
  std::vector<float> z(n * d);
  double mean_square = 0;  // as weighted in the loss
  for (size_t k = 0; k < n; ++k) {
    double square = 1;
    for (size_t j = 0; j < d; ++j) {
      z[k * d + j] = static_cast<float>((examples.row(chosen[k])[j] - mean[j]) * scale[j]);
      square += static_cast<double>(z[k * d + j]) * z[k * d + j];
    }
    mean_square += weight_of[examples.prohibited[chosen[k]]] * square;
  }

  const double curvature = mean_square / 4 + kPenalty, root = std::sqrt(kPenalty / curvature);
  const double momentum = (1 - root) / (1 + root);
  Linear at;
  at.weights.assign(d, 0);
  Linear before = at, ahead = at;
  std::vector<double> gradient(d);
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    for (size_t j = 0; j < d; ++j) gradient[j] = kPenalty * ahead.weights[j];
    double bias_gradient = kPenalty * ahead.bias;
    for (size_t k = 0; k < n; ++k) {
      const bool positive = examples.prohibited[chosen[k]];
      const float* row = &z[k * d];
      const double slope = weight_of[positive] * (Sigmoid(ahead(row)) - (positive ? 1 : 0));
      for (size_t j = 0; j < d; ++j) gradient[j] += slope * row[j];
      bias_gradient += slope;
    }
    before = at;
    for (size_t j = 0; j < d; ++j) at.weights[j] = ahead.weights[j] - gradient[j] / curvature;
    at.bias = ahead.bias - bias_gradient / curvature;
    for (size_t j = 0; j < d; ++j) {
      ahead.weights[j] = at.weights[j] + momentum * (at.weights[j] - before.weights[j]);
    }
    ahead.bias = at.bias + momentum * (at.bias - before.bias);
  }
  for (size_t j = 0; j < d; ++j) {
    at.weights[j] *= scale[j];
    at.bias -= at.weights[j] * mean[j];
  }
  return at;
}

// The score of each example by a fit to the other folds. Every fold has its part of both kinds.
std::vector<double> LeftOutScores(const Examples& examples) {
  std::vector<double> scores(examples.size());
  for (size_t fold = 0; fold < kFolds; ++fold) {
    std::vector<size_t> others;
    for (size_t i = 0; i < examples.size(); ++i) {
      if (i % kFolds != fold) others.push_back(i);
    }
    const Linear linear = FitTo(examples, others);
    for (size_t i = fold; i < examples.size(); i += kFolds) scores[i] = linear(examples.row(i));
  }
  return scores;
}

double ShareAbove(const std::vector<double>& scores, double threshold) {
  const auto above =
      std::count_if(scores.begin(), scores.end(), [&](double s) { return s > threshold; });
  return static_cast<double>(above) / static_cast<double>(scores.size());
}

}  // namespace

absl::StatusOr<Guard> Guard::Fit(const Features& prohibited, const Features& benign) {
  BALLAST_ASSIGN_OR_RETURN(const Examples examples, Join(prohibited, benign));
  const std::vector<double> scores = LeftOutScores(examples);
  const std::vector<double> of_prohibited(
      scores.begin(), scores.begin() + static_cast<std::ptrdiff_t>(prohibited.size()));
  std::vector<double> of_benign(scores.begin() + static_cast<std::ptrdiff_t>(prohibited.size()),
                                scores.end());
  std::sort(of_benign.begin(), of_benign.end(), std::greater<>());
  const auto allowed = static_cast<size_t>(kFalseAlarms * static_cast<double>(of_benign.size()));

  Guard guard;
  guard.threshold_ = std::max(0.0, of_benign[allowed]);
  guard.recall_ = ShareAbove(of_prohibited, guard.threshold_);
  guard.false_alarms_ = ShareAbove(of_benign, guard.threshold_);
  std::vector<size_t> all(examples.size());
  std::iota(all.begin(), all.end(), size_t{0});
  Linear linear = FitTo(examples, all);
  guard.weights_ = std::move(linear.weights);
  guard.bias_ = linear.bias;
  return guard;
}

double Guard::Score(const std::vector<float>& features) const {
  return std::inner_product(weights_.begin(), weights_.end(), features.begin(), bias_);
}

bool Guard::Flags(const Features& windows) const {
  return std::any_of(windows.begin(), windows.end(),
                     [&](const auto& window) { return Score(window) > threshold_; });
}

}  // namespace ballast::worker::screening
