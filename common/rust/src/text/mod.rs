// SPDX-License-Identifier: Apache-2.0
//! The C interface of `include/ballast_text.h`: conversions and panic barriers, nothing else.

mod budget;
mod ledger;
mod python;
mod template;
mod tokenizer;

use std::panic::{catch_unwind, AssertUnwindSafe};

pub use budget::{close_account, BudgetAllocator};

use crate::abi::{free_slice, guarded, Failure, Text, TextBuffer};
use template::ChatTemplate;
use tokenizer::TextTokenizer;

/// Why a call did not succeed; the discriminants are those of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    Invalid = 1,
    Failed = 2,
    Limit = 3,
    Panic = 4,
    Busy = 5,
}

#[derive(Debug)]
pub struct TextError {
    pub code: Code,
    pub message: String,
}

impl TextError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        TextError { code, message: message.into() }
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Failure {
        Failure { code: error.code as i32, message: error.message }
    }
}

#[repr(C)]
pub struct TextEncoding {
    ids: *mut u32,
    begin: *mut u32,
    end: *mut u32,
    size: usize,
}

#[repr(C)]
pub struct TextMessage {
    role: Text,
    content: Text,
}

fn leak(values: Vec<u32>) -> *mut u32 {
    Box::leak(values.into_boxed_slice()).as_mut_ptr()
}

/// # Safety
/// See the header; the same holds for every function below.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_encoding_free(encoding: TextEncoding) {
    free_slice(encoding.ids, encoding.size);
    free_slice(encoding.begin, encoding.size);
    free_slice(encoding.end, encoding.size);
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_tokenizer_new(
    json: Text,
    out: *mut *mut TextTokenizer,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || Ok(Box::into_raw(Box::new(TextTokenizer::from_json(json.bytes())?))))
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_tokenizer_free(tokenizer: *mut TextTokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_tokenizer_encode(
    tokenizer: *const TextTokenizer,
    text: Text,
    add_special_tokens: bool,
    out: *mut TextEncoding,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        let tokens = (*tokenizer).encode(text.str()?, add_special_tokens)?;
        let size = tokens.ids.len();
        Ok(TextEncoding {
            ids: leak(tokens.ids),
            begin: leak(tokens.begin),
            end: leak(tokens.end),
            size,
        })
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_tokenizer_decode(
    tokenizer: *const TextTokenizer,
    ids: *const u32,
    size: usize,
    skip_special_tokens: bool,
    out: *mut TextBuffer,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        let ids = if size == 0 { &[] } else { std::slice::from_raw_parts(ids, size) };
        Ok(TextBuffer::owned((*tokenizer).decode(ids, skip_special_tokens)?))
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_tokenizer_token_to_id(
    tokenizer: *const TextTokenizer,
    token: Text,
) -> i64 {
    catch_unwind(AssertUnwindSafe(|| {
        token.str().ok().and_then(|token| (*tokenizer).token_to_id(token)).map_or(-1, i64::from)
    }))
    .unwrap_or(-1)
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_tokenizer_vocabulary_size(
    tokenizer: *const TextTokenizer,
) -> usize {
    (*tokenizer).vocabulary_size()
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_tokenizer_special_count(
    tokenizer: *const TextTokenizer,
) -> usize {
    (*tokenizer).special_tokens().len()
}

/// # Safety
/// See the header; an index out of range gives an empty string.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_tokenizer_special_at(
    tokenizer: *const TextTokenizer,
    index: usize,
) -> Text {
    let tokens: &[String] = (*tokenizer).special_tokens();
    tokens.get(index).map_or(Text::borrowed(""), |token| Text::borrowed(token))
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_template_new(
    source: Text,
    bos: Text,
    eos: Text,
    out: *mut *mut ChatTemplate,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        let chat_template = ChatTemplate::new(source.str()?, bos.str()?, eos.str()?)?;
        Ok(Box::into_raw(Box::new(chat_template)))
    })
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_template_free(chat_template: *mut ChatTemplate) {
    if !chat_template.is_null() {
        drop(Box::from_raw(chat_template));
    }
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_template_render(
    chat_template: *const ChatTemplate,
    messages: *const TextMessage,
    count: usize,
    add_generation_prompt: bool,
    unix_seconds: i64,
    out: *mut TextBuffer,
    error: *mut TextBuffer,
) -> i32 {
    guarded(out, error, || {
        let messages = if count == 0 { &[] } else { std::slice::from_raw_parts(messages, count) };
        let mut pairs = Vec::with_capacity(count);
        for message in messages {
            pairs.push((message.role.str()?, message.content.str()?));
        }
        Ok(TextBuffer::owned((*chat_template).render(&pairs, add_generation_prompt, unix_seconds)?))
    })
}
