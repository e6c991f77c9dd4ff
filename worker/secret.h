// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_SECRET_H_
#define BALLAST_WORKER_SECRET_H_

#include <cstddef>
#include <string_view>

namespace ballast::worker {

// Bytes of a secret: on pages of their own, kept out of swap where allowed (mlock), out of core
// dumps and of forked children (madvise), and overwritten with zeros when released. Move-only.
class SecretBuffer {
 public:
  SecretBuffer() = default;
  explicit SecretBuffer(size_t size);  // zeroed
  static SecretBuffer CopyOf(std::string_view bytes);
  SecretBuffer(SecretBuffer&& other) noexcept;
  SecretBuffer& operator=(SecretBuffer&& other) noexcept;
  SecretBuffer(const SecretBuffer&) = delete;
  SecretBuffer& operator=(const SecretBuffer&) = delete;
  ~SecretBuffer();

  char* data() { return data_; }
  const char* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::string_view view() const { return {data_, size_}; }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_bytes_ = 0;
};

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_SECRET_H_
