//! The picture of a plan as JSON.

use super::picture::{Picture, Shape, worker};
use crate::plan::read::digest;
use serde::Serialize;

#[derive(Serialize)]
struct Shown<'p> {
    plan: &'p str,
    digest: String,
    /// The stages of the critical path, first to last.
    critical_path: Vec<&'p str>,
    stages: Vec<ShownStage<'p>>,
    loops: Vec<ShownLoop<'p>>,
}

#[derive(Serialize)]
struct ShownStage<'p> {
    id: &'p str,
    kind: &'static str,
    worker: Option<String>,
    needs: Vec<&'p str>,
    branch: Option<&'p str>,
    looped: Option<&'p str>,
    /// Seconds, or 1.
    cost: f64,
    critical: bool,
}

#[derive(Serialize)]
struct ShownLoop<'p> {
    id: &'p str,
    stages: Vec<&'p str>,
    max_iters: u32,
    until: Option<&'p str>,
}

/// The picture, as one JSON object.
pub fn draw(picture: &Picture<'_>) -> String {
    let plan = picture.plan;
    let name = |place: usize| plan.stages[place].id.as_str();
    let mut loops: Vec<ShownLoop<'_>> = plan
        .loops
        .iter()
        .map(|looped| ShownLoop {
            id: looped.id.as_str(),
            stages: Vec::new(),
            max_iters: looped.max_iters,
            until: looped.until.as_deref(),
        })
        .collect();
    let stages = plan.stages.iter().enumerate().map(|(place, stage)| {
        if let Some(looped) = picture.loop_of[place] {
            loops[looped].stages.push(stage.id.as_str());
        }
        ShownStage {
            id: stage.id.as_str(),
            kind: Shape::of(stage).word(),
            worker: worker(stage),
            needs: picture.graph.needs[place].iter().map(|need| name(*need)).collect(),
            branch: stage.branch.as_ref().map(|case| case.as_str()),
            looped: picture.loop_of[place].map(|looped| plan.loops[looped].id.as_str()),
            cost: picture.costs[place],
            critical: picture.is_critical(place),
        }
    });
    let stages = stages.collect();
    let shown = Shown {
        plan: plan.id.as_str(),
        digest: digest(plan),
        critical_path: picture.critical.iter().map(|place| name(*place)).collect(),
        stages,
        loops,
    };
    serde_json::to_string(&shown).unwrap_or_default() + "\n"
}
