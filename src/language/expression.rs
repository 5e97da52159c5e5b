//! What a condition says: an expression, without the crate that parses it.

/// An expression of a condition.
#[derive(Clone, PartialEq, Debug)]
pub enum Expression {
    /// A value that stands in the text.
    Constant(Constant),
    /// A variable with the names of values inside it, root first: `metrics.acc`.
    Path {
        /// The names.
        path: Vec<String>,
        /// Whether it only asks if the value exists: `has(metrics.acc)`.
        tests: bool,
    },
    /// A value inside of another one that is no path.
    Field {
        /// The outer value.
        of: Box<Expression>,
        /// The name of the inner one.
        name: String,
        /// Whether it only asks if the value exists.
        tests: bool,
    },
    /// A function, or an operator by its sign: `+`, `&&`, `?_:`, `[_]`, `in`.
    Call {
        /// The name.
        name: String,
        /// The value before the dot: `list` in `list.size()`.
        on: Option<Box<Expression>>,
        /// The arguments.
        with: Vec<Expression>,
    },
    /// A list.
    List(Vec<Expression>),
    /// Names with values.
    Map(Vec<(Expression, Expression)>),
    /// What `all`, `exists`, `exists_one`, `map` and `filter` come to: a value that each element of a list changes.
    Fold(Box<Fold>),
    /// Anything else, such as a struct.
    Other,
}

/// A value that stands in the text of a condition.
#[derive(Clone, PartialEq, Debug)]
pub enum Constant {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Real(f64),
    /// A text.
    Text(String),
    /// `null`.
    Null,
    /// Bytes, or a number without a sign.
    Other,
}

/// A value that each element of a list changes.
#[derive(Clone, PartialEq, Debug)]
pub struct Fold {
    /// The list.
    pub over: Expression,
    /// The names of an element, and of its place or key where there are two.
    pub elements: Vec<String>,
    /// The name of the value.
    pub sum: String,
    /// Its first value.
    pub start: Expression,
    /// Whether another element follows.
    pub goes_on: Expression,
    /// The value after an element.
    pub step: Expression,
    /// The result.
    pub result: Expression,
}

impl Expression {
    /// Visits the expression and all parts of it.
    pub fn each<'e>(&'e self, visit: &mut dyn FnMut(&'e Self)) {
        visit(self);
        match self {
            Self::Constant(_) | Self::Path { .. } | Self::Other => {}
            Self::Field { of, .. } => of.each(visit),
            Self::Call { on, with, .. } => {
                on.as_deref().into_iter().chain(with).for_each(|part| part.each(visit))
            }
            Self::List(list) => list.iter().for_each(|part| part.each(visit)),
            Self::Map(entries) => {
                entries.iter().flat_map(|(key, value)| [key, value]).for_each(|part| part.each(visit));
            }
            Self::Fold(fold) => {
                let parts = [&fold.over, &fold.start, &fold.goes_on, &fold.step, &fold.result];
                parts.into_iter().for_each(|part| part.each(visit));
            }
        }
    }

    /// Whether the expression holds, as far as that is certain: `known` has the values of some paths, and the other paths
    /// may have any value.
    pub fn certain(&self, known: &dyn Fn(&[String]) -> Option<bool>) -> Option<bool> {
        match self {
            Self::Constant(Constant::Bool(value)) => Some(*value),
            Self::Path { path, tests: false } => known(path),
            Self::Call { name, on: None, with } => match (name.as_str(), with.as_slice()) {
                ("!", [one]) => one.certain(known).map(|value| !value),
                ("&&", [a, b]) => either(a.certain(known), b.certain(known), false),
                ("||", [a, b]) => either(a.certain(known), b.certain(known), true),
                ("?_:", [which, a, b]) => {
                    if which.certain(known)? {
                        a.certain(known)
                    } else {
                        b.certain(known)
                    }
                }
                (sign, [Self::Constant(a), Self::Constant(b)]) => compare(sign, a, b),
                _ => None,
            },
            _ => None,
        }
    }
}

/// `&&` and `||`: one side alone may settle both.
fn either(a: Option<bool>, b: Option<bool>, settles: bool) -> Option<bool> {
    match (a, b) {
        (Some(value), _) | (_, Some(value)) if value == settles => Some(settles),
        (Some(_), Some(_)) => Some(!settles),
        _ => None,
    }
}

fn compare(sign: &str, a: &Constant, b: &Constant) -> Option<bool> {
    let number = |constant: &Constant| match constant {
        Constant::Int(whole) => Some(*whole as f64),
        Constant::Real(real) => Some(*real),
        _ => None,
    };
    let (a, b) = match (a, b) {
        (Constant::Text(a), Constant::Text(b)) => {
            return match sign {
                "==" => Some(a == b),
                "!=" => Some(a != b),
                _ => None,
            };
        }
        _ => (number(a)?, number(b)?),
    };
    match sign {
        "<" => Some(a < b),
        "<=" => Some(a <= b),
        ">" => Some(a > b),
        ">=" => Some(a >= b),
        "==" => Some(a == b),
        "!=" => Some(a != b),
        _ => None,
    }
}
