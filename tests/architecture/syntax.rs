//! One source file read by a parser: names that it uses, what it defines, where its tests stand.
//!
//! Of what a macro writes only paths, method calls and functions are seen, not types and `impl` blocks.

use super::tokens::{self, Token};
use proc_macro2::TokenStream;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Meta, Type, UseTree};

/// A path as it is written, and the module that it is written in.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub module: Vec<String>,
    pub segments: Vec<String>,
    pub line: usize,
    /// Whether it ends in `::*`.
    pub glob: bool,
}

/// A name that a `use` brings into a module.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    /// What it stands for.
    pub target: Name,
    /// The name inside the module; `None` for a glob and for `_`.
    pub alias: Option<String>,
    /// Whether other modules may use it too.
    pub re_export: bool,
}

/// An item with a name, in the module that defines it.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub module: Vec<String>,
    pub name: String,
    pub line: usize,
    /// Whether it is a struct, an enum, a union, a trait or a type alias.
    pub is_type: bool,
}

/// A struct, with the number of its fields.
#[derive(Clone, Debug)]
pub(crate) struct Struct {
    pub name: String,
    pub line: usize,
    pub fields: usize,
    /// The last words of the traits that it derives.
    pub derives: Vec<String>,
}

/// A function from its signature to its closing brace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// A module that a file declares.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub path: Vec<String>,
    pub line: usize,
    /// Whether its code stands in the braces behind it.
    pub inline: bool,
    /// Whether it is compiled for tests alone.
    pub test: bool,
}

/// What the checks need to know about a file. Items under `#[cfg(test)]` add only to `tests` and `modules`.
#[derive(Default, Debug)]
pub(crate) struct Syntax {
    pub names: Vec<Name>,
    pub imports: Vec<Import>,
    pub definitions: Vec<Definition>,
    /// The types of `impl T` without a trait.
    pub inherent: Vec<Name>,
    pub structs: Vec<Struct>,
    pub functions: Vec<Function>,
    pub modules: Vec<Module>,
    /// Method calls: the name and the line.
    pub calls: Vec<(String, usize)>,
    /// Lines that hold `unsafe`, in tests too.
    pub unsafe_lines: Vec<usize>,
    /// Lines of items that are compiled for tests alone.
    pub tests: Vec<RangeInclusive<usize>>,
    /// Lines that bring in code from a file whose name no `mod` says: `#[path]`, `#[macro_use]` and
    /// `include!`, in tests too, but for the tables that `build.rs` writes into `OUT_DIR`.
    pub moved_code: Vec<usize>,
    /// Line of the first item that is no module.
    pub first_item: Option<usize>,
    /// Words and string literals in constants and macro calls of the file, where registries stand.
    pub registered: BTreeSet<String>,
}

impl Syntax {
    /// Reads the source of a module.
    pub(crate) fn read(text: &str, module: &[String]) -> Result<Self, syn::Error> {
        let file = syn::parse_file(text)?;
        let mut reader = Reader { module: module.to_vec(), found: Self::default(), in_re_export: false };
        let all = tokens::flat(text.parse()?);
        let line_of = |place: usize| all[place].line;
        reader.found.unsafe_lines = tokens::places(&all, &["unsafe"]).into_iter().map(line_of).collect();
        reader.found.moved_code = moved_code(&all);
        let is_module = |item: &&Item| matches!(item, Item::Mod(_)) || tests_only(attributes_of(item));
        let other = file.items.iter().find(|item| !is_module(item));
        reader.found.first_item = other.map(|item| item.span().start().line);
        for item in &file.items {
            let lines = lines_of(item);
            let in_item = |token: &&Token| lines.contains(&token.line);
            if matches!(
                item,
                Item::Const(_) | Item::Static(_) | Item::Macro(syn::ItemMacro { ident: None, .. })
            ) {
                let words = all.iter().filter(in_item).map(|token| token.text.trim_matches('"').to_owned());
                reader.found.registered.extend(words);
            }
        }
        if tests_only(&file.attrs) {
            reader.found.tests.push(1..=text.lines().count());
        } else {
            reader.visit_file(&file);
        }
        let Self { tests, calls, functions, .. } = &mut reader.found;
        let is_program = |line: usize| !tests.iter().any(|lines| lines.contains(&line));
        calls.extend(tokens::calls(&all).filter(|(_, line)| is_program(*line)));
        functions.extend(tokens::functions(&all).into_iter().filter(|function| is_program(function.line)));
        Ok(reader.found)
    }

    /// The number of lines that are compiled for tests alone.
    pub(crate) fn test_lines(&self) -> usize {
        self.tests.iter().cloned().flatten().collect::<BTreeSet<usize>>().len()
    }
}

/// Lines with `#[path = ".."]`, `#[macro_use]` or `include!`, but for what `build.rs` writes.
fn moved_code(tokens: &[Token]) -> Vec<usize> {
    let at = |sought: &[&str]| tokens::places(tokens, sought);
    let written = at(&["env", "!", "(", "\"OUT_DIR\""]);
    let is_written = |include: &usize| written.iter().any(|place| (*include..include + 9).contains(place));
    let includes = at(&["include", "!"]).into_iter().filter(|include| !is_written(include));
    let is_renamed = |place: &usize| tokens.get(place + 3).is_some_and(|token| token.text.starts_with('"'));
    let renamed = [at(&["[", "path", "="]), at(&[",", "path", "="])].concat().into_iter().filter(is_renamed);
    includes.chain(renamed).chain(at(&["[", "macro_use"])).map(|place| tokens[place].line).collect()
}

fn lines_of(node: &impl Spanned) -> RangeInclusive<usize> {
    node.span().start().line..=node.span().end().line
}

/// Whether attributes keep an item out of every build but that of the tests. Other predicates count as the program's.
fn tests_only(attributes: &[Attribute]) -> bool {
    let is_test = |meta: &Meta| meta.path().is_ident("test");
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => match list.parse_args::<Meta>() {
            Ok(Meta::List(all)) if all.path.is_ident("all") => parts::<Meta>(&all).iter().any(is_test),
            Ok(predicate) => is_test(&predicate),
            Err(_) => false,
        },
        meta => matches!(meta, Meta::Path(_)) && is_test(meta),
    })
}

/// What stands in an attribute's parentheses, between commas.
fn parts<T: syn::parse::Parse>(list: &syn::MetaList) -> Vec<T> {
    let parser = syn::punctuated::Punctuated::<T, syn::Token![,]>::parse_terminated;
    list.parse_args_with(parser).into_iter().flatten().collect()
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

struct Reader {
    /// The module that is being read, which `mod x { }` makes longer for its braces.
    module: Vec<String>,
    found: Syntax,
    /// Whether the `use` that is being read has a visibility.
    in_re_export: bool,
}

impl Reader {
    /// Records a node that is compiled for tests alone; returns whether it is.
    fn skips(&mut self, attributes: &[Attribute], node: &impl Spanned) -> bool {
        let skipped = tests_only(attributes);
        if skipped {
            self.found.tests.push(lines_of(node));
        }
        skipped
    }

    fn name(&self, segments: Vec<String>, line: usize) -> Name {
        Name { module: self.module.clone(), segments, line, glob: false }
    }

    fn define(&mut self, item: &Item) {
        let (ident, is_type) = match item {
            Item::Enum(item) => (&item.ident, true),
            Item::Struct(item) => (&item.ident, true),
            Item::Trait(item) => (&item.ident, true),
            Item::Type(item) => (&item.ident, true),
            Item::Union(item) => (&item.ident, true),
            Item::Const(item) => (&item.ident, false),
            Item::Static(item) => (&item.ident, false),
            Item::Fn(item) => (&item.sig.ident, false),
            Item::Macro(syn::ItemMacro { ident: Some(ident), .. }) => (ident, false),
            _ => return,
        };
        let (name, line) = (ident.unraw().to_string(), ident.span().start().line);
        self.found.definitions.push(Definition { module: self.module.clone(), name, line, is_type });
    }

    /// Records the leaves of a `use` tree.
    fn flatten(&mut self, tree: &UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.unraw().to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.flatten(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => group.items.iter().for_each(|branch| self.flatten(branch, before)),
            UseTree::Name(name) if name.ident == "self" => {
                self.import(before.to_vec(), before.last().cloned(), name)
            }
            UseTree::Name(name) => self.import(with(&name.ident), Some(name.ident.unraw().to_string()), name),
            UseTree::Rename(name) => {
                let path = if name.ident == "self" { before.to_vec() } else { with(&name.ident) };
                let alias = name.rename.unraw().to_string();
                self.import(path, Some(alias).filter(|alias| alias != "_"), name);
            }
            UseTree::Glob(star) => {
                self.import(before.to_vec(), None, star);
                let imported = self.found.imports.last_mut().unwrap();
                imported.target.glob = true;
            }
        }
    }

    fn import(&mut self, segments: Vec<String>, alias: Option<String>, node: &impl Spanned) {
        let target = self.name(segments, node.span().start().line);
        self.found.imports.push(Import { target, alias, re_export: self.in_re_export });
    }
}

/// The segments of a path, of which a leading `::` is an empty one.
fn segments(path: &syn::Path) -> Vec<String> {
    let start = path.leading_colon.iter().map(|_| String::new());
    start.chain(path.segments.iter().map(|segment| segment.ident.unraw().to_string())).collect()
}

/// The path of a type or of its first trait.
fn path_of(kind: &Type) -> Option<&syn::Path> {
    match kind {
        Type::Path(named) => Some(&named.path),
        Type::TraitObject(object) => object.bounds.iter().find_map(|bound| match bound {
            syn::TypeParamBound::Trait(bound) => Some(&bound.path),
            _ => None,
        }),
        _ => None,
    }
}

fn derives(attributes: &[Attribute]) -> Vec<String> {
    let lists = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("derive") => Some(parts::<syn::Path>(list)),
        _ => None,
    });
    lists.flatten().filter_map(|path| Some(path.segments.last()?.ident.to_string())).collect()
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = attributes_of(item);
        if let Item::Mod(module) = item {
            let path = [self.module.as_slice(), &[module.ident.unraw().to_string()]].concat();
            self.found.modules.push(Module {
                path,
                line: module.ident.span().start().line,
                inline: module.content.is_some(),
                test: tests_only(attributes),
            });
        }
        if !self.skips(attributes, item) {
            self.define(item);
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.unraw().to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            _ => &[],
        };
        if !self.skips(attributes, item) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        visit::visit_visibility(self, &item.vis);
        let start: Vec<String> = item.leading_colon.iter().map(|_| String::new()).collect();
        self.in_re_export = !matches!(item.vis, syn::Visibility::Inherited);
        self.flatten(&item.tree, &start);
        self.in_re_export = false;
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        if let Some((_, alias)) = &item.rename {
            let name = item.ident.unraw().to_string();
            let origin = if ["self", "fedmill"].contains(&name.as_str()) { "crate".to_owned() } else { name };
            self.import(vec![origin], Some(alias.unraw().to_string()), item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = path.span().start().line;
        self.found.names.push(self.name(segments(path), line));
        visit::visit_path(self, path);
    }

    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        let paths = tokens::paths(tokens.clone());
        let names: Vec<Name> = paths.into_iter().map(|(segments, line)| self.name(segments, line)).collect();
        self.found.names.extend(names);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.found.structs.push(Struct {
            name: item.ident.unraw().to_string(),
            line: item.ident.span().start().line,
            fields: item.fields.len(),
            derives: derives(&item.attrs),
        });
        visit::visit_item_struct(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let (None, Some(path)) = (&item.trait_, path_of(&item.self_ty)) {
            let line = item.impl_token.span.start().line;
            self.found.inherent.push(self.name(segments(path), line));
        }
        visit::visit_item_impl(self, item);
    }
}
