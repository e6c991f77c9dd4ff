// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/tcp_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace ballast::testing {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

}  // namespace

TcpProxy::TcpProxy(const std::string& target)
    : target_port_(std::atoi(target.substr(target.rfind(':') + 1).c_str())),
      listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener_, 16) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::abort();
  }
  address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  acceptor_ = std::thread([this] { Accept(); });
}

TcpProxy::~TcpProxy() {
  Cut();
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  for (std::thread& forwarder : forwarders_) forwarder.join();
  absl::MutexLock lock(&mutex_);
  for (const auto& [client, server] : connections_) {
    close(client);
    close(server);
  }
  close(listener_);
}

void TcpProxy::Cut() {
  absl::MutexLock lock(&mutex_);
  cut_ = true;
  for (const auto& [client, server] : connections_) {
    shutdown(client, SHUT_RDWR);
    shutdown(server, SHUT_RDWR);
  }
}

void TcpProxy::Mend() {
  absl::MutexLock lock(&mutex_);
  cut_ = false;
}

void TcpProxy::Accept() {
  while (true) {
    const int client = accept(listener_, nullptr, nullptr);
    if (client < 0) return;
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Loopback(target_port_);
    absl::MutexLock lock(&mutex_);
    if (cut_ ||
        connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      close(client);
      close(server);
      continue;
    }
    connections_.emplace_back(client, server);
    forwarders_.emplace_back([=] { Forward(client, server); });
    forwarders_.emplace_back([=] { Forward(server, client); });
  }
}

void TcpProxy::Forward(int from, int to) {
  char buffer[1 << 16];
  while (true) {
    const ssize_t size = recv(from, buffer, sizeof(buffer), 0);
    if (size <= 0) break;
    for (ssize_t sent = 0; sent < size;) {
      const ssize_t n = send(to, buffer + sent, static_cast<size_t>(size - sent), MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += n;
    }
  }
  shutdown(to, SHUT_RDWR);
}

}  // namespace ballast::testing
