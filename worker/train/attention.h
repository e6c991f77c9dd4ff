// SPDX-License-Identifier: Apache-2.0
// Causal attention within rows, as matrix products over blocks of queries: on a CPU these run at
// the speed of the processor's bf16 units, several times that of ATen's flash kernel
// (docs/results). Only the keys up to a block's last query are touched, so memory grows with the
// length, not with its square. Rows that share their beginnings are written out first (see
// PackedBatch).
#ifndef BALLAST_WORKER_TRAIN_ATTENTION_H_
#define BALLAST_WORKER_TRAIN_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include "worker/train/ops.h"
#include "worker/train/packed_batch.h"
#include "worker/train/workspace.h"

namespace ballast::worker {

// q [G, M * P, D], k and v [G, M, D] to heads [G, M * P, D]; lse float32 [G, E * P].
void AttentionForward(const Ops& ops, const PackedBatch& batch, const at::Tensor& q,
                      const at::Tensor& k, const at::Tensor& v, Workspace& workspace,
                      const at::Tensor& heads, const at::Tensor& lse);

// Gradients dq (T, as q), dk and dv (float32, as k and v) from dheads and delta, float32 [G, M * P]
// (see Ops::SplitHeads).
void AttentionBackward(const Ops& ops, const PackedBatch& batch, const at::Tensor& q,
                       const at::Tensor& k, const at::Tensor& v, const at::Tensor& lse,
                       const at::Tensor& dheads, const at::Tensor& delta, Workspace& workspace,
                       const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv);

}  // namespace ballast::worker

#endif  // BALLAST_WORKER_TRAIN_ATTENTION_H_
