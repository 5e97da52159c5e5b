//! Paths, calls and functions in tokens, so that those in macros are seen too.

use super::syntax::Function;
use proc_macro2::{Delimiter, Ident, Spacing, TokenStream, TokenTree};
use syn::ext::IdentExt;

/// The segments of a path, and its line.
type Path = (Vec<String>, usize);

/// All paths of two segments or more. `a::{b, c::d}` is two paths, as in a `use` tree. `in_strings` also reads string
/// literals, as in `#[serde(with = "crate::io::text")]`.
pub(crate) fn paths(tokens: TokenStream, in_strings: bool) -> Vec<Path> {
    let mut found = Vec::new();
    read_paths(&tokens.into_iter().collect::<Vec<_>>(), in_strings, &mut found);
    found
}

fn read_paths(tokens: &[TokenTree], in_strings: bool, found: &mut Vec<Path>) {
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(_) => at = read_path(tokens, at, &[], found) - 1,
            TokenTree::Group(group) => found.extend(paths(group.stream(), in_strings)),
            TokenTree::Literal(literal) if in_strings => {
                let quoted = syn::parse_str::<syn::LitStr>(&literal.to_string());
                let inner = quoted.ok().and_then(|text| text.value().parse::<TokenStream>().ok());
                let line = literal.span().start().line;
                let inside = inner.map(|tokens| paths(tokens, false)).unwrap_or_default();
                found.extend(inside.into_iter().map(|(segments, _)| (segments, line)));
            }
            _ => {}
        }
        at += 1;
    }
}

/// Reads the path that begins at a name, behind the segments of the trees around it; returns the place behind it.
fn read_path(tokens: &[TokenTree], start: usize, around: &[String], found: &mut Vec<Path>) -> usize {
    let line = tokens[start].span().start().line;
    let mut segments = around.to_vec();
    let mut at = start;
    let mut open = false;
    while let Some(name) = tokens.get(at).and_then(ident) {
        segments.push(name.unraw().to_string());
        at += 1;
        open = colons(tokens, at);
        if !open {
            break;
        }
        at += 2;
    }
    let tree = match tokens.get(at) {
        Some(TokenTree::Group(group)) if open && group.delimiter() == Delimiter::Brace => group,
        _ => {
            if segments.len() > 1 {
                found.push((segments, line));
            }
            return at;
        }
    };
    read_tree(&tree.stream().into_iter().collect::<Vec<_>>(), &segments, found);
    at + 1
}

/// Reads the braces of a `use` tree.
fn read_tree(tokens: &[TokenTree], around: &[String], found: &mut Vec<Path>) {
    for branch in tokens.split(|token| is_mark(std::slice::from_ref(token), 0, ',')) {
        match branch.first() {
            Some(TokenTree::Ident(_)) => _ = read_path(branch, 0, around, found),
            Some(star) => found.push((around.to_vec(), star.span().start().line)),
            None => {}
        }
    }
}

/// All functions whose bodies stand in the tokens.
pub(crate) fn functions(tokens: TokenStream) -> Vec<Function> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => found.extend(functions(group.stream())),
            TokenTree::Ident(word) if word == "fn" => found.extend(function(&tokens[place..])),
            _ => {}
        }
    }
    found
}

/// A function whose `fn` is the first token: up to its braces, unless it ends before them.
fn function(tokens: &[TokenTree]) -> Option<Function> {
    let name = match tokens.get(1)? {
        TokenTree::Ident(name) => name,
        TokenTree::Punct(_) => ident(tokens.get(2)?)?,
        _ => return None,
    };
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ';' => return None,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let (first, last) = (tokens[0].span().start().line, group.span_close().end().line);
                return Some(Function {
                    name: name.unraw().to_string(),
                    line: first,
                    lines: last + 1 - first,
                });
            }
            _ => {}
        }
    }
    None
}

/// The names of methods that are called, at any depth, with their lines.
pub(crate) fn calls(tokens: TokenStream) -> Vec<(String, usize)> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            found.extend(calls(group.stream()));
        }
        let arguments = matches!(tokens.get(place + 2), Some(TokenTree::Group(_)));
        if let (true, Some(name)) =
            (is_mark(&tokens, place, '.') && arguments, tokens.get(place + 1).and_then(ident))
        {
            found.push((name.unraw().to_string(), name.span().start().line));
        }
    }
    found
}

/// The words and the string literals on chosen lines, at any depth.
pub(crate) fn words(tokens: TokenStream, is_chosen: &dyn Fn(usize) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => found.extend(words(group.stream(), is_chosen)),
            TokenTree::Punct(_) => {}
            other if is_chosen(other.span().start().line) => {
                found.push(other.to_string().trim_matches('"').to_owned());
            }
            _ => {}
        }
    }
    found
}

/// The lines with these tokens in a row, at any depth.
pub(crate) fn lines_with(tokens: TokenStream, sought: &[&str]) -> Vec<usize> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_sought = |(token, text): (&TokenTree, &&str)| match token {
        TokenTree::Group(_) => false,
        other => other.to_string() == **text,
    };
    let hits = tokens.windows(sought.len()).filter(|window| window.iter().zip(sought).all(is_sought));
    let mut found: Vec<usize> = hits.map(|window| window[0].span().start().line).collect();
    for token in tokens {
        if let TokenTree::Group(group) = token {
            found.extend(lines_with(group.stream(), sought));
        }
    }
    found
}

/// The lines of attributes that name a module's file.
pub(crate) fn renamed_files(tokens: TokenStream) -> Vec<usize> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let is_attribute =
            place > 0 && (is_mark(&tokens, place - 1, '#') || is_mark(&tokens, place - 1, '!'));
        if is_attribute && group.stream().to_string().contains("path = \"") {
            found.push(group.span_open().start().line);
        }
        found.extend(renamed_files(group.stream()));
    }
    found
}

fn ident(token: &TokenTree) -> Option<&Ident> {
    match token {
        TokenTree::Ident(ident) => Some(ident),
        _ => None,
    }
}

/// Whether a punctuation mark stands at a place.
fn is_mark(tokens: &[TokenTree], at: usize, mark: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

/// Whether `::` stands at a place.
fn colons(tokens: &[TokenTree], at: usize) -> bool {
    let joint = matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.spacing() == Spacing::Joint);
    joint && is_mark(tokens, at, ':') && is_mark(tokens, at + 1, ':')
}

#[cfg(test)]
fn read(text: &str, in_strings: bool) -> Vec<String> {
    let found = paths(text.parse().unwrap(), in_strings).into_iter();
    found.map(|(segments, line)| format!("{line} {}", segments.join("::"))).collect()
}

#[test]
fn paths_are_read_at_any_depth_and_trees_are_flattened() {
    let text = "x => [crate::io::text(&$crate::model::D),\n vec![super::super::rules::A]] , a, b : :: c";
    assert_eq!(read(text, false), ["1 crate::io::text", "1 crate::model::D", "2 super::super::rules::A"]);
    let text = "use crate::{a, b::{c as d, self,\n e::*}, *}; X::<u8>::new";
    let expected = ["1 crate::a", "1 crate::b::c", "1 crate::b::self", "2 crate::b::e", "2 crate", "1 X"];
    assert_eq!(read(text, false)[..5], expected[..5]);
    let text = "crate::io::read::<u8>(x); if a == crate::B { c::d }";
    assert_eq!(read(text, false), ["1 crate::io::read", "1 crate::B", "1 c::d"]);
    let text = "serde(with = \"crate::io::text\", rename = \"some words: a\")";
    assert_eq!(read(text, true), ["1 crate::io::text"]);
    assert_eq!(read(text, false), [""; 0]);
}

#[test]
fn method_calls_and_functions_are_read_at_any_depth() {
    let found = calls("assert!(path\n.exists(), a.field, 1.0, f(b.read_dir()))".parse().unwrap());
    assert_eq!(found, [("exists".to_owned(), 2), ("read_dir".to_owned(), 2)]);
    let text = "($x:ty) => {\n fn one(self) -> $x {\n a();\n }\n fn none();\n fn two() {} }";
    let found =
        functions(text.parse().unwrap()).into_iter().map(|found| (found.name, found.line, found.lines));
    assert!(found.eq([("one".to_owned(), 2, 3), ("two".to_owned(), 6, 1)]));
}
