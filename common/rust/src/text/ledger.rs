// SPDX-License-Identifier: Apache-2.0
//! The blocks that a run has allocated and not freed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

#[derive(Clone, Copy)]
struct Entry {
    address: usize, // 0: none
    size: usize,
    align: usize,
}

const FIRST_PLACES: usize = 1024;

/// A hash table with open addressing, made of the system's memory: the allocator that keeps it cannot use itself.
pub struct Ledger {
    entries: *mut Entry,
    places: usize, // a power of two, or 0
    used: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { entries: ptr::null_mut(), places: 0, used: 0 }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.places > 0 {
            // SAFETY: allocated by `reserve` with this layout.
            unsafe { System.dealloc(self.entries.cast(), Self::layout(self.places)) };
        }
    }
}

impl Ledger {
    fn layout(places: usize) -> Layout {
        // SAFETY: so many entries would not fit the machine before the size overflows.
        unsafe {
            Layout::from_size_align_unchecked(
                places * std::mem::size_of::<Entry>(),
                std::mem::align_of::<Entry>(),
            )
        }
    }

    fn home(&self, address: usize) -> usize {
        // Fibonacci hashing: the high bits of the product are well mixed.
        ((address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
            & (self.places - 1)
    }

    /// The place of `address`, or the empty one where it belongs. There is always an empty one.
    unsafe fn find(&self, address: usize) -> usize {
        let mut place = self.home(address);
        loop {
            let found = (*self.entries.add(place)).address;
            if found == address || found == 0 {
                return place;
            }
            place = (place + 1) & (self.places - 1);
        }
    }

    pub fn used(&self) -> usize {
        self.used
    }

    /// Makes room for one more block; false where there is no memory for it.
    pub fn reserve(&mut self) -> bool {
        if (self.used + 1) * 2 <= self.places {
            return true;
        }
        let places = (self.places * 2).max(FIRST_PLACES);
        // SAFETY: the layout is not empty; all zeros are empty entries.
        let entries = unsafe { System.alloc_zeroed(Self::layout(places)) }.cast::<Entry>();
        if entries.is_null() {
            return false;
        }
        let old = std::mem::replace(self, Ledger { entries, places, used: self.used });
        for place in 0..old.places {
            // SAFETY: both tables have places for it.
            unsafe {
                let entry = *old.entries.add(place);
                if entry.address != 0 {
                    *self.entries.add(self.find(entry.address)) = entry;
                }
            }
        }
        true
    }

    /// After `reserve`.
    pub fn add(&mut self, block: *mut u8, layout: Layout) {
        let address = block as usize;
        // SAFETY: `reserve` has made room.
        unsafe {
            *self.entries.add(self.find(address)) =
                Entry { address, size: layout.size(), align: layout.align() };
        }
        self.used += 1;
    }

    /// The layout of a block that is in the ledger, which it then is no longer.
    pub fn remove(&mut self, block: *mut u8) -> Option<Layout> {
        if self.used == 0 {
            return None;
        }
        // SAFETY: places are taken modulo the table's size.
        unsafe {
            let mut gap = self.find(block as usize);
            let entry = *self.entries.add(gap);
            if entry.address == 0 {
                return None;
            }
            // Entries behind the gap move up, unless their home lies behind it too.
            let mask = self.places - 1;
            let mut place = gap;
            loop {
                place = (place + 1) & mask;
                let next = *self.entries.add(place);
                if next.address == 0 {
                    break;
                }
                if (place.wrapping_sub(self.home(next.address)) & mask)
                    >= (place.wrapping_sub(gap) & mask)
                {
                    *self.entries.add(gap) = next;
                    gap = place;
                }
            }
            (*self.entries.add(gap)).address = 0;
            self.used -= 1;
            Some(Layout::from_size_align_unchecked(entry.size, entry.align))
        }
    }

    /// Frees every block in the ledger.
    ///
    /// # Safety
    /// Nobody uses the blocks any more.
    pub unsafe fn free_blocks(&mut self) {
        for place in 0..self.places {
            let entry = &mut *self.entries.add(place);
            if entry.address != 0 {
                let layout = Layout::from_size_align_unchecked(entry.size, entry.align);
                System.dealloc(entry.address as *mut u8, layout);
                entry.address = 0;
            }
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn keeps_what_was_added_and_not_removed() {
        let mut ledger = Ledger::default();
        let mut expected = BTreeMap::new();
        let mut random = 7u64;
        for step in 0..200_000usize {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Few addresses, so that removals meet and runs of collisions form.
            let address = (1 + (random >> 33) as usize % 5000) * 16;
            if expected.contains_key(&address) {
                let removed = ledger.remove(address as *mut u8).map(|layout| layout.size());
                assert_eq!(removed, expected.remove(&address));
            } else {
                assert!(ledger.remove(address as *mut u8).is_none());
                assert!(ledger.reserve());
                ledger.add(address as *mut u8, Layout::from_size_align(step, 8).unwrap());
                expected.insert(address, step);
            }
            assert_eq!(ledger.used, expected.len());
        }
    }
}
