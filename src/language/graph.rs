//! Which stages of a plan wait for which.

use crate::language::condition::{Condition, ConditionError};
use crate::language::template::{Reference, Template, each_text};
use crate::schema::Plan;
use crate::schema::stage::Stage;
use std::collections::{BTreeMap, BTreeSet};

/// The stages of a plan and what each waits for, by their places in the plan.
#[derive(Clone, Debug)]
pub struct Graph {
    /// For each stage, the stages that it waits for, in order of place.
    pub needs: Vec<Vec<usize>>,
    /// For each stage, the stages that wait for it, in order of place.
    pub needed_by: Vec<Vec<usize>>,
    /// All stages, each behind those that it waits for; ties in order of place.
    pub order: Vec<usize>,
}

/// Stages that wait for each other.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("stages that wait for each other: {}", .0.join(" -> "))]
pub struct Cycle(pub Vec<String>);

/// Names of stages with their places.
pub fn places(plan: &Plan) -> BTreeMap<&str, usize> {
    plan.stages.iter().enumerate().map(|(place, stage)| (stage.id.as_str(), place)).collect()
}

/// The names of the stages that a stage waits for, as it states them.
///
/// # Errors
///
/// When its `depends` is no condition.
pub fn stated_needs(stage: &Stage) -> Result<BTreeSet<String>, ConditionError> {
    let mut needs: BTreeSet<String> = stage.needs.iter().map(ToString::to_string).collect();
    if let Some(depends) = &stage.depends {
        let reads = Condition::parse(depends)?.reads();
        needs.extend(
            reads.into_iter().filter(|path| path[0] == "stages").filter_map(|path| path.get(1).cloned()),
        );
    }
    Ok(needs)
}

/// The references in the texts of a stage.
pub fn references(stage: &Stage) -> Vec<Reference> {
    let mut found = Vec::new();
    // The stage as JSON has all of its texts; those that are no templates have no reference to a stage.
    let value = serde_json::to_value(stage).unwrap_or_default();
    each_text(&value, "$", &mut |_, text| {
        if let Ok(template) = Template::parse(text) {
            found.extend(template.references().cloned());
        }
    });
    found
}

impl Graph {
    /// The graph of a plan. Names that are no stage, and a `depends` that is no condition, add nothing: lint names them.
    ///
    /// # Errors
    ///
    /// When stages wait for each other.
    pub fn of(plan: &Plan) -> Result<Self, Cycle> {
        let places = places(plan);
        let needs: Vec<Vec<usize>> = plan
            .stages
            .iter()
            .map(|stage| {
                let stated = stated_needs(stage).unwrap_or_default();
                let found: BTreeSet<usize> =
                    stated.iter().filter_map(|name| places.get(name.as_str()).copied()).collect();
                found.into_iter().collect()
            })
            .collect();
        let mut needed_by = vec![Vec::new(); needs.len()];
        for (place, needs) in needs.iter().enumerate() {
            needs.iter().for_each(|need| needed_by[*need].push(place));
        }
        let order = sorted(&needs, &needed_by);
        if order.len() < needs.len() {
            let names = cycle(&needs, &order).into_iter().map(|place| plan.stages[place].id.to_string());
            return Err(Cycle(names.collect()));
        }
        Ok(Self { needs, needed_by, order })
    }

    /// The stages that a stage waits for, directly or through others.
    pub fn ancestors(&self, stage: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = self.needs[stage].clone();
        while let Some(next) = open.pop() {
            if found.insert(next) {
                open.extend(&self.needs[next]);
            }
        }
        found
    }

    /// Whether the failure of a stage is a result, and no failure of the run: the stage may fail, or the `depends` of
    /// another one waits for its end.
    pub fn failure_is_a_result(&self, plan: &Plan, stage: usize) -> bool {
        plan.stages[stage].may_fail()
            || self.needed_by[stage].iter().any(|next| plan.stages[*next].depends.is_some())
    }

    /// For each stage, the greatest sum of costs along a path from it to the end, its own included.
    pub fn remaining(&self, cost: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut remaining = vec![0.0_f64; self.needs.len()];
        for stage in self.order.iter().rev() {
            let behind = self.needed_by[*stage].iter().map(|next| remaining[*next]).fold(0.0, f64::max);
            remaining[*stage] = cost(*stage) + behind;
        }
        remaining
    }

    /// The stages of the path with the greatest sum of costs, first to last.
    pub fn critical_path(&self, cost: impl Fn(usize) -> f64) -> Vec<usize> {
        let remaining = self.remaining(cost);
        let longest = |stages: &mut dyn Iterator<Item = usize>| {
            stages.reduce(|best, next| if remaining[next] > remaining[best] { next } else { best })
        };
        let mut path = Vec::new();
        let mut next = longest(&mut self.order.iter().copied().filter(|stage| self.needs[*stage].is_empty()));
        while let Some(stage) = next {
            path.push(stage);
            next = longest(&mut self.needed_by[stage].iter().copied());
        }
        path
    }
}

/// Kahn's order, ties by place.
fn sorted(needs: &[Vec<usize>], needed_by: &[Vec<usize>]) -> Vec<usize> {
    let mut left: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut ready: BTreeSet<usize> = (0..needs.len()).filter(|stage| left[*stage] == 0).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(stage) = ready.pop_first() {
        order.push(stage);
        for next in &needed_by[stage] {
            left[*next] -= 1;
            if left[*next] == 0 {
                ready.insert(*next);
            }
        }
    }
    order
}

/// One cycle among the stages that have no place in the order.
fn cycle(needs: &[Vec<usize>], order: &[usize]) -> Vec<usize> {
    let sorted: BTreeSet<usize> = order.iter().copied().collect();
    let Some(mut at) = (0..needs.len()).find(|stage| !sorted.contains(stage)) else { return Vec::new() };
    let mut path = Vec::new();
    loop {
        if let Some(first) = path.iter().position(|stage| *stage == at) {
            path.drain(..first);
            path.push(at);
            path.reverse();
            return path;
        }
        path.push(at);
        let Some(next) = needs[at].iter().copied().find(|need| !sorted.contains(need)) else { return path };
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn plan(stages: &str) -> Plan {
        let text = format!(r#"{{"schema":"fedmill.plan/1","id":"p","stages":[{stages}]}}"#);
        crate::plan::read::parse(&text, Path::new("p.json")).unwrap()
    }

    #[test]
    fn stages_stand_behind_what_they_need() {
        let plan = plan(
            r#"{"id":"d","needs":["b","c"]},{"id":"a"},{"id":"b","needs":["a"]},
            {"id":"c","depends":"stages.a.ok || stages.a.failed"}"#,
        );
        let graph = Graph::of(&plan).unwrap();
        assert_eq!(graph.order, [1, 2, 3, 0]);
        assert_eq!(graph.ancestors(0), BTreeSet::from([1, 2, 3]));
        let cost = |stage: usize| [1.0, 1.0, 5.0, 2.0][stage];
        assert_eq!(graph.critical_path(cost), [1, 2, 0]);
        assert_eq!(graph.remaining(cost), [1.0, 7.0, 6.0, 3.0]);
    }

    #[test]
    fn a_cycle_is_named() {
        let plan = plan(
            r#"{"id":"a"},{"id":"b","needs":["a","d"]},{"id":"c","needs":["b"]},{"id":"d","needs":["c"]}"#,
        );
        assert_eq!(Graph::of(&plan).unwrap_err().0, ["b", "c", "d", "b"]);
    }
}
