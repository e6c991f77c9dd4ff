// SPDX-License-Identifier: Apache-2.0
//! Runs untrusted template code within a budget of memory.
//!
//! The template engine counts steps, but one step can double a string, and forty of them fill any machine.
//! Rust cannot report a failed allocation to code that does not ask for it, and an allocator may neither
//! unwind nor return null without ending the process. So such code runs on a stack of its own (ucontext), and
//! the allocator leaves that stack for good at the allocation that would pass the budget: to the code on it
//! the allocation never returns. Then nobody can reach the blocks that it had allocated, which a ledger
//! lists, and they are freed; the stack is used again. Nothing stays behind, so no template and no base is ever barred.
//!
//! A thread of its own besides: what the engine had in thread-local variables is gone with the thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::Mutex;

use super::ledger::Ledger;

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
    /// The system gave no thread or no stack.
    NoThread,
}

const STACK_BYTES: usize = 8 << 20;
const GUARD_BYTES: usize = 64 << 10;
// What a block costs beyond its bytes, here and in the system's allocator.
const BLOCK_BYTES: usize = 64;

struct Run {
    // Whether allocations count, and may end the run.
    open: bool,
    finished: bool,
    live: usize,
    live_limit: usize,
    total: usize,
    total_limit: usize,
    ledger: Ledger,
    stack: Stack,
    job: *mut (),
    caller: MaybeUninit<libc::ucontext_t>,
    work: MaybeUninit<libc::ucontext_t>,
}

struct Job<T, F> {
    work: Option<F>,
    result: Option<T>,
}

thread_local! {
    // Constant and without a destructor: reading it never allocates.
    static ACTIVE: Cell<*mut Run> = const { Cell::new(ptr::null_mut()) };
}

impl Run {
    /// Counts a block of `bytes` that is about to be allocated, or leaves the run.
    unsafe fn charge(&mut self, bytes: usize) {
        self.live = self.live.saturating_add(bytes).saturating_add(BLOCK_BYTES);
        self.total = self.total.saturating_add(bytes);
        if self.live > self.live_limit || self.total > self.total_limit || !self.ledger.reserve() {
            self.open = false;
            libc::setcontext(self.caller.as_ptr());
            std::process::abort();
        }
    }

    fn forget(&mut self, block: *mut u8) {
        if let Some(layout) = self.ledger.remove(block) {
            self.live = self.live.saturating_sub(layout.size().saturating_add(BLOCK_BYTES));
        }
    }
}

/// The system's allocator, with the account of the calling thread where it has one.
pub struct BudgetAllocator;

/// The run of the calling thread.
fn active() -> *mut Run {
    ACTIVE.try_with(Cell::get).unwrap_or(ptr::null_mut())
}

impl BudgetAllocator {
    unsafe fn counted(layout: Layout, allocate: impl FnOnce() -> *mut u8) -> *mut u8 {
        let run = active();
        if run.is_null() || !(*run).open {
            return allocate();
        }
        (*run).charge(layout.size());
        let block = allocate();
        if !block.is_null() {
            (*run).ledger.add(block, layout);
        }
        block
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting does not come back here.
unsafe impl GlobalAlloc for BudgetAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::counted(layout, || System.alloc(layout))
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::counted(layout, || System.alloc_zeroed(layout))
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let run = active();
        if !run.is_null() {
            (*run).forget(block);
        }
        System.dealloc(block, layout);
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let run = active();
        if run.is_null() {
            return System.realloc(block, layout, new_size);
        }
        // Both blocks can be there at once.
        let new_layout = Layout::from_size_align_unchecked(new_size, layout.align());
        let moved = Self::counted(new_layout, || System.alloc(new_layout));
        if !moved.is_null() {
            ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
            self.dealloc(block, layout);
        }
        moved
    }
}

/// Lets the calling thread allocate freely again. The panic hook calls it first: printing a panic takes the
/// process's locks, and a thread stopped in there would stop all others.
pub fn close_account() {
    let run = active();
    if !run.is_null() {
        // SAFETY: the run outlives its thread, which alone uses it until then.
        unsafe { (*run).open = false };
    }
}

/// A stack with a guard below it.
struct Stack(*mut libc::c_void);
// SAFETY: memory that its owner alone uses.
unsafe impl Send for Stack {}

// Stacks to use again: to map and touch a new one takes as long as a small chat.
static STACKS: Mutex<Vec<Stack>> = Mutex::new(Vec::new());
const MAX_SPARE_STACKS: usize = 4;

impl Stack {
    fn take() -> Option<Stack> {
        STACKS.lock().ok().and_then(|mut spare| spare.pop()).or_else(Stack::new)
    }

    fn give_back(self) {
        if let Ok(mut spare) = STACKS.lock() {
            if spare.len() < MAX_SPARE_STACKS {
                spare.push(self);
            }
        }
    }

    fn new() -> Option<Stack> {
        // SAFETY: a new mapping, of which the lowest part is closed.
        unsafe {
            let base = libc::mmap(
                ptr::null_mut(),
                GUARD_BYTES + STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            );
            if base == libc::MAP_FAILED {
                return None;
            }
            let stack = Stack(base);
            (libc::mprotect(base, GUARD_BYTES, libc::PROT_NONE) == 0).then_some(stack)
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing runs on it any more.
        unsafe { libc::munmap(self.0, GUARD_BYTES + STACK_BYTES) };
    }
}

/// The first and last function on the run's own stack.
extern "C" fn begin<T, F: FnOnce() -> T>() {
    let run = active();
    // SAFETY: `enter` has set the run of this thread, and waits for it.
    unsafe {
        let job = (*run).job.cast::<Job<T, F>>();
        let work = (*job).work.take();
        let value = catch_unwind(AssertUnwindSafe(|| work.map(|work| work())));
        (*run).open = false;
        (*run).finished = true;
        (*job).result = value.unwrap_or(None);
        libc::setcontext((*run).caller.as_ptr());
    }
    std::process::abort();
}

/// Does the run on its stack, and comes back when it has finished or left. False where it cannot begin.
///
/// # Safety
/// `run` has a job of these types, and outlives the calling thread.
unsafe fn enter<T, F: FnOnce() -> T>(run: *mut Run) -> bool {
    let work = (*run).work.as_mut_ptr();
    if libc::getcontext(work) != 0 {
        return false;
    }
    (*work).uc_stack.ss_sp = (*run).stack.0.cast::<u8>().add(GUARD_BYTES).cast();
    (*work).uc_stack.ss_size = STACK_BYTES;
    (*work).uc_link = ptr::null_mut();
    libc::makecontext(work, begin::<T, F>, 0);
    (*run).open = true;
    ACTIVE.set(run);
    let done = libc::swapcontext((*run).caller.as_mut_ptr(), work) == 0;
    (*run).open = false;
    done
}

struct RunPointer(*mut Run);
// SAFETY: the thread that is given it alone uses it, until it is joined.
unsafe impl Send for RunPointer {}

/// Runs `work` within `budget`. What `work` owns or changes is lost when it is stopped, so it takes references
/// and gives its result back; it holds no lock that others need. Blocks it allocates must not end up in
/// variables of the process.
pub fn run<T: Send, F: FnOnce() -> T + Send>(budget: Budget, work: F) -> Result<T, Stopped> {
    run_and_count(budget, work).0
}

/// As `run`; also how many blocks there are yet that the run had allocated.
pub fn run_and_count<T: Send, F: FnOnce() -> T + Send>(
    budget: Budget,
    work: F,
) -> (Result<T, Stopped>, usize) {
    crate::abi::quiet_panics();
    let Some(stack) = Stack::take() else {
        return (Err(Stopped::NoThread), 0);
    };
    let mut job = Job { work: Some(work), result: None };
    let mut run = Box::new(Run {
        open: false,
        finished: false,
        live: 0,
        live_limit: budget.live_bytes,
        total: 0,
        total_limit: budget.total_bytes,
        ledger: Ledger::default(),
        stack,
        job: ptr::from_mut(&mut job).cast(),
        caller: MaybeUninit::uninit(),
        work: MaybeUninit::uninit(),
    });
    let pointer = RunPointer(&mut *run);
    let began = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into());
        // SAFETY: `run` and `job` live until the thread is joined, and the job has these types.
        let body = move || unsafe { enter::<T, F>({ pointer }.0) };
        thread.spawn_scoped(scope, body).is_ok_and(|thread| thread.join().unwrap_or(false))
    });
    let Run { stack, finished, mut ledger, .. } = *run;
    stack.give_back();
    if !began {
        return (Err(Stopped::NoThread), 0);
    }
    if !finished {
        // SAFETY: the thread of the run is gone and nothing goes on with its stack, so nobody has these blocks.
        unsafe { ledger.free_blocks() };
        return (Err(Stopped::OverBudget), 0);
    }
    (job.result.ok_or(Stopped::Panicked), ledger.used())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Budget = Budget { live_bytes: 1 << 20, total_bytes: 4 << 20 };

    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn hands_back_the_result() {
        assert_eq!(run(SMALL, || vec![7; 3]), Ok(vec![7; 3]));
    }

    #[test]
    fn stops_what_holds_too_much() {
        assert_eq!(run(SMALL, || vec![1u8; 2 << 20].len()), Err(Stopped::OverBudget));
        assert_eq!(run(SMALL, || vec![vec![1u8; 16]; 60_000].len()), Err(Stopped::OverBudget));
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

    #[test]
    fn what_was_stopped_leaves_nothing_behind() {
        const LARGE: Budget = Budget { live_bytes: 8 << 20, total_bytes: 64 << 20 };
        let fill = || {
            let mut blocks = Vec::new();
            loop {
                blocks.push(vec![1u8; 5000]);
            }
        };
        let before = resident_bytes();
        for _ in 0..100 {
            assert_eq!(run::<(), _>(LARGE, fill), Err(Stopped::OverBudget));
        }
        // Each run held nearly 8 MiB.
        assert!(resident_bytes() < before + (200 << 20));
    }
}
