//! The picture of a plan in the language of Graphviz.

use super::picture::{Picture, Shape, fan_out, worker};
use std::fmt::Write;

/// The picture: `dot -Tsvg` draws it.
pub fn draw(picture: &Picture<'_>) -> String {
    let plan = picture.plan;
    let mut text = format!("digraph {} {{\n", quoted(plan.id.as_str()));
    text.push_str(
        "  rankdir=TB;\n  node [shape=box, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\"];\n",
    );
    for place in picture.outside() {
        let _ = writeln!(text, "  {}", node(picture, place));
    }
    let members = picture.members();
    for (number, looped) in plan.loops.iter().enumerate().filter(|(number, _)| !members[*number].is_empty()) {
        let until = looped.until.as_ref().map_or(String::new(), |until| format!("\nuntil {until}"));
        let label = quoted(&format!("{}: at most {}{until}", looped.id, looped.max_iters));
        let _ = writeln!(
            text,
            "  subgraph {} {{\n    label={label};\n    style=rounded;",
            quoted(&format!("cluster_{number}"))
        );
        for place in &members[number] {
            let _ = writeln!(text, "    {}", node(picture, *place));
        }
        text.push_str("  }\n");
    }
    for (to, needs) in picture.graph.needs.iter().enumerate() {
        for from in needs {
            let _ = writeln!(text, "  {}", edge(picture, *from, to));
        }
    }
    for (number, looped) in plan.loops.iter().enumerate() {
        if let [first, .., last] = members[number].as_slice() {
            let (first, last) = (&plan.stages[*first].id, &plan.stages[*last].id);
            let label = quoted(looped.id.as_str());
            let _ = writeln!(
                text,
                "  {} -> {} [style=dashed, constraint=false, label={label}];",
                quoted(last.as_str()),
                quoted(first.as_str())
            );
        }
    }
    text + "}\n"
}

fn node(picture: &Picture<'_>, place: usize) -> String {
    let stage = &picture.plan.stages[place];
    let shape = match Shape::of(stage) {
        Shape::Work => "box",
        Shape::FanOut => "box3d",
        Shape::Decision => "diamond",
        Shape::Vote => "doubleoctagon",
        Shape::Gate => "hexagon",
    };
    let more = worker(stage).into_iter().chain(fan_out(stage));
    let label = std::iter::once(stage.id.to_string()).chain(more).collect::<Vec<_>>().join("\n");
    let critical = if picture.is_critical(place) { ", color=red, penwidth=2" } else { "" };
    format!("{} [label={}, shape={shape}{critical}];", quoted(stage.id.as_str()), quoted(&label))
}

fn edge(picture: &Picture<'_>, from: usize, to: usize) -> String {
    let stages = &picture.plan.stages;
    let mut marks = Vec::new();
    if let Some(case) = picture.case(from, to) {
        marks.push(format!("label={}", quoted(case)));
    }
    if stages[to].depends.is_some() {
        marks.push("style=dotted".to_owned());
    }
    if picture.is_critical_edge(from, to) {
        marks.push("color=red, penwidth=2".to_owned());
    }
    let marks = if marks.is_empty() { String::new() } else { format!(" [{}]", marks.join(", ")) };
    format!("{} -> {}{marks};", quoted(stages[from].id.as_str()), quoted(stages[to].id.as_str()))
}

/// A text between quotes. A line ends with `\n`, and no other control character is kept.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
