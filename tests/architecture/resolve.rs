//! Resolves paths of the source to files: by the tree of modules, `use`, and re-exports.
//!
//! A path that begins with a plain word is followed if a `use`, a child module or a glob of its module explains the
//! word. Re-exports are followed by name and through globs, up to [`STEPS`] of them. Where a word is no module, no
//! item and no re-export (a macro made it), the path ends in the last module that is known. Names inside functions
//! count as names of the module around. Method calls and fields name no file.

use super::sources::House;
use super::syntax::{Import, Name};
use std::collections::{HashMap, HashSet};

/// Re-exports that one path may pass.
const STEPS: usize = 8;

/// Where a path leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Out of the crate.
    Outside(Vec<String>),
    /// To a module itself.
    Module(Vec<String>),
    /// To something in a module: the path from the root, and how many of its segments are the module.
    Item { path: Vec<String>, module: usize },
}

impl Place {
    /// The path from the root of the crate; `None` outside.
    pub(crate) fn path(&self) -> Option<&[String]> {
        match self {
            Self::Outside(_) => None,
            Self::Module(path) | Self::Item { path, .. } => Some(path),
        }
    }
}

/// The modules of a crate and what each brings in.
#[derive(Debug)]
pub(crate) struct Tree<'h> {
    /// Place among the house's files, by module; a module in braces has the file around it.
    files: HashMap<&'h [String], usize>,
    items: HashSet<(&'h [String], &'h str)>,
    imports: HashMap<&'h [String], Vec<&'h Import>>,
}

impl<'h> Tree<'h> {
    /// Reads the modules of a house, without those for tests.
    pub(crate) fn new(house: &'h House) -> Self {
        let (mut files, mut items) = (HashMap::new(), HashSet::new());
        let mut imports: HashMap<&[String], Vec<&Import>> = HashMap::new();
        for (place, file) in house.files.iter().enumerate().filter(|(_, file)| !file.is_test) {
            files.insert(file.module.as_slice(), place);
            let inner = file.syntax.modules.iter().filter(|module| module.inline && !module.test);
            files.extend(inner.map(|module| (module.path.as_slice(), place)));
            let defined = file.syntax.definitions.iter();
            items.extend(defined.map(|item| (item.module.as_slice(), item.name.as_str())));
            for import in &file.syntax.imports {
                imports.entry(&import.target.module).or_default().push(import);
            }
        }
        Self { files, items, imports }
    }

    /// The file that holds a module, as its place among the house's files.
    pub(crate) fn file(&self, module: &[String]) -> Option<usize> {
        self.files.get(module).copied()
    }

    /// All places where a path may lead; a word may be a module and an item at once.
    pub(crate) fn resolve(&self, name: &Name) -> Vec<Place> {
        let mut places = self.follow(&name.module, &name.segments, STEPS);
        places.dedup();
        places
    }

    fn follow(&self, module: &[String], segments: &[String], steps: usize) -> Vec<Place> {
        let outside = || vec![Place::Outside(segments.to_vec())];
        let Some(first) = segments.first().filter(|_| steps > 0) else { return outside() };
        if let Some(path) = from_root(module, segments) {
            return self.descend(&path, steps);
        }
        let inner = [module, segments].concat();
        let own = &inner[..module.len() + 1];
        if self.files.contains_key(own) || self.items.contains(&(module, first.as_str())) {
            return self.descend(&inner, steps);
        }
        let places = self.through_imports(module, segments, steps);
        if places.is_empty() { outside() } else { places }
    }

    /// Follows the `use` lines of a module that bring in the first segment, and its globs if none does.
    fn through_imports(&self, module: &[String], segments: &[String], steps: usize) -> Vec<Place> {
        let imports = self.imports.get(module).map_or(&[][..], Vec::as_slice);
        let named = imports.iter().filter(|import| import.alias.as_deref() == Some(segments[0].as_str()));
        let named: Vec<Place> = named
            .flat_map(|import| {
                let path = [&import.target.segments[..], &segments[1..]].concat();
                self.follow(module, &path, steps - 1)
            })
            .collect();
        if !named.is_empty() {
            return named;
        }
        let globs = imports.iter().filter(|import| import.target.glob);
        globs.flat_map(|import| self.through_glob(import, segments, steps)).collect()
    }

    /// Follows a glob if its module holds the first segment.
    fn through_glob(&self, import: &Import, segments: &[String], steps: usize) -> Vec<Place> {
        let sources = self.follow(&import.target.module, &import.target.segments, steps - 1);
        let modules = sources.into_iter().filter_map(|place| match place {
            Place::Module(path) => Some(path),
            _ => None,
        });
        let found = modules.flat_map(|module| {
            let places = self.descend(&[&module[..], segments].concat(), steps - 1);
            places.into_iter().filter(move |place| !self.is_guess(place, module.len()))
        });
        found.collect()
    }

    /// Whether a place is an item that a module of this depth does not define: some other module brings it in.
    fn is_guess(&self, place: &Place, depth: usize) -> bool {
        match place {
            Place::Item { path, module } if *module == depth => {
                !self.items.contains(&(&path[..depth], path[depth].as_str()))
            }
            _ => false,
        }
    }

    /// Walks a path from the root down the modules, then through re-exports.
    fn descend(&self, path: &[String], steps: usize) -> Vec<Place> {
        let is_module = |length: &usize| self.files.contains_key(&path[..*length]);
        let depth = (1..path.len()).rev().find(is_module).unwrap_or(0);
        let Some(word) = path.get(depth) else { return vec![Place::Module(Vec::new())] };
        let mut places = Vec::new();
        if is_module(&path.len()) {
            places.push(Place::Module(path.to_vec()));
        }
        let item = Place::Item { path: path.to_vec(), module: depth };
        if self.items.contains(&(&path[..depth], word.as_str())) {
            places.push(item);
            return places;
        }
        if steps > 0 {
            places.extend(self.through_imports(&path[..depth], &path[depth..], steps));
        }
        if places.is_empty() { vec![item] } else { places }
    }
}

/// The path from the root, if the first segment says where it begins. `fedmill` is the crate itself.
fn from_root(module: &[String], segments: &[String]) -> Option<Vec<String>> {
    let segments = segments.strip_prefix(&[String::new()]).unwrap_or(segments);
    let is_climb = |segment: &&String| ["self", "super"].contains(&segment.as_str());
    let climb = segments.iter().take_while(is_climb).count();
    match segments.first()?.as_str() {
        "crate" | "fedmill" => Some(segments[1..].to_vec()),
        _ if climb == 0 => None,
        _ => {
            let supers = segments[..climb].iter().filter(|segment| *segment == "super").count();
            let around = &module[..module.len().saturating_sub(supers)];
            Some([around, &segments[climb..]].concat())
        }
    }
}

/// The path from the root that a name writes out itself, before any re-export.
pub(crate) fn as_written(name: &Name) -> Option<Vec<String>> {
    from_root(&name.module, &name.segments)
}
