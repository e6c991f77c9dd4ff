/* SPDX-License-Identifier: Apache-2.0
 * The C interface of the crate `object_store`: S3, Google Cloud Storage, Azure Blob Storage. Only
 * server/blob includes it. See ballast_abi.h for the rules. Calls wait for the network, and try
 * again what the store refuses for the moment. Paths are those below the prefix of the store's URL.
 */
#ifndef BALLAST_COMMON_RUST_INCLUDE_BALLAST_OBJECT_STORE_H_
#define BALLAST_COMMON_RUST_INCLUDE_BALLAST_OBJECT_STORE_H_

#include "common/rust/include/ballast_abi.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  BALLAST_OBJECTS_OK = 0,
  BALLAST_OBJECTS_INVALID = 1,    /* a URL or an option that no store has */
  BALLAST_OBJECTS_NOT_FOUND = 2,  /* no such object, or no such bucket */
  BALLAST_OBJECTS_EXISTS = 3,     /* put with `only_new`: there is one */
  BALLAST_OBJECTS_PANIC = 4,      /* a bug of the library */
  BALLAST_OBJECTS_CHANGED = 5,    /* get with an etag: the object is another one now */
  BALLAST_OBJECTS_DENIED = 6,     /* credentials are missing, wrong, or not allowed to */
  BALLAST_OBJECTS_UNAVAILABLE = 7 /* anything else: network, time-out, an error of the store */
};

typedef struct BallastObjects BallastObjects;
typedef struct BallastObjectUpload BallastObjectUpload;

typedef struct {
  uint64_t size;
  BallastTextBuffer etag; /* of this version of the bytes; owned by the receiver */
} BallastObjectInfo;

/* The store of a URL: s3://BUCKET/PREFIX, gs://.. or az://... Credentials come from the
 * environment, as each cloud has it (keys, files, roles of the machine); `options` are `count`
 * pairs of a name and a value, those of the crate (as "endpoint", "region"), and go before it.
 * Nothing is sent yet. */
int32_t ballast_objects_open(BallastText url, const BallastText* options, size_t count,
                             BallastObjects** out, BallastTextBuffer* error);
void ballast_objects_free(BallastObjects* store);

/* Makes the object, whole. */
int32_t ballast_objects_put(const BallastObjects* store, BallastText path, BallastText bytes,
                            bool only_new, bool* out, BallastTextBuffer* error);
int32_t ballast_objects_head(const BallastObjects* store, BallastText path, BallastObjectInfo* out,
                             BallastTextBuffer* error);
/* `size` > 0 bytes at `offset`, which the object has; of the version with this etag, where it is
 * not empty. */
int32_t ballast_objects_get(const BallastObjects* store, BallastText path, BallastText etag,
                            uint64_t offset, uint64_t size, BallastTextBuffer* out,
                            BallastTextBuffer* error);
/* Objects below path + "/", by name: lines of a size, a tab and the rest of the name. */
int32_t ballast_objects_list(const BallastObjects* store, BallastText path, BallastTextBuffer* out,
                             BallastTextBuffer* error);
/* Deletes the object, if there is one, and all below path + "/"; the number of the latter. */
int32_t ballast_objects_delete_prefix(const BallastObjects* store, BallastText path, uint64_t* out,
                                      BallastTextBuffer* error);

/* Makes `to` what `from` is, by a copy that the store makes. */
int32_t ballast_objects_copy(const BallastObjects* store, BallastText from, BallastText to,
                             bool* out, BallastTextBuffer* error);
/* A URL by which the object can be got, or made by a PUT of its bytes, for so long, by whoever has
 * it. Whether there is an object does not matter. */
int32_t ballast_objects_link(const BallastObjects* store, BallastText path, bool put,
                             uint32_t seconds, BallastTextBuffer* out, BallastTextBuffer* error);

/* An object made of parts, which is there once all are (finish), and replaces one of its name. All
 * parts but the last have the same size, of 5 MiB or more. An upload is used by one thread at a
 * time; freeing one that is not finished drops its parts. */
int32_t ballast_objects_upload_new(const BallastObjects* store, BallastText path,
                                   BallastObjectUpload** out, BallastTextBuffer* error);
int32_t ballast_objects_upload_part(BallastObjectUpload* upload, BallastText bytes, bool* out,
                                    BallastTextBuffer* error);
int32_t ballast_objects_upload_finish(BallastObjectUpload* upload, bool* out,
                                      BallastTextBuffer* error);
void ballast_objects_upload_free(BallastObjectUpload* upload);

#ifdef __cplusplus
}
#endif

#endif /* BALLAST_COMMON_RUST_INCLUDE_BALLAST_OBJECT_STORE_H_ */
