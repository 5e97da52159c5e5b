//! The most steps of a condition, from the sizes of the values that it reads.
//!
//! An operator or function costs 1 step and one for each element and byte of its arguments, `slope` one for five pairs of
//! its list. `all`, `exists`, `filter` and `map` cost their inner expression for each element.

use super::expression::{Constant, Expression, Fold};

/// The most steps of a condition: some seconds.
pub const MOST_STEPS: f64 = 1e7;

/// Elements and bytes of a value.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Extent {
    /// Elements of the list, or bytes of the text.
    pub length: f64,
    /// Elements and bytes of the largest element.
    pub element: f64,
}

impl Extent {
    /// A number, or true or false.
    pub const ONE: Self = Self { length: 1.0, element: 1.0 };

    /// Elements and bytes.
    pub fn whole(self) -> f64 {
        self.length * self.element.max(1.0)
    }

    fn or(self, other: Self) -> Self {
        Self { length: self.length.max(other.length), element: self.element.max(other.element) }
    }

    fn and(self, other: Self) -> Self {
        Self { length: self.length + other.length, element: self.element.max(other.element) }
    }
}

/// The most steps of an expression; `extent` says how large the value at a path is.
pub fn steps(expression: &Expression, extent: &dyn Fn(&[String]) -> Extent) -> f64 {
    Counter { extent, bound: Vec::new() }.of(expression).0
}

struct Counter<'e> {
    extent: &'e dyn Fn(&[String]) -> Extent,
    /// Variables of macros, the innermost last.
    bound: Vec<(String, Extent)>,
}

impl Counter<'_> {
    /// Steps, and the extent of the value.
    fn of(&mut self, expression: &Expression) -> (f64, Extent) {
        match expression {
            Expression::Constant(Constant::Text(text)) => {
                (1.0, Extent { length: text.len() as f64, element: 1.0 })
            }
            Expression::Constant(_) | Expression::Other => (1.0, Extent::ONE),
            Expression::Path { path, .. } => {
                let bound = self.bound.iter().rev().find(|(name, _)| *name == path[0]);
                let extent = bound.map_or_else(|| (self.extent)(path), |(_, extent)| *extent);
                // A value is copied when it is read.
                (1.0 + extent.whole(), extent)
            }
            Expression::Field { of, .. } => {
                let (steps, extent) = self.of(of);
                (steps + 1.0, extent)
            }
            Expression::Call { name, on, with } => self.call(name, on.as_deref(), with),
            Expression::List(elements) => self.collection(elements.iter()),
            Expression::Map(entries) => self.collection(entries.iter().flat_map(|(key, value)| [key, value])),
            Expression::Fold(fold) => self.fold(fold),
        }
    }

    fn collection<'x>(&mut self, parts: impl Iterator<Item = &'x Expression>) -> (f64, Extent) {
        let (mut steps, mut length, mut element) = (1.0, 0.0, 1.0_f64);
        for part in parts {
            let (more, extent) = self.of(part);
            steps += more + extent.whole();
            length += 1.0;
            element = element.max(extent.whole());
        }
        (steps, Extent { length, element })
    }

    fn call(&mut self, name: &str, on: Option<&Expression>, with: &[Expression]) -> (f64, Extent) {
        let (mut steps, mut whole, mut extents) = (1.0, 0.0, Vec::new());
        for argument in on.into_iter().chain(with) {
            let (more, extent) = self.of(argument);
            steps += more;
            whole += extent.whole();
            extents.push(extent);
        }
        steps += if name == "slope" { whole.max(whole * whole / 10.0) } else { whole };
        let extent = match (name, extents.as_slice()) {
            ("+", [a, b]) => a.and(*b),
            ("?_:", [_, a, b]) => a.or(*b),
            ("[_]", [of, _]) => Extent { length: of.element, element: of.element },
            ("string" | "dyn", [of]) => Extent { length: of.length.max(32.0), ..*of },
            _ => Extent::ONE,
        };
        (steps, extent)
    }

    fn fold(&mut self, fold: &Fold) -> (f64, Extent) {
        let (over, list) = self.of(&fold.over);
        let (start, first) = self.of(&fold.start);
        let outside = self.bound.len();
        let element = Extent { length: list.element, element: list.element };
        self.bound.extend(fold.elements.iter().map(|name| (name.clone(), element)));
        self.bound.push((fold.sum.clone(), first));
        let each = self.of(&fold.goes_on).0;
        let (step, after) = self.of(&fold.step);
        // `map` and `filter` add at most this much for each element.
        let grown = (after.length - first.length).max(0.0) * list.length;
        let sum = Extent { length: first.length + grown, element: first.element.max(after.element) };
        if let Some((_, bound)) = self.bound.last_mut() {
            *bound = sum;
        }
        let result = self.of(&fold.result);
        self.bound.truncate(outside);
        (over + start + list.length * (each + step) + result.0, result.1)
    }
}
