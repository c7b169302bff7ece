//! A list that mostly has one entry, and then takes no memory besides its own place.

use std::ops::{Deref, DerefMut};

#[derive(Default)]
pub(super) enum Few<T> {
    #[default]
    None,
    One(T),
    Many(Vec<T>),
}

impl<T> Few<T> {
    pub(super) fn push(&mut self, new: T) {
        *self = match std::mem::take(self) {
            Few::None => Few::One(new),
            Few::One(first) => Few::Many(vec![first, new]),
            Few::Many(mut all) => {
                all.push(new);
                Few::Many(all)
            }
        };
    }

    /// Keeps those that `is_kept` says, in their order.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&T) -> bool) {
        match self {
            Few::Many(all) => all.retain(is_kept),
            Few::One(entry) if !is_kept(entry) => *self = Few::None,
            _ => {}
        }
        if self.is_empty() {
            *self = Few::None;
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Few<T> {
        let mut few = Few::None;
        all.into_iter().for_each(|entry| few.push(entry));
        few
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Few::None => &[],
            Few::One(entry) => std::slice::from_ref(entry),
            Few::Many(all) => all,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Few::None => &mut [],
            Few::One(entry) => std::slice::from_mut(entry),
            Few::Many(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_however_long() {
        let mut few = Few::default();
        for number in 0..4 {
            few.push(number);
        }
        few.retain(|number| number % 2 == 1);
        assert_eq!(*few, [1, 3]);
        few.retain(|number| *number == 3);
        assert_eq!(*few, [3]);
        few.retain(|_| false);
        assert!(matches!(few, Few::None));
        few.push(7);
        assert!(matches!(few, Few::One(7)));
    }
}
