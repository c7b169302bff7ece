//! What few sessions and links ever have: it takes no memory until it is changed for the first time.

use super::session::Drops;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

/// What is there where nothing was changed yet.
pub(super) trait Empty: Default + 'static {
    const EMPTY: &'static Self;
}

impl<T: 'static> Empty for VecDeque<T> {
    const EMPTY: &'static Self = &VecDeque::new();
}

impl Empty for Drops {
    const EMPTY: &'static Self = &Drops::NONE;
}

/// A `T` that is empty in most places. To look at it costs nothing; to change it makes it.
#[derive(Default)]
pub(super) struct Rare<T>(Option<Box<T>>);

impl<T: Empty> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::EMPTY)
    }
}

impl<T: Empty> Rare<T> {
    /// It takes memory if there is something in it.
    pub(super) fn new(of: T) -> Rare<T>
    where
        T: PartialEq,
    {
        Rare((of != *T::EMPTY).then(|| Box::new(of)))
    }

    /// What is there.
    pub(super) fn into_inner(self) -> T {
        self.0.map(|of| *of).unwrap_or_default()
    }
}

impl<T: Empty> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}
