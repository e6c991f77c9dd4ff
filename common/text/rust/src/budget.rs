// SPDX-License-Identifier: Apache-2.0
//! Runs untrusted template code within a budget of memory.
//!
//! The template engine counts steps, but one step can double a string, and forty of them fill any machine.
//! Rust cannot report a failed allocation to code that does not ask for it, and an allocator may neither
//! unwind nor return null without ending the process. So such code runs on a thread of its own, and the
//! allocator stops that thread for good at the allocation that would pass the budget. The thread stays
//! parked with what it had allocated, which the budget bounds; the caller does not run that template again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;

/// Bytes that one run may hold at a time, and may ask for in all.
#[derive(Clone, Copy)]
pub struct Budget {
    pub live_bytes: usize,
    pub total_bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Stopped {
    OverBudget,
    Panicked,
    NoThread,
}

const RUNNING: u8 = 0;
const FINISHED: u8 = 1;
const OVER_BUDGET: u8 = 2;

struct Signal {
    state: AtomicU8,
    waiter: Thread,
}

impl Signal {
    fn send(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.waiter.unpark();
    }
}

#[derive(Clone, Copy)]
struct Account {
    signal: *const Signal,
    live: usize,
    live_limit: usize,
    total: usize,
    total_limit: usize,
}

const CLOSED: Account =
    Account { signal: std::ptr::null(), live: 0, live_limit: 0, total: 0, total_limit: 0 };

thread_local! {
    // Constant and without a destructor: reading it never allocates.
    static ACCOUNT: Cell<Account> = const { Cell::new(CLOSED) };
}

/// The system's allocator, with the account of the calling thread where it has one.
pub struct BudgetAllocator;

impl BudgetAllocator {
    fn charge(&self, bytes: usize) {
        let _ = ACCOUNT.try_with(|cell| {
            let mut account = cell.get();
            if account.signal.is_null() {
                return;
            }
            account.live = account.live.saturating_add(bytes);
            account.total = account.total.saturating_add(bytes);
            cell.set(account);
            if account.live > account.live_limit || account.total > account.total_limit {
                // SAFETY: `run` keeps the signal alive on this thread's stack until the account is closed.
                unsafe { (*account.signal).send(OVER_BUDGET) };
                loop {
                    std::thread::park();
                }
            }
        });
    }

    fn refund(&self, bytes: usize) {
        let _ = ACCOUNT.try_with(|cell| {
            let mut account = cell.get();
            if !account.signal.is_null() {
                account.live = account.live.saturating_sub(bytes);
                cell.set(account);
            }
        });
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for BudgetAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.charge(layout.size());
        System.alloc(layout)
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.charge(layout.size());
        System.alloc_zeroed(layout)
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.refund(layout.size());
        System.dealloc(pointer, layout)
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both blocks can be there at once.
        self.charge(new_size);
        let moved = System.realloc(pointer, layout, new_size);
        self.refund(layout.size());
        moved
    }
}

/// Lets the calling thread allocate freely again. The panic hook calls it first: printing a panic takes the
/// process's locks, and a thread stopped in there would stop all others.
pub fn close_account() {
    let _ = ACCOUNT.try_with(|cell| cell.set(CLOSED));
}

/// Runs `work` on a thread of its own within `budget`. `work` must not hold a lock that others need, since
/// it may never come back.
pub fn run<T: Send + 'static>(
    budget: Budget,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stopped> {
    const STACK_BYTES: usize = 8 << 20;
    crate::quiet_panics();
    let signal = Arc::new(Signal { state: AtomicU8::new(RUNNING), waiter: std::thread::current() });
    let result = Arc::new(Mutex::new(None));
    let handle =
        std::thread::Builder::new().name("template".into()).stack_size(STACK_BYTES).spawn({
            let signal = Arc::clone(&signal);
            let result = Arc::clone(&result);
            move || {
                ACCOUNT.set(Account {
                    signal: Arc::as_ptr(&signal),
                    live: 0,
                    live_limit: budget.live_bytes,
                    total: 0,
                    total_limit: budget.total_bytes,
                });
                let value = catch_unwind(AssertUnwindSafe(work));
                ACCOUNT.set(CLOSED);
                if let Ok(mut place) = result.lock() {
                    *place = value.ok();
                }
                signal.send(FINISHED);
            }
        });
    let Ok(handle) = handle else {
        return Err(Stopped::NoThread);
    };
    loop {
        match signal.state.load(Ordering::Acquire) {
            RUNNING => std::thread::park(),
            OVER_BUDGET => return Err(Stopped::OverBudget),
            _ => break,
        }
    }
    let _ = handle.join();
    let value = result.lock().ok().and_then(|mut place| place.take());
    value.ok_or(Stopped::Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Budget = Budget { live_bytes: 1 << 20, total_bytes: 4 << 20 };

    #[test]
    fn hands_back_the_result() {
        assert_eq!(run(SMALL, || vec![7; 3]), Ok(vec![7; 3]));
    }

    #[test]
    fn stops_what_holds_too_much() {
        assert_eq!(run(SMALL, || vec![1u8; 2 << 20].len()), Err(Stopped::OverBudget));
    }

    #[test]
    fn stops_what_asks_for_too_much_in_all() {
        let work = || (0..100).map(|i| vec![1u8; 100_000 + i].len()).sum::<usize>();
        assert_eq!(run(SMALL, work), Err(Stopped::OverBudget));
    }

    #[test]
    fn a_panic_is_not_a_hang() {
        assert_eq!(run(SMALL, || -> u8 { panic!("planned") }), Err(Stopped::Panicked));
    }
}
