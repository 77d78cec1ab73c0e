//! Where the boxes of the picture stand.

use crate::core::definition::{Definition, Node};

use super::{marks, undo};

pub(super) const BOX_WIDTH: u32 = 264;
pub(super) const UNDO_WIDTH: u32 = 208;
pub(super) const UNDO_HEIGHT: u32 = 40;
/// Between a box and that of its undo.
pub(super) const UNDO_GAP: u32 = 44;
/// Between two boxes, above each other.
pub(super) const GAP: u32 = 28;
/// Between two branches, and between a group's edge and what is in it.
pub(super) const PADDING: u32 = 20;
/// Room for a group's heading and the lines that fan out below it.
pub(super) const HEADING: u32 = 52;
/// Room for the lines that come together at the end of a group.
pub(super) const FOOT: u32 = 24;

/// A part of the picture with its size. The line of the flow enters it at its top and leaves it at its bottom, `axis` from its left edge.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) axis: u32,
    pub(super) kind: Kind<'a>,
}

#[derive(Debug)]
pub(super) enum Kind<'a> {
    Step(usize),
    Sequence(Vec<Block<'a>>),
    Parallel(&'a crate::core::definition::Group, Vec<Block<'a>>),
}

/// Height of a step's box.
pub(super) fn box_height(definition: &Definition, seq: usize) -> u32 {
    if marks(&definition.steps[seq]).is_empty() { 50 } else { 68 }
}

/// Measures a part of the flow.
pub(super) fn measure<'a>(definition: &'a Definition, node: &'a Node) -> Block<'a> {
    match node {
        Node::Step(seq) => {
            let undo = if undo(&definition.steps[*seq]).is_some() { UNDO_GAP + UNDO_WIDTH } else { 0 };
            Block { width: BOX_WIDTH + undo, height: box_height(definition, *seq), axis: BOX_WIDTH / 2, kind: Kind::Step(*seq) }
        }
        Node::Sequence(parts) => {
            let blocks: Vec<_> = parts.iter().map(|part| measure(definition, part)).collect();
            let axis = blocks.iter().map(|block| block.axis).max().unwrap_or(0);
            let right = blocks.iter().map(|block| block.width - block.axis).max().unwrap_or(0);
            let gaps = u32::try_from(blocks.len().saturating_sub(1)).unwrap_or(0) * GAP;
            let height = blocks.iter().map(|block| block.height).sum::<u32>() + gaps;
            Block { width: axis + right, height, axis, kind: Kind::Sequence(blocks) }
        }
        Node::Parallel(group) => {
            let blocks: Vec<_> = group.branches.iter().map(|branch| measure(definition, branch)).collect();
            let gaps = u32::try_from(blocks.len() + 1).unwrap_or(0) * PADDING;
            let width = blocks.iter().map(|block| block.width).sum::<u32>() + gaps;
            let height = blocks.iter().map(|block| block.height).max().unwrap_or(0) + HEADING + FOOT;
            Block { width, height, axis: width / 2, kind: Kind::Parallel(group, blocks) }
        }
    }
}
