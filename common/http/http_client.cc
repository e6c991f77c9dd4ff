// SPDX-License-Identifier: Apache-2.0
#include "common/http/http_client.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/rust/rust_call.h"

namespace ballast {
namespace {

constexpr uint32_t kTooManyRequests = 429;
constexpr uint32_t kFirstServerError = 500;

// What `code` means; takes `error`, which is set where the code is not OK. `told`: why a callback
// has ended the call.
absl::Status StatusOf(int32_t code, uint32_t http_status, BallastTextBuffer error,
                      const absl::Status& told) {
  if (code == BALLAST_HTTP_OK) return absl::OkStatus();
  const std::string words = TakeBuffer(error);
  switch (code) {
    case BALLAST_HTTP_STOPPED:
      return told.ok() ? absl::CancelledError(words) : told;
    case BALLAST_HTTP_REFUSED:
      return MakeError(http_status == kTooManyRequests || http_status >= kFirstServerError
                           ? absl::StatusCode::kUnavailable
                           : absl::StatusCode::kPermissionDenied,
                       "LINK_REFUSED", words, {{"status", absl::StrCat(http_status)}});
    case BALLAST_HTTP_UNREACHABLE:
      return MakeError(absl::StatusCode::kUnavailable, "LINK_UNREACHABLE", words);
    case BALLAST_HTTP_SLOW:
      return MakeError(absl::StatusCode::kUnavailable, "LINK_SLOW", words);
    case BALLAST_HTTP_BROKEN:
      return MakeError(absl::StatusCode::kUnavailable, "LINK_BROKEN", words);
    case BALLAST_HTTP_INVALID:
      return MakeError(absl::StatusCode::kInvalidArgument, "LINK_INVALID", words);
    default:
      return MakeError(absl::StatusCode::kInternal, "INTERNAL", words);
  }
}

bool MayGoOn(const HttpClient::GoesOn& goes_on) { return !goes_on || goes_on(); }

// What the callbacks of a Get share.
struct Sink {
  const std::function<absl::Status(std::string_view)>& sink;
  const HttpClient::GoesOn& goes_on;
  absl::Status told;
};

extern "C" bool TakeBytes(void* context, const char* data, size_t size) {
  auto& self = *static_cast<Sink*>(context);
  if (!MayGoOn(self.goes_on)) return false;
  if (size == 0) return true;
  self.told = self.sink(std::string_view(data, size));
  return self.told.ok();
}

// What the callbacks of a Put share.
struct Source {
  const std::function<absl::StatusOr<size_t>(char*, size_t)>& source;
  const HttpClient::GoesOn& goes_on;
  absl::Status told;
};

extern "C" int64_t GiveBytes(void* context, char* data, size_t size) {
  constexpr int64_t kEnd = -1;
  auto& self = *static_cast<Source*>(context);
  if (!MayGoOn(self.goes_on)) return kEnd;
  if (size == 0) return 0;
  const absl::StatusOr<size_t> read = self.source(data, size);
  self.told = read.status();
  return read.ok() ? static_cast<int64_t>(*read) : kEnd;
}

uint32_t Millis(absl::Duration duration) {
  return static_cast<uint32_t>(absl::ToInt64Milliseconds(duration));
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpClient>> HttpClient::Create(const Options& options) {
  BallastHttp* http = nullptr;
  BallastTextBuffer error{};
  const int32_t code = ballast_http_open(Millis(options.connect), Millis(options.idle),
                                         options.allow_plain, &http, &error);
  if (code != BALLAST_HTTP_OK) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "HTTP_UNAVAILABLE",
                     absl::StrCat("this machine cannot use HTTP: ", TakeBuffer(error)));
  }
  return std::unique_ptr<HttpClient>(new HttpClient(http));
}

absl::Status HttpClient::Get(const std::string& url, int64_t offset, int64_t size,
                             const std::function<absl::Status(std::string_view)>& sink,
                             const GoesOn& goes_on) const {
  Sink context{sink, goes_on, absl::OkStatus()};
  uint32_t status = 0;
  BallastTextBuffer error{};
  const int32_t code =
      ballast_http_get(http_.get(), ToRust(url), static_cast<uint64_t>(offset),
                       static_cast<uint64_t>(size), &TakeBytes, &context, &status, &error);
  return StatusOf(code, status, error, context.told);
}

absl::Status HttpClient::Put(const std::string& url,
                             const std::map<std::string, std::string>& headers, int64_t size,
                             const std::function<absl::StatusOr<size_t>(char*, size_t)>& source,
                             const GoesOn& goes_on) const {
  std::vector<BallastText> pairs;
  for (const auto& [name, value] : headers) {
    pairs.push_back(ToRust(name));
    pairs.push_back(ToRust(value));
  }
  Source context{source, goes_on, absl::OkStatus()};
  uint32_t status = 0;
  BallastTextBuffer error{};
  const int32_t code =
      ballast_http_put(http_.get(), ToRust(url), pairs.data(), headers.size(),
                       static_cast<uint64_t>(size), &GiveBytes, &context, &status, &error);
  return StatusOf(code, status, error, context.told);
}

}  // namespace ballast
