//! State of one core, reached only through a closure: no borrow can live across an `.await`.
//!
//! A panic while the closure runs may leave the value half changed. Every later request on this
//! core would be judged by it, so the process ends instead (DESIGN §4, panics): fail closed,
//! restart clean.

use std::cell::RefCell;

/// A value owned by one core. Not `Sync`, on purpose.
#[derive(Default)]
pub struct CoreCell<T>(RefCell<T>);

impl<T> CoreCell<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Runs `change` on the value. The closure must not reach the same cell again.
    ///
    /// # Panics
    /// Ends the process when `change` panics or the cell is entered twice.
    pub fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let guard = AbortOnUnwind;
        let answer = change(&mut self.0.borrow_mut());
        std::mem::forget(guard);
        answer
    }
}

/// Lives exactly as long as the borrow; dropped only by unwinding.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_gives_the_value_and_the_answer() {
        let cell = CoreCell::new(vec![1]);
        let length = cell.with(|list| {
            list.push(2);
            list.len()
        });
        assert_eq!(length, 2);
    }
}
