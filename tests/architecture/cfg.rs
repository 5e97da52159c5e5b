//! Attributes: which keep an item out of every build but that of the tests.

use syn::{Attribute, Expr, ImplItem, Item, Meta, Stmt, TraitItem};

/// Whether attributes keep an item out of every build but that of the tests.
pub(crate) fn tests_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => syn::parse2::<Meta>(list.tokens.clone())
            .is_ok_and(|predicate| value_without_tests(&predicate) == Some(false)),
        _ => false,
    })
}

/// What a `cfg` predicate is where `test` is not set; `None` where it depends on something else.
fn value_without_tests(predicate: &Meta) -> Option<bool> {
    let Meta::List(list) = predicate else {
        return predicate.path().is_ident("test").then_some(false);
    };
    let parser = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
    let parts = list.parse_args_with(parser).ok()?;
    let values: Vec<Option<bool>> = parts.iter().map(value_without_tests).collect();
    let has = |value: Option<bool>| values.contains(&value);
    match list.path.get_ident()?.to_string().as_str() {
        "not" => values[0].map(|value| !value),
        "all" if has(Some(false)) => Some(false),
        "any" if has(Some(true)) => Some(true),
        "all" if !has(None) => Some(true),
        "any" if !has(None) => Some(false),
        _ => None,
    }
}

/// A node of the syntax that attributes stand in front of.
pub(crate) trait Attributes {
    fn attributes(&self) -> &[Attribute];
}

/// Implements [`Attributes`] by the variants that have any; those of syntax that the parser leaves unread have none.
macro_rules! attributes_of {
    ($kind:ident: $($variant:ident)*) => {
        impl Attributes for $kind {
            fn attributes(&self) -> &[Attribute] {
                match self {
                    $($kind::$variant(node) => &node.attrs,)*
                    _ => &[],
                }
            }
        }
    };
}

attributes_of!(Item: Const Enum ExternCrate Fn ForeignMod Impl Macro Mod Static Struct Trait TraitAlias Type Union Use);
attributes_of!(ImplItem: Const Fn Type Macro);
attributes_of!(TraitItem: Const Fn Type Macro);
attributes_of!(Expr: Array Assign Async Await Binary Block Break Call Cast Closure Const Continue Field ForLoop Group If
    Index Infer Let Lit Loop Macro Match MethodCall Paren Path Range RawAddr Reference Repeat Return Struct Try TryBlock
    Tuple Unary Unsafe While Yield);

impl Attributes for Stmt {
    fn attributes(&self) -> &[Attribute] {
        match self {
            Self::Local(local) => &local.attrs,
            Self::Macro(call) => &call.attrs,
            Self::Expr(expression, _) => expression.attributes(),
            Self::Item(item) => item.attributes(),
        }
    }
}

#[cfg(test)]
fn only_tests(attribute: &str) -> bool {
    let item: Item = syn::parse_str(&format!("{attribute} fn f() {{}}")).unwrap();
    tests_only(item.attributes())
}

#[test]
fn predicates_that_need_tests_keep_an_item_out_of_the_program() {
    for attribute in [
        "#[test]",
        "#[cfg(test)]",
        "#[cfg(all(unix, test))]",
        "#[cfg(any(test, all(test, unix)))]",
        "#[cfg(not(not(test)))]",
    ] {
        assert!(only_tests(attribute), "{attribute}");
    }
}

#[test]
fn other_predicates_do_not() {
    for attribute in [
        "#[inline]",
        "#[cfg(unix)]",
        "#[cfg(not(test))]",
        "#[cfg(any(test, unix))]",
        "#[cfg(all(not(test), unix))]",
        "#[cfg(feature = \"test\")]",
        "#[cfg_attr(test, derive(Debug))]",
    ] {
        assert!(!only_tests(attribute), "{attribute}");
    }
}
