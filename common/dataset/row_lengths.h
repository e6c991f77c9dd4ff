// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_DATASET_ROW_LENGTHS_H_
#define BALLAST_COMMON_DATASET_ROW_LENGTHS_H_

#include <cstdint>
#include <map>

namespace ballast::dataset {

// Distribution of row lengths in bounded memory: exact up to 64 tokens, above that buckets 2 % wide
// whose middle is reported, so quantiles are within 2 %. Not thread-safe.
class RowLengths {
 public:
  void Add(int64_t tokens);
  int64_t longest() const { return longest_; }
  // The length that a share `quantile` in [0, 1] of the rows does not exceed; 0 without rows.
  int64_t Quantile(double quantile) const;

 private:
  std::map<int64_t, int64_t> rows_by_bucket_;
  int64_t rows_ = 0;
  int64_t longest_ = 0;
};

}  // namespace ballast::dataset

#endif  // BALLAST_COMMON_DATASET_ROW_LENGTHS_H_
