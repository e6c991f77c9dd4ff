/* SPDX-License-Identifier: Apache-2.0
 * The C interface of the crate `reqwest`: bytes by HTTP. Only common/http includes it. See
 * ballast_abi.h for the rules. Calls wait for the network. No redirect is followed, and there are
 * no cookies. Errors name operation, host and status, never more of a URL: it may be a secret. */
#ifndef BALLAST_COMMON_RUST_INCLUDE_BALLAST_HTTP_H_
#define BALLAST_COMMON_RUST_INCLUDE_BALLAST_HTTP_H_

#include "common/rust/include/ballast_abi.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  BALLAST_HTTP_OK = 0,
  BALLAST_HTTP_INVALID = 1,     /* no URL or header, or not https where that is asked for */
  BALLAST_HTTP_REFUSED = 2,     /* an answer whose status is not a success */
  BALLAST_HTTP_UNREACHABLE = 3, /* no connection, or it stood still */
  BALLAST_HTTP_PANIC = 4,       /* a bug of the library */
  BALLAST_HTTP_STOPPED = 5,     /* the callback said so */
  BALLAST_HTTP_BROKEN = 6,      /* it broke off, or is not what was asked for */
  BALLAST_HTTP_SLOW = 7         /* bytes came, but too few */
};

typedef struct BallastHttp BallastHttp;

/* Most time for a connection, and for the next bytes (thrice for the answer to a PUT); also for
 * each 256 KiB of a GET. `allow_plain`: http:// to loopback, too, and no proxy of the environment.
 * Authorities are the system's; fails where it has none. */
int32_t ballast_http_open(uint32_t connect_ms, uint32_t idle_ms, bool allow_plain,
                          BallastHttp** out, BallastTextBuffer* error);
void ballast_http_free(BallastHttp* http);

/* Takes the next bytes; false ends the call. Also called without bytes, a few times a second while
 * none come. In the calling thread; must not throw. */
typedef bool (*BallastHttpSink)(void* context, const char* data, size_t size);
/* `size` > 0 bytes at `offset`. `status`: of the answer, 0 for none; it is set in any case. */
int32_t ballast_http_get(const BallastHttp* http, BallastText url, uint64_t offset, uint64_t size,
                         BallastHttpSink sink, void* context, uint32_t* status,
                         BallastTextBuffer* error);

/* Puts the next bytes there, at most `size`, and returns their number; less than 1 ends the call.
 * Also called with `size` 0, to be answered with 0 or -1, the end. Otherwise as BallastHttpSink. */
typedef int64_t (*BallastHttpSource)(void* context, char* data, size_t size);
/* A PUT of `size` bytes. `headers`: `count` pairs of a name and a value. */
int32_t ballast_http_put(const BallastHttp* http, BallastText url, const BallastText* headers,
                         size_t count, uint64_t size, BallastHttpSource source, void* context,
                         uint32_t* status, BallastTextBuffer* error);

#ifdef __cplusplus
}
#endif

#endif /* BALLAST_COMMON_RUST_INCLUDE_BALLAST_HTTP_H_ */
