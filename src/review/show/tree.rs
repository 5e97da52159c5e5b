//! The picture of a plan as a tree, for a terminal.
//!
//! Each stage stands once, behind the last of the stages that it waits for. A stage alone behind another one stands below
//! it; several are indented, so that a long chain stays flat.

use super::picture::{Picture, Shape, fan_out, worker};
use crate::schema::stage::Stage;

/// The deepest indentation, in steps of two columns.
const DEEPEST: usize = 20;

/// The tree, a line for each stage, then the loops and the stages that run at the end.
pub fn draw(picture: &Picture<'_>) -> String {
    let plan = picture.plan;
    let goal = if plan.goal.is_empty() { String::new() } else { format!(": {}", plan.goal) };
    let mut text = format!(
        "plan {}{goal}\n{}, {} on the critical path (*)\n\n",
        plan.id,
        counted(plan.stages.len(), "stage"),
        picture.critical.len()
    );
    let parents = parents(picture);
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); plan.stages.len()];
    let mut open: Vec<(usize, usize)> = Vec::new();
    for (stage, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => children[*parent].push(stage),
            None => open.push((stage, 0)),
        }
    }
    open.reverse();
    while let Some((stage, depth)) = open.pop() {
        text.push_str(&line(picture, stage, parents[stage], depth));
        let deeper = if children[stage].len() > 1 { (depth + 1).min(DEEPEST) } else { depth };
        open.extend(children[stage].iter().rev().map(|child| (*child, deeper)));
    }
    text + &loops(picture) + &handlers(picture)
}

fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// For each stage, the stage that it waits for longest, in number of stages; of several the last.
fn parents(picture: &Picture<'_>) -> Vec<Option<usize>> {
    let mut depth = vec![0_usize; picture.graph.needs.len()];
    let mut parents = vec![None; depth.len()];
    for stage in &picture.graph.order {
        let deepest = picture.graph.needs[*stage].iter().copied().max_by_key(|need| (depth[*need], *need));
        if let Some(parent) = deepest {
            (depth[*stage], parents[*stage]) = (depth[parent] + 1, Some(parent));
        }
    }
    parents
}

fn line(picture: &Picture<'_>, place: usize, parent: Option<usize>, depth: usize) -> String {
    let stage = &picture.plan.stages[place];
    let mark = if picture.is_critical(place) { "*" } else { " " };
    let mut words = vec![stage.id.to_string()];
    words.extend(stage.branch.iter().map(|case| format!("[{case}]")));
    words.extend(fan_out(stage));
    words.extend(worker(stage).map(|worker| format!("({worker})")));
    words.extend(picture.loop_of[place].map(|looped| format!("@{}", picture.plan.loops[looped].id)));
    words.extend(notes(stage));
    let others = picture.graph.needs[place].iter().filter(|need| Some(**need) != parent);
    let others: Vec<&str> = others.take(4).map(|need| picture.plan.stages[*need].id.as_str()).collect();
    let left_out = picture.graph.needs[place].len().saturating_sub(others.len() + 1);
    match (others.is_empty(), left_out) {
        (true, _) => {}
        (false, 0) => words.push(format!("+ {}", others.join(", "))),
        (false, more) => words.push(format!("+ {} and {more} more", others.join(", "))),
    }
    format!("{mark} {}{}\n", "  ".repeat(depth), words.join(" "))
}

/// What a stage does beside its work.
fn notes(stage: &Stage) -> Vec<String> {
    let mut notes = Vec::new();
    if Shape::of(stage) == Shape::Decision {
        let cases = stage.cases.iter().map(|case| format!("{} if {}", case.to, case.condition));
        let otherwise = stage.otherwise.iter().map(|case| format!("else {case}"));
        notes.push(format!("chooses {}", cases.chain(otherwise).collect::<Vec<_>>().join(", ")));
    }
    if let Some(vote) = &stage.consensus {
        let options: Vec<&str> = vote.options.iter().map(|option| option.as_str()).collect();
        notes.push(format!("for {}", options.join(", ")));
    }
    notes.extend(stage.depends.iter().map(|text| format!("if {text}")));
    notes.extend(stage.when.iter().map(|text| format!("when {text}")));
    notes.extend(stage.gate.as_ref().map(|gate| {
        let default =
            if gate.default == crate::schema::policy::Answer::Approve { "approve" } else { "reject" };
        format!("gate {}, then {default}", gate.timeout)
    }));
    notes
}

fn loops(picture: &Picture<'_>) -> String {
    let plan = picture.plan;
    if plan.loops.is_empty() {
        return String::new();
    }
    let line = |looped: &crate::schema::looped::Loop| {
        let ends: Vec<&str> = looped.over.iter().map(|id| id.as_str()).collect();
        let until = looped.until.as_ref().map_or(String::new(), |until| format!(", until {until}"));
        let tune = looped.tune.as_ref().map_or(String::new(), |tune| format!(", tunes {}", tune.param));
        format!("  @{}: {}, at most {} times{until}{tune}\n", looped.id, ends.join(" to "), looped.max_iters)
    };
    format!("\nloops\n{}", plan.loops.iter().map(line).collect::<String>())
}

fn handlers(picture: &Picture<'_>) -> String {
    let on = &picture.plan.on;
    let line = |(when, ids): (&str, &Vec<crate::schema::name::Id>)| {
        let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        if ids.is_empty() { String::new() } else { format!("  {when}: {}\n", ids.join(", ")) }
    };
    let lines = line(("after a failure", &on.failure)) + &line(("always", &on.exit));
    if lines.is_empty() { lines } else { format!("\nat the end\n{lines}") }
}
