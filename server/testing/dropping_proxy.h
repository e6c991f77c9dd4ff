// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_TESTING_DROPPING_PROXY_H_
#define BALLAST_SERVER_TESTING_DROPPING_PROXY_H_

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "server/testing/temp_dir.h"

namespace ballast::server::testing {

// Stands between a client and a PostgreSQL server on a Unix socket, and cuts the next connection
// that commits. Thread safety: thread-safe.
class DroppingProxy {
 public:
  enum class When { kBeforeCommit, kAfterCommit };

  // `server`: path of the server's socket.
  explicit DroppingProxy(std::string server);
  ~DroppingProxy();

  // Folder of the proxy's socket: the `host` of a connection string.
  const std::string& folder() const { return folder_.path(); }
  // The next COMMIT does not reach the server, or its answer does not reach the client.
  void DropNextCommit(When when);
  // Whether that one has yet to come.
  bool waits();

 private:
  void Accept();
  void Serve(int client);
  // Whether the bytes are a COMMIT that is to be dropped, and when.
  bool Drops(const std::string& bytes, When& when);

  const std::string server_;
  TempDir folder_;
  int listener_ = -1;
  std::atomic<bool> stopped_ = false;
  absl::Mutex mutex_;
  bool armed_ ABSL_GUARDED_BY(mutex_) = false;
  When when_ ABSL_GUARDED_BY(mutex_) = When::kBeforeCommit;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  std::thread acceptor_;
};

}  // namespace ballast::server::testing

#endif  // BALLAST_SERVER_TESTING_DROPPING_PROXY_H_
