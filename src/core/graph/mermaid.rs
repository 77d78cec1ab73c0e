//! The flowchart as Mermaid text.

use std::fmt::Write as _;

use super::{heading, marks, trigger, undo, work};
use crate::core::definition::{Definition, Node, StepKind};

/// The saga as a Mermaid flowchart.
#[must_use]
pub fn mermaid(definition: &Definition) -> String {
    let mut chart = Chart { definition, text: format!("flowchart TD\n  start([\"{}\"])\n", escaped(&trigger(definition))), groups: 0, joints: 0 };
    let ends = chart.node(&definition.flow, vec!["start".to_owned()], 1);
    chart.line(1, "finish([\"completed\"])");
    chart.connect(&ends, "finish", 1);
    chart.text += "  classDef undo stroke-dasharray:4 3\n  classDef pivot stroke-width:3px\n";
    chart.text
}

struct Chart<'a> {
    definition: &'a Definition,
    text: String,
    groups: usize,
    joints: usize,
}

impl Chart<'_> {
    fn line(&mut self, depth: usize, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{}{text}", "  ".repeat(depth));
    }

    /// Draws a part behind the nodes that lead to it, and returns those that lead on.
    fn node(&mut self, node: &Node, from: Vec<String>, depth: usize) -> Vec<String> {
        match node {
            Node::Step(seq) => {
                self.step(*seq, depth);
                let own = format!("s{seq}");
                self.connect(&from, &own, depth);
                vec![own]
            }
            Node::Sequence(parts) => parts.iter().fold(from, |from, part| self.node(part, from, depth)),
            Node::Parallel(group) => {
                let from = if from.len() > 1 { vec![self.joint(&from, depth)] } else { from };
                self.groups += 1;
                let name = format!("g{}", self.groups);
                self.line(depth, &format!("subgraph {name}[\"{}\"]", escaped(&heading(group))));
                // Edges from outside would pull their origin into the group: they are drawn behind it.
                let mut entries = Vec::new();
                let mut ends = Vec::new();
                for branch in &group.branches {
                    let before = self.text.len();
                    ends.extend(self.node(branch, vec!["?".to_owned()], depth + 1));
                    let drawn = self.text.split_off(before);
                    let (outside, inside): (Vec<&str>, Vec<&str>) = drawn.lines().partition(|line| line.trim_start().starts_with("? -->"));
                    for line in inside {
                        self.line(0, line);
                    }
                    entries.extend(outside.iter().map(|line| line.trim_start().trim_start_matches("? --> ").to_owned()));
                }
                self.line(depth, "end");
                for entry in entries {
                    self.connect(&from, &entry, depth);
                }
                ends
            }
        }
    }

    /// One point between many nodes and many others.
    fn joint(&mut self, from: &[String], depth: usize) -> String {
        self.joints += 1;
        let name = format!("j{}", self.joints);
        self.line(depth, &format!("{name}(( ))"));
        self.connect(from, &name, depth);
        name
    }

    fn connect(&mut self, from: &[String], to: &str, depth: usize) {
        for from in from {
            self.line(depth, &format!("{from} --> {to}"));
        }
    }

    fn step(&mut self, seq: usize, depth: usize) {
        let step = &self.definition.steps[seq];
        let (kind, what) = work(step);
        let marks = marks(step);
        let marks = if marks.is_empty() { String::new() } else { format!("<br/><i>{}</i>", escaped(&marks.join(", "))) };
        let class = if step.kind == StepKind::Pivot { ":::pivot" } else { "" };
        self.line(depth, &format!("s{seq}[\"<b>{}</b><br/>{kind} {}{marks}\"]{class}", escaped(&step.name), escaped(&what)));
        if let Some(undo) = undo(step) {
            self.line(depth, &format!("u{seq}[\"undo: {}\"]:::undo", escaped(&undo)));
            self.line(depth, &format!("s{seq} -.-> u{seq}"));
        }
    }
}

/// Text inside quotes: Mermaid's own entities for what it or a browser would read as its own.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '"' => escaped += "#quot;",
            '#' => escaped += "#35;",
            '&' => escaped += "#amp;",
            '<' => escaped += "#lt;",
            '>' => escaped += "#gt;",
            '`' => escaped += "#96;",
            '\\' => escaped += "#92;",
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
