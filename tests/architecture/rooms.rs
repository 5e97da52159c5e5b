//! The rooms, the arrows that may stand between them, and what must hold for that table itself.

use super::graph::circles;
use super::report::{Rule, Violation, texts};
use super::sources::House;
use std::collections::BTreeSet;

/// Rows of names, which stand as words.
pub(crate) type Table = [(&'static str, &'static str)];

/// Folders that hold rooms. A path inside one names the room by its second part: `engine::passes`.
pub(crate) const GROUPS: &Table =
    &[("engine", "aggregate decide intake passes backend"), ("modes", "tiers gaps tree shards dp secure he")];

/// Which rooms each room may use, those that are planned too. A room may stand in several rows, which then add up; `*` is
/// every room.
pub(crate) const ARROWS: &Table = &[
    ("main", "cli"),
    ("cli", "*"),
    // The options that subcommands share, as what the rooms take.
    (
        "options",
        "aggregate intake decide passes backend tiers compress updates strategies rules gpu kernels io telemetry settings model",
    ),
    (
        "bench",
        "aggregate dp budget inspect intake decide passes backend compress updates codecs privacy strategies rules gpu kernels io \
         telemetry settings model",
    ),
    ("doctor", "gpu privacy kernels io telemetry"),
    (
        "simulate",
        "attacks aggregate tiers gaps dp secure compress updates strategies rules codecs kernels io telemetry settings \
         model",
    ),
    // `passes` and `kernels` for the machine that a merge runs on.
    ("round", "passes kernels"),
    (
        "round",
        "fleet aggregate tiers gaps tree dp secure compress budget backend intake decide strategies rules record io \
         telemetry settings model",
    ),
    // `codecs` for the names of codecs in its configuration; `privacy` for the plan that `budget` keeps, and its cost;
    // `updates` for the kind of updates.
    ("round", "codecs parties privacy config lint updates"),
    // `dp` for the steps that a private round may take, `parties` for the grid of secure ones, `model` for the tensors that
    // a strategy keeps.
    ("lint", "config dp parties fleet model privacy rules settings strategies"),
    // The names and numbers that the keys of `fedmill.toml` take.
    ("config", "codecs intake fleet io rules settings strategies telemetry"),
    // `round`, `config` and `budget` for the plan of the next round, `rules` for what the rule of a merge tolerates.
    ("templates", "round config budget plan language schema rules io settings telemetry"),
    // `io` for the programs that a plan needs.
    ("review", "plan endpoint language schema tasks io settings telemetry"),
    ("tasks", "plan endpoint language schema io"),
    // `measures`, `rules` and `shards` for the numbers of a round, which the shard files of `gram` hold too.
    ("watch", "plan tuning tasks language schema measures rules shards record io settings telemetry"),
    ("plan", "tuning endpoint record io telemetry settings language schema measures"),
    // `io` for digests.
    ("tuning", "language schema measures io"),
    ("endpoint", "language schema"),
    ("language", "schema measures"),
    ("schema", "settings"),
    // The metrics of a round are those of its report.
    ("measures", "rules"),
    (
        "tiers gaps tree shards dp secure he parties",
        "aggregate intake decide passes backend updates strategies rules kernels io telemetry settings model",
    ),
    ("dp", "budget gpu privacy record"),
    ("secure he", "parties record"),
    // The budget of sessions under one.
    ("secure", "budget privacy"),
    ("parties", "record"),
    ("inspect", "intake passes updates kernels io telemetry model"),
    // `telemetry` for the hints of its errors.
    ("personalize", "intake updates kernels io telemetry model"),
    ("aggregate", "intake decide passes backend updates strategies rules gpu kernels io telemetry model"),
    ("intake", "updates strategies io telemetry model"),
    ("decide", "strategies rules kernels"),
    ("passes", "updates rules gpu kernels io parallel telemetry model"),
    ("backend", "gpu kernels io telemetry"),
    ("compress", "updates codecs gpu kernels io telemetry settings model"),
    ("budget", "updates privacy kernels record io model"),
    // `telemetry` for the hints of its errors.
    ("fleet", "record io telemetry settings model"),
    ("attacks", "rules kernels"),
    ("updates", "codecs kernels io model"),
    ("strategies", "rules kernels settings model"),
    ("codecs", "kernels settings model"),
    ("rules", "parallel settings"),
    ("privacy", "kernels record"),
    ("gpu", "kernels model"),
    ("kernels io", "model"),
    ("telemetry", "model"),
    ("record settings model parallel", ""),
];

/// Rooms that compute alone: no files, no device, no threads, no clock.
pub(crate) const PURE: &[&str] =
    &["decide", "rules", "strategies", "privacy", "record", "attacks", "measures"];

const TABLE_FILE: &str = "tests/architecture/rooms.rs";

const TABLE: Rule = Rule {
    says: "arrows go one way; modes know no mode; nothing below `aggregate` knows a mode; pure rooms use no machine",
    instead: "change ARROWS in tests/architecture/rooms.rs so that the new arrow keeps all four",
};

/// Names of a list that is written as words.
pub(crate) fn words(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split_whitespace()
}

/// The rooms that a row of the table names on its left side.
pub(crate) fn rooms_of_table(table: &Table) -> BTreeSet<&'static str> {
    table.iter().flat_map(|(rooms, _)| words(rooms)).collect()
}

/// The rooms that a room may use.
pub(crate) fn allowed(table: &Table, room: &str) -> BTreeSet<&'static str> {
    let rows = table.iter().filter(|(rooms, _)| words(rooms).any(|name| name == room));
    let used: BTreeSet<&str> = rows.flat_map(|(_, used)| words(used)).collect();
    if used.contains("*") {
        let all = rooms_of_table(table).into_iter();
        return all.filter(|name| ![room, "main"].contains(name)).collect();
    }
    used
}

/// The room that a path from the root of the crate names; `None` for the root, a group alone, and what is no room.
pub(crate) fn room_of(path: &[String]) -> Option<&str> {
    let first = path.first()?;
    if GROUPS.iter().any(|(group, _)| group == first) { path.get(1) } else { Some(first) }.map(String::as_str)
}

/// Whether a name is that of a group of rooms.
pub(crate) fn is_group(name: &str) -> bool {
    GROUPS.iter().any(|(group, _)| *group == name)
}

/// Whether a room is a mode.
pub(crate) fn is_mode(room: &str) -> bool {
    rooms_in_group("modes").any(|mode| mode == room)
}

/// The rooms of a group.
pub(crate) fn rooms_in_group(group: &str) -> impl Iterator<Item = &'static str> {
    GROUPS.iter().filter(move |(name, _)| *name == group).flat_map(|(_, rooms)| words(rooms))
}

/// The rooms that a room reaches over any number of arrows.
pub(crate) fn below(table: &Table, room: &str) -> BTreeSet<&'static str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = allowed(table, room).into_iter().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(allowed(table, next));
        }
    }
    reached
}

fn at_table(found: String) -> Violation {
    Violation { place: TABLE_FILE.to_owned(), found }
}

/// Where the table breaks its rules.
fn faults_of_table(table: &Table) -> Vec<Violation> {
    let rooms: Vec<&str> = rooms_of_table(table).into_iter().collect();
    let place = |name: &str| rooms.iter().position(|room| *room == name);
    let mut found = Vec::new();
    let mut arrows = vec![Vec::new(); rooms.len()];
    for (from, room) in rooms.iter().enumerate() {
        for used in allowed(table, room) {
            match place(used) {
                Some(to) => arrows[from].push(to),
                None => found.push(at_table(format!("`{room}` may use `{used}`, which has no row"))),
            }
            if is_mode(room) && is_mode(used) {
                found.push(at_table(format!("the mode `{room}` may use the mode `{used}`")));
            }
            if PURE.contains(room) && ["io", "gpu", "telemetry"].contains(&used) {
                found.push(at_table(format!("the pure room `{room}` may use `{used}`")));
            }
        }
    }
    for circle in circles(&arrows) {
        let names: Vec<&str> = circle.into_iter().map(|place| rooms[place]).collect();
        found.push(at_table(format!("a circle of arrows: {}", names.join(", "))));
    }
    let modes = below(table, "aggregate").into_iter().filter(|room| is_mode(room));
    found.extend(modes.map(|mode| at_table(format!("`aggregate` reaches the mode `{mode}`"))));
    found
}

/// Rooms that stand in no row, or in a group that does not list them.
fn unlisted_rooms(house: &House) -> Vec<Violation> {
    let rows = rooms_of_table(ARROWS);
    let rooms = house.files.iter().filter_map(|file| Some((file.module.first()?.as_str(), file.room()?)));
    let is_listed =
        |group: &str, room: &str| !is_group(group) || rooms_in_group(group).any(|name| name == room);
    let unlisted = rooms.filter(|(group, room)| !rows.contains(room) || !is_listed(group, room));
    unlisted.map(|(_, room)| at_table(format!("`{room}` is not listed in ARROWS or GROUPS"))).collect()
}

#[test]
fn the_table_of_arrows_is_sound() {
    TABLE.holds(|house| [faults_of_table(ARROWS), unlisted_rooms(house)].concat());
}

#[test]
fn a_room_that_the_tables_lack_is_found() {
    let house = House::planted(&[
        ("src/lib.rs", ""),
        ("src/gone/mod.rs", ""),
        ("src/rules/mod.rs", ""),
        ("src/modes/tiers/mod.rs", ""),
        ("src/modes/rules/mod.rs", ""),
    ]);
    let found: Vec<String> = ["gone", "rules"]
        .map(|room| format!("{TABLE_FILE}: `{room}` is not listed in ARROWS or GROUPS"))
        .into();
    assert_eq!(texts(&unlisted_rooms(&house)), found);
}

#[test]
fn a_table_that_breaks_a_rule_is_found() {
    let cases: [(&Table, Option<&str>); 6] = [
        (&[("rules codecs", "settings"), ("settings", "")], None),
        (
            &[("rules", "settings"), ("settings", "codecs"), ("codecs", "rules")],
            Some("a circle of arrows: codecs, rules, settings"),
        ),
        (&[("tiers", "tree"), ("tree", "")], Some("the mode `tiers` may use the mode `tree`")),
        (
            &[("aggregate", "intake"), ("intake", "shards"), ("shards", "")],
            Some("`aggregate` reaches the mode `shards`"),
        ),
        (&[("rules", "gpu"), ("gpu", "")], Some("the pure room `rules` may use `gpu`")),
        (&[("rules", "sums")], Some("`rules` may use `sums`, which has no row")),
    ];
    for (table, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|text| format!("{TABLE_FILE}: {text}")).collect();
        assert_eq!(texts(&faults_of_table(table)), expected);
    }
}
