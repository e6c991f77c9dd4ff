// SPDX-License-Identifier: Apache-2.0
// gRPC and libtorch in one process. The libtorch wheel exports some hundred google::protobuf
// symbols of its own, of another version than the one gRPC uses; whichever library the loader meets
// first, both must go on working. This source is built twice, with either link order.
#include <ATen/ATen.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ballast/v1/base_model_service.grpc.pb.h"

namespace ballast {
namespace {

constexpr int64_t kRows = 64, kInner = 128, kColumns = 96;

// Sum of a product of integers small enough that bf16 inputs are exact, so that the right answer is
// known.
int64_t SumOfBfloat16Product() {
  at::Tensor a = at::arange(kRows * kInner).remainder(7).sub(3).reshape({kRows, kInner});
  at::Tensor b = at::arange(kColumns * kInner).remainder(5).sub(1).reshape({kColumns, kInner});
  at::Tensor product = at::linear(a.to(at::kBFloat16), b.to(at::kBFloat16));
  return product.to(at::kFloat).round().to(at::kLong).sum().item<int64_t>();
}

// The same by plain loops.
int64_t ExpectedSum() {
  int64_t sum = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t column = 0; column < kColumns; ++column) {
      int64_t dot = 0;
      for (int64_t i = 0; i < kInner; ++i) {
        dot += ((row * kInner + i) % 7 - 3) * ((column * kInner + i) % 5 - 1);
      }
      // The result of each dot product is rounded to bf16 once.
      sum += static_cast<int64_t>(static_cast<float>(c10::BFloat16(static_cast<float>(dot))));
    }
  }
  return sum;
}

// Answers with a number that libtorch computed inside the handler.
class TorchService final : public v1::BaseModelService::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetBaseModel(grpc::CallbackServerContext* context,
                                         const v1::GetBaseModelRequest* request,
                                         v1::BaseModel* response) override {
    response->set_name(request->name());
    response->set_parameter_count(SumOfBfloat16Product());
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

class GrpcTorchSmokeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                   grpc::InsecureChannelCredentials());
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown();
  }

  TorchService service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(GrpcTorchSmokeTest, HandlersComputeWithTorchFromSeveralThreads) {
  const int64_t expected = ExpectedSum();
  ASSERT_NE(expected, 0);
  std::vector<int64_t> answers(4, 0);
  std::vector<std::thread> clients;
  for (int64_t& answer : answers) {
    clients.emplace_back([this, &answer] {
      auto stub = v1::BaseModelService::NewStub(channel_);
      for (int call = 0; call < 5; ++call) {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
        v1::GetBaseModelRequest request;
        request.set_name("baseModels/smoke");
        v1::BaseModel response;
        const grpc::Status status = stub->GetBaseModel(&context, request, &response);
        ASSERT_TRUE(status.ok()) << status.error_message();
        answer = response.parameter_count();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (int64_t answer : answers) EXPECT_EQ(answer, expected);
}

TEST_F(GrpcTorchSmokeTest, ErrorsOfUnimplementedMethodsArrive) {
  auto stub = v1::BaseModelService::NewStub(channel_);
  grpc::ClientContext context;
  v1::ListBaseModelsResponse response;
  EXPECT_EQ(stub->ListBaseModels(&context, {}, &response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST(ProtobufWithTorch, DescriptorsJsonAndAutogradWorkTogether) {
  at::Tensor weight = at::ones({3});
  weight.set_requires_grad(true);
  (weight * weight).sum().backward();

  v1::BaseModel model;
  model.set_name("baseModels/smoke");
  model.set_parameter_count(weight.grad().sum().item<int64_t>());  // d(w*w)/dw = 2, three times
  std::string json;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(model, &json).ok());
  EXPECT_EQ(json, R"({"name":"baseModels/smoke","parameterCount":"6"})");
  v1::BaseModel back;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(json, &back).ok());
  EXPECT_EQ(back.SerializeAsString(), model.SerializeAsString());
  EXPECT_NE(google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(
                "ballast.v1.BaseModelService"),
            nullptr);
}

}  // namespace
}  // namespace ballast
