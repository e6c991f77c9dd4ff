// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TRAIN_WORKSPACE_H_
#define BALLAST_WORKER_TRAIN_WORKSPACE_H_

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "worker/train/memory.h"

namespace ballast::worker {

// Memory that is kept between micro-batches: a name gives the same storage each time, grown when a
// larger tensor is asked for. Avoids returning hundreds of megabytes to the system, and faulting
// them in again, several times a second. Contents are undefined. Thread safety: not thread-safe.
class Workspace {
 public:
  Workspace(at::ScalarType type, at::Device device) : type_(type), device_(device) {}

  // A dense tensor in the storage `name`, in the compute type unless `type` says otherwise. Valid
  // until the next Get of the same name.
  at::Tensor Get(const std::string& name, at::IntArrayRef shape) { return Get(name, shape, type_); }
  at::Tensor Get(const std::string& name, at::IntArrayRef shape, at::ScalarType type) {
    const int64_t elements = c10::multiply_integers(shape);
    at::Tensor& storage = storages_[name];
    if (!storage.defined() || storage.numel() < elements) {
      storage = at::Tensor();  // free before growing
      storage = at::empty({elements}, at::TensorOptions().dtype(type).device(device_));
      PreferHugePages(storage);
    }
    return storage.narrow(0, 0, elements).view(shape);
  }

  // Gives all memory back, overwritten with zeros first when `wipe`.
  void Clear(bool wipe) {
    if (wipe) {
      for (auto& [name, storage] : storages_) storage.zero_();
    }
    storages_.clear();
  }

 private:
  at::ScalarType type_;
  at::Device device_;
  std::map<std::string, at::Tensor> storages_;
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_WORKSPACE_H_
