//! A bounded number of places on one core.

use std::cell::Cell;

/// Places that are taken for a while and given back by themselves.
pub struct Places {
    taken: Cell<usize>,
    max: usize,
}

/// One of them, held for as long as this lives.
pub struct Place<'a>(&'a Places);

impl Places {
    /// `max` free places.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { taken: Cell::new(0), max }
    }

    /// Takes one; `None` when all are taken.
    #[must_use]
    pub fn take(&self) -> Option<Place<'_>> {
        let taken = self.taken.get();
        if taken >= self.max {
            return None;
        }
        self.taken.set(taken + 1);
        Some(Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_holder_is_gone() {
        let places = Places::new(2);
        let first = places.take();
        let second = places.take();
        assert!(first.is_some() && second.is_some());
        assert!(places.take().is_none());
        drop(first);
        let third = places.take();
        assert!(third.is_some() && places.take().is_none());
    }
}
