// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/packing.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "common/base/error.h"

namespace ballast::dataset {
namespace {

constexpr int64_t kLeastSafetyRows = 16;

// SplitMix64 (Steele, Lea, Flood 2014), as a function of a counter: the n-th number of the stream
// `key`.
uint64_t SplitMix64(uint64_t key, uint64_t counter) {
  uint64_t z = key + (counter + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Uniform in [0, bound) by the high half of a 64 x 64 bit product; rejection makes it exact (Lemire
// 2019). `counter` moves on by the numbers that were drawn.
uint64_t UniformBelow(uint64_t bound, uint64_t key, uint64_t& counter) {
  const uint64_t threshold = (0 - bound) % bound;
  while (true) {
    const unsigned __int128 product =
        static_cast<unsigned __int128>(SplitMix64(key, counter++)) * bound;
    if (static_cast<uint64_t>(product) >= threshold) return static_cast<uint64_t>(product >> 64);
  }
}

absl::Status Invalid(std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "PACKING_INVALID", message);
}

Step PackStep(const std::vector<int64_t>& order, size_t begin, size_t end,
              const std::vector<int64_t>& lengths, const std::vector<int>& groups,
              int64_t max_tokens) {
  auto group_of = [&](int64_t row) { return groups.empty() ? 0 : groups[row]; };
  std::vector<int64_t> rows(order.begin() + begin, order.begin() + end);
  std::stable_sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) {
    if (group_of(a) != group_of(b)) return group_of(a) < group_of(b);
    return lengths[a] > lengths[b];
  });
  Step step;
  for (int64_t row : rows) {
    const int group = group_of(row);
    auto fits = std::find_if(
        step.micro_batches.begin(), step.micro_batches.end(), [&](const MicroBatch& batch) {
          return batch.group == group && batch.tokens + lengths[row] <= max_tokens;
        });
    if (fits == step.micro_batches.end()) {
      fits = step.micro_batches.insert(fits, MicroBatch{.group = group});
    }
    fits->rows.push_back(row);
    fits->tokens += lengths[row];
  }
  return step;
}

}  // namespace

int64_t StepsPerEpoch(int64_t rows, int64_t batch_rows) {
  if (rows <= 0 || batch_rows <= 0) return 0;
  return (rows - 1) / batch_rows + 1;
}

int64_t SafetyRowCount(int64_t rows, double share) {
  if (!(share > 0)) return 0;
  return std::max<int64_t>(kLeastSafetyRows, std::llround(share * static_cast<double>(rows)));
}

std::vector<int64_t> DrawSafetyRows(int64_t set, int64_t count, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> drawn;
  // A stream of permutations of the set, of which each epoch takes the next `count` rows.
  for (int64_t next = epoch * count; set > 0 && next < (epoch + 1) * count;) {
    const std::vector<int64_t> order = EpochOrder(set, seed, next / set);
    const int64_t end = std::min((next / set + 1) * set, (epoch + 1) * count);
    for (; next < end; ++next) drawn.push_back(order[next % set]);
  }
  std::sort(drawn.begin(), drawn.end());
  return drawn;
}

int64_t TotalSteps(int64_t rows, int64_t batch_rows, int64_t epochs) {
  return std::max<int64_t>(epochs, 0) * StepsPerEpoch(rows, batch_rows);
}

std::vector<int64_t> EpochOrder(int64_t rows, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(std::max<int64_t>(rows, 0));
  std::iota(order.begin(), order.end(), int64_t{0});
  // A key per epoch, so that streams of neighbouring seeds and epochs do not overlap.
  const uint64_t key = SplitMix64(SplitMix64(seed, 0), static_cast<uint64_t>(epoch));
  uint64_t counter = 0;
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[UniformBelow(i, key, counter)]);
  }
  return order;
}

absl::StatusOr<std::vector<Step>> PlanEpoch(const std::vector<int64_t>& lengths,
                                            const std::vector<int>& groups, int64_t epoch,
                                            const PackingOptions& options) {
  if (lengths.empty()) return Invalid("there are no rows to train on");
  if (!groups.empty() && groups.size() != lengths.size()) {
    return Invalid("every row needs a group, or none");
  }
  if (*std::min_element(lengths.begin(), lengths.end()) < 1) {
    return Invalid("a row has no tokens; leave it out");
  }
  if (options.batch_rows < 1 || options.max_tokens_per_micro_batch < 1) {
    return Invalid("batch_rows and max_tokens_per_micro_batch must be at least 1");
  }
  const std::vector<int64_t> order =
      EpochOrder(static_cast<int64_t>(lengths.size()), options.seed, epoch);
  const size_t batch = static_cast<size_t>(options.batch_rows);
  std::vector<Step> steps;
  for (size_t begin = 0; begin < order.size();) {
    const size_t end = begin + std::min(batch, order.size() - begin);
    steps.push_back(
        PackStep(order, begin, end, lengths, groups, options.max_tokens_per_micro_batch));
    begin = end;
  }
  return steps;
}

}  // namespace ballast::dataset
