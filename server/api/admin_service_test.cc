// SPDX-License-Identifier: Apache-2.0
// Imports and vectors over gRPC: hostile folders, bad rows, the life of a vector, and that rows do
// not stay.
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/digest.h"
#include "common/base/error.h"
#include "common/base/testing/status_matchers.h"
#include "common/rpc/grpc_status.h"
#include "gmock/gmock.h"
#include "server/testing/forwarding_blob_store.h"
#include "server/testing/full_disk.h"
#include "server/testing/server_fixture.h"

namespace ballast::server::testing {
namespace {

using ::ballast::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
using Files = std::vector<std::pair<std::string, std::string>>;

std::string& FileOf(Files& files, const std::string& name) {
  for (auto& [file, bytes] : files) {
    if (file == name) return bytes;
  }
  files.emplace_back(name, "");
  return files.back().second;
}

void Remove(Files& files, const std::string& name) {
  std::erase_if(files, [&](const auto& file) { return file.first == name; });
}

class AdminServiceTest : public ServerFixture {
 protected:
  absl::StatusOr<admin::v1::Vector> GetVector(const std::string& name) {
    admin::v1::GetVectorRequest request;
    request.set_name(name);
    admin::v1::Vector vector;
    const grpc::Status status =
        admin_->GetVector(ContextWith(kOperatorKey).get(), request, &vector);
    if (!status.ok()) return FromGrpcStatus(status);
    return vector;
  }

  absl::StatusOr<admin::v1::Vector> Retire(const std::string& name) {
    admin::v1::RetireVectorRequest request;
    request.set_name(name);
    admin::v1::Vector vector;
    const grpc::Status status =
        admin_->RetireVector(ContextWith(kOperatorKey).get(), request, &vector);
    if (!status.ok()) return FromGrpcStatus(status);
    return vector;
  }

  v1::ListBaseModelsResponse Models() {
    v1::ListBaseModelsResponse list;
    EXPECT_TRUE(models_->ListBaseModels(ContextWith(kTenantKey).get(), {}, &list).ok());
    return list;
  }
};

TEST_F(AdminServiceTest, ImportsAModelAndKnowsItAgain) {
  ASSERT_OK_AND_ASSIGN(const v1::BaseModel model, ImportTiny());
  EXPECT_EQ(model.name(), "baseModels/tiny");
  EXPECT_EQ(model.architecture(), "LlamaForCausalLM");
  EXPECT_GT(model.parameter_count(), 0);
  EXPECT_GT(model.context_tokens(), 0);
  EXPECT_EQ(model.tokenizer_digest(), DigestOf(TinyFiles()[2].second));
  EXPECT_EQ(model.limits().min_rows(), 10);
  EXPECT_FALSE(model.ready());

  ASSERT_OK_AND_ASSIGN(const v1::BaseModel again, ImportTiny());
  EXPECT_EQ(again.digest(), model.digest());
  EXPECT_EQ(again.create_time().seconds(), model.create_time().seconds());
  ASSERT_OK_AND_ASSIGN(const v1::BaseModel twin, ImportTiny("twin"));
  EXPECT_EQ(twin.digest(), model.digest());

  Files other = TinyFiles();
  FileOf(other, "merges.txt") = "another";
  EXPECT_THAT(Import("tiny", other),
              StatusIs(absl::StatusCode::kAlreadyExists, "BASE_MODEL_EXISTS"));
  Restart();
  EXPECT_EQ(Models().base_models_size(), 2);
}

struct BadImport {
  const char* name;
  std::function<void(Files&)> change;
  const char* reason;
};

class AdminImportTest : public AdminServiceTest, public ::testing::WithParamInterface<BadImport> {};

TEST_P(AdminImportTest, IsRefusedAndLeavesNothing) {
  Files files = TinyFiles();
  GetParam().change(files);
  EXPECT_THAT(Import("tiny", files), StatusIs(kInvalid, GetParam().reason));
  EXPECT_EQ(Models().base_models_size(), 0);
  Restart();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("LlamaForCausalLM")));
  EXPECT_OK(ImportTiny());
}

INSTANTIATE_TEST_SUITE_P(
    All, AdminImportTest,
    ::testing::Values(
        BadImport{"OtherArchitecture",
                  [](Files& f) {
                    FileOf(f, "config.json") = absl::StrReplaceAll(
                        FileOf(f, "config.json"), {{"LlamaForCausalLM", "MambaForCausalLM"}});
                  },
                  "UNSUPPORTED_ARCHITECTURE"},
        BadImport{"NoConfig", [](Files& f) { Remove(f, "config.json"); }, "FILE_MISSING"},
        BadImport{"NoWeights", [](Files& f) { Remove(f, "model.safetensors"); }, "FILE_MISSING"},
        BadImport{"NoTokenizer", [](Files& f) { Remove(f, "tokenizer.json"); }, "FILE_MISSING"},
        BadImport{"BrokenConfig", [](Files& f) { FileOf(f, "config.json") = "{"; },
                  "MODEL_CONFIG_INVALID"},
        BadImport{
            "HeaderLargerThanFile",
            [](Files& f) {
              FileOf(f, "model.safetensors").replace(0, 8, "\xff\xff\xff\xff\xff\xff\xff\x7f", 8);
            },
            "SAFETENSORS_HEADER_TOO_LARGE"},
        BadImport{"OtherShape",
                  [](Files& f) {
                    FileOf(f, "config.json") = absl::StrReplaceAll(
                        FileOf(f, "config.json"), {{"\"vocab_size\": 512", "\"vocab_size\": 513"}});
                  },
                  "TENSOR_MISMATCH"},
        BadImport{"CorruptTokenizer", [](Files& f) { FileOf(f, "tokenizer.json") = "{}"; },
                  "TOKENIZER_INVALID"},
        BadImport{"CorruptTemplate",
                  [](Files& f) { FileOf(f, "chat_template.jinja") = "{% for x in %}"; },
                  "TEMPLATE_INVALID"},
        BadImport{
            "LoopingTemplate",
            [](Files& f) {
              FileOf(f, "chat_template.jinja") =
                  "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}"
                  "{% endfor %}{% endfor %}{% endfor %}";
            },
            "TEMPLATE_LIMIT"},
        BadImport{"FileThatIsNone", [](Files& f) { FileOf(f, "run.py") = "x"; },
                  "FILE_NOT_ALLOWED"},
        BadImport{"PathThatLeaves", [](Files& f) { FileOf(f, "../../x.safetensors") = "x"; },
                  "FILE_NOT_ALLOWED"},
        BadImport{"FileTwice", [](Files& f) { f.push_back(f[0]); }, "FILE_REPEATED"}),
    [](const auto& info) { return info.param.name; });

TEST_F(AdminServiceTest, ATruncatedModelIsRefused) {
  Files files = TinyFiles();
  FileOf(files, "model.safetensors").resize(FileOf(files, "model.safetensors").size() - 10);
  const auto status = Import("tiny", files).status();
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_THAT(ErrorReason(status), HasSubstr("SAFETENSORS_"));
}

TEST_F(AdminServiceTest, ChecksIdsSizesAndOrderOfAnImport) {
  for (const char* id : {"", "UPPER", "a/b", "..", ".x"}) {
    EXPECT_THAT(Import(id, TinyFiles()), StatusIs(kInvalid, "BASE_MODEL_ID_INVALID")) << id;
  }
  const auto send = [&](const std::vector<admin::v1::ImportBaseModelRequest>& messages) {
    const auto context = ContextWith(kOperatorKey);
    v1::BaseModel model;
    const auto stream = admin_->ImportBaseModel(context.get(), &model);
    for (const auto& message : messages) {
      if (!stream->Write(message)) break;
    }
    stream->WritesDone();
    return FromGrpcStatus(stream->Finish());
  };
  admin::v1::ImportBaseModelRequest options, start, data;
  options.mutable_options()->set_base_model_id("tiny");
  start.mutable_file_start()->set_file_name("config.json");
  start.mutable_file_start()->set_size_bytes(3);
  data.set_data("12345");
  EXPECT_THAT(send({}), StatusIs(kInvalid, "STREAM_ORDER"));
  EXPECT_THAT(send({start}), StatusIs(kInvalid, "STREAM_ORDER"));
  EXPECT_THAT(send({options, data}), StatusIs(kInvalid, "STREAM_ORDER"));
  EXPECT_THAT(send({options, options}), StatusIs(kInvalid, "STREAM_ORDER"));
  EXPECT_THAT(send({options, start, data}), StatusIs(kInvalid, "FILE_SIZE_MISMATCH"));
  EXPECT_THAT(send({options, start}), StatusIs(kInvalid, "FILE_SIZE_MISMATCH"));
  start.mutable_file_start()->set_size_bytes(int64_t{1} << 50);
  EXPECT_THAT(send({options, start}), StatusIs(kInvalid, "FILE_TOO_LARGE"));
  options.mutable_options()->mutable_limits()->set_min_rows(1);
  EXPECT_THAT(send({options}), StatusIs(kInvalid, "LIMITS_OUT_OF_RANGE"));
}

TEST_F(AdminServiceTest, AFullDiskRefusesAnImport) {
  {
    FullDisk full(100'000);
    EXPECT_THAT(ImportTiny(), StatusIs(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  }
  EXPECT_EQ(Models().base_models_size(), 0);
  EXPECT_OK(ImportTiny());
}

TEST_F(AdminServiceTest, AVectorsRowsAreCheckedAtOnceAndNotKeptWhenRefused) {
  ASSERT_OK(ImportTiny());
  EXPECT_THAT(TrainVector(Rows(99), Rows(20)), StatusIs(kInvalid, "TOO_FEW_ROWS"));
  EXPECT_THAT(TrainVector(Rows(100), Rows(19)), StatusIs(kInvalid, "TOO_FEW_ROWS"));
  const auto status = TrainVector(Rows(100) + "{broken marker row\n", Rows(20)).status();
  EXPECT_THAT(status, StatusIs(kInvalid, "ROWS_INVALID"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 INVALID_JSON"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("marker")));
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("question 1")));
  admin::v1::ListVectorsResponse list;
  ASSERT_TRUE(admin_->ListVectors(ContextWith(kOperatorKey).get(), {}, &list).ok());
  EXPECT_EQ(list.vectors_size(), 0);
}

TEST_F(AdminServiceTest, AVectorIsTrainedOnTopicsWhichGoWithTheTraining) {
  ASSERT_OK(ImportTiny());
  ASSERT_OK_AND_ASSIGN(const auto vector, TrainVectorWith({.topics = "riding penguins\n"}));
  Restart();
  ASSERT_OK_AND_ASSIGN(const auto response, Idle("w1"));
  const auto& task = response.work().train_vector();
  EXPECT_EQ(task.prohibited_blob(), "");
  EXPECT_EQ(ReadBlob("w1", response.work().lease(), task.topics_blob()).value(),
            "riding penguins\n");
  worker::v1::SynchronizeRequest failed = WorkerRequest("w1");
  *failed.mutable_finished()->mutable_lease() = response.work().lease();
  failed.mutable_finished()->mutable_error()->set_kind(v1::JobError::USER);
  failed.mutable_finished()->mutable_error()->set_reason("TOPICS_UNUSABLE");
  failed.set_draining(true);
  ASSERT_OK(Sync(failed));
  EXPECT_EQ(GetVector(vector.name())->state(), admin::v1::Vector::REJECTED);
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("penguins")));
}

TEST_F(AdminServiceTest, TopicsAreCheckedAndDoNotGoWithRows) {
  ASSERT_OK(ImportTiny());
  EXPECT_THAT(TrainVectorWith({.topics = "\n"}), StatusIs(kInvalid, "TOPICS_INVALID"));
  EXPECT_THAT(TrainVectorWith({.topics = std::string(201, 'x')}),
              StatusIs(kInvalid, "TOPICS_INVALID"));
  EXPECT_THAT(TrainVectorWith({.topics = std::string((1 << 20) + 1, '\n')}),
              StatusIs(kInvalid, "TOPICS_INVALID"));
  EXPECT_THAT(TrainVectorWith({.prohibited = Rows(100), .benign = Rows(20), .topics = "a topic"}),
              StatusIs(kInvalid, "TOPICS_INVALID"));
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("question 1")));
  admin::v1::VectorOptions options;
  options.mutable_search_budget()->set_seconds(1);
  EXPECT_THAT(TrainVectorWith({.options = options, .topics = "a topic"}),
              StatusIs(kInvalid, "SEARCH_BUDGET_OUT_OF_RANGE"));
}

TEST_F(AdminServiceTest, TheLifeOfAVector) {
  ASSERT_OK(ImportTiny());
  ASSERT_OK_AND_ASSIGN(const auto vector, TrainVector(Rows(100), Rows(20)));
  EXPECT_EQ(vector.state(), admin::v1::Vector::DRAFT);
  EXPECT_EQ(vector.version(), 1);
  EXPECT_THAT(EverythingStored(), HasSubstr("question 1"));
  EXPECT_THAT(Retire(vector.name()),
              StatusIs(absl::StatusCode::kFailedPrecondition, "VECTOR_NOT_ACTIVE"));
  Restart();
  ASSERT_OK_AND_ASSIGN(const auto response, Idle("w1"));
  const auto& work = response.work();
  ASSERT_TRUE(work.has_train_vector());
  EXPECT_EQ(ReadBlob("w1", work.lease(), work.train_vector().prohibited_blob()).value(), Rows(100));
  EXPECT_EQ(ReadBlob("w1", work.lease(), work.train_vector().benign_blob()).value(), Rows(20));
  ASSERT_OK(Busy("w1", work.lease(), 25));
  EXPECT_EQ(GetVector(vector.name())->progress(), 0.25);

  worker::v1::SynchronizeRequest done = WorkerRequest("w1");
  *done.mutable_finished()->mutable_lease() = work.lease();
  done.mutable_finished()->mutable_vector()->set_ciphertext_digest(DigestOf("sealed"));
  done.mutable_finished()->mutable_vector()->mutable_report()->set_benign_loss_with(1.5);
  done.set_draining(true);
  EXPECT_THAT(Sync(done), StatusIs(kInvalid, "RESULT_INVALID"));
  worker::v1::WriteBlobRequest kind;
  kind.set_sealed_vector(true);
  ASSERT_OK(WriteBlob(kind, "w1", work.lease(), "sealed"));
  ASSERT_OK(Sync(done));
  ASSERT_OK_AND_ASSIGN(const auto trained, GetVector(vector.name()));
  EXPECT_EQ(trained.state(), admin::v1::Vector::CERTIFYING);
  EXPECT_EQ(trained.ciphertext_digest(), DigestOf("sealed"));
  EXPECT_EQ(trained.report().benign_loss_with(), 1.5);
  EXPECT_FALSE(Models().base_models(0).ready());
  ASSERT_OK(Activate(vector.name()));
  EXPECT_TRUE(Models().base_models(0).ready());
  // The rows go; the sealed bytes stay.
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("question 1")));
  EXPECT_THAT(EverythingStored(), HasSubstr("sealed"));

  ASSERT_OK(Retire(vector.name()));
  EXPECT_FALSE(Models().base_models(0).ready());
  EXPECT_THAT(GetVector("vectors/none"), StatusIs(absl::StatusCode::kNotFound, "VECTOR_NOT_FOUND"));
}

TEST_F(AdminServiceTest, ListsWorkers) {
  ASSERT_OK(ImportTiny());
  ASSERT_OK(TrainVector(Rows(100), Rows(20)));
  ASSERT_OK_AND_ASSIGN(const auto response, Idle("w1"));
  admin::v1::ListWorkersResponse list;
  ASSERT_TRUE(admin_->ListWorkers(ContextWith(kOperatorKey).get(), {}, &list).ok());
  ASSERT_EQ(list.workers_size(), 1);
  EXPECT_EQ(list.workers(0).name(), "workers/w1");
  EXPECT_EQ(list.workers(0).device(), "cpu");
  EXPECT_EQ(list.workers(0).current_work(), response.work().lease().resource());
}

// A store that stops for good after the first blob that a call has made, as a crash of the server
// would stop it; or that does something else then.
class CrashingBlobs : public ForwardingBlobStore {
 public:
  using ForwardingBlobStore::ForwardingBlobStore;

  absl::StatusOr<std::unique_ptr<BlobWriter>> Create(const std::string& name) override {
    auto writer = ForwardingBlobStore::Create(name);
    if (!writer.ok()) return writer;
    return std::make_unique<Writer>(*this, *std::move(writer));
  }
  absl::Status Adopt(const std::string& name, const std::string& local_path) override {
    if (crashed_) return Crashed();
    const absl::Status status = ForwardingBlobStore::Adopt(name, local_path);
    after_first_();
    return status;
  }
  absl::Status DeletePrefix(const std::string& prefix) override {
    return crashed_ ? Crashed() : ForwardingBlobStore::DeletePrefix(prefix);
  }

  void OnFirst(std::function<void()> action) { after_first_ = std::move(action); }
  void Crash() { crashed_ = true; }

 private:
  class Writer : public BlobWriter {
   public:
    Writer(CrashingBlobs& blobs, std::unique_ptr<BlobWriter> inner)
        : blobs_(blobs), inner_(std::move(inner)) {}
    absl::Status Append(std::string_view bytes) override { return inner_->Append(bytes); }
    absl::Status Sync() override { return inner_->Sync(); }
    absl::StatusOr<std::string> Commit(std::string_view digest) override {
      if (blobs_.crashed_) return Crashed();
      auto result = inner_->Commit(digest);
      blobs_.after_first_();
      return result;
    }
    int64_t size_bytes() const override { return inner_->size_bytes(); }

   private:
    CrashingBlobs& blobs_;
    const std::unique_ptr<BlobWriter> inner_;
  };

  static absl::Status Crashed() {
    return MakeError(absl::StatusCode::kUnavailable, "FILE_IO", "the server is gone");
  }

  std::atomic<bool> crashed_ = false;
  std::function<void()> after_first_ = [] {};
};

class UnnamedBlobsTest : public ServerFixture {
 protected:
  BlobStore& ServerBlobs() override {
    crashing_ = std::make_unique<CrashingBlobs>(*blobs_);
    return *crashing_;
  }
  void CrashAfterTheFirstBlob() {
    crashing_->OnFirst([this] { crashing_->Crash(); });
  }
  std::unique_ptr<CrashingBlobs> crashing_;
};

TEST_F(UnnamedBlobsTest, RowsOfACrashedUploadAreDeletedAfterTheNextStart) {
  ASSERT_OK(ImportTiny());
  CrashAfterTheFirstBlob();
  EXPECT_THAT(TrainVector(Rows(100), Rows(20)),
              StatusIs(absl::StatusCode::kUnavailable, "FILE_IO"));
  ASSERT_THAT(EverythingStored(), HasSubstr("question 7"));
  Restart();
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("question 7")));
}

TEST_F(UnnamedBlobsTest, FilesOfACrashedImportAreDeletedAfterTheNextStart) {
  CrashAfterTheFirstBlob();
  EXPECT_THAT(ImportTiny(), StatusIs(absl::StatusCode::kUnavailable, "FILE_IO"));
  ASSERT_THAT(EverythingStored(), HasSubstr("/blobs/baseModels/"));
  Restart();
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), Not(HasSubstr("/config.json")));
  ASSERT_OK(ImportTiny());
}

TEST_F(UnnamedBlobsTest, ACrashedImportOfAKnownModelLeavesTheFilesOfTheFirst) {
  ASSERT_OK(ImportTiny());
  CrashAfterTheFirstBlob();
  EXPECT_THAT(ImportTiny("again"), StatusIs(absl::StatusCode::kUnavailable, "FILE_IO"));
  Restart();
  server_->SettleForTest();
  EXPECT_THAT(EverythingStored(), HasSubstr("/config.json"));
  UploadRows(10);
}

TEST_F(UnnamedBlobsTest, TheJanitorLeavesWhatARunningCallWrites) {
  ASSERT_OK(ImportTiny());
  crashing_->OnFirst([this] { server_->SettleForTest(); });
  ASSERT_OK(TrainVector(Rows(100), Rows(20)));
  ASSERT_OK_AND_ASSIGN(const auto response, Idle("w1"));
  ASSERT_TRUE(response.has_work());
  ASSERT_OK_AND_ASSIGN(
      const std::string rows,
      ReadBlob("w1", response.work().lease(), response.work().train_vector().prohibited_blob()));
  EXPECT_EQ(rows, Rows(100));
}

}  // namespace
}  // namespace ballast::server::testing
