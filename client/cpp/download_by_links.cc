// SPDX-License-Identifier: Apache-2.0
// Files of a delta by links to the store.
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cpp/download_internal.h"
#include "common/base/error.h"

namespace ballast::client {
namespace {

// What the links bring. `local` is set where the failure is that of writing the file.
absl::Status ReadOn(const HttpClient& http, const v1::DeltaLinks& links, const v1::DeltaFile& file,
                    PartFile& part, const std::function<void(int64_t)>& progress, bool& local) {
  for (const v1::DeltaLink& link : links.links()) {
    if (!IsWithin(link.offset(), link.size_bytes(), file.size_bytes())) {
      return MakeError(absl::StatusCode::kUnavailable, "LINK_INVALID",
                       absl::StrCat("a link is to bytes that ", file.path(), " does not have"));
    }
    const int64_t end = link.offset() + link.size_bytes();
    if (end <= part.bytes()) continue;
    if (link.offset() > part.bytes()) break;
    const absl::Status got = http.Get(link.url(), part.bytes() - link.offset(), end - part.bytes(),
                                      [&](std::string_view bytes) {
                                        const absl::Status written = part.Append(bytes);
                                        local = !written.ok();
                                        if (written.ok() && progress) progress(part.bytes());
                                        return written;
                                      });
    if (!got.ok()) return got;
  }
  if (part.bytes() == file.size_bytes()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kUnavailable, "LINK_BROKEN",
                   absl::StrCat("the links to ", file.path(), " do not lead to all of it"));
}

}  // namespace

LinkFetch FetchByLinks(const Connection& connection, v1::DeltaService::StubInterface& stub,
                       LinkClient& client, const std::string& name, const v1::DeltaFile& file,
                       PartFile& part, const std::function<void(int64_t)>& progress) {
  v1::GetDeltaLinksRequest request;
  request.set_name(name);
  request.set_path(file.path());
  LinkRounds rounds;
  while (part.bytes() < file.size_bytes()) {
    v1::DeltaLinks links;
    const absl::Status told = connection.Call(true, [&](grpc::ClientContext* context) {
      return stub.GetDeltaLinks(context, request, &links);
    });
    if (HasNoLinks(told)) return {absl::OkStatus(), true};
    if (!told.ok()) return {told, true};
    const absl::StatusOr<const HttpClient*> http = client.Get();
    if (!http.ok()) return {http.status(), true};
    const int64_t before = part.bytes();
    bool local = false;
    const absl::Status status = ReadOn(**http, links, file, part, progress, local);
    if (status.ok()) break;
    if (local) return {status, false};
    if (!rounds.GoOn(part.bytes() > before, status)) return {status, true};
    connection.Sleep(connection.options().retry.Backoff(rounds.fruitless() + 1, status));
  }
  return {};
}

}  // namespace ballast::client
