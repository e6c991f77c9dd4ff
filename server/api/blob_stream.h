// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_SERVER_API_BLOB_STREAM_H_
#define BALLAST_SERVER_API_BLOB_STREAM_H_

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/base/digest.h"
#include "common/base/error.h"
#include "server/api/call.h"
#include "server/core/blob_store.h"

namespace ballast::server {

// What a BlobStream sends.
struct BlobRange {
  std::unique_ptr<BlobReader> reader;
  int64_t begin = 0;
  int64_t end = 0;     // one past the last byte
  std::string digest;  // checked when the range is the whole blob; empty for none
};

// What a call of BlobStream is answered with.
template <typename Response>
struct BlobAnswer {
  // Both convert: what finds the bytes returns either.
  BlobAnswer(BlobRange bytes)  // NOLINT(google-explicit-constructor)
      : range(std::move(bytes)) {}
  BlobAnswer(Response response)  // NOLINT(google-explicit-constructor)
      : in_place(std::move(response)) {}

  BlobRange range;
  std::optional<Response> in_place;  // of the bytes
};

// A server-streaming RPC that sends part of a blob as messages with `data`. Deletes itself.
template <typename Response>
class BlobStream : public grpc::ServerWriteReactor<Response> {
 public:
  // `open` authorises and finds the bytes, a BlobRange or a BlobAnswer<Response>; it runs on a
  // thread for transfers.
  template <typename Open>
  BlobStream(const ApiContext& api, const char* method, grpc::CallbackServerContext* context,
             Open open)
      : call_(api, method), context_(context) {
    api.idle_streams.Suspend(context);
    api.transfers.Run([this, open = std::move(open)] {
      absl::StatusOr<BlobAnswer<Response>> answer = open(call_.Now());
      if (!answer.ok()) {
        End(answer.status());
        return;
      }
      if (answer->in_place.has_value()) {
        response_ = *std::move(answer->in_place);
        call_.api().idle_streams.WaitFrom(context_, call_.Now());
        this->StartWrite(&response_);
        return;
      }
      range_ = std::move(answer->range);
      next_ = range_.begin;
      Send();
    });
  }

 private:
  void OnWriteDone(bool ok) final {
    call_.api().idle_streams.Suspend(context_);
    call_.api().transfers.Run([this, ok] {
      if (ok) {
        Send();
      } else {
        End(absl::CancelledError("the client went away"));
      }
    });
  }

  void OnDone() final {
    call_.api().idle_streams.Remove(context_);
    delete this;
  }

  // Nothing of this object may be touched after it.
  void End(const absl::Status& status) {
    call_.api().idle_streams.WaitFrom(context_, call_.Now());
    this->Finish(call_.End(status));
  }

  void Send() {
    if (context_->IsCancelled()) {
      End(absl::CancelledError("the client went away"));
      return;
    }
    if (next_ >= range_.end) {
      End(CheckDigest());
      return;
    }
    const auto wanted = static_cast<size_t>(std::min<int64_t>(kReadChunkBytes, range_.end - next_));
    absl::StatusOr<std::string> bytes = range_.reader->Read(next_, wanted);
    if (bytes.ok() && bytes->size() != wanted) bytes = Corrupt();
    if (!bytes.ok()) {
      End(bytes.status());
      return;
    }
    sha_.Update(*bytes);
    call_.api().metrics.CountSentBytes(static_cast<int64_t>(wanted));
    next_ += static_cast<int64_t>(wanted);
    response_.set_data(*std::move(bytes));
    // A client that does not read holds a file and a buffer: it is given up like one that is
    // silent.
    call_.api().idle_streams.WaitFrom(context_, call_.Now());
    this->StartWrite(&response_);
  }

  static absl::Status Corrupt() {
    return MakeError(absl::StatusCode::kDataLoss, "BLOB_CORRUPT",
                     "the stored bytes are damaged; tell the operator");
  }

  absl::Status CheckDigest() {
    if (range_.reader == nullptr) return absl::OkStatus();
    const bool whole = range_.begin == 0 && range_.end == range_.reader->size_bytes();
    if (range_.digest.empty() || !whole || sha_.Finish() == range_.digest) return absl::OkStatus();
    return Corrupt();
  }

  const Call call_;
  grpc::CallbackServerContext* const context_;
  BlobRange range_;
  int64_t next_ = 0;
  Sha256 sha_;
  Response response_;
};

}  // namespace ballast::server

#endif  // BALLAST_SERVER_API_BLOB_STREAM_H_
