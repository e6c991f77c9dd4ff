// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_CLIENT_TESTING_LINK_TRANSFER_FIXTURE_H_
#define BALLAST_CLIENT_TESTING_LINK_TRANSFER_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "client/testing/fake_server.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"
#include "common/http/testing/small_http_server.h"
#include "gmock/gmock.h"

namespace ballast::client::testing {

// A scripted server that gives links, and the store that they lead to.
class LinkTransferTest : public ::testing::Test {
 protected:
  using Reply = ballast::testing::SmallHttpServer::Reply;
  using Request = ballast::testing::SmallHttpServer::Request;
  using SmallHttpServer = ballast::testing::SmallHttpServer;

  static constexpr int64_t kPartBytes = 400'000;
  static constexpr char kQuery[] = "?X-Amz-Signature=the-signature";

  static std::string Bytes(size_t size) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + i / 251);
    return bytes;
  }

  LinkTransferTest()
      : store_([this](const Request& request) { return Answer(request); }),
        folder_(std::filesystem::path(::testing::TempDir()) / RandomHex(64)) {
    std::filesystem::create_directories(folder_);
    options_.on_fallback = [this](const absl::Status& why) { NoteFallback(why); };
    download_.on_fallback = options_.on_fallback;
  }
  ~LinkTransferTest() override { std::filesystem::remove_all(folder_); }
  void TearDown() override { server_.Stop(); }

  Client MakeClient() { return Client(Connection::Create(server_.Options()).value(), "acme"); }

  // The store: objects by path. The next `refuse_` requests are answered with 403, and of reads
  // only so many bytes come.
  Reply Answer(const Request& request) {
    absl::MutexLock lock(&mutex_);
    if (refuse_ > 0) {
      --refuse_;
      return SmallHttpServer::Plain(403, "the link has expired");
    }
    const std::string path = request.target.substr(0, request.target.find('?'));
    if (request.method == "PUT") {
      objects_[path] = request.body;
      return SmallHttpServer::Plain(200, "");
    }
    Reply reply = SmallHttpServer::Range(request, objects_[path]);
    if (reply.bytes.size() > most_bytes_) reply.bytes.resize(most_bytes_);
    return reply;
  }

  // A server that lets a data set be uploaded by links, and through itself.
  void ScriptUpload() {
    server_.get_upload_status = [this](auto&, const auto&, v1::UploadStatus& status) {
      status.set_committed_bytes(static_cast<int64_t>(through_server_.size()));
      return absl::OkStatus();
    };
    server_.get_dataset = [this](auto&, const auto&, v1::Dataset& dataset) {
      dataset.set_digest(digest_);
      return absl::OkStatus();
    };
    server_.start_direct_upload = [this](auto&, const v1::StartDirectUploadRequest& request,
                                         v1::DirectUpload& upload) -> absl::Status {
      absl::MutexLock lock(&mutex_);
      ++starts_;
      if (!digest_.empty()) {
        return MakeError(absl::StatusCode::kFailedPrecondition, "UPLOAD_FINISHED", "it is there");
      }
      for (int64_t at = 0; at < request.size_bytes(); at += kPartBytes) {
        v1::UploadPart& part = *upload.add_parts();
        part.set_offset(at);
        part.set_size_bytes(std::min(kPartBytes, request.size_bytes() - at));
        const std::string path = absl::StrCat("/in/", at / kPartBytes);
        part.set_url(store_.Url(path + kQuery));
        (*part.mutable_headers())["x-kind"] = "block";
        const auto stored = objects_.find(path);
        part.set_stored(stored != objects_.end() &&
                        static_cast<int64_t>(stored->second.size()) == part.size_bytes());
      }
      return absl::OkStatus();
    };
    server_.finish_direct_upload = [this](auto&, const v1::FinishDirectUploadRequest& request,
                                          v1::Dataset& dataset) -> absl::Status {
      absl::MutexLock lock(&mutex_);
      ++finishes_;
      std::string all;
      for (const auto& [path, bytes] : objects_) all += bytes;
      if (DigestOf(all) != request.digest()) {
        return MakeError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH", "another digest");
      }
      digest_ = request.digest();
      dataset.set_digest(digest_);
      return lose_answer_ ? absl::UnavailableError("gone") : absl::OkStatus();
    };
    server_.write_dataset = [this](auto&, grpc::ServerReader<v1::WriteDatasetRequest>& reader,
                                   v1::WriteDatasetResponse& response) -> absl::Status {
      v1::WriteDatasetRequest request;
      while (reader.Read(&request)) {
        through_server_ += request.data();
        if (request.finish()) {
          response.mutable_dataset()->set_digest(request.digest());
          return absl::OkStatus();
        }
      }
      return absl::UnavailableError("the client went");
    };
  }

  // A delta of one file, as two objects of the store.
  void ScriptDelta(const std::string& bytes) {
    objects_["/a"] = bytes.substr(0, kPartBytes);
    objects_["/b"] = bytes.substr(kPartBytes);
    server_.get_delta_manifest = [bytes](auto&, const auto&, v1::DeltaManifest& manifest) {
      auto* file = manifest.add_files();
      file->set_path("adapter/weights");
      file->set_size_bytes(static_cast<int64_t>(bytes.size()));
      file->set_digest(DigestOf(bytes));
      return absl::OkStatus();
    };
    server_.get_delta_links = [this, bytes](auto&, const v1::GetDeltaLinksRequest& request,
                                            v1::DeltaLinks& links) {
      EXPECT_EQ(request.name(), "tenants/acme/fineTuningJobs/j/delta");
      EXPECT_EQ(request.path(), "adapter/weights");
      ++starts_;
      const auto add = [&](const char* path, int64_t offset, int64_t size) {
        auto* link = links.add_links();
        link->set_url(store_.Url(absl::StrCat(path, kQuery)));
        link->set_offset(offset);
        link->set_size_bytes(size);
      };
      add("/a", 0, kPartBytes);
      add("/b", kPartBytes, static_cast<int64_t>(bytes.size()) - kPartBytes);
      return absl::OkStatus();
    };
    server_.read_delta = [this, bytes](auto&, const v1::ReadDeltaRequest& request,
                                       grpc::ServerWriter<v1::ReadDeltaResponse>& writer) {
      v1::ReadDeltaResponse response;
      response.set_data(bytes.substr(static_cast<size_t>(request.read_offset())));
      through_server_ += response.data();
      writer.Write(response);
      return absl::OkStatus();
    };
  }

  std::string WriteTemp(const std::string& bytes) {
    const std::string path = (folder_ / "file").string();
    EXPECT_OK(WriteFileAtomically(path, bytes));
    return path;
  }
  std::string Downloaded() {
    return ReadFile((folder_ / "delta/adapter/weights").string()).value_or("nothing");
  }
  absl::Status Download() {
    return MakeClient().DownloadDelta("j", (folder_ / "delta").string(), download_).status();
  }

  void NoteFallback(const absl::Status& why) {
    fallbacks_.push_back(std::string(why.message()));
    EXPECT_THAT(fallbacks_.back(), ::testing::Not(::testing::HasSubstr("the-signature")));
  }

  FakeServer server_;
  absl::Mutex mutex_;
  std::map<std::string, std::string> objects_;
  int refuse_ = 0;
  size_t most_bytes_ = size_t{1} << 30;
  SmallHttpServer store_;
  const std::filesystem::path folder_;
  UploadOptions options_;
  DownloadOptions download_;
  std::vector<std::string> fallbacks_;
  std::string through_server_;
  std::string digest_;
  bool lose_answer_ = false;
  int starts_ = 0, finishes_ = 0;
};

}  // namespace ballast::client::testing

#endif  // BALLAST_CLIENT_TESTING_LINK_TRANSFER_FIXTURE_H_
