//! Conditions: CEL expressions over the state of a run. The only file that knows the crate.
//!
//! A condition is short and shallow: the parser recurses. Whole numbers are CEL's `int`, never `uint`, so that
//! `iteration.k % 5` has an overload. A value that is missing, no number (NaN) or too large, and a division of a whole
//! number by zero, are errors, never `false`; 1.0 / 0.0 is infinite, as in CEL.

use super::cost::{Extent, MOST_STEPS, steps};
use super::expression::{Constant, Expression, Fold};
use super::functions::{FUNCTIONS, Function};
use super::mistakes::{explained, skip_text};
use crate::schema::value::Scalar;
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::extractors::Arguments;
use cel::{Context, DeclarationError, ExecutionError, Program};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::thread;

/// The most bytes of a condition.
pub const LONGEST: usize = 4096;

/// The most brackets, and signs before a value, inside each other.
pub const DEEPEST: usize = 64;

/// The most operators, dots, commas and brackets. The crate recurses over a chain of them, too.
pub const MOST_OPERATORS: usize = 1000;

/// Operators up to which the stack of any thread suffices.
const FEW: usize = 16;

/// Bytes of stack for a larger condition: about 100 kB for each bracket in a build without optimisation.
const STACK: usize = 64 << 20;

/// A value that a condition reads.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Real(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Names with values.
    Map(BTreeMap<String, Value>),
}

impl From<&Scalar> for Value {
    fn from(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::Bool(value) => Self::Bool(*value),
            Scalar::Int(value) => Self::Int(*value),
            Scalar::Real(value) => Self::Real(*value),
            Scalar::Text(value) => Self::Text(value.clone()),
        }
    }
}

impl Value {
    /// The value at a path.
    pub fn at(&self, path: &[String]) -> Option<&Self> {
        match (path.split_first(), self) {
            (None, _) => Some(self),
            (Some((name, rest)), Self::Map(map)) => map.get(name)?.at(rest),
            _ => None,
        }
    }

    /// How large it is.
    fn extent(&self) -> Extent {
        let of = |length: usize, elements: &mut dyn Iterator<Item = &Self>| Extent {
            length: length as f64,
            element: elements.map(|value| value.extent().whole()).fold(1.0, f64::max),
        };
        match self {
            Self::Text(text) => Extent { length: text.len() as f64, element: 1.0 },
            Self::List(list) => of(list.len(), &mut list.iter()),
            Self::Map(map) => of(map.len(), &mut map.values()),
            Self::Bool(_) | Self::Int(_) | Self::Real(_) => Extent::ONE,
        }
    }

    /// Whether a number in it is NaN or infinite.
    fn is_non_finite(&self) -> bool {
        match self {
            Self::Real(number) => !number.is_finite(),
            Self::List(list) => list.iter().any(Self::is_non_finite),
            Self::Bool(_) | Self::Int(_) | Self::Text(_) | Self::Map(_) => false,
        }
    }
}

/// What is wrong with a condition, or with its values.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ConditionError {
    #[error("found {found} bytes, expected at most {LONGEST}")]
    TooLong { found: usize },
    #[error("found more than {DEEPEST} brackets or signs inside each other")]
    TooDeep,
    #[error("found {found} operators, dots, commas and brackets, expected at most {MOST_OPERATORS}")]
    TooMany { found: usize },
    #[error("is no condition: {why}")]
    Syntax { why: String },
    #[error("`{text}`: {why}")]
    Evaluation { text: String, why: String },
    #[error("`{text}`: found {found}, expected true or false")]
    NoBool { text: String, found: String },
    #[error(
        "`{text}`: may take {steps:.0} steps on these lists, expected at most {MOST_STEPS}: the lengths of lists multiply where `all`, `exists`, `filter` or `map` stand inside each other"
    )]
    TooMuch { text: String, steps: f64 },
    #[error("`{text}`: {path} is {found}, expected a number")]
    NonFinite { text: String, path: String, found: String },
}

/// A condition that was parsed.
pub struct Condition {
    text: String,
    size: Size,
    program: Program,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.text)
    }
}

/// What a condition came to, with the values that it read, by their paths.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// Whether it holds.
    pub holds: bool,
    /// The values.
    pub read: BTreeMap<String, Value>,
}

impl Condition {
    /// Parses a condition.
    ///
    /// # Errors
    ///
    /// When it is too long, too deep, or no CEL.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        if text.len() > LONGEST {
            return Err(ConditionError::TooLong { found: text.len() });
        }
        let size = Size::of(text);
        if size.depth > DEEPEST {
            return Err(ConditionError::TooDeep);
        }
        if size.operators > MOST_OPERATORS {
            return Err(ConditionError::TooMany { found: size.operators });
        }
        // A part that the lexer cannot read is reported, not skipped.
        let program = size.with_room(|| Program::compile(text));
        let program =
            program.map_err(|why| ConditionError::Syntax { why: explained(text, &why.to_string()) })?;
        let condition = Self { text: text.to_owned(), size, program };
        condition.check_cost(&|_| Extent::ONE)?;
        Ok(condition)
    }

    /// Fails if the condition may take too long with values of these sizes.
    fn check_cost(&self, extent: &(dyn Fn(&[String]) -> Extent + Sync)) -> Result<(), ConditionError> {
        match self.examine(|expression| steps(expression, &|path| extent(path))) {
            steps if steps > MOST_STEPS => Err(ConditionError::TooMuch { text: self.text.clone(), steps }),
            _ => Ok(()),
        }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The paths that the condition reads, such as `metrics`, `acc`; longer paths before the shorter ones that begin
    /// them. The variables of `all`, `exists` and other macros are left out.
    pub fn reads(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        collect(self.program.expression(), &mut Vec::new(), &mut found);
        found.sort();
        found.dedup();
        found
    }

    /// Looks at what the condition says, with a stack that suffices to recurse over it.
    pub fn examine<T: Send>(&self, look: impl FnOnce(&Expression) -> T + Send) -> T {
        self.size.with_room(|| look(&expression(self.program.expression())))
    }

    /// What the condition comes to.
    ///
    /// # Errors
    ///
    /// When a value is missing or no number, the result is neither true nor false, or it may take too many steps.
    pub fn evaluate(&self, scope: &Value) -> Result<Outcome, ConditionError> {
        let read = self.values(scope)?;
        let fault = |why: String| ConditionError::Evaluation { text: self.text.clone(), why };
        self.check_cost(&|path| scope.at(path).map_or(Extent::ONE, Value::extent))?;
        let mut context = Context::default();
        add_functions(&mut context).map_err(|why| fault(why.to_string()))?;
        if let Value::Map(variables) = scope {
            let roots = self.reads();
            for (name, value) in variables {
                if roots.iter().any(|path| path[0] == *name) {
                    context.add_variable_from_value(name.as_str(), to_cel(value));
                }
            }
        }
        match self.size.with_room(|| self.program.execute(&context)).map_err(|why| fault(why.to_string()))? {
            cel::Value::Bool(holds) => Ok(Outcome { holds, read }),
            found => Err(ConditionError::NoBool { text: self.text.clone(), found: format!("{found:?}") }),
        }
    }

    /// The values at the paths that the condition reads.
    fn values(&self, scope: &Value) -> Result<BTreeMap<String, Value>, ConditionError> {
        let mut read = BTreeMap::new();
        for path in self.reads() {
            let Some(value) = scope.at(&path) else { continue };
            let name = path.join(".");
            if value.is_non_finite() {
                let found =
                    serde_json::to_string(value).unwrap_or_default().replace("null", "NaN or infinite");
                return Err(ConditionError::NonFinite { text: self.text.clone(), path: name, found });
            }
            if !matches!(value, Value::Map(_)) {
                read.insert(name, value.clone());
            }
        }
        Ok(read)
    }
}

/// What the parser and the evaluation recurse over, outside of texts.
#[derive(Clone, Copy, Default)]
struct Size {
    /// The deepest nesting of brackets, and of signs before a value.
    depth: usize,
    /// Operators, dots, commas and brackets that open.
    operators: usize,
}

impl Size {
    fn of(text: &str) -> Self {
        let (mut open, mut signs) = (0_usize, 0_usize);
        let mut size = Self::default();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' | '\'' => drop(skip_text(&mut chars, c)),
                '(' | '[' | '{' => open += 1,
                ')' | ']' | '}' => open = open.saturating_sub(1),
                '!' | '-' | '?' => signs += 1,
                c if c.is_whitespace() => continue,
                _ => signs = 0,
            }
            size.depth = size.depth.max(open + signs);
            size.operators += usize::from(".,+*/%&|=<>?:!-([{".contains(c));
        }
        size
    }

    /// Does work that recurses over the condition, with a stack that suffices.
    fn with_room<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        if self.operators <= FEW {
            return work();
        }
        thread::scope(|scope| {
            let worker = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
            match worker.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(done)) => done,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(why) => panic!("a thread with {STACK} bytes of stack cannot be started: {why}"),
            }
        })
    }
}

/// Collects the paths that an expression reads; `bound` are the variables of macros around it.
fn collect(expression: &IdedExpr, bound: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    if let Some(path) = path_of(&expression.expr) {
        if !path[0].starts_with('@') && !bound.contains(&path[0]) {
            found.push(path);
        }
        return;
    }
    match &expression.expr {
        Expr::Call(call) => {
            call.target.iter().for_each(|target| collect(target, bound, found));
            call.args.iter().for_each(|argument| collect(argument, bound, found));
        }
        Expr::Comprehension(comprehension) => {
            collect(&comprehension.iter_range, bound, found);
            collect(&comprehension.accu_init, bound, found);
            let outside = bound.len();
            bound.extend([comprehension.iter_var.clone(), comprehension.accu_var.clone()]);
            bound.extend(comprehension.iter_var2.clone());
            for part in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
                collect(part, bound, found);
            }
            bound.truncate(outside);
        }
        Expr::List(list) => list.elements.iter().for_each(|element| collect(element, bound, found)),
        Expr::Select(select) => collect(&select.operand, bound, found),
        _ => {}
    }
}

/// What an expression of the crate says.
fn expression(ided: &IdedExpr) -> Expression {
    let several = |list: &[IdedExpr]| list.iter().map(expression).collect();
    if let Some(path) = path_of(&ided.expr) {
        return Expression::Path { path, tests: matches!(&ided.expr, Expr::Select(select) if select.test) };
    }
    match &ided.expr {
        Expr::Literal(literal) => Expression::Constant(match literal {
            LiteralValue::Boolean(value) => Constant::Bool(*value.inner()),
            LiteralValue::Int(value) => Constant::Int(*value.inner()),
            LiteralValue::Double(value) => Constant::Real(*value.inner()),
            LiteralValue::String(value) => Constant::Text(value.inner().to_owned()),
            LiteralValue::Null => Constant::Null,
            LiteralValue::Bytes(_) | LiteralValue::UInt(_) => Constant::Other,
        }),
        Expr::Select(select) => Expression::Field {
            of: Box::new(expression(&select.operand)),
            name: select.field.clone(),
            tests: select.test,
        },
        Expr::Call(call) => Expression::Call {
            // An operator is its sign between underscores.
            name: call.func_name.trim_matches(|c| c == '_' || c == '@').to_owned(),
            on: call.target.as_ref().map(|target| Box::new(expression(target))),
            with: several(&call.args),
        },
        Expr::List(list) => Expression::List(several(&list.elements)),
        Expr::Map(map) => {
            let entries = map.entries.iter().filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some((expression(&entry.key), expression(&entry.value))),
                EntryExpr::StructField(_) => None,
            });
            Expression::Map(entries.collect())
        }
        Expr::Comprehension(comprehension) => Expression::Fold(Box::new(fold(comprehension))),
        Expr::Ident(_) | Expr::Struct(_) | Expr::Unspecified => Expression::Other,
    }
}

fn fold(comprehension: &ComprehensionExpr) -> Fold {
    let elements = [Some(comprehension.iter_var.clone()), comprehension.iter_var2.clone()];
    Fold {
        over: expression(&comprehension.iter_range),
        elements: elements.into_iter().flatten().collect(),
        sum: comprehension.accu_var.clone(),
        start: expression(&comprehension.accu_init),
        goes_on: expression(&comprehension.loop_cond),
        step: expression(&comprehension.loop_step),
        result: expression(&comprehension.result),
    }
}

/// The path that an expression spells, root first: `a.b`, `a["b"]`, and `has(a.b)`.
fn path_of(expression: &Expr) -> Option<Vec<String>> {
    match expression {
        Expr::Ident(name) => Some(vec![name.clone()]),
        Expr::Select(select) => {
            let mut path = path_of(&select.operand.expr)?;
            path.push(select.field.clone());
            Some(path)
        }
        Expr::Call(call) if call.func_name == cel::common::ast::operators::INDEX => {
            let Expr::Literal(LiteralValue::String(name)) = &call.args.get(1)?.expr else { return None };
            let mut path = path_of(&call.args[0].expr)?;
            path.push(name.inner().to_owned());
            Some(path)
        }
        _ => None,
    }
}

fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Real(value) => (*value).into(),
        Value::Text(value) => value.as_str().into(),
        Value::List(list) => list.iter().map(to_cel).collect::<Vec<_>>().into(),
        Value::Map(map) => {
            let entries = map.iter().map(|(name, value)| (name.clone(), to_cel(value)));
            entries.collect::<std::collections::HashMap<_, _>>().into()
        }
    }
}

/// Gives conditions their functions.
fn add_functions(context: &mut Context<'_, '_>) -> Result<(), DeclarationError> {
    for function in FUNCTIONS {
        context.add_function(function.name, |Arguments(given): Arguments| call(function, &given))?;
    }
    for name in ["abs", "min", "max"] {
        context.add_function(name, |Arguments(given): Arguments| extreme(name, &given))?;
    }
    Ok(())
}

fn call(function: &Function, given: &[cel::Value]) -> Result<cel::Value, ExecutionError> {
    let fault = |why: &str| ExecutionError::function_error(function.name, why);
    let Some((cel::Value::List(list), rest)) = given.split_first() else {
        return Err(fault("found no list of numbers"));
    };
    let numbers = |values: &[cel::Value]| values.iter().map(number).collect::<Option<Vec<f64>>>();
    let list = numbers(list).ok_or_else(|| fault("found no list of numbers"))?;
    let rest = numbers(rest).ok_or_else(|| fault("found no number behind the list"))?;
    function.call(&list, &rest).map(cel::Value::from).map_err(|why| fault(&why))
}

/// The least or the greatest of numbers or of a list, or a number without its sign. Whole numbers stay whole.
fn extreme(name: &'static str, given: &[cel::Value]) -> Result<cel::Value, ExecutionError> {
    let fault = |why: &str| ExecutionError::function_error(name, why);
    let values: &[cel::Value] = match given {
        [cel::Value::List(list)] => list,
        numbers => numbers,
    };
    if name == "abs" {
        return match values {
            [cel::Value::Int(whole)] => {
                whole.checked_abs().map(cel::Value::from).ok_or_else(|| fault("the number is too large"))
            }
            [cel::Value::Float(real)] => Ok(real.abs().into()),
            _ => Err(fault("expected one number")),
        };
    }
    let found: Option<Vec<(f64, &cel::Value)>> =
        values.iter().map(|value| Some((number(value)?, value))).collect();
    let found = found.ok_or_else(|| fault("expected numbers"))?;
    let order = |a: &&(f64, &cel::Value), b: &&(f64, &cel::Value)| a.0.total_cmp(&b.0);
    let chosen = if name == "min" { found.iter().min_by(order) } else { found.iter().max_by(order) };
    chosen.map(|(_, value)| (*value).clone()).ok_or_else(|| fault("found no numbers"))
}

fn number(value: &cel::Value) -> Option<f64> {
    match value {
        cel::Value::Int(whole) => Some(*whole as f64),
        cel::Value::Float(real) => Some(*real),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Value {
        let json = r#"{"params": {"f": 2}, "metrics": {"acc": 0.9, "losses": [3.0, 2.0, 1.0]}, "inputs": {"updates": 11},
            "stages": {"a": {"ok": true}}, "iteration": {"k": 10}}"#;
        let mut scope: Value = serde_json::from_str(json).unwrap();
        let Value::Map(map) = &mut scope else { unreachable!() };
        let Some(Value::Map(metrics)) = map.get_mut("metrics") else { unreachable!() };
        metrics.insert("broken".to_owned(), Value::Real(f64::NAN));
        scope
    }

    #[test]
    fn a_condition_holds_or_not_and_states_what_it_read() {
        for (text, holds) in [
            ("metrics.acc >= 0.9", true),
            ("inputs.updates >= 4 * params.f + 3", true),
            ("iteration.k % 5 == 0", true),
            ("stages.a.ok && !(metrics.acc < 0.5)", true),
            ("has(metrics.nothing) && metrics.nothing > 1.0", false),
            ("metrics.losses.all(x, x > 1.5)", false),
            ("size(metrics.losses) == 3 && 2.0 in metrics.losses", true),
            ("slope(metrics.losses) < -0.5", true),
            ("min(metrics.losses) == 1.0 && abs(-2) == 2", true),
            ("1 < 1.5", true),
            ("1.0 / 0.0 > 1.0 && !(params.f > 9 && 1 / 0 == 1)", true),
        ] {
            let outcome = Condition::parse(text).unwrap().evaluate(&scope());
            assert_eq!(outcome.as_ref().map(|outcome| outcome.holds), Ok(holds), "{text}: {outcome:?}");
        }
        let outcome =
            Condition::parse("metrics.acc > 0.5 || params.f > 9").unwrap().evaluate(&scope()).unwrap();
        let read = BTreeMap::from([
            ("metrics.acc".to_owned(), Value::Real(0.9)),
            ("params.f".to_owned(), Value::Int(2)),
        ]);
        assert_eq!(outcome.read, read);
    }

    #[test]
    fn what_a_condition_cannot_know_is_an_error() {
        for text in [
            "metrics.nothing > 1.0",
            "metrics.broken > 1.0",
            "params.f / 0 == 1",
            "9223372036854775807 + params.f > 0",
            "metrics.acc",
            "unknown",
            "params.f == nothing()",
        ] {
            assert!(Condition::parse(text).unwrap().evaluate(&scope()).is_err(), "{text}");
        }
        for text in ["", "metrics.acc >", "a b", "'a", "1 = 2"] {
            assert!(matches!(Condition::parse(text), Err(ConditionError::Syntax { .. })), "{text}");
        }
    }

    #[test]
    fn a_condition_that_would_exhaust_the_parser_is_refused() {
        let deep = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
        let signs = format!("{}true", "! ".repeat(1000));
        for text in [deep, signs] {
            assert_eq!(Condition::parse(&text).unwrap_err(), ConditionError::TooDeep);
        }
        assert_eq!(Condition::parse(&" ".repeat(4097)).unwrap_err(), ConditionError::TooLong { found: 4097 });
        for text in ["1+".repeat(2000) + "1 == 1", "true&&".repeat(680) + "true", "a.".repeat(2000) + "b"] {
            assert!(matches!(Condition::parse(&text), Err(ConditionError::TooMany { .. })));
        }
        let sum = Condition::parse(&format!("{}1 == 999", "1+".repeat(998))).unwrap();
        assert!(sum.evaluate(&scope()).unwrap().holds);
        let nested = Condition::parse(&format!("{}1{} == 1", "(".repeat(64), ")".repeat(64))).unwrap();
        assert!(nested.evaluate(&scope()).unwrap().holds);
        assert_eq!(Condition::parse(&format!("'{}' == ''", "(".repeat(900))).map(|_| ()), Ok(()));
    }

    #[test]
    fn a_condition_that_could_take_long_is_refused_before_it_begins() {
        let of = |length: usize| {
            Value::Map(BTreeMap::from([("l".to_owned(), Value::List(vec![Value::Int(1); length]))]))
        };
        let evaluate = |text: &str, length| Condition::parse(text).unwrap().evaluate(&of(length));
        let nested = "l.all(a, l.all(b, l.all(c, a + b + c == 3)))";
        assert!(evaluate(nested, 10).unwrap().holds);
        for (text, length) in [
            (nested, 1000),
            ("size(l.map(a, l.map(b, l.filter(c, c > a)))) > 0", 1000),
            ("slope(l) > 0.0", 100_000),
            ("l.all(a, a in l + l + l + l)", 3000),
        ] {
            let began = std::time::Instant::now();
            let refused = evaluate(text, length).unwrap_err();
            assert!(matches!(refused, ConditionError::TooMuch { .. }), "{text}: {refused}");
            assert!(began.elapsed().as_secs_f64() < 1.0, "{text}");
        }
        assert!(evaluate("l.all(a, a == 1) && mean(l) == 1.0 && slope(l) == 0.0", 2000).unwrap().holds);
        // Lists and texts that stand in the condition are known when it is parsed.
        let lists = "[1,1,1,1,1,1,1,1,1,1].map(x, ".repeat(8) + "1" + &")".repeat(8) + " == []";
        let doubled = format!("['{}']{} == []", "a".repeat(300), ".map(x, x + x + x + x)".repeat(11));
        for text in [lists, doubled] {
            assert!(matches!(Condition::parse(&text), Err(ConditionError::TooMuch { .. })), "{text}");
        }
        let doubled = format!("['a']{} == ['{}']", ".map(x, x + x)".repeat(4), "a".repeat(16));
        assert!(Condition::parse(&doubled).unwrap().evaluate(&scope()).unwrap().holds);
        assert!(evaluate("size(l.filter(a, a == 1).map(a, a + 1)) == 3", 3).unwrap().holds);
    }

    #[test]
    fn paths_are_found_inside_macros_and_indexes() {
        let condition = Condition::parse("has(a.b) || c['d'].e > 1 || f.exists(x, x > g.h)").unwrap();
        let found: Vec<String> = condition.reads().iter().map(|path| path.join(".")).collect();
        assert_eq!(found, ["a.b", "c.d.e", "f", "g.h"]);
    }
}
