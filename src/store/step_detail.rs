//! What a step row keeps beside its columns: the rare things that only the machine needs.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::core::human::TaskKind;
use crate::core::saga::StepProgress;
use crate::core::time::Timestamp;

/// `step.detail`. Null for most steps.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct StepDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_at: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    verifying: bool,
    #[serde(skip_serializing_if = "is_zero")]
    verifies: u32,
    #[serde(skip_serializing_if = "is_zero")]
    verify_spent: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    for_human: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_by: Option<Uuid>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl StepDetail {
    /// As JSON text; `None` where there is nothing to keep.
    pub(super) fn of(step: &StepProgress) -> Option<String> {
        let detail = Self {
            deadline_at: step.deadline_at.map(|at| at.0),
            verifying: step.verifying,
            verifies: step.verifies,
            verify_spent: step.verify_spent,
            for_human: step.for_human,
            task: step.task.map(|kind| kind.as_str().to_owned()),
            done_by: step.done_by,
        };
        // Numbers, booleans and words: serialising them has no way to fail.
        (detail != Self::default()).then(|| serde_json::to_string(&detail).unwrap_or_default())
    }

    /// Gives the step what was kept.
    pub(super) fn restore(text: Option<&str>, step: &mut StepProgress) {
        let Some(detail) = text.and_then(|text| serde_json::from_str::<Self>(text).ok()) else { return };
        step.deadline_at = detail.deadline_at.map(Timestamp);
        step.verifying = detail.verifying;
        step.verifies = detail.verifies;
        step.verify_spent = detail.verify_spent;
        step.for_human = detail.for_human;
        step.task = detail.task.as_deref().and_then(TaskKind::parse);
        step.done_by = detail.done_by;
    }
}
