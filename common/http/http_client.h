// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_HTTP_HTTP_CLIENT_H_
#define BALLAST_COMMON_HTTP_HTTP_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rust/include/ballast_http.h"

namespace ballast {

// Whether `size` bytes at `offset`, as somebody else gives them, lie within `total` bytes.
constexpr bool IsWithin(int64_t offset, int64_t size, int64_t total) {
  return offset >= 0 && size >= 0 && size <= total && offset <= total - size;
}

// Bytes by HTTP, from and to signed links of an object store. A link is a secret: errors name
// operation, host and status, and nothing else of it. No redirect is followed, there are no
// cookies, and nothing is tried twice. Calls wait for the network.
//
// Failures: INVALID_ARGUMENT (LINK_INVALID) for what is no URL, or not by https; PERMISSION_DENIED
// (LINK_REFUSED) where the answer is no success, UNAVAILABLE (LINK_REFUSED) where its status says
// that another try may help (429, 5xx); UNAVAILABLE (LINK_UNREACHABLE) without a connection or
// where it stands still; UNAVAILABLE (LINK_SLOW) where bytes come, but too few; UNAVAILABLE
// (LINK_BROKEN) where it breaks off or gives something else; CANCELLED when `goes_on` said so.
// Thread safety: thread-safe.
class HttpClient {
 public:
  struct Options {
    absl::Duration connect = absl::Seconds(5);  // most time for a connection
    // Most time without a byte (thrice for an answer to a PUT), and for each 256 KiB: so a GET of n
    // bytes waits at most (n / 256 KiB + 2) times as long.
    absl::Duration idle = absl::Seconds(20);
    bool allow_plain = false;  // take http:// to loopback, too, and no proxy of the environment
  };
  // Asked before each piece, and a few times a second while nothing happens; empty: always.
  using GoesOn = std::function<bool()>;

  // FAILED_PRECONDITION (HTTP_UNAVAILABLE): the system has no certificate authorities, or no
  // threads.
  static absl::StatusOr<std::unique_ptr<HttpClient>> Create(const Options& options);

  // Gives `sink` the `size` > 0 bytes at `offset`, in pieces. A failure of `sink` ends it.
  absl::Status Get(const std::string& url, int64_t offset, int64_t size,
                   const std::function<absl::Status(std::string_view bytes)>& sink,
                   const GoesOn& goes_on = {}) const;

  // A PUT of `size` bytes: `source` puts at most `room` > 0 of them at `data`, at least one, and
  // returns their number. A failure of `source` ends it.
  absl::Status Put(const std::string& url, const std::map<std::string, std::string>& headers,
                   int64_t size,
                   const std::function<absl::StatusOr<size_t>(char* data, size_t room)>& source,
                   const GoesOn& goes_on = {}) const;

 private:
  struct Free {
    void operator()(BallastHttp* http) const { ballast_http_free(http); }
  };
  explicit HttpClient(BallastHttp* http) : http_(http) {}

  const std::unique_ptr<BallastHttp, Free> http_;
};

}  // namespace ballast

#endif  // BALLAST_COMMON_HTTP_HTTP_CLIENT_H_
