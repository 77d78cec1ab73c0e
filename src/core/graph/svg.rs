//! The flowchart as SVG that needs nothing else: it follows the reader's light or dark setting.

use std::fmt::Write as _;

use super::layout::{BOX_WIDTH, Block, FOOT, GAP, HEADING, Kind, PADDING, UNDO_GAP, UNDO_HEIGHT, UNDO_WIDTH, box_height, measure};
use super::{heading, marks, trigger, undo, work};
use crate::core::definition::{Definition, StepKind};

/// Around the picture.
const MARGIN: u32 = 24;
/// Height of the pills at both ends.
const PILL: u32 = 36;
const PILL_WIDTH: u32 = 264;

/// Plain colours first, for programs that know no media queries; browsers take the dark ones where the reader wants them.
const STYLE: &str = "
  .saga { font: 13px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; color-scheme: light dark }
  .saga .page { fill: #fbfcfd } .saga text { fill: #1f2933 }
  .saga .name { font-weight: 600; font-size: 14px } .saga .soft { fill: #52606d; font-size: 12px }
  .saga .kind { fill: #1d4ed8; font-weight: 600; font-size: 11px } .saga .mark { fill: #52606d; font-size: 11px; font-style: italic }
  .saga .box { fill: #ffffff; stroke: #7b8794 } .saga .pill { fill: #eef2f6; stroke: #7b8794 }
  .saga .group { fill: #f1f5f9; stroke: #9aa5b1; stroke-dasharray: 2 3 } .saga .undo { fill: none; stroke: #7b8794; stroke-dasharray: 5 4 }
  .saga .pivot { stroke: #b45309; stroke-width: 3 } .saga .return { stroke: #b45309; stroke-width: 1.5; stroke-dasharray: 8 4 }
  .saga .return-text { fill: #b45309; font-size: 11px } .saga .edge { fill: none; stroke: #7b8794; stroke-width: 1.5 } .saga .head { fill: #7b8794 }
  @media (prefers-color-scheme: dark) {
    .saga .page { fill: #12181f } .saga text { fill: #e4e7eb } .saga .soft, .saga .mark { fill: #9aa5b1 } .saga .kind { fill: #93b4ff }
    .saga .box { fill: #1f2933 } .saga .pill, .saga .group { fill: #19212b }
    .saga .pivot, .saga .return { stroke: #fbbf24 } .saga .return-text { fill: #fbbf24 }
  }
";

/// The saga as an SVG document.
#[must_use]
pub fn svg(definition: &Definition) -> String {
    let block = measure(definition, &definition.flow);
    let axis = MARGIN + block.axis.max(PILL_WIDTH / 2);
    let right = (block.width - block.axis).max(PILL_WIDTH / 2);
    let (width, height) = (axis + right + MARGIN, 2 * (MARGIN + PILL + GAP) + block.height);
    let mut picture = Picture { definition, text: String::new(), width };
    picture.pill(axis, MARGIN, &trigger(definition));
    let top = MARGIN + PILL + GAP;
    picture.arrow(axis, top - GAP, top);
    picture.block(&block, axis - block.axis, top);
    let bottom = top + block.height;
    picture.arrow(axis, bottom, bottom + GAP);
    picture.pill(axis, bottom + GAP, "completed");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" class=\"saga\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path class=\"head\" d=\"M0 0 L8 4 L0 8 z\"/></marker></defs>\n\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n{body}</svg>\n",
        title = escaped(&definition.id),
        body = picture.text
    )
}

struct Picture<'a> {
    definition: &'a Definition,
    text: String,
    width: u32,
}

impl Picture<'_> {
    fn put(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    fn block(&mut self, block: &Block<'_>, x: u32, y: u32) {
        match &block.kind {
            Kind::Step(seq) => self.step(*seq, x, y),
            Kind::Sequence(parts) => {
                let mut top = y;
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        self.arrow(x + block.axis, top, top + GAP);
                        top += GAP;
                    }
                    self.block(part, x + block.axis - part.axis, top);
                    top += part.height;
                }
            }
            Kind::Parallel(group, branches) => {
                let (width, height, axis) = (block.width, block.height, x + block.axis);
                self.put(format_args!("<rect class=\"group\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"10\"/>"));
                self.text(x + 14, y + 20, "soft", &heading(group), 60);
                let (fork, first, last) = (y + HEADING - 24, y + HEADING, y + height);
                self.put(format_args!("<path class=\"edge\" d=\"M{axis} {y} V{fork}\"/>"));
                let mut left = x + PADDING;
                for branch in branches {
                    let (middle, end) = (left + branch.axis, first + branch.height);
                    self.put(format_args!("<path class=\"edge\" marker-end=\"url(#head)\" d=\"M{axis} {fork} H{middle} V{first}\"/>"));
                    self.put(format_args!("<path class=\"edge\" d=\"M{middle} {end} V{} H{axis}\"/>", last - FOOT / 2));
                    self.block(branch, left, first);
                    left += branch.width + PADDING;
                }
                self.put(format_args!("<path class=\"edge\" d=\"M{axis} {} V{last}\"/>", last - FOOT / 2));
            }
        }
    }

    fn step(&mut self, seq: usize, x: u32, y: u32) {
        let step = &self.definition.steps[seq];
        let height = box_height(self.definition, seq);
        let (kind, what) = work(step);
        let marks = marks(step).join(", ");
        let class = if step.kind == StepKind::Pivot { "box pivot" } else { "box" };
        self.put(format_args!("<g><title>{}: {kind} {}{}</title>", escaped(&step.name), escaped(&what), escaped(&format!(" {marks}"))));
        self.put(format_args!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{height}\" rx=\"6\"/>"));
        self.text(x + 12, y + 20, "name", &step.name, 22);
        self.put(format_args!("<text class=\"kind\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{kind}</text>", x + BOX_WIDTH - 12, y + 20));
        self.text(x + 12, y + 38, "soft", &what, 38);
        if !marks.is_empty() {
            self.text(x + 12, y + 57, "mark", &marks, 44);
        }
        self.put(format_args!("</g>"));
        if let Some(undo) = undo(step) {
            let (left, top, middle) = (x + BOX_WIDTH + UNDO_GAP, y + (height - UNDO_HEIGHT) / 2, y + height / 2);
            self.put(format_args!("<g><title>undo of {}: {}</title>", escaped(&step.name), escaped(&undo)));
            self.put(format_args!("<path class=\"undo\" d=\"M{} {middle} H{left}\"/>", x + BOX_WIDTH));
            self.put(format_args!("<rect class=\"undo\" x=\"{left}\" y=\"{top}\" width=\"{UNDO_WIDTH}\" height=\"{UNDO_HEIGHT}\" rx=\"6\"/>"));
            self.text(left + 10, top + 16, "kind", "undo", 10);
            self.text(left + 10, top + 31, "soft", &undo, 27);
            self.put(format_args!("</g>"));
        }
        if step.kind == StepKind::Pivot {
            let line = y + height + GAP / 2;
            self.put(format_args!("<path class=\"return\" d=\"M{MARGIN} {line} H{}\"/>", self.width - MARGIN));
            let place = (self.width - MARGIN, line - 4);
            self.put(format_args!("<text class=\"return-text\" x=\"{}\" y=\"{}\" text-anchor=\"end\">point of no return</text>", place.0, place.1));
        }
    }

    fn pill(&mut self, axis: u32, y: u32, text: &str) {
        let x = axis - PILL_WIDTH / 2;
        self.put(format_args!("<rect class=\"pill\" x=\"{x}\" y=\"{y}\" width=\"{PILL_WIDTH}\" height=\"{PILL}\" rx=\"{}\"/>", PILL / 2));
        self.put(format_args!("<text x=\"{axis}\" y=\"{}\" text-anchor=\"middle\">{}</text>", y + 23, escaped(&cut(text, 34))));
    }

    fn arrow(&mut self, axis: u32, from: u32, to: u32) {
        self.put(format_args!("<path class=\"edge\" marker-end=\"url(#head)\" d=\"M{axis} {from} V{to}\"/>"));
    }

    fn text(&mut self, x: u32, y: u32, class: &str, text: &str, chars: usize) {
        self.put(format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(&cut(text, chars))));
    }
}

/// As much of a text as its place holds; the whole of it is in the tooltip.
fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars { text.to_owned() } else { text.chars().take(chars - 1).chain("…".chars()).collect() }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // Not even an escaped control character is allowed in XML.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
