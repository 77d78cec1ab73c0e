//! What stands in a stored saga, without compiling it: its steps in flat order, and the sagas they run.

use serde_json::Value;

/// Names of the steps of a stored saga, in flat order; empty for other files.
#[must_use]
pub fn step_names(source: &Value) -> Vec<String> {
    let mut steps = Vec::new();
    gather(&source["steps"], &mut steps);
    steps.iter().filter_map(|step| step["name"].as_str()).map(str::to_owned).collect()
}

/// Full ids of the sagas that the steps of a stored saga run, each once.
#[must_use]
pub fn children(source: &Value) -> Vec<String> {
    let mut steps = Vec::new();
    gather(&source["steps"], &mut steps);
    let mut ids: Vec<String> = steps.iter().filter_map(|step| step["saga"].as_str()).map(str::to_owned).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The leaves of a list, as `flow` finds them: what is stored has been read once, so it nests no deeper than a file.
fn gather<'v>(list: &'v Value, steps: &mut Vec<&'v Value>) {
    for item in list.as_array().into_iter().flatten() {
        if item.is_array() {
            gather(item, steps);
        } else if item.get("steps").is_some() {
            gather(&item["steps"], steps);
        } else if item.get("name").is_some() {
            steps.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::definition_file::tests::language::CONTRACT;
    use crate::core::definition_file::{File, read};
    use serde_json::json;

    #[test]
    fn the_outline_has_the_steps_of_the_definition() {
        let Ok(File::Saga(definition, _, source)) = read("f.yaml", CONTRACT) else { panic!("a saga") };
        assert_eq!(step_names(&source), definition.steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>());
        assert_eq!(children(&source), ["audit.snapshot.v1"]);
    }

    #[test]
    fn words_in_bodies_are_no_steps() {
        let source = json!({"steps": [
            {"name": "a", "call": {"url": "s:/a", "body": {"saga": "x", "steps": [{"name": "y", "saga": "z"}]}}},
            [{"parallel": true}, {"name": "b", "saga": "c.v1"}, {"parallel": true, "steps": [{"name": "d", "saga": "c.v1"}]}],
        ]});
        assert_eq!(step_names(&source), ["a", "b", "d"]);
        assert_eq!(children(&source), ["c.v1"]);
        assert_eq!(step_names(&json!({"services": {}})), [""; 0]);
    }
}
