// SPDX-License-Identifier: Apache-2.0
//! What the C interfaces share (`include/ballast_abi.h`): strings, errors, and a barrier for panics.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

/// Codes that all headers have.
pub const INVALID: i32 = 1;
pub const PANIC: i32 = 4;

/// Why a call did not succeed: a code of the call's header, and words.
#[derive(Debug)]
pub struct Failure {
    pub code: i32,
    pub message: String,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    data: *const u8,
    size: usize,
}

impl Text {
    pub fn borrowed(text: &str) -> Text {
        Text { data: text.as_ptr(), size: text.len() }
    }

    /// # Safety
    /// `data` points to `size` bytes that live as long as the result is used.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.size == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(self.data, self.size)
        }
    }

    /// # Safety
    /// As `bytes`.
    pub unsafe fn str<'a>(self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.bytes())
            .map_err(|_| Failure { code: INVALID, message: "the text is not UTF-8".into() })
    }
}

#[repr(C)]
pub struct TextBuffer {
    data: *mut u8,
    size: usize,
}

impl TextBuffer {
    pub fn owned(bytes: impl Into<Vec<u8>>) -> TextBuffer {
        let bytes = Box::leak(bytes.into().into_boxed_slice());
        TextBuffer { data: bytes.as_mut_ptr(), size: bytes.len() }
    }
}

/// Panic messages can quote what was being processed, which is a customer's text: print the place only.
pub fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            crate::text::close_account();
            if let Some(place) = info.location() {
                eprintln!("ballast_rust: internal error at {}:{}", place.file(), place.line());
            }
        }));
    });
}

/// Runs `body`, stores its result or its error, and returns the code of the header.
///
/// # Safety
/// `out` and `error` are valid for one write.
pub unsafe fn guarded<T>(
    out: *mut T,
    error: *mut TextBuffer,
    body: impl FnOnce() -> Result<T, Failure>,
) -> i32 {
    quiet_panics();
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => {
            out.write(value);
            return 0;
        }
        Ok(Err(failure)) => failure,
        Err(_) => {
            Failure { code: PANIC, message: "internal error in the library of crates".into() }
        }
    };
    error.write(TextBuffer::owned(failure.message));
    failure.code
}

/// # Safety
/// `data` is null, or a leaked boxed slice of `size`.
pub unsafe fn free_slice<T>(data: *mut T, size: usize) {
    if !data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(data, size)));
    }
}

/// # Safety
/// See the header.
#[no_mangle]
pub unsafe extern "C" fn ballast_text_buffer_free(buffer: TextBuffer) {
    free_slice(buffer.data, buffer.size);
}
