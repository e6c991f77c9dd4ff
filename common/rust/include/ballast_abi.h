/* SPDX-License-Identifier: Apache-2.0
 * What the C interfaces of the Rust library (ADR 3) share.
 *
 * Strings and bytes have a length and are never NUL-terminated; strings are UTF-8. A function that
 * returns 0 has set its outputs; any other code leaves them alone and sets `error` to a message.
 * What is handed out is given back with the matching free function. No panic crosses the boundary.
 * Objects may be used from several threads at once, where their header does not say otherwise;
 * freeing one needs that nobody else uses it. */
#ifndef BALLAST_COMMON_RUST_INCLUDE_BALLAST_ABI_H_
#define BALLAST_COMMON_RUST_INCLUDE_BALLAST_ABI_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  const char* data;
  size_t size;
} BallastText;

/* Owned by the receiver: ballast_text_buffer_free. */
typedef struct {
  char* data;
  size_t size;
} BallastTextBuffer;

void ballast_text_buffer_free(BallastTextBuffer buffer);

#ifdef __cplusplus
}
#endif

#endif /* BALLAST_COMMON_RUST_INCLUDE_BALLAST_ABI_H_ */
