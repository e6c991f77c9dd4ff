// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_CPP_PAGED_RANGE_H_
#define BALLAST_CLIENT_CPP_PAGED_RANGE_H_

#include <cstddef>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ballast::client {

// Everything a List call has, fetched page by page while it is walked:
//
//   for (absl::StatusOr<Dataset>& dataset : client.ListDatasets()) {
//     if (!dataset.ok()) return dataset.status();
//     ...
//   }
//
// A failed page yields its error as the last element. Walk a range once; it may outlive its client.
// Not thread-safe.
template <typename T>
class PagedRange {
 public:
  struct Page {
    std::vector<T> items;
    std::string next_page_token;  // empty on the last page
  };
  // Fetches the page of a token; "" is the first.
  using Fetch = std::function<absl::StatusOr<Page>(const std::string& page_token)>;

  explicit PagedRange(Fetch fetch) : fetch_(std::move(fetch)) {}

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = absl::StatusOr<T>;
    using difference_type = std::ptrdiff_t;
    using pointer = value_type*;
    using reference = value_type&;

    Iterator() = default;
    explicit Iterator(PagedRange* range) : range_(range) { ++*this; }
    reference operator*() { return *range_->current_; }
    Iterator& operator++() {
      if (!range_->Advance()) range_ = nullptr;
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(const Iterator& other) const { return range_ == other.range_; }

   private:
    PagedRange* range_ = nullptr;
  };

  Iterator begin() { return Iterator(this); }
  Iterator end() { return Iterator(); }

  // All elements at once, at most `limit` of them (0: all), or the first error.
  absl::StatusOr<std::vector<T>> Collect(size_t limit = 0) {
    std::vector<T> all;
    for (absl::StatusOr<T>& item : *this) {
      if (!item.ok()) return item.status();
      all.push_back(*std::move(item));
      if (limit > 0 && all.size() == limit) break;
    }
    return all;
  }

 private:
  bool Advance() {
    while (next_item_ == page_.items.size()) {
      if (done_) return false;
      absl::StatusOr<Page> page = fetch_(token_);
      next_item_ = 0;
      if (!page.ok()) {
        done_ = true;
        page_.items.clear();
        current_.emplace(page.status());
        return true;
      }
      page_ = *std::move(page);
      // A token that repeats would never end.
      done_ = page_.next_page_token.empty() || page_.next_page_token == token_;
      token_ = page_.next_page_token;
    }
    current_.emplace(std::move(page_.items[next_item_++]));
    return true;
  }

  Fetch fetch_;
  Page page_;
  size_t next_item_ = 0;
  std::string token_;
  bool done_ = false;
  std::optional<absl::StatusOr<T>> current_;
};

}  // namespace ballast::client

#endif  // BALLAST_CLIENT_CPP_PAGED_RANGE_H_
