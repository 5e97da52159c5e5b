//! Paths, calls and functions in tokens, so that those in macros are seen too.

use super::syntax::Function;
use proc_macro2::{Delimiter, Ident, Spacing, TokenStream, TokenTree};
use syn::ext::IdentExt;

/// The segments of a path, and its line.
type Path = (Vec<String>, usize);

/// All paths of two segments or more. `a::{b, c::d}` is two paths, as in a `use` tree. String literals
/// are read too, as in `#[serde(with = "crate::io::text")]`.
pub(crate) fn paths(tokens: TokenStream) -> Vec<Path> {
    let mut found = Vec::new();
    read_paths(&tokens.into_iter().collect::<Vec<_>>(), &mut found);
    found
}

fn read_paths(tokens: &[TokenTree], found: &mut Vec<Path>) {
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(_) => at = read_path(tokens, at, &[], found) - 1,
            TokenTree::Group(group) => found.extend(paths(group.stream())),
            TokenTree::Literal(literal) => {
                let quoted = syn::parse_str::<syn::LitStr>(&literal.to_string());
                let inner = quoted.ok().and_then(|text| text.value().parse::<TokenStream>().ok());
                let line = literal.span().start().line;
                let inside = inner.map(paths).unwrap_or_default();
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

/// A token, or one of the two marks of a group, with its line and the number of groups around it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub text: String,
    pub line: usize,
    pub depth: usize,
}

/// All tokens in order.
pub(crate) fn flat(tokens: TokenStream) -> Vec<Token> {
    let mut found = Vec::new();
    add_flat(tokens, 0, &mut found);
    found
}

fn add_flat(tokens: TokenStream, depth: usize, found: &mut Vec<Token>) {
    for token in tokens {
        let TokenTree::Group(group) = &token else {
            found.push(Token { text: token.to_string(), line: token.span().start().line, depth });
            continue;
        };
        let (open, close) = match group.delimiter() {
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            _ => ("(", ")"),
        };
        found.push(Token { text: open.to_owned(), line: group.span_open().start().line, depth });
        add_flat(group.stream(), depth + 1, found);
        found.push(Token { text: close.to_owned(), line: group.span_close().end().line, depth });
    }
}

/// The places at which these texts stand in a row.
pub(crate) fn places(tokens: &[Token], sought: &[&str]) -> Vec<usize> {
    let is_hit = |place: &usize| {
        tokens[*place..].iter().map(|token| token.text.as_str()).take(sought.len()).eq(sought.iter().copied())
    };
    (0..tokens.len()).filter(is_hit).collect()
}

/// All functions with a body.
pub(crate) fn functions(tokens: &[Token]) -> Vec<Function> {
    let function = |start: usize| {
        let [Token { line, depth, .. }, name, ..] = &tokens[start..] else { return None };
        let mut ends = tokens[start..].iter().filter(|token| token.depth == *depth);
        let end = ends.find(|token| ["{", ";"].contains(&token.text.as_str()));
        let close = ends.next().filter(|_| end.is_some_and(|end| end.text == "{"))?;
        Some(Function { name: name.text.clone(), line: *line, lines: close.line + 1 - line })
    };
    places(tokens, &["fn"]).into_iter().filter_map(function).collect()
}

/// The names of methods that are called, with their lines.
pub(crate) fn calls(tokens: &[Token]) -> impl Iterator<Item = (String, usize)> {
    let calls = tokens.windows(3).filter(|window| window[0].text == "." && window[2].text == "(");
    calls.map(|window| (window[1].text.clone(), window[1].line))
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

#[test]
fn method_calls_and_functions_are_read_at_any_depth() {
    let found = flat("assert!(path\n.exists(), a.field, 1.0, f(b.read_dir()))".parse().unwrap());
    assert!(calls(&found).eq([("exists".to_owned(), 2), ("read_dir".to_owned(), 2)]));
    let text = "($x:ty) => {\n fn one(self) -> $x {\n a();\n }\n fn none(); f: fn(u8); fn two() {} }";
    let found = functions(&flat(text.parse().unwrap())).into_iter();
    let found: Vec<_> = found.map(|found| (found.name, found.line, found.lines)).collect();
    assert_eq!(found, [("one".to_owned(), 2, 3), ("two".to_owned(), 5, 1)]);
}
