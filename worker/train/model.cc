// SPDX-License-Identifier: Apache-2.0
#include "worker/train/model.h"

#include <ATen/ATen.h>

#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/artifact/base_model.h"
#include "common/artifact/safetensors.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "worker/train/memory.h"
#include "worker/train/rotary.h"

namespace ballast::worker {
namespace {

absl::Status Mismatch(std::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "TENSOR_MISMATCH",
                   absl::StrCat(absl::string_view(what.data(), what.size()),
                                "; the model folder does not fit its config.json"));
}

absl::StatusOr<at::ScalarType> FloatType(artifact::DType dtype, const std::string& name) {
  switch (dtype) {
    case artifact::DType::kF32:
      return at::kFloat;
    case artifact::DType::kF16:
      return at::kHalf;
    case artifact::DType::kBF16:
      return at::kBFloat16;
    default:
      return Mismatch(absl::StrCat("tensor ", name, " is not of type F32, F16 or BF16"));
  }
}

// The tensors of a folder, mapped, each handed out once.
class ModelFolder {
 public:
  static absl::StatusOr<ModelFolder> Open(const std::string& folder);

  // Copies tensor `name` into `target`, whose shape it must have.
  absl::Status Read(const std::string& name, const at::Tensor& target);

 private:
  absl::Status Add(const std::string& path);

  std::vector<MappedFile> files_;
  std::map<std::string, artifact::TensorView> tensors_;
};

absl::StatusOr<ModelFolder> ModelFolder::Open(const std::string& folder) {
  ModelFolder result;
  BALLAST_ASSIGN_OR_RETURN(const std::set<std::string> files, artifact::WeightFiles(folder));
  for (const std::string& shard : files) {
    BALLAST_RETURN_IF_ERROR(result.Add(absl::StrCat(folder, "/", shard)));
  }
  return result;
}

absl::Status ModelFolder::Add(const std::string& path) {
  BALLAST_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  absl::StatusOr<artifact::SafetensorsView> view = artifact::ParseSafetensors(file.bytes());
  if (!view.ok()) return Annotate(view.status(), path.substr(path.rfind('/') + 1));
  for (auto& [name, tensor] : view->tensors) {
    if (!tensors_.emplace(name, std::move(tensor)).second) {
      return Mismatch(absl::StrCat("tensor ", name, " is in two files"));
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status ModelFolder::Read(const std::string& name, const at::Tensor& target) {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return Mismatch(absl::StrCat("tensor ", name, " is missing"));
  const artifact::TensorView& tensor = it->second;
  if (at::IntArrayRef(tensor.shape) != target.sizes()) {
    return Mismatch(absl::StrCat("tensor ", name, " has the shape [",
                                 absl::StrJoin(tensor.shape, ", "), "], not [",
                                 absl::StrJoin(target.sizes(), ", "), "]"));
  }
  BALLAST_ASSIGN_OR_RETURN(const at::ScalarType type, FloatType(tensor.dtype, name));
  const auto options = at::TensorOptions().dtype(type);
  // A file may place a tensor at any offset: a copy is aligned.
  std::string aligned;
  const char* data = tensor.bytes.data();
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(type) != 0) {
    aligned = std::string(tensor.bytes);
    data = aligned.data();
  }
  target.copy_(at::from_blob(const_cast<char*>(data), tensor.shape, options));
  return absl::OkStatus();
}

absl::Status ReadLayers(ModelFolder& folder, Model& model) {
  const auto norm_options = at::TensorOptions().dtype(at::kFloat).device(model.device);
  for (int layer = 0; layer < model.config.layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    for (int g = 0; g < kGroups; ++g) {
      const auto group = static_cast<Group>(g);
      const GroupShape shape = ShapeOf(model.config, group);
      const at::Tensor stacked = model.clean->base(layer, group);
      int64_t row = 0;
      for (size_t m = 0; m < shape.modules.size(); ++m) {
        const std::string_view module = ModuleName(shape.modules[m]);
        BALLAST_RETURN_IF_ERROR(folder.Read(prefix + std::string(module) + ".weight",
                                            stacked.narrow(0, row, shape.module_out[m])));
        row += shape.module_out[m];
      }
    }
    model.attention_norms.push_back(at::empty({model.config.hidden}, norm_options));
    model.mlp_norms.push_back(at::empty({model.config.hidden}, norm_options));
    BALLAST_RETURN_IF_ERROR(
        folder.Read(prefix + "input_layernorm.weight", model.attention_norms.back()));
    BALLAST_RETURN_IF_ERROR(
        folder.Read(prefix + "post_attention_layernorm.weight", model.mlp_norms.back()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& folder, at::ScalarType type,
                                                 at::Device device) {
  // Before anything is allocated: a config may promise a far larger model than the folder holds.
  BALLAST_ASSIGN_OR_RETURN(artifact::BaseModelFacts facts, artifact::CheckBaseModelFolder(folder));
  BALLAST_ASSIGN_OR_RETURN(ModelFolder tensors, ModelFolder::Open(folder));
  auto model = std::make_unique<Model>();
  model->config = std::move(facts.config);
  model->parameters = facts.parameter_count;
  const artifact::ModelConfig& config = model->config;
  model->type = type;
  model->device = device;
  model->ops = MakeOps(device);
  const auto options = at::TensorOptions().dtype(type).device(device);
  model->embedding = at::empty({config.vocabulary, config.hidden}, options);
  PreferHugePages(model->embedding);
  BALLAST_RETURN_IF_ERROR(tensors.Read("model.embed_tokens.weight", model->embedding));
  model->clean = std::make_unique<LinearWeights>(config, type, device, /*secret=*/false);
  BALLAST_RETURN_IF_ERROR(ReadLayers(tensors, *model));
  model->final_norm = at::empty({config.hidden}, options.dtype(at::kFloat));
  BALLAST_RETURN_IF_ERROR(tensors.Read("model.norm.weight", model->final_norm));
  if (config.tied_embeddings) {
    model->head = model->embedding;
  } else {
    model->head = at::empty({config.vocabulary, config.hidden}, options);
    BALLAST_RETURN_IF_ERROR(tensors.Read("lm_head.weight", model->head));
  }
  model->rotary = MakeRotaryTable(config, device);
  return model;
}

}  // namespace ballast::worker
