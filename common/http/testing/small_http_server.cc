// SPDX-License-Identifier: Apache-2.0
#include "common/http/testing/small_http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace ballast::testing {
namespace {

constexpr int kLookMillis = 50;

// Reads on into `text`; false at the end.
bool ReadMore(int connection, std::string& text) {
  char buffer[64 << 10];
  const ssize_t n = read(connection, buffer, sizeof(buffer));
  if (n > 0) text.append(buffer, static_cast<size_t>(n));
  return n > 0;
}

}  // namespace

SmallHttpServer::SmallHttpServer(Answer answer) : answer_(std::move(answer)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener_, any, size) != 0 || listen(listener_, 16) != 0 ||
      getsockname(listener_, any, &size) != 0) {
    return;  // nobody answers, which every test notices
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Serve(); });
}

SmallHttpServer::~SmallHttpServer() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
  close(listener_);
}

std::string SmallHttpServer::Url(const std::string& target) const {
  return absl::StrCat("http://127.0.0.1:", port_, target);
}

std::vector<SmallHttpServer::Request> SmallHttpServer::requests() {
  absl::MutexLock lock(&mutex_);
  return requests_;
}

SmallHttpServer::Reply SmallHttpServer::Plain(int status, const std::string& body) {
  return {absl::StrCat("HTTP/1.1 ", status, " Told\r\nContent-Length: ", body.size(),
                       "\r\nConnection: close\r\n\r\n", body)};
}

SmallHttpServer::Reply SmallHttpServer::Range(const Request& request, const std::string& bytes) {
  const auto range = request.headers.find("range");
  if (range == request.headers.end()) return Plain(200, bytes);
  const std::pair<absl::string_view, absl::string_view> ends =
      absl::StrSplit(absl::StripPrefix(range->second, "bytes="), '-');
  size_t first = 0, last = 0;
  if (!absl::SimpleAtoi(ends.first, &first) || !absl::SimpleAtoi(ends.second, &last) ||
      first >= bytes.size()) {
    return Plain(416, "");
  }
  const std::string part = bytes.substr(first, last - first + 1);
  return {absl::StrCat("HTTP/1.1 206 Partial\r\nContent-Length: ", part.size(),
                       "\r\nContent-Range: bytes ", first, "-", first + part.size() - 1, "/",
                       bytes.size(), "\r\nConnection: close\r\n\r\n", part)};
}

void SmallHttpServer::Serve() {
  while (!stopping_) {
    pollfd waiting = {listener_, POLLIN, 0};
    if (poll(&waiting, 1, kLookMillis) <= 0) continue;
    const int connection = accept(listener_, nullptr, nullptr);
    if (connection < 0) continue;
    Handle(connection);
    close(connection);
  }
}

void SmallHttpServer::Handle(int connection) {
  std::string text;
  size_t end = std::string::npos;
  while ((end = text.find("\r\n\r\n")) == std::string::npos) {
    if (!ReadMore(connection, text)) return;
  }
  Request request;
  const std::vector<std::string> lines = absl::StrSplit(text.substr(0, end), "\r\n");
  const std::vector<std::string> words = absl::StrSplit(lines[0], ' ');
  if (words.size() != 3) return;
  request.method = words[0];
  request.target = words[1];
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::pair<std::string, std::string> header =
        absl::StrSplit(lines[i], absl::MaxSplits(": ", 1));
    request.headers[absl::AsciiStrToLower(header.first)] = header.second;
  }
  size_t length = 0;
  if (const auto found = request.headers.find("content-length"); found != request.headers.end()) {
    if (!absl::SimpleAtoi(found->second, &length)) return;
  }
  request.body = text.substr(end + 4);
  bool whole = true;
  while (whole && request.body.size() < length) whole = ReadMore(connection, request.body);
  {
    absl::MutexLock lock(&mutex_);
    requests_.push_back(request);
  }
  if (!whole) return;
  const Reply reply = answer_(request);
  for (size_t sent = 0; sent < reply.bytes.size();) {
    const ssize_t n =
        send(connection, reply.bytes.data() + sent, reply.bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;
    sent += static_cast<size_t>(n);
  }
  while (reply.then_trickle && !stopping_ && send(connection, "x", 1, MSG_NOSIGNAL) == 1) {
    poll(nullptr, 0, kLookMillis);
  }
  while (reply.then_hold && !stopping_) poll(nullptr, 0, kLookMillis);
}

}  // namespace ballast::testing
