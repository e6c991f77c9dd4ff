// SPDX-License-Identifier: Apache-2.0
// Uploads, downloads and watches that break and go on.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/admin_client.h"
#include "client/cpp/client.h"
#include "client/testing/fake_server.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/testing/status_matchers.h"

namespace ballast::client {
namespace {

namespace fs = std::filesystem;
using ::ballast::client::testing::FakeServer;
using ::ballast::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::Pair;

std::string Bytes(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + i / 251);
  return bytes;
}

class TransferTest : public ::testing::Test {
 protected:
  TransferTest() : folder_(fs::path(::testing::TempDir()) / RandomHex(64)) {
    fs::create_directories(folder_);
  }
  ~TransferTest() override { fs::remove_all(folder_); }
  // A client that gives up early leaves a handler that writes.
  void TearDown() override { server_.Stop(); }

  Client MakeClient() {
    auto connection = Connection::Create(server_.Options());
    EXPECT_OK(connection);
    return Client(*connection, "acme");
  }
  AdminClient MakeAdmin() {
    auto connection = Connection::Create(server_.Options());
    EXPECT_OK(connection);
    return AdminClient(*connection);
  }
  std::string WriteTemp(const std::string& name, const std::string& bytes) {
    const std::string path = (folder_ / name).string();
    EXPECT_OK(WriteFileAtomically(path, bytes));
    return path;
  }

  // A data set on the server that keeps what it is sent, and breaks the stream when `break_after`
  // more messages have arrived.
  void ScriptUpload() {
    server_.get_upload_status = [this](auto&, const auto&, v1::UploadStatus& status) {
      status.set_committed_bytes(static_cast<int64_t>(stored_.size()));
      status.set_finished(finished_);
      return absl::OkStatus();
    };
    server_.get_dataset = [this](auto&, const auto&, v1::Dataset& dataset) {
      dataset.set_state(v1::Dataset::VALIDATING);
      dataset.set_digest(digest_);
      return absl::OkStatus();
    };
    server_.write_dataset = [this](auto&, grpc::ServerReader<v1::WriteDatasetRequest>& reader,
                                   v1::WriteDatasetResponse& response) -> absl::Status {
      ++streams_;
      v1::WriteDatasetRequest request;
      bool first = true;
      while (reader.Read(&request)) {
        EXPECT_EQ(request.name().empty(), !first);
        first = false;
        if (request.write_offset() != static_cast<int64_t>(stored_.size())) {
          return MakeError(absl::StatusCode::kOutOfRange, "WRITE_OFFSET_MISMATCH", "elsewhere");
        }
        stored_ += request.data();
        if (request.finish()) {
          digest_ = request.digest();
          finished_ = true;
          if (lose_last_answer_) return absl::UnavailableError("gone");
          response.mutable_dataset()->set_digest(digest_);
          return absl::OkStatus();
        }
        if (break_after_ > 0 && --break_after_ == 0) return absl::UnavailableError("gone");
      }
      return absl::UnavailableError("the client went");
    };
  }

  FakeServer server_;
  const fs::path folder_;
  std::string stored_;
  std::string digest_;
  bool finished_ = false;
  bool lose_last_answer_ = false;
  int break_after_ = 0;
  int streams_ = 0;
};

TEST_F(TransferTest, UploadsInPiecesWithTheDigest) {
  ScriptUpload();
  const std::string bytes = Bytes(10'000);
  UploadOptions options;
  options.chunk_bytes = 1024;
  std::vector<int64_t> done;
  options.progress = [&](int64_t now, int64_t total) {
    EXPECT_EQ(total, 10'000);
    done.push_back(now);
  };
  ASSERT_OK_AND_ASSIGN(const v1::Dataset dataset,
                       MakeClient().UploadDataset("d1", WriteTemp("f", bytes), options));
  EXPECT_EQ(stored_, bytes);
  EXPECT_EQ(dataset.digest(), DigestOf(bytes));
  EXPECT_EQ(done.size(), 10u);
  EXPECT_EQ(done.back(), 10'000);
}

TEST_F(TransferTest, UploadsAnEmptyFile) {
  ScriptUpload();
  EXPECT_OK(MakeClient().UploadDataset("d1", WriteTemp("f", "")));
  EXPECT_EQ(digest_, DigestOf(""));
}

TEST_F(TransferTest, RefusesWhatIsNoRegularFile) {
  ScriptUpload();
  const std::string pipe = (folder_ / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {pipe, folder_.string()}) {
    EXPECT_THAT(MakeClient().UploadDataset("d1", path),
                StatusIs(absl::StatusCode::kInvalidArgument, "FILE_NOT_REGULAR"));
  }
  EXPECT_EQ(streams_, 0);
}

TEST_F(TransferTest, AnUploadGoesOnAfterABrokenStream) {
  ScriptUpload();
  const std::string bytes = Bytes(50'000);
  break_after_ = 7;
  UploadOptions options;
  options.chunk_bytes = 1000;
  EXPECT_OK(MakeClient().UploadDataset("d1", WriteTemp("f", bytes), options));
  EXPECT_EQ(streams_, 2);
  EXPECT_EQ(stored_, bytes);
  EXPECT_EQ(digest_, DigestOf(bytes));
}

TEST_F(TransferTest, AnUploadOfAnEarlierRunGoesOn) {
  ScriptUpload();
  const std::string bytes = Bytes(50'000);
  stored_ = bytes.substr(0, 12'345);
  EXPECT_OK(MakeClient().UploadDataset("d1", WriteTemp("f", bytes)));
  EXPECT_EQ(stored_, bytes);
  EXPECT_EQ(digest_, DigestOf(bytes));
}

TEST_F(TransferTest, ALostLastAnswerIsNoSecondUpload) {
  ScriptUpload();
  lose_last_answer_ = true;
  const std::string bytes = Bytes(5'000);
  ASSERT_OK_AND_ASSIGN(const v1::Dataset dataset,
                       MakeClient().UploadDataset("d1", WriteTemp("f", bytes)));
  EXPECT_EQ(streams_, 1);
  EXPECT_EQ(dataset.digest(), DigestOf(bytes));
}

TEST_F(TransferTest, AnUploadThatGetsNowhereGivesUp) {
  ScriptUpload();
  server_.write_dataset = [&](auto&, auto&, auto&) {
    ++streams_;
    return absl::UnavailableError("no");
  };
  EXPECT_THAT(MakeClient().UploadDataset("d1", WriteTemp("f", Bytes(100))),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(streams_, 4);
}

TEST_F(TransferTest, RefusalsEndAnUploadAtOnce) {
  ScriptUpload();
  server_.write_dataset = [&](auto&, auto&, auto&) {
    ++streams_;
    return MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL", "full");
  };
  EXPECT_THAT(MakeClient().UploadDataset("d1", WriteTemp("f", Bytes(100))),
              StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  EXPECT_EQ(streams_, 1);
}

TEST_F(TransferTest, AFileShorterThanWhatTheServerHasWasChanged) {
  ScriptUpload();
  stored_ = Bytes(200);
  EXPECT_THAT(MakeClient().UploadDataset("d1", WriteTemp("f", Bytes(100))),
              StatusIs(absl::StatusCode::kFailedPrecondition, "FILE_CHANGED"));
  EXPECT_THAT(MakeClient().UploadDataset("d1", (folder_ / "none").string()),
              StatusIs(absl::StatusCode::kNotFound, "FILE_NOT_FOUND"));
}

// A delta of two files on the server.
class DownloadTest : public TransferTest {
 protected:
  DownloadTest() {
    files_["adapter/adapter_model.safetensors"] = Bytes(40'000);
    files_["manifest.json"] = "{}\n";
    server_.get_delta_manifest = [this](auto&, const auto&, v1::DeltaManifest& manifest) {
      manifest.set_digest(DigestOf(files_["manifest.json"]));
      for (const auto& [path, bytes] : files_) {
        auto* file = manifest.add_files();
        file->set_path(path);
        file->set_size_bytes(static_cast<int64_t>(bytes.size()));
        if (path != "manifest.json") file->set_digest(DigestOf(bytes));
      }
      return absl::OkStatus();
    };
    server_.read_delta = [this](auto&, const v1::ReadDeltaRequest& request,
                                grpc::ServerWriter<v1::ReadDeltaResponse>& writer) {
      offsets_.emplace_back(request.path(), request.read_offset());
      const std::string& bytes =
          sent_.count(request.path()) ? sent_[request.path()] : files_[request.path()];
      size_t at = static_cast<size_t>(request.read_offset());
      while (at < bytes.size()) {
        v1::ReadDeltaResponse response;
        response.set_data(bytes.substr(at, 1000));
        at += response.data().size();
        writer.Write(response);
        if (break_at_ > 0 && at >= break_at_) {
          break_at_ = 0;
          return absl::UnavailableError("gone");
        }
      }
      return absl::OkStatus();
    };
  }
  std::string Target() { return (folder_ / "out").string(); }
  std::string Read(const std::string& path) {
    auto bytes = ReadFile(Target() + "/" + path);
    EXPECT_OK(bytes);
    return bytes.value_or("");
  }

  std::map<std::string, std::string> files_;
  std::map<std::string, std::string> sent_;  // instead of the right bytes
  std::vector<std::pair<std::string, int64_t>> offsets_;
  size_t break_at_ = 0;
};

TEST_F(DownloadTest, WritesTheFiles) {
  int64_t last = 0;
  DownloadOptions options;
  options.progress = [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 40'003);
    EXPECT_GE(done, last);
    last = done;
  };
  EXPECT_OK(MakeClient().DownloadDelta("j1", Target(), options));
  EXPECT_EQ(Read("adapter/adapter_model.safetensors"), files_["adapter/adapter_model.safetensors"]);
  EXPECT_EQ(Read("manifest.json"), "{}\n");
  EXPECT_EQ(last, 40'003);
  EXPECT_FALSE(FileExists(Target() + "/manifest.json.part"));
}

TEST_F(DownloadTest, GoesOnAfterABrokenStream) {
  break_at_ = 5'000;
  EXPECT_OK(MakeClient().DownloadDelta("j1", Target()));
  EXPECT_EQ(Read("adapter/adapter_model.safetensors"), files_["adapter/adapter_model.safetensors"]);
  EXPECT_THAT(offsets_, ElementsAre(Pair("adapter/adapter_model.safetensors", 0),
                                    Pair("adapter/adapter_model.safetensors", 5'000),
                                    Pair("manifest.json", 0)));
}

TEST_F(DownloadTest, GoesOnWithWhatAnEarlierRunLeftAndSkipsWhatIsThere) {
  fs::create_directories(folder_ / "out" / "adapter");
  WriteTemp("out/adapter/adapter_model.safetensors.part",
            files_["adapter/adapter_model.safetensors"].substr(0, 30'000));
  WriteTemp("out/manifest.json", "{}\n");
  EXPECT_OK(MakeClient().DownloadDelta("j1", Target()));
  EXPECT_EQ(Read("adapter/adapter_model.safetensors"), files_["adapter/adapter_model.safetensors"]);
  EXPECT_THAT(offsets_, ElementsAre(Pair("adapter/adapter_model.safetensors", 30'000)));
}

TEST_F(DownloadTest, APartOfAnotherDeltaIsReplaced) {
  fs::create_directories(folder_ / "out" / "adapter");
  WriteTemp("out/adapter/adapter_model.safetensors.part", std::string(30'000, 'x'));
  EXPECT_OK(MakeClient().DownloadDelta("j1", Target()));
  EXPECT_EQ(Read("adapter/adapter_model.safetensors"), files_["adapter/adapter_model.safetensors"]);
}

TEST_F(DownloadTest, DamagedBytesGetNoName) {
  sent_["adapter/adapter_model.safetensors"] = std::string(40'000, 'x');
  EXPECT_THAT(MakeClient().DownloadDelta("j1", Target()),
              StatusIs(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH"));
  EXPECT_FALSE(FileExists(Target() + "/adapter/adapter_model.safetensors"));
  EXPECT_FALSE(FileExists(Target() + "/adapter/adapter_model.safetensors.part"));
}

TEST_F(DownloadTest, MoreBytesThanTheManifestSaysAreRefused) {
  sent_["adapter/adapter_model.safetensors"] = std::string(40'001, 'x');
  EXPECT_THAT(MakeClient().DownloadDelta("j1", Target()),
              StatusIs(absl::StatusCode::kDataLoss, "DELTA_FILE_TOO_LONG"));
}

TEST_F(DownloadTest, PathsOutsideTheFolderAreRefused) {
  for (const char* path : {"../evil", "/etc/evil", "a/../../evil", "", "a//b", "x.part", "."}) {
    files_.clear();
    files_["manifest.json"] = "{}\n";
    files_[path] = "x";
    EXPECT_THAT(MakeClient().DownloadDelta("j1", Target()),
                StatusIs(absl::StatusCode::kInvalidArgument, "DELTA_PATH_INVALID"))
        << path;
  }
  EXPECT_FALSE(fs::exists(folder_ / "evil"));
}

class WatchTest : public TransferTest {
 protected:
  static void Send(grpc::ServerWriter<v1::WatchFineTuningJobResponse>& writer, int64_t sequence) {
    v1::WatchFineTuningJobResponse response;
    response.mutable_event()->set_sequence(sequence);
    writer.Write(response);
  }
};

TEST_F(WatchTest, GoesOnFromTheLastSequenceAndNeverRepeats) {
  std::vector<int64_t> cursors;
  server_.watch_job = [&](auto&, const v1::WatchFineTuningJobRequest& request,
                          grpc::ServerWriter<v1::WatchFineTuningJobResponse>& writer) {
    cursors.push_back(request.after_sequence());
    if (cursors.size() == 1) {
      Send(writer, 1);
      Send(writer, 2);
      return absl::UnavailableError("gone");
    }
    if (cursors.size() == 2) return absl::UnavailableError("still gone");
    if (cursors.size() == 3) {
      Send(writer, 2);  // a fault that the client must not pass on
      Send(writer, 3);
      return absl::OkStatus();  // a server that drains ends watches early
    }
    v1::WatchFineTuningJobResponse progress;
    progress.mutable_progress()->set_step(5);
    writer.Write(progress);
    Send(writer, 4);
    return absl::OkStatus();
  };
  server_.get_job = [&](auto&, const auto&, v1::FineTuningJob& job) {
    job.set_state(cursors.size() < 4 ? v1::FineTuningJob::RUNNING : v1::FineTuningJob::SUCCEEDED);
    return absl::OkStatus();
  };
  std::vector<int64_t> sequences;
  int reconnects = 0, steps = 0;
  WatchHandlers handlers;
  handlers.on_event = [&](const v1::JobEvent& event) { sequences.push_back(event.sequence()); };
  handlers.on_progress = [&](const v1::JobProgress& progress) {
    steps = static_cast<int>(progress.step());
  };
  handlers.on_reconnect = [&](const absl::Status&) { ++reconnects; };
  ASSERT_OK_AND_ASSIGN(const v1::FineTuningJob job, MakeClient().WatchJob("j1", 0, handlers));
  EXPECT_EQ(job.state(), v1::FineTuningJob::SUCCEEDED);
  EXPECT_THAT(sequences, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(cursors, ElementsAre(0, 2, 2, 3));
  EXPECT_EQ(reconnects, 3);
  EXPECT_EQ(steps, 5);
}

TEST_F(WatchTest, GivesUpWhenNothingComesAnyMore) {
  int calls = 0;
  server_.watch_job = [&](auto&, const auto&, auto&) {
    ++calls;
    return absl::UnavailableError("gone");
  };
  EXPECT_THAT(MakeClient().WatchJob("j1", 0, {}), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(calls, 4);
}

TEST_F(WatchTest, AJobThatWaitsIsWatchedOverAnyNumberOfStreamDeadlines) {
  int calls = 0;
  server_.watch_job = [&](auto&, const auto&, auto&) -> absl::Status {
    if (++calls <= 10) return absl::DeadlineExceededError("nothing happened");
    return absl::OkStatus();
  };
  server_.get_job = [&](auto&, const auto&, v1::FineTuningJob& job) {
    job.set_state(calls <= 10 ? v1::FineTuningJob::QUEUED : v1::FineTuningJob::SUCCEEDED);
    return absl::OkStatus();
  };
  EXPECT_OK(MakeClient().WatchJob("j1", 0, {}));
  EXPECT_EQ(calls, 11);
}

TEST_F(WatchTest, AServerThatAnswersNothingInTimeIsGivenUp) {
  int calls = 0;
  server_.watch_job = [&](auto&, const auto&, auto&) {
    ++calls;
    return absl::DeadlineExceededError("nothing happened");
  };
  EXPECT_THAT(MakeClient().WatchJob("j1", 0, {}), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(calls, 4);
}

TEST_F(WatchTest, AServerThatEndsEveryWatchIsGivenUp) {
  server_.watch_job = [](auto&, const auto&, auto&) { return absl::OkStatus(); };
  server_.get_job = [](auto&, const auto&, v1::FineTuningJob& job) {
    job.set_state(v1::FineTuningJob::RUNNING);
    return absl::OkStatus();
  };
  EXPECT_THAT(MakeClient().WatchJob("j1", 0, {}),
              StatusIs(absl::StatusCode::kUnavailable, "WATCH_ENDED_EARLY"));
}

TEST_F(WatchTest, AJobThatIsNotThereEndsTheWatch) {
  int calls = 0;
  server_.watch_job = [&](auto&, const auto&, auto&) {
    ++calls;
    return MakeError(absl::StatusCode::kNotFound, "JOB_NOT_FOUND", "no such job");
  };
  EXPECT_THAT(MakeClient().WatchJob("j1", 0, {}),
              StatusIs(absl::StatusCode::kNotFound, "JOB_NOT_FOUND"));
  EXPECT_EQ(calls, 1);
}

TEST_F(TransferTest, ImportStreamsTheModelsFilesOnly) {
  WriteTemp("config.json", "{}");
  WriteTemp("model.safetensors", Bytes(1'500'000));
  WriteTemp("README.md", "hello");
  WriteTemp("pytorch_model.bin", "pickle");
  std::map<std::string, std::string> received;
  int64_t announced = 0;
  server_.import_base_model = [&](auto&,
                                  grpc::ServerReader<admin::v1::ImportBaseModelRequest>& reader,
                                  v1::BaseModel& model) {
    admin::v1::ImportBaseModelRequest request;
    std::string file;
    while (reader.Read(&request)) {
      if (request.has_options()) {
        model.set_name("baseModels/" + request.options().base_model_id());
      } else if (request.has_file_start()) {
        file = request.file_start().file_name();
        announced += request.file_start().size_bytes();
      } else {
        EXPECT_LE(request.data().size(), size_t{1} << 20);
        received[file] += request.data();
      }
    }
    return absl::OkStatus();
  };
  admin::v1::ImportBaseModelRequest::ImportOptions options;
  options.set_base_model_id("m");
  ASSERT_OK_AND_ASSIGN(const v1::BaseModel model,
                       MakeAdmin().ImportBaseModel(options, folder_.string()));
  EXPECT_EQ(model.name(), "baseModels/m");
  EXPECT_THAT(received,
              ElementsAre(Pair("config.json", "{}"), Pair("model.safetensors", Bytes(1'500'000))));
  EXPECT_EQ(announced, 1'500'002);
}

TEST_F(TransferTest, ARefusedImportEndsWithTheServersReason) {
  WriteTemp("config.json", "{}");
  WriteTemp("model.safetensors", Bytes(8'000'000));
  server_.import_base_model = [](auto&, auto&, auto&) {
    return FieldError("base_model_id", "BASE_MODEL_ID_INVALID", "no such id");
  };
  EXPECT_THAT(MakeAdmin().ImportBaseModel({}, folder_.string()),
              StatusIs(absl::StatusCode::kInvalidArgument, "BASE_MODEL_ID_INVALID"));
  EXPECT_THAT(MakeAdmin().ImportBaseModel({}, (folder_ / "none").string()),
              StatusIs(absl::StatusCode::kNotFound, "FOLDER_NOT_FOUND"));
  fs::create_directory(folder_ / "empty");
  EXPECT_THAT(MakeAdmin().ImportBaseModel({}, (folder_ / "empty").string()),
              StatusIs(absl::StatusCode::kInvalidArgument, "FOLDER_EMPTY"));
}

TEST_F(TransferTest, TrainVectorStreamsBothFilesOnce) {
  std::string prohibited, benign;
  int calls = 0;
  server_.train_vector = [&](auto&, grpc::ServerReader<admin::v1::TrainVectorRequest>& reader,
                             admin::v1::Vector& vector) -> absl::Status {
    ++calls;
    admin::v1::TrainVectorRequest request;
    while (reader.Read(&request)) {
      prohibited += request.prohibited_data();
      benign += request.benign_data();
    }
    vector.set_name("vectors/v1");
    return calls == 1 ? absl::OkStatus() : absl::UnavailableError("gone");
  };
  const std::string p = WriteTemp("p", Bytes(700'000)), b = WriteTemp("b", "benign\n");
  ASSERT_OK_AND_ASSIGN(const auto vector, MakeAdmin().TrainVector({}, p, b));
  EXPECT_EQ(vector.name(), "vectors/v1");
  EXPECT_EQ(prohibited, Bytes(700'000));
  EXPECT_EQ(benign, "benign\n");
  EXPECT_THAT(MakeAdmin().TrainVector({}, p, b), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(calls, 2);
}

TEST_F(TransferTest, TopicsGoInPlaceOfRows) {
  std::string topics;
  bool rows = false;
  server_.train_vector = [&](auto&, grpc::ServerReader<admin::v1::TrainVectorRequest>& reader,
                             admin::v1::Vector& vector) -> absl::Status {
    admin::v1::TrainVectorRequest request;
    while (reader.Read(&request)) {
      topics += request.topics_data();
      rows |= request.has_prohibited_data() || request.has_benign_data();
    }
    vector.set_name("vectors/v1");
    return absl::OkStatus();
  };
  ASSERT_OK(MakeAdmin().TrainVectorOnTopics({}, WriteTemp("t", "riding penguins\n")));
  EXPECT_EQ(topics, "riding penguins\n");
  EXPECT_FALSE(rows);
  EXPECT_THAT(MakeAdmin().TrainVectorOnTopics({}, (folder_ / "none").string()),
              StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace ballast::client
