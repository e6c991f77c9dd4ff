// SPDX-License-Identifier: Apache-2.0
// Client::DownloadDelta: the files of a delta, by range, checked against the manifest.
#include <filesystem>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "client/cpp/download_internal.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"

namespace ballast::client {
namespace {

// A path that stays inside the folder and is not the name of a part file.
absl::Status CheckPath(const std::string& path) {
  if (artifact::IsSafePath(path) && !absl::EndsWith(path, ".part")) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "DELTA_PATH_INVALID",
                   absl::StrCat("the server names a file '", path,
                                "' that would not lie in the folder; nothing was written for it. "
                                "Tell the operator"),
                   {{"path", path}});
}

// Reads [part.bytes(), end) into `part` until the file is whole, over as many streams as it takes.
absl::Status Fetch(const Connection& connection, v1::DeltaService::StubInterface& stub,
                   const std::string& name, const v1::DeltaFile& file, PartFile& part,
                   const std::function<void(int64_t)>& progress) {
  const RetryPolicy& retry = connection.options().retry;
  int attempt = 1;
  while (part.bytes() < file.size_bytes()) {
    grpc::ClientContext context;
    connection.Prepare(context, connection.options().stream_deadline);
    v1::ReadDeltaRequest request;
    request.set_name(name);
    request.set_path(file.path());
    request.set_read_offset(part.bytes());
    auto reader = stub.ReadDelta(&context, request);
    v1::ReadDeltaResponse response;
    bool any = false;
    while (reader->Read(&response)) {
      absl::Status local = absl::OkStatus();
      if (part.bytes() + static_cast<int64_t>(response.data().size()) > file.size_bytes()) {
        local = MakeError(absl::StatusCode::kDataLoss, "DELTA_FILE_TOO_LONG",
                          absl::StrCat("the server sends more bytes of ", file.path(),
                                       " than its manifest says; tell the operator"),
                          {{"path", file.path()}});
      } else {
        local = part.Append(response.data());
      }
      if (!local.ok()) {
        context.TryCancel();
        reader->Finish();
        return local;
      }
      any = any || !response.data().empty();
      if (progress) progress(part.bytes());
    }
    absl::Status status = connection.Convert(reader->Finish());
    if (part.bytes() == file.size_bytes()) return absl::OkStatus();
    if (status.ok()) {
      status = MakeError(absl::StatusCode::kUnavailable, "DELTA_FILE_SHORT",
                         absl::StrCat("the server ended ", file.path(), " after ", part.bytes(),
                                      " of ", file.size_bytes(), " bytes"),
                         {{"path", file.path()}});
    }
    attempt = any ? 1 : attempt + 1;
    if (!Connection::IsBroken(status) || attempt > retry.max_reconnects) return status;
    connection.Sleep(retry.Backoff(attempt, status));
  }
  return absl::OkStatus();
}

// How a delta's files are fetched. Links that once did not do are not tried again.
class Fetcher {
 public:
  Fetcher(const Connection& connection, v1::DeltaService::StubInterface& stub, std::string name,
          const DownloadOptions& options)
      : connection_(connection),
        stub_(stub),
        name_(std::move(name)),
        options_(options),
        links_(connection),
        by_links_(options.links) {}

  // Fetches the rest of `part`.
  absl::Status Fill(const v1::DeltaFile& file, PartFile& part,
                    const std::function<void(int64_t)>& progress) {
    if (by_links_) {
      const LinkFetch fetched =
          FetchByLinks(connection_, stub_, links_, name_, file, part, progress);
      if (!fetched.through_server) return fetched.status;
      by_links_ = false;
      if (!fetched.status.ok() && options_.on_fallback) options_.on_fallback(fetched.status);
    }
    return Fetch(connection_, stub_, name_, file, part, progress);
  }

 private:
  const Connection& connection_;
  v1::DeltaService::StubInterface& stub_;
  const std::string name_;
  const DownloadOptions& options_;
  LinkClient links_;
  bool by_links_;  // else through the server
};

absl::Status DownloadFile(Fetcher& fetcher, const v1::DeltaFile& file, const std::string& path,
                          const std::function<void(int64_t)>& progress) {
  BALLAST_RETURN_IF_ERROR(MakeDirectories(std::filesystem::path(path).parent_path().string()));
  if (FileExists(path)) {
    const auto digest = DigestOfFile(path);
    if (digest.ok() && *digest == file.digest()) return absl::OkStatus();
  }
  BALLAST_ASSIGN_OR_RETURN(PartFile part, PartFile::Open(path, file.size_bytes()));
  bool again = part.resumed();
  while (true) {
    BALLAST_RETURN_IF_ERROR(fetcher.Fill(file, part, progress));
    const std::string digest = part.Digest();
    if (digest == file.digest()) return part.Commit();
    if (!again) {
      BALLAST_RETURN_IF_ERROR(part.Discard());
      return MakeError(
          absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
          absl::StrCat(file.path(), " arrived with the digest ", digest, " and not ", file.digest(),
                       "; download it again, and tell the operator if this stays"),
          {{"path", file.path()}});
    }
    // What an earlier run left may have been of another delta: once more from the start.
    again = false;
    BALLAST_RETURN_IF_ERROR(part.Restart());
  }
}

}  // namespace

absl::StatusOr<v1::DeltaManifest> Client::DownloadDelta(std::string_view name,
                                                        const std::string& folder,
                                                        const DownloadOptions& options) const {
  const std::string full_name = DeltaName(name);
  BALLAST_ASSIGN_OR_RETURN(v1::DeltaManifest manifest, GetDeltaManifest(full_name));
  int64_t total = 0;
  for (const v1::DeltaFile& file : manifest.files()) {
    BALLAST_RETURN_IF_ERROR(CheckPath(file.path()));
    total += file.size_bytes();
  }
  Fetcher fetcher(*connection_, *deltas_, full_name, options);
  int64_t done = 0;
  for (const v1::DeltaFile& listed : manifest.files()) {
    v1::DeltaFile file = listed;
    // The manifest cannot hold its own digest; the message beside it does.
    if (file.digest().empty() && file.path() == "manifest.json") file.set_digest(manifest.digest());
    BALLAST_RETURN_IF_ERROR(DownloadFile(
        fetcher, file, (std::filesystem::path(folder) / file.path()).string(), [&](int64_t bytes) {
          if (options.progress) options.progress(done + bytes, total);
        }));
    done += file.size_bytes();
    if (options.progress) options.progress(done, total);
  }
  return manifest;
}

}  // namespace ballast::client
