// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/row_lengths.h"

#include <algorithm>
#include <cmath>

namespace ballast::dataset {
namespace {

constexpr int64_t kExactUpTo = 64;
const double kLogWidth = std::log(1.02);

int64_t BucketOf(int64_t tokens) {
  if (tokens <= kExactUpTo) return tokens;
  return kExactUpTo + 1 +
         static_cast<int64_t>(std::log(static_cast<double>(tokens) / kExactUpTo) / kLogWidth);
}

int64_t MiddleOf(int64_t bucket) {
  if (bucket <= kExactUpTo) return bucket;
  return std::llround(kExactUpTo *
                      std::exp((static_cast<double>(bucket - kExactUpTo) - 0.5) * kLogWidth));
}

}  // namespace

void RowLengths::Add(int64_t tokens) {
  ++rows_by_bucket_[BucketOf(tokens)];
  ++rows_;
  longest_ = std::max(longest_, tokens);
}

int64_t RowLengths::Quantile(double quantile) const {
  const auto wanted = std::max<int64_t>(1, std::llround(std::ceil(quantile * rows_)));
  int64_t seen = 0;
  for (const auto& [bucket, rows] : rows_by_bucket_) {
    seen += rows;
    if (seen >= wanted) return std::min(MiddleOf(bucket), longest_);
  }
  return 0;
}

}  // namespace ballast::dataset
