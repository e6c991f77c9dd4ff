// SPDX-License-Identifier: Apache-2.0
//! A `tokenizers::Tokenizer` whose offsets are exact bytes of the text.

use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{PostProcessor, Tokenizer};

use super::{Code, TextError};

pub struct Tokens {
    pub ids: Vec<u32>,
    pub begin: Vec<u32>,
    pub end: Vec<u32>,
}

pub struct TextTokenizer {
    inner: Tokenizer,
    // Taken out of `inner`: even when no special tokens are asked for, the byte-level processor moves the
    // offsets of tokens with leading spaces, and the spans of supervised text need them where they were.
    post_processor: Option<PostProcessorWrapper>,
    special: Vec<String>,
}

impl TextTokenizer {
    pub fn from_json(json: &[u8]) -> Result<Self, TextError> {
        let invalid =
            |error: &dyn std::fmt::Display| TextError::new(Code::Invalid, error.to_string());
        let mut inner = Tokenizer::from_bytes(json).map_err(|error| invalid(&error))?;
        inner.with_truncation(None).map_err(|error| invalid(&error))?;
        inner.with_padding(None);
        let post_processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let mut special: Vec<(u32, String)> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (id, token.content))
            .collect();
        special.sort();
        Ok(TextTokenizer {
            inner,
            post_processor,
            special: special.into_iter().map(|(_, content)| content).collect(),
        })
    }

    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Tokens, TextError> {
        // Offsets are handed out in 32 bits.
        if u32::try_from(text.len()).is_err() {
            return Err(TextError::new(Code::Failed, "the text is longer than 4 GiB"));
        }
        // The library's messages can quote the text.
        let failed = |_| TextError::new(Code::Failed, "the text cannot be tokenised");
        let mut encoding = self.inner.encode(text, false).map_err(failed)?;
        if add_special_tokens {
            if let Some(post_processor) = &self.post_processor {
                encoding = post_processor.process(encoding, None, true).map_err(failed)?;
            }
        }
        let offsets = encoding.get_offsets();
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            begin: offsets.iter().map(|offset| offset.0 as u32).collect(),
            end: offsets.iter().map(|offset| offset.1 as u32).collect(),
        })
    }

    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TextError> {
        self.inner
            .decode(ids, skip_special_tokens)
            .map_err(|_| TextError::new(Code::Failed, "the tokens cannot be decoded"))
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    pub fn special_tokens(&self) -> &[String] {
        &self.special
    }
}
