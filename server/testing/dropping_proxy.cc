// SPDX-License-Identifier: Apache-2.0
#include "server/testing/dropping_proxy.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace ballast::server::testing {
namespace {

constexpr int kPollMs = 50;  // between looks whether the proxy was stopped

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  EXPECT_LT(path.size(), sizeof(address.sun_path));
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  return address;
}

bool Connect(int fd, const std::string& path) {
  const sockaddr_un address = AddressOf(path);
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

// What is there to read; empty at the end.
std::string Receive(int fd) {
  std::string bytes(1 << 16, '\0');
  const ssize_t n = recv(fd, bytes.data(), bytes.size(), 0);
  bytes.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return bytes;
}

bool Send(int fd, const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

DroppingProxy::DroppingProxy(std::string server) : server_(std::move(server)) {
  listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = AddressOf(absl::StrCat(folder_.path(), "/.s.PGSQL.5432"));
  EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(listener_, 16), 0);
  acceptor_ = std::thread([this] { Accept(); });
}

DroppingProxy::~DroppingProxy() {
  stopped_ = true;
  acceptor_.join();
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  close(listener_);
}

void DroppingProxy::DropNextCommit(When when) {
  absl::MutexLock lock(&mutex_);
  armed_ = true;
  when_ = when;
}

bool DroppingProxy::waits() {
  absl::MutexLock lock(&mutex_);
  return armed_;
}

void DroppingProxy::Accept() {
  while (!stopped_) {
    pollfd waiting = {listener_, POLLIN, 0};
    if (poll(&waiting, 1, kPollMs) <= 0) continue;
    const int client = accept(listener_, nullptr, nullptr);
    if (client < 0) continue;
    absl::MutexLock lock(&mutex_);
    threads_.emplace_back([this, client] { Serve(client); });
  }
}

bool DroppingProxy::Drops(const std::string& bytes, When& when) {
  // Its text, alone or behind the writes that it is sent with.
  static const std::string kCommit("COMMIT\0", 7);
  if (bytes.find(kCommit) == std::string::npos) return false;
  absl::MutexLock lock(&mutex_);
  when = when_;
  return std::exchange(armed_, false);
}

void DroppingProxy::Serve(int client) {
  const int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool going = Connect(server, server_);
  while (going && !stopped_) {
    pollfd ends[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
    if (poll(ends, 2, kPollMs) <= 0) continue;
    if (ends[0].revents != 0) {
      const std::string bytes = Receive(client);
      When when = When::kBeforeCommit;
      if (bytes.empty()) break;
      if (Drops(bytes, when)) {
        // With the server's answer the commit is made.
        if (when == When::kAfterCommit && Send(server, bytes)) Receive(server);
        break;
      }
      going = Send(server, bytes);
    }
    if (going && ends[1].revents != 0) {
      const std::string bytes = Receive(server);
      going = !bytes.empty() && Send(client, bytes);
    }
  }
  close(client);
  close(server);
}

}  // namespace ballast::server::testing
