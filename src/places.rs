//! A bounded number of places on one core.

use std::cell::Cell;

/// Places that are taken for a while and given back by themselves.
pub struct Places {
    taken: Cell<usize>,
    max: Cell<usize>,
}

/// One of them, held for as long as this lives.
pub struct Place<'a>(&'a Places);

impl Places {
    /// `max` free places.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { taken: Cell::new(0), max: Cell::new(max) }
    }

    /// From now on there are `max`. With fewer than are taken, nobody loses one, and nobody gets
    /// one until enough were given back.
    pub fn resize(&self, max: usize) {
        self.max.set(max);
    }

    /// Takes one; `None` when all are taken.
    #[must_use]
    pub fn take(&self) -> Option<Place<'_>> {
        self.enter().then(|| Place(self))
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Takes one for a holder who cannot borrow, and who gives it back with [`Places::leave`];
    /// false when all are taken.
    #[must_use]
    pub(crate) fn enter(&self) -> bool {
        let taken = self.taken.get();
        let free = taken < self.max.get();
        if free {
            self.taken.set(taken + 1);
        }
        free
    }

    /// Gives one back that [`Places::enter`] took.
    pub(crate) fn leave(&self) {
        let left = self.taken.get().checked_sub(1);
        debug_assert!(left.is_some(), "a place was given back twice");
        // In production the count stays 0: one place too many, for a while, is better than a core
        // that wraps around and takes no request any more.
        self.taken.set(left.unwrap_or(0));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.leave();
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

    #[test]
    fn fewer_places_take_none_away() {
        let places = Places::new(2);
        let held = [places.take(), places.take()];
        places.resize(1);
        assert!(places.taken() == 2 && places.take().is_none());
        drop(held);
        assert!(places.enter() && !places.enter());
        places.leave();
        assert_eq!(places.taken(), 0);
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn a_place_given_back_twice_is_seen() {
        Places::new(1).leave();
    }
}
