// SPDX-License-Identifier: Apache-2.0
//! The one Rust library of Ballast's programs (ADR 3): text for `common/text`, HTTP for `common/http`, object stores
//! for `server/blob`.

mod abi;
mod http;
mod object_store;
mod runtime;
mod text;

#[global_allocator]
static ALLOCATOR: text::BudgetAllocator = text::BudgetAllocator;
