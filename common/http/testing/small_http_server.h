// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_COMMON_HTTP_TESTING_SMALL_HTTP_SERVER_H_
#define BALLAST_COMMON_HTTP_TESTING_SMALL_HTTP_SERVER_H_

#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace ballast::testing {

// An HTTP server on loopback, one request for each connection, that answers what a test says.
// Thread safety: thread-safe.
class SmallHttpServer {
 public:
  struct Request {
    std::string method;
    std::string target;                          // path and query
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
  };
  struct Reply {
    std::string bytes;          // as they go out, status line and all
    bool then_hold = false;     // keep the connection open, in silence, until the server stops
    bool then_trickle = false;  // go on with an 'x' now and then
  };
  using Answer = std::function<Reply(const Request&)>;

  // `answer` runs on the server's thread.
  explicit SmallHttpServer(Answer answer);
  ~SmallHttpServer();

  // "http://127.0.0.1:PORT" + target.
  std::string Url(const std::string& target) const;
  int port() const { return port_; }
  // All so far.
  std::vector<Request> requests();

  // An answer with this status and body.
  static Reply Plain(int status, const std::string& body);
  // The part of `bytes` that the request's Range asks for, all without one.
  static Reply Range(const Request& request, const std::string& bytes);

 private:
  void Serve();
  void Handle(int connection);

  const Answer answer_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_ = false;
  absl::Mutex mutex_;
  std::vector<Request> requests_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace ballast::testing

#endif  // BALLAST_COMMON_HTTP_TESTING_SMALL_HTTP_SERVER_H_
