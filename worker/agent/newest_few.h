// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_AGENT_NEWEST_FEW_H_
#define BALLAST_WORKER_AGENT_NEWEST_FEW_H_

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace ballast::worker::agent {

// What was made for a base and is wanted by every job on it. Keeps the eight newest. Thread safety:
// not thread-safe.
template <typename T>
class NewestFew {
 public:
  // What was put under `key`, or null. Valid until the next Put.
  const T* Find(const std::string& key) const {
    const auto it = std::find_if(kept_.begin(), kept_.end(),
                                 [&](const auto& entry) { return entry.first == key; });
    return it == kept_.end() ? nullptr : &it->second;
  }
  const T& Put(const std::string& key, T value) {
    if (kept_.size() >= kMost) kept_.erase(kept_.begin());
    return kept_.emplace_back(key, std::move(value)).second;
  }

 private:
  static constexpr size_t kMost = 8;
  std::vector<std::pair<std::string, T>> kept_;  // newest last
};

}  // namespace ballast::worker::agent

#endif  // BALLAST_WORKER_AGENT_NEWEST_FEW_H_
