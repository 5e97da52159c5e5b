//! Types of conditions: what an expression comes to before any value is known.

use crate::language::expression::{Constant, Expression, Fold};
use crate::language::functions::{FUNCTIONS, Function};
use crate::settings::nearest::nearest;
use std::fmt;

/// The type of a value in a condition.
#[derive(Clone, PartialEq, Debug)]
pub enum Type {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A number with a fraction.
    Real,
    /// A number, whole or not.
    Number,
    /// A text.
    Text,
    /// A list of values of this type.
    List(Box<Type>),
    /// Names with values.
    Map,
    /// `null`.
    Null,
    /// Not known.
    Any,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "true or false",
            Self::Int => "a whole number",
            Self::Real => "a number with a fraction",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List(element) => return write!(f, "a list of {}", Plural(element)),
            Self::Map => "names with values",
            Self::Null => "null",
            Self::Any => "any value",
        })
    }
}

struct Plural<'a>(&'a Type);

impl fmt::Display for Plural<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Type::Bool => "true and false",
            Type::Int => "whole numbers",
            Type::Real | Type::Number => "numbers",
            Type::Text => "texts",
            Type::List(_) => "lists",
            Type::Map | Type::Null | Type::Any => "values",
        })
    }
}

impl Type {
    /// A list of values of this type.
    pub fn list(self) -> Self {
        Self::List(Box::new(self))
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Real | Self::Number | Self::Any)
    }

    fn may_be(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(a), Self::List(b)) => a.may_be(b),
            (a, b) => a == b || a.is_number() && b.is_number(),
        }
    }

    /// The type of a value that has one of two types.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (a, b) if a != Self::Any && b != Self::Any && a.is_number() && b.is_number() => Self::Number,
            (Self::List(a), Self::List(b)) => a.or(*b).list(),
            _ => Self::Any,
        }
    }
}

/// The type of a variable, and whether a condition only asks if it exists; an error says what is wrong with its name.
pub type LookUp<'a> = dyn FnMut(&[String], bool) -> Result<Type, String> + 'a;

/// The type of an expression, and what is wrong with it.
pub fn check(expression: &Expression, look_up: &mut LookUp<'_>) -> (Type, Vec<String>) {
    let mut checker = Checker { look_up, bound: Vec::new(), faults: Vec::new() };
    let found = checker.of(expression);
    (found, checker.faults)
}

struct Checker<'c, 'l> {
    look_up: &'c mut LookUp<'l>,
    /// Variables of macros, the innermost last.
    bound: Vec<(String, Type)>,
    faults: Vec<String>,
}

impl Checker<'_, '_> {
    fn fault(&mut self, why: String) -> Type {
        if !self.faults.contains(&why) {
            self.faults.push(why);
        }
        Type::Any
    }

    fn of(&mut self, expression: &Expression) -> Type {
        match expression {
            Expression::Constant(constant) => match constant {
                Constant::Bool(_) => Type::Bool,
                Constant::Int(_) => Type::Int,
                Constant::Real(_) => Type::Real,
                Constant::Text(_) => Type::Text,
                Constant::Null => Type::Null,
                Constant::Other => Type::Any,
            },
            Expression::Path { path, tests } => self.path(path, *tests),
            Expression::Field { of, name, tests } => {
                let outer = self.of(of);
                if !matches!(outer, Type::Map | Type::Any) {
                    return self.fault(format!("found `.{name}` behind {outer}, which has no names"));
                }
                if *tests { Type::Bool } else { Type::Any }
            }
            Expression::Call { name, on, with } => self.call(name, on.as_deref(), with),
            Expression::List(elements) => {
                let types: Vec<Type> = elements.iter().map(|element| self.of(element)).collect();
                types.into_iter().reduce(Type::or).unwrap_or(Type::Any).list()
            }
            Expression::Map(entries) => {
                for (key, value) in entries {
                    self.of(key);
                    self.of(value);
                }
                Type::Map
            }
            Expression::Fold(fold) => self.fold(fold),
            Expression::Other => self.fault("found a struct, which conditions do not have".to_owned()),
        }
    }

    fn path(&mut self, path: &[String], tests: bool) -> Type {
        let bound = self.bound.iter().rev().find(|(name, _)| *name == path[0]).map(|(_, is)| is.clone());
        let found = match (bound, path) {
            (Some(alone), [_]) => Ok(alone),
            (Some(Type::Map | Type::Any), _) => Ok(Type::Any),
            (Some(outer), _) => Err(format!("found `.{}` behind {outer}, which has no names", path[1])),
            (None, _) => (self.look_up)(path, tests),
        };
        match found {
            Ok(_) if tests => Type::Bool,
            Ok(found) => found,
            Err(why) => self.fault(why),
        }
    }

    fn fold(&mut self, fold: &Fold) -> Type {
        let over = self.of(&fold.over);
        let element = match over {
            Type::List(element) => *element,
            Type::Map | Type::Any => Type::Any,
            other => self
                .fault(format!("found {other}, expected a list before `all`, `exists`, `map` or `filter`")),
        };
        let start = self.of(&fold.start);
        let outside = self.bound.len();
        let elements = fold.elements.iter();
        match fold.elements.len() {
            1 => self.bound.extend(elements.map(|name| (name.clone(), element.clone()))),
            _ => self.bound.extend(elements.map(|name| (name.clone(), Type::Any))),
        }
        let known =
            if matches!(&start, Type::List(of) if **of == Type::Any) { Type::Any.list() } else { start };
        self.bound.push((fold.sum.clone(), known));
        self.of(&fold.goes_on);
        let after = self.of(&fold.step);
        if let Some((_, sum)) = self.bound.last_mut() {
            *sum = after;
        }
        let result = self.of(&fold.result);
        self.bound.truncate(outside);
        result
    }

    fn call(&mut self, name: &str, on: Option<&Expression>, with: &[Expression]) -> Type {
        let on = on.map(|on| self.of(on));
        let types: Vec<Type> = with.iter().map(|argument| self.of(argument)).collect();
        match (on, types.as_slice()) {
            (None, [a, b]) if is_operator(name) => self.operator(name, a, b),
            (None, [Type::Bool | Type::Any, a, b]) if name == "?_:" => a.clone().or(b.clone()),
            (None, [other, _, _]) if name == "?_:" => {
                self.fault(format!("found {other} before `?`, expected true or false"))
            }
            (None, [one]) if name == "!" => self.want(one, &Type::Bool, "behind `!`", Type::Bool),
            (None, [one]) if name == "-" => {
                let result = one.clone();
                self.want(one, &Type::Number, "behind `-`", result)
            }
            (None, [_]) if name == "not_strictly_false" => Type::Bool,
            (on, types) => self.function(name, on, types),
        }
    }

    fn want(&mut self, found: &Type, expected: &Type, place: &str, result: Type) -> Type {
        if found.may_be(expected) {
            return result;
        }
        self.fault(format!("found {found} {place}, expected {expected}"))
    }

    fn operator(&mut self, sign: &str, a: &Type, b: &Type) -> Type {
        let both = |expected: &Type| a.may_be(expected) && b.may_be(expected);
        let ok = match sign {
            "&&" | "||" => both(&Type::Bool).then_some(Type::Bool),
            "<" | "<=" | ">" | ">=" => {
                (both(&Type::Number) || both(&Type::Text) || both(&Type::Bool)).then_some(Type::Bool)
            }
            "==" | "!=" => {
                if !a.may_be(b) {
                    return self.fault(format!("found `{sign}` between {a} and {b}, which are never equal"));
                }
                Some(Type::Bool)
            }
            "in" => match b {
                Type::List(element) => a.may_be(element).then_some(Type::Bool),
                Type::Map | Type::Any => Some(Type::Bool),
                _ => None,
            },
            "[_]" => match (a, b) {
                (Type::List(element), Type::Int | Type::Number | Type::Any) => Some((**element).clone()),
                (Type::Map | Type::Any, _) => Some(Type::Any),
                _ => None,
            },
            "%" => (both(&Type::Int) && *a != Type::Real && *b != Type::Real).then_some(Type::Int),
            "+" if both(&Type::Text) => Some(a.clone().or(b.clone())),
            "+" if both(&Type::Any.list()) => Some(sum_of_lists(a, b)),
            _ if both(&Type::Number) => match (a, b) {
                (Type::Int, Type::Real) | (Type::Real, Type::Int) => {
                    return self.fault(format!(
                        "found `{sign}` between {a} and {b}, expected two of one kind: write 2.0 in place of 2, or use \
                         double()"
                    ));
                }
                _ => Some(a.clone().or(b.clone())),
            },
            _ => None,
        };
        ok.unwrap_or_else(|| self.fault(format!("found `{sign}` between {a} and {b}{}", advice(a, b))))
    }

    fn function(&mut self, name: &str, on: Option<Type>, with: &[Type]) -> Type {
        if on.is_none()
            && let Some(function) = FUNCTIONS.iter().find(|function| function.name == name)
        {
            return self.statistic(function, with);
        }
        let is_member = on.is_some();
        let all: Vec<Type> = on.into_iter().chain(with.iter().cloned()).collect();
        let result = match (name, is_member, all.as_slice()) {
            ("size", _, [Type::Text | Type::List(_) | Type::Map | Type::Any]) => Some(Type::Int),
            ("contains" | "startsWith" | "endsWith", true, [a, b]) => {
                (a.may_be(&Type::Text) && b.may_be(&Type::Text)).then_some(Type::Bool)
            }
            ("abs", false, [one]) => one.is_number().then(|| one.clone()),
            ("min" | "max", false, [Type::List(element)]) => element.is_number().then(|| (**element).clone()),
            ("min" | "max", false, [first, rest @ ..]) => {
                all.iter().all(Type::is_number).then(|| rest.iter().cloned().fold(first.clone(), Type::or))
            }
            ("int", false, [one]) => (one.is_number() || *one == Type::Text).then_some(Type::Int),
            ("double", false, [one]) => (one.is_number() || *one == Type::Text).then_some(Type::Real),
            ("string", false, [one]) => {
                (one.is_number() || matches!(one, Type::Text | Type::Bool)).then_some(Type::Text)
            }
            ("bool", false, [one]) => (one.may_be(&Type::Bool) || *one == Type::Text).then_some(Type::Bool),
            ("dyn", false, [one]) => Some(one.clone()),
            _ => None,
        };
        result.unwrap_or_else(|| self.no_function(name, is_member, &all))
    }

    fn statistic(&mut self, function: &Function, with: &[Type]) -> Type {
        let fits = match with {
            [Type::List(element), rest @ ..] => element.is_number() && rest.iter().all(Type::is_number),
            [Type::Any, rest @ ..] => rest.iter().all(Type::is_number),
            _ => false,
        };
        if fits && with.len() == function.arguments() + 1 {
            return Type::Real;
        }
        let found = list_of(with);
        self.fault(format!("found {}({found}), expected {} of numbers", function.name, function.takes))
    }

    fn no_function(&mut self, name: &str, is_member: bool, with: &[Type]) -> Type {
        let found = list_of(with);
        if FUNCTIONS.iter().any(|function| function.name == name) || CALLED.contains(&name) && is_member {
            return self.fault(format!("found `{name}` behind a dot, expected {name}(…)"));
        }
        if CALLED.contains(&name) || MEMBERS.contains(&name) {
            return self.fault(format!("found {name}({found}), which `{name}` does not take"));
        }
        let known = FUNCTIONS.iter().map(|function| function.name).chain(CALLED).chain(MEMBERS);
        let nearest = nearest(name, known);
        let hint = nearest.map_or(String::new(), |nearest| format!("; the nearest is `{nearest}`"));
        self.fault(format!("found `{name}`, which is no function of conditions{hint}"))
    }
}

/// Functions that stand before their arguments.
const CALLED: [&str; 9] = ["size", "abs", "min", "max", "int", "double", "string", "bool", "dyn"];

/// Functions that stand behind a dot.
const MEMBERS: [&str; 4] = ["contains", "startsWith", "endsWith", "size"];

fn is_operator(name: &str) -> bool {
    matches!(
        name,
        "&&" | "||" | "<" | "<=" | ">" | ">=" | "==" | "!=" | "in" | "[_]" | "%" | "+" | "-" | "*" | "/"
    )
}

fn sum_of_lists(a: &Type, b: &Type) -> Type {
    match (a, b) {
        // An empty list has elements of any type.
        (Type::List(of), other) | (other, Type::List(of)) if **of == Type::Any => other.clone(),
        _ => a.clone().or(b.clone()),
    }
}

fn list_of(types: &[Type]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What to write where an operator stands between values of two kinds.
fn advice(a: &Type, b: &Type) -> &'static str {
    let is_list = |of: &Type| matches!(of, Type::List(_));
    if is_list(a) != is_list(b) {
        "; of a list take one value, as in last(x), max(x) or x[0], or ask for all with x.all(y, ...)"
    } else if (*a == Type::Text) != (*b == Type::Text) {
        "; write a number without quotes, or a text on both sides"
    } else {
        ""
    }
}
