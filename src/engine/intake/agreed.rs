//! What updates state alike: the value of most of those that state one.

use std::collections::BTreeMap;

/// What some inputs state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Agreement<T> {
    /// Most inputs state nothing.
    None,
    /// The value that most of those state that state one.
    On(T),
    /// Two values that as many state, and none is stated more often.
    Tied(T, T),
}

/// The agreement of inputs, each with the value that it states.
pub fn agreed<T: Ord>(stated: impl Iterator<Item = Option<T>>) -> Agreement<T> {
    let (mut votes, mut silent): (BTreeMap<T, usize>, usize) = (BTreeMap::new(), 0);
    for stated in stated {
        match stated {
            Some(value) => *votes.entry(value).or_insert(0) += 1,
            None => silent += 1,
        }
    }
    let speaking: usize = votes.values().sum();
    let most = votes.values().max().copied().unwrap_or(0);
    let mut values = votes.into_iter().filter(|(_, votes)| *votes == most).map(|(value, _)| value);
    match (values.next(), values.next()) {
        _ if silent > speaking => Agreement::None,
        (None, _) => Agreement::None,
        (Some(value), None) => Agreement::On(value),
        (Some(one), Some(other)) => Agreement::Tied(one, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_those_that_speak_decide_unless_most_are_silent() {
        let of = |text: &str| agreed(text.chars().map(|c| Some(c).filter(|c| *c != '-')));
        assert_eq!(of("aab"), Agreement::On('a'));
        assert_eq!(of("a-"), Agreement::On('a'));
        assert_eq!(of("ab-"), Agreement::Tied('a', 'b'));
        assert_eq!(of("a--"), Agreement::None);
        assert_eq!(of("ab---"), Agreement::None);
        assert_eq!(of("--"), Agreement::None);
        assert_eq!(of(""), Agreement::None);
    }
}
