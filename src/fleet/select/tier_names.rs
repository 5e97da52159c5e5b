//! Names of tiers that a request asks for and no client has.

use crate::fleet::error::FleetError;
use crate::fleet::registry::Registry;

/// The most tiers that a message lists.
const LISTED: usize = 10;

/// Names that are at least this alike may be one name that was mistyped.
const ALIKE: f64 = 0.8;

/// What to say of the tiers among `asked` that no client has; `None` if each has one. Retired clients do not count.
///
/// # Errors
///
/// When the registry cannot be read.
pub(super) fn unknown(registry: &Registry, asked: &[String]) -> Result<Option<String>, FleetError> {
    if asked.is_empty() {
        return Ok(None);
    }
    let known = tiers(registry)?;
    let unknown: Vec<&String> = asked.iter().filter(|asked| !known.contains(asked)).collect();
    Ok((!unknown.is_empty()).then(|| text(&unknown, &known)))
}

/// The tiers of the clients that may be selected, in order.
fn tiers(registry: &Registry) -> Result<Vec<String>, FleetError> {
    let sql = "SELECT DISTINCT tier FROM clients WHERE retired_at IS NULL AND tier IS NOT NULL ORDER BY tier";
    let read = || -> rusqlite::Result<Vec<String>> {
        let mut query = registry.connection().prepare(sql)?;
        query.query_map([], |row| row.get(0))?.collect()
    };
    read().map_err(FleetError::sql(registry.path()))
}

fn text(unknown: &[&String], known: &[String]) -> String {
    let quoted: Vec<String> = unknown.iter().map(|name| format!("`{name}`")).collect();
    let names = quoted.join(" or ");
    if known.is_empty() {
        return format!("no client has tier {names}: no client has a tier");
    }
    let meant = unknown.iter().find_map(|name| nearest(name, known));
    let meant = meant.map_or_else(String::new, |meant| format!(", did you mean `{meant}`"));
    let more = known.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let listed: Vec<&str> = known.iter().take(LISTED).map(String::as_str).collect();
    format!("no client has tier {names}{meant}; clients have {}{more}", listed.join(", "))
}

fn nearest<'k>(name: &str, known: &'k [String]) -> Option<&'k String> {
    let likeness = |other: &String| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= ALIKE).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_alike_is_offered_and_others_are_listed() {
        let known: Vec<String> = ["high", "low"].map(str::to_owned).into();
        let said = |name: &str| text(&[&name.to_owned()], &known);
        assert_eq!(said("hgih"), "no client has tier `hgih`, did you mean `high`; clients have high, low");
        assert_eq!(said("x"), "no client has tier `x`; clients have high, low");
        assert_eq!(text(&[&"x".to_owned()], &[]), "no client has tier `x`: no client has a tier");
    }
}
