//! Expressions as they stand in a file.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// CEL. YAML reads `true` and `5` as what they are: expressions as well.
pub(super) struct Cel;

impl JsonSchema for Cel {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Cel".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "boolean", "number"], "minLength": 1, "maxLength": 4096})
    }
}
