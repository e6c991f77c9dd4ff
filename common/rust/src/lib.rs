// SPDX-License-Identifier: Apache-2.0
//! The one Rust library of Ballast's programs (ADR 3): text for `common/text`, object stores for `server/blob`.

mod abi;
mod object_store;
mod text;

#[global_allocator]
static ALLOCATOR: text::BudgetAllocator = text::BudgetAllocator;
