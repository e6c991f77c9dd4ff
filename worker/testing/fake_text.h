// SPDX-License-Identifier: Apache-2.0
#ifndef BALLAST_WORKER_TESTING_FAKE_TEXT_H_
#define BALLAST_WORKER_TESTING_FAKE_TEXT_H_

#include "common/text/tokenizer.h"

namespace ballast::worker::testing {

// Text of a made-up model for tests: one token a byte, "<|end|>" is token 256 and ends a reply, and
// a chat is "role: content<|end|>\n" for each message.
text::ModelText FakeModelText();

}  // namespace ballast::worker::testing

#endif  // BALLAST_WORKER_TESTING_FAKE_TEXT_H_
