/* SPDX-License-Identifier: Apache-2.0
 * The C interface of HF tokenizers and minijinja. Only common/text includes it. See ballast_abi.h
 * for the rules. */
#ifndef BALLAST_COMMON_RUST_INCLUDE_BALLAST_TEXT_H_
#define BALLAST_COMMON_RUST_INCLUDE_BALLAST_TEXT_H_

#include "common/rust/include/ballast_abi.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  BALLAST_TEXT_OK = 0,
  BALLAST_TEXT_INVALID = 1, /* the input cannot be read: tokenizer, template, bad UTF-8 */
  BALLAST_TEXT_FAILED = 2,  /* the template raised, or the text cannot be tokenised */
  BALLAST_TEXT_LIMIT = 3, /* the template took too many steps, too much memory or too much output */
  BALLAST_TEXT_PANIC = 4, /* a bug of the library; the object is still usable */
  BALLAST_TEXT_BUSY = 5   /* the system gave no thread or no memory for it; try again */
};

/* `size` tokens; owned by the receiver: ballast_text_encoding_free. */
typedef struct {
  uint32_t* ids;
  uint32_t* begin; /* byte offsets in the text */
  uint32_t* end;
  size_t size;
} BallastTextEncoding;

typedef struct {
  BallastText role;
  BallastText content;
} BallastTextMessage;

typedef struct BallastTextTokenizer BallastTextTokenizer;
typedef struct BallastTextTemplate BallastTextTemplate;

void ballast_text_encoding_free(BallastTextEncoding encoding);

/* Tokenizer from the bytes of tokenizer.json; its truncation and padding settings are ignored. */
int32_t ballast_text_tokenizer_new(BallastText json, BallastTextTokenizer** out,
                                   BallastTextBuffer* error);
void ballast_text_tokenizer_free(BallastTextTokenizer* tokenizer);
int32_t ballast_text_tokenizer_encode(const BallastTextTokenizer* tokenizer, BallastText text,
                                      bool add_special_tokens, BallastTextEncoding* out,
                                      BallastTextBuffer* error);
int32_t ballast_text_tokenizer_decode(const BallastTextTokenizer* tokenizer, const uint32_t* ids,
                                      size_t size, bool skip_special_tokens, BallastTextBuffer* out,
                                      BallastTextBuffer* error);
/* -1 when there is no such token. */
int64_t ballast_text_tokenizer_token_to_id(const BallastTextTokenizer* tokenizer,
                                           BallastText token);
size_t ballast_text_tokenizer_vocabulary_size(const BallastTextTokenizer* tokenizer);
/* Added tokens flagged special, by id. The strings live as long as the tokenizer. */
size_t ballast_text_tokenizer_special_count(const BallastTextTokenizer* tokenizer);
BallastText ballast_text_tokenizer_special_at(const BallastTextTokenizer* tokenizer, size_t index);

/* Chat template. `bos` and `eos` become bos_token and eos_token where they are not empty;
 * `unix_seconds` is what strftime_now takes for now, in UTC. */
int32_t ballast_text_template_new(BallastText source, BallastText bos, BallastText eos,
                                  BallastTextTemplate** out, BallastTextBuffer* error);
void ballast_text_template_free(BallastTextTemplate* chat_template);
int32_t ballast_text_template_render(const BallastTextTemplate* chat_template,
                                     const BallastTextMessage* messages, size_t count,
                                     bool add_generation_prompt, int64_t unix_seconds,
                                     BallastTextBuffer* out, BallastTextBuffer* error);

#ifdef __cplusplus
}
#endif

#endif /* BALLAST_COMMON_RUST_INCLUDE_BALLAST_TEXT_H_ */
