//! The picture of a plan in the language of Mermaid.

use super::picture::{Picture, Shape, fan_out, worker};
use std::fmt::Write;

/// The picture, as a flowchart.
pub fn draw(picture: &Picture<'_>) -> String {
    let plan = picture.plan;
    let mut text = "flowchart TD\n".to_owned();
    for place in picture.outside() {
        let _ = writeln!(text, "  {}", node(picture, place));
    }
    let members = picture.members();
    for (number, looped) in plan.loops.iter().enumerate().filter(|(number, _)| !members[*number].is_empty()) {
        let label = quoted(&format!("{}: at most {}", looped.id, looped.max_iters));
        let _ = writeln!(text, "  subgraph l{number}[{label}]");
        for place in &members[number] {
            let _ = writeln!(text, "    {}", node(picture, *place));
        }
        text.push_str("  end\n");
    }
    let mut critical = Vec::new();
    let mut edges = 0;
    for (to, needs) in picture.graph.needs.iter().enumerate() {
        for from in needs {
            let arrow = if plan.stages[to].depends.is_some() { "-.->" } else { "-->" };
            let case = picture.case(*from, to).map_or(String::new(), |case| format!("|{}|", quoted(case)));
            let _ = writeln!(text, "  s{from} {arrow}{case} s{to}");
            if picture.is_critical_edge(*from, to) {
                critical.push(edges.to_string());
            }
            edges += 1;
        }
    }
    for (number, looped) in plan.loops.iter().enumerate() {
        if let [first, .., last] = members[number].as_slice() {
            let until =
                looped.until.as_ref().map_or_else(|| "again".to_owned(), |until| format!("until {until}"));
            let _ = writeln!(text, "  s{last} -.->|{}| s{first}", quoted(&until));
        }
    }
    if !critical.is_empty() {
        let _ = writeln!(text, "  linkStyle {} stroke:red,stroke-width:3px", critical.join(","));
    }
    let stages: Vec<String> = picture.critical.iter().map(|place| format!("s{place}")).collect();
    if !stages.is_empty() {
        let _ = writeln!(
            text,
            "  classDef critical stroke:red,stroke-width:3px\n  class {} critical",
            stages.join(",")
        );
    }
    text
}

fn node(picture: &Picture<'_>, place: usize) -> String {
    let stage = &picture.plan.stages[place];
    let more = worker(stage).into_iter().chain(fan_out(stage));
    let label = quoted(&std::iter::once(stage.id.to_string()).chain(more).collect::<Vec<_>>().join("\n"));
    match Shape::of(stage) {
        Shape::Work => format!("s{place}[{label}]"),
        Shape::FanOut => format!("s{place}[[{label}]]"),
        Shape::Decision => format!("s{place}{{{label}}}"),
        Shape::Vote => format!("s{place}{{{{{label}}}}}"),
        Shape::Gate => format!("s{place}([{label}])"),
    }
}

/// A text between quotes, with the characters that Mermaid reads as entities.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("#quot;"),
            '#' => quoted.push_str("#35;"),
            '<' => quoted.push_str("#lt;"),
            '>' => quoted.push_str("#gt;"),
            '\n' => quoted.push_str("<br>"),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
