//! The one lock type of the engine: parking_lot's, or under the feature `shuttle` one whose every acquisition is a choice
//! of a scheduler that explores interleavings. Nothing else in this crate may block a thread.

#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::Mutex;

#[cfg(feature = "shuttle")]
pub(crate) use explored::Mutex;

#[cfg(feature = "shuttle")]
mod explored {
    use shuttle::sync::MutexGuard;
    use std::sync::PoisonError;

    /// A mutex that shuttle schedules, with the verbs of parking_lot's that the engine uses.
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Mutex::new(T::default())
        }
    }
}
