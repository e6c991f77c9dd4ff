// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_TESTS_INTEGRATION_TCP_PROXY_H_
#define BALLAST_TESTS_INTEGRATION_TCP_PROXY_H_

#include <list>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"

namespace ballast::testing {

// A wire that can be cut: forwards connections on a loopback port to another one.
// Thread safety: thread-safe.
class TcpProxy {
 public:
  // Forwards to "127.0.0.1:PORT".
  explicit TcpProxy(const std::string& target);
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  // "127.0.0.1:PORT" to connect to.
  const std::string& address() const { return address_; }

  // Breaks every connection, and each new one at once.
  void Cut();
  // Forwards new connections again.
  void Mend();

 private:
  void Accept();
  static void Forward(int from, int to);

  std::string address_;
  int target_port_ = 0;
  int listener_ = -1;
  absl::Mutex mutex_;
  bool cut_ ABSL_GUARDED_BY(mutex_) = false;
  std::list<std::pair<int, int>> connections_ ABSL_GUARDED_BY(mutex_);
  std::list<std::thread> forwarders_;
  std::thread acceptor_;
};

}  // namespace ballast::testing

#endif  // BALLAST_TESTS_INTEGRATION_TCP_PROXY_H_
